"""Commands to and from messages, as a robot's contract says."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Twist, TwistStamped
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from llmagent_ros.contract import ArmContract, MobileContract, Qos, RobotContract
from llmagent_ros.errors import ConfigError
from llmagent_ros.messages import velocity_from_message
from llmagent_ros.nodes.wire.stamps import to_time
from llmagent_ros.types import Command, JointTarget, Velocity

_STAMPED = (TwistStamped, JointTrajectory)
_TYPES = {kind.__name__: kind for kind in (Twist, TwistStamped, JointTrajectory, Float64MultiArray)}


@dataclass(frozen=True)
class CommandTopics:
    """Where a robot's commands go, and as what.

    Attributes:
        kind: message type of the policy's and the person's commands, on `policy` and `teleop`.
        driver_kind: of those that the guard sends to the driver, on `driver`, with `driver_qos`.
        frame: that they are in. joints: in the order of an array; empty for a base.
    """

    kind: Any
    policy: str
    teleop: str
    driver_kind: Any
    driver: str
    driver_qos: Qos
    frame: str
    joints: tuple[str, ...] = ()

    @property
    def stamped(self) -> bool:
        """Whether the driver's messages have a stamp."""
        return self.driver_kind in _STAMPED

    def from_message(self, message: Any) -> Command:
        """What a message of any of the types says.

        Where it has not one position for each joint they become NaN, which nobody takes for a command.
        """
        if isinstance(message, Float64MultiArray):
            return _target(self.joints, message.data, 0.0)
        return _from_trajectory(message) if isinstance(message, JointTrajectory) else velocity_from_message(message)

    def to_message(self, command: Command, stamp: Time | None, *, driver: bool = False) -> Any:
        """A command as a message for the guard, or for the driver. stamp: None: 0, where the type has one."""
        message = (self.driver_kind if driver else self.kind)()
        if isinstance(message, _STAMPED):
            message.header.frame_id, message.header.stamp = self.frame, stamp or Time()
        if isinstance(command, Velocity):
            twist = message.twist if isinstance(message, TwistStamped) else message
            twist.linear.x, twist.angular.z = float(command.linear), float(command.angular)
        elif isinstance(message, JointTrajectory):
            message.joint_names, message.points = list(command.joints), [_point(command)]
        else:
            of = dict(zip(command.joints, command.positions, strict=True))
            message.data = array.array("d", (of[name] for name in self.joints))
        return message


def command_topics(contract: RobotContract) -> CommandTopics:
    """Those of a robot."""
    if isinstance(contract, MobileContract):
        driver = contract.command_interface
        names = "cmd_vel_policy", "cmd_vel_teleop"
        return CommandTopics(TwistStamped, *names, _TYPES[driver.type], driver.topic, driver.qos, contract.base_frame)
    assert isinstance(contract, ArmContract)
    controller = contract.command_interface
    ours = JointTrajectory, "cmd_joint_policy", "cmd_joint_teleop"
    theirs = _TYPES[controller.type], controller.topic, controller.qos
    return CommandTopics(*ours, *theirs, contract.base_frame, contract.joints)


def refuse_unstamped(topics: CommandTopics) -> None:
    """Raises ConfigError where the driver's commands bear no stamp: in lockstep each answers one."""
    if not topics.stamped:
        valid = ", ".join(sorted(kind.__name__ for kind in _STAMPED))
        raise ConfigError(
            f"command.type: {topics.driver_kind.__name__} has no stamp, which mode lockstep needs; valid: {valid}, "
            "or mode realtime"
        )


def _point(target: JointTarget) -> JointTrajectoryPoint:
    duration = to_time(target.duration)
    point = JointTrajectoryPoint(time_from_start=Duration(sec=duration.sec, nanosec=duration.nanosec))
    point.positions = array.array("d", target.positions)
    point.velocities = array.array("d", target.velocities)
    return point


def _from_trajectory(message: JointTrajectory) -> JointTarget:
    """Where a trajectory ends; one without a point commands nothing."""
    if not message.points:
        return JointTarget()
    last = message.points[-1]
    duration = last.time_from_start.sec + last.time_from_start.nanosec * 1e-9
    target = _target(tuple(message.joint_names), last.positions, duration)
    velocities = tuple(float(value) for value in last.velocities)
    told = len(velocities) == len(target.joints) and all(map(math.isfinite, velocities))
    return replace(target, velocities=velocities) if told else target


def _target(joints: tuple[str, ...], positions: Sequence[float], duration: float) -> JointTarget:
    values = tuple(float(value) for value in positions)
    if len(values) != len(joints):
        values = (math.nan,) * len(joints)
    return JointTarget(joints, values, duration)
