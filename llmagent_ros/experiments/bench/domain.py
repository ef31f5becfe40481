"""A ROS domain for a benchmark."""

from __future__ import annotations

import os
import random
import socket

from llmagent_ros.errors import LlmAgentError

_MOST = 100  # above, the ports of DDS reach into the ephemeral ones of Linux


def own_domain() -> dict[str, str]:
    """Environment variables for processes that nobody else is to hear; how they discover each other may be set already.

    Raises:
        LlmAgentError: there is no free domain.
    """
    discovery = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return {"ROS_DOMAIN_ID": str(_free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": discovery}


def _free_domain() -> int:
    """One in which nobody on this machine takes part: its first ports of DDS are free."""
    for number in random.SystemRandom().sample(range(1, _MOST + 1), _MOST):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * number))
            except OSError:
                continue
            return number
    raise LlmAgentError("every ROS domain is in use")
