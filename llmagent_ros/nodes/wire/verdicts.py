"""What the guard says of each command, to and from a value type."""

from __future__ import annotations

from builtin_interfaces.msg import Time

from llmagent_interfaces.msg import Verdict as VerdictMessage
from llmagent_ros.errors import UnknownNameError
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.types import Velocity, Verdict, VerdictSource

NOBODY = "none"  # on the wire: the guard has stopped the robot
STOPPED = "stopped"
_SOURCES: dict[str, VerdictSource] = {"policy": "policy", "teleop": "teleop", NOBODY: "stop"}


def verdict_to_message(verdict: Verdict, answered: Time, frame: str) -> VerdictMessage:
    """answered: stamp of the command that it answers, to the nanosecond; frame: of the robot's base."""
    message = VerdictMessage(verdict=verdict.word, reason=verdict.why)
    message.source = NOBODY if verdict.source == "stop" else verdict.source
    message.header.stamp, message.header.frame_id = answered, frame
    message.linear_asked, message.angular_asked = verdict.asked.linear, verdict.asked.angular
    message.linear, message.angular = verdict.velocity.linear, verdict.velocity.angular
    return message


def verdict_from_message(message: VerdictMessage) -> Verdict:
    """A verdict whose stamp is that of the command it answers.

    Raises:
        UnknownNameError: its source is not one of policy, teleop, none.
    """
    if message.source not in _SOURCES:
        raise UnknownNameError("source of a verdict", message.source, _SOURCES)
    stopped = message.verdict == STOPPED
    return Verdict(
        velocity=Velocity(message.linear, message.angular),
        source=_SOURCES[message.source],
        reason=message.reason if stopped else None,
        limited=() if stopped or not message.reason else tuple(message.reason.split(",")),
        stamp=to_seconds(message.header.stamp),
        asked=Velocity(message.linear_asked, message.angular_asked),
    )
