"""What the guard says of each command, to and from a value type."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence

from builtin_interfaces.msg import Time

from llmagent_interfaces.msg import Verdict as VerdictMessage
from llmagent_ros.errors import UnknownNameError
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.types import Command, JointTarget, Velocity, Verdict, VerdictSource

NOBODY = "none"  # on the wire: the guard has stopped the robot
STOPPED = "stopped"
_SOURCES: dict[str, VerdictSource] = {
    "policy": "policy",
    "teleop": "teleop",
    "fallback": "fallback",
    NOBODY: "stop",
}


def verdict_to_message(verdict: Verdict, answered: Time, frame: str) -> VerdictMessage:
    """answered: stamp of the command that it answers, to the nanosecond; frame: of the robot's base."""
    message = VerdictMessage(verdict=verdict.word, reason=verdict.why)
    message.source = NOBODY if verdict.source == "stop" else verdict.source
    message.header.stamp, message.header.frame_id = answered, frame
    asked, command = verdict.asked, verdict.command
    if isinstance(asked, Velocity) and isinstance(command, Velocity):
        message.linear_asked, message.angular_asked = asked.linear, asked.angular
        message.linear, message.angular = command.linear, command.angular
    elif isinstance(asked, JointTarget) and isinstance(command, JointTarget):
        message.joints = list(dict.fromkeys((*command.joints, *asked.joints)))
        message.positions_asked = _positions(asked, message.joints)
        message.positions = _positions(command, message.joints)
    return message


def verdict_from_message(message: VerdictMessage) -> Verdict:
    """A verdict whose stamp is that of the command it answers.

    Raises:
        UnknownNameError: its source is not one of policy, teleop, fallback, none.
    """
    if message.source not in _SOURCES:
        raise UnknownNameError("source of a verdict", message.source, _SOURCES)
    stopped = message.verdict == STOPPED
    return Verdict(
        command=_command(message, message.linear, message.angular, message.positions),
        source=_SOURCES[message.source],
        reason=message.reason if stopped else None,
        limited=() if stopped or not message.reason else tuple(message.reason.split(",")),
        stamp=to_seconds(message.header.stamp),
        asked=_command(message, message.linear_asked, message.angular_asked, message.positions_asked),
    )


def _positions(target: JointTarget, joints: Sequence[str]) -> array.array[float]:
    of = dict(zip(target.joints, target.positions, strict=True))
    return array.array("d", (of.get(name, math.nan) for name in joints))


def _command(message: VerdictMessage, linear: float, angular: float, positions: Sequence[float]) -> Command:
    if not message.joints:
        return Velocity(linear, angular)
    told = {name: at for name, at in zip(message.joints, positions, strict=False) if not math.isnan(at)}
    return JointTarget(tuple(told), tuple(told.values()))
