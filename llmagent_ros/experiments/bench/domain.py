"""A ROS domain for a benchmark."""

from __future__ import annotations

import socket

from llmagent_ros.errors import LlmAgentError

_MOST = 100  # above, the ports of DDS reach into the ephemeral ones of Linux


def free_domain() -> int:
    """One in which nobody on this machine takes part: its first ports of DDS are free.

    Raises:
        LlmAgentError: there is none.
    """
    for number in range(_MOST, 0, -1):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * number))
            except OSError:
                continue
            return number
    raise LlmAgentError("every ROS domain is in use")
