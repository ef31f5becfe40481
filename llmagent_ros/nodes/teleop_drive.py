"""What keys and joystick drive: a base by velocities, an arm by joint targets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMessage

from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.messages import joints_from_message
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.teleop.arm import ArmJoystick, ArmKeys
from llmagent_ros.teleop.jog import Jog
from llmagent_ros.teleop.joystick import JoystickConfig, JoystickTeleop
from llmagent_ros.teleop.keys import DRIVE_HELP, KeysConfig, KeyTeleop
from llmagent_ros.teleop.phrases import PhraseDrive, deflections
from llmagent_ros.types import Command, JointState, JointTarget, Velocity

_FIRST = 0.02  # s that the first target is ahead
_LONGEST = 0.1  # s that a target may be ahead, however long the node was held up


class Drive(Protocol):
    """What a person drives with. Times are s of one monotonic clock."""

    @property
    def help(self) -> str:
        """Which keys drive."""

    def press(self, key: str, now: float) -> bool:
        """Takes a key; whether it is one that drives."""

    def on_joy(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> bool:
        """Takes a message of the joystick; whether the e-stop button went down with it."""

    def missing(self, axes: Sequence[float], buttons: Sequence[int]) -> list[str]:
        """The configured axes and buttons that a device with so many does not have."""

    def on_scene(self) -> None:
        """The robot has a new scene to decide on."""

    def command(self, now: float) -> Command | None:
        """What the person wants; None when they hold nothing. Keys go before the joystick."""

    def rest(self) -> Command:
        """The command to send when they have let go."""


class BaseDrive:
    """See `Drive`; teach: by the action phrases."""

    help = DRIVE_HELP

    def __init__(
        self, node: Node, contract: MobileContract, keys: KeysConfig, joystick: JoystickConfig, *, teach: bool
    ) -> None:
        self._node = node
        self._keys, self._joystick = (
            deflections(contract, keys, joystick)
            if teach
            else (KeyTeleop(contract.limits, keys), JoystickTeleop(contract.limits, joystick))
        )
        self.press, self.on_joy, self.missing = self._keys.press, self._joystick.on_joy, self._joystick.missing
        self._phrases = PhraseDrive(contract) if teach else None

    def on_scene(self) -> None:
        if self._phrases is not None:
            self._phrases.on_scene()

    def command(self, now: float) -> Velocity | None:
        wanted = self._keys.velocity(now) or self._joystick.velocity(now)
        if self._phrases is None:
            return wanted
        return self._phrases.velocity(wanted, to_seconds(self._node.get_clock().now().to_msg()))

    def rest(self) -> Velocity:
        return Velocity()


class ArmDrive:
    """See `Drive`. It needs the contract's joint states: a step begins where the joints are. Phrases are all it has."""

    def __init__(self, node: Node, contract: ArmContract, keys: KeysConfig, joystick: JoystickConfig) -> None:
        self._node, self._contract = node, contract
        self._keys, self._joystick = ArmKeys(contract, keys), ArmJoystick(contract, joystick)
        self.press, self.on_joy, self.missing = self._keys.press, self._joystick.on_joy, self._joystick.missing
        self._jog = Jog(contract)
        self._joints: tuple[JointState, float] | None = None  # and when they came
        self._last: float | None = None  # when the last target was made, while the arm is driven
        sensor = contract.sensors.joints
        node.create_subscription(JointStateMessage, sensor.topic, self._on_joints, qos.of(sensor.qos))

    @property
    def help(self) -> str:
        without = self._joystick.without_axis
        return self._keys.help + (f"   (no axis of the joystick: {', '.join(without)})" if without else "")

    def on_scene(self) -> None:
        pass

    def command(self, now: float) -> JointTarget | None:
        wanted = self._keys.wanted(now)
        wanted = self._joystick.wanted(now) if wanted is None else wanted
        if wanted is None:
            self._last = None
            return None
        joints = self._fresh(now)
        if joints is None:
            topic = self._node.resolve_topic_name(self._contract.sensors.joints.topic)
            self._node.get_logger().error(f"no fresh joint states on {topic}", throttle_duration_sec=2.0)
            self._last = None
            return None
        elapsed = min(now - self._last, _LONGEST) if self._last is not None else _FIRST
        self._last = now
        return self._jog.target(wanted, joints.positions, elapsed)

    def rest(self) -> JointTarget:
        return self._jog.rest()

    def _on_joints(self, message: JointStateMessage) -> None:
        joints = joints_from_message(message)
        if set(self._contract.joints) <= set(joints.positions):  # others are of a gripper, say
            self._joints = joints, time.monotonic()

    def _fresh(self, now: float) -> JointState | None:
        """By when they came: the clock of a simulation is not that of the keys."""
        if self._joints is None or now - self._joints[1] > self._contract.sensors.joints.timeout:
            return None
        return self._joints[0]


def make_drive(
    node: Node, contract: RobotContract, keys: KeysConfig, joystick: JoystickConfig, *, teach: bool
) -> Drive:
    """That of a robot. teach: a base is driven by its action phrases, one for each scene."""
    if isinstance(contract, MobileContract):
        return BaseDrive(node, contract, keys, joystick, teach=teach)
    assert isinstance(contract, ArmContract)
    return ArmDrive(node, contract, keys, joystick)
