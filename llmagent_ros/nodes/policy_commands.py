"""What the policy's phrases become on the wire: velocities of a base, joint targets of an arm."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMessage

from llmagent_interfaces.msg import Scene
from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.contract.steps import Stepper
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.messages import joints_from_message
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire.commands import command_topics
from llmagent_ros.nodes.wire.stamps import to_seconds, to_time
from llmagent_ros.types import Command, JointState, JointTarget, Velocity

JOINTS_WAIT = 0.2  # s of wall time that a decision waits for the joint states of its scene


class PolicyCommands:
    """Publisher of cmd_vel_policy, or of cmd_joint_policy, and the last command that went out for a scene.

    Args:
        exact: every scene bears the stamp of joint states (simulation in lockstep).
    """

    def __init__(self, node: Node, contract: RobotContract, *, exact: bool) -> None:
        self._node, self._contract = node, contract
        self._topics = command_topics(contract)
        self._publisher = node.create_publisher(self._topics.kind, self._topics.policy, qos.COMMAND)
        self._last: Any = None
        self._arm = _ArmSteps(node, contract, exact=exact) if isinstance(contract, ArmContract) else None

    @property
    def joints(self) -> Mapping[str, float] | None:
        """Where an arm's joints are, rad; None while that is not known, and of a base."""
        return None if self._arm is None else self._arm.positions

    def prepare(self, scene: Scene) -> None:
        """Waits until the command of a phrase can be told. Not from the executor's thread.

        Raises:
            LlmAgentError: an arm's joint states of that moment did not come.
        """
        if self._arm is not None:
            self._arm.wait(to_seconds(scene.header.stamp))

    def send(self, scene: Scene, action: str) -> None:
        """The phrase's command, with the stamp of the scene that it answers."""
        self._last = self._topics.to_message(self._command(action), scene.header.stamp)
        self._publisher.publish(self._last)

    def repeat(self, scene: Scene) -> None:
        """Sends the last command again, if it was for this scene."""
        if self._last is not None and self._last.header.stamp == scene.header.stamp:
            self._publisher.publish(self._last)

    def stop(self) -> None:
        """A zero command; to an arm, one that moves no joint.

        The node's clock may be a step behind the scene that was decided on last, since /clock comes on a topic of its
        own; a zero older than the command before would be taken for a jump of the clock.
        """
        now = to_seconds(self._node.get_clock().now().to_msg())
        last = to_seconds(self._last.header.stamp) if self._last is not None else now
        stamp: Time = to_time(last if 0 < last - now <= 2 * self._contract.control_period else now)
        nothing: Command = Velocity() if self._arm is None else JointTarget()
        self._publisher.publish(self._topics.to_message(nothing, stamp))
        if self._arm is not None:
            self._arm.forget()

    def _command(self, action: str) -> Command:
        if self._arm is not None:
            return self._arm.target(action)
        assert isinstance(self._contract, MobileContract)
        return self._contract.command(action)


class _ArmSteps:
    """Phrases as joint targets from where the joints are now. `wait` and `target` from one thread."""

    def __init__(self, node: Node, contract: ArmContract, *, exact: bool) -> None:
        self._contract, sensor = contract, contract.sensors.joints
        self._slack = 0.0 if exact else sensor.timeout  # s by which joint states may be older than the scene
        self._stepper = Stepper(contract)
        self._changed = threading.Condition()
        self._joints: JointState | None = None
        profile = qos.RELIABLE_SENSOR if exact else qos.of(sensor.qos)
        node.create_subscription(JointStateMessage, sensor.topic, self._on_joints, profile)

    def _on_joints(self, message: JointStateMessage) -> None:
        joints = joints_from_message(message)
        if set(self._contract.joints) <= set(joints.positions):  # others are of a gripper, say
            with self._changed:
                self._joints = joints
                self._changed.notify_all()

    def wait(self, stamp: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_of(stamp), JOINTS_WAIT):
                last = "none came" if self._joints is None else f"the last are of {self._joints.stamp:.2f} s"
                raise LlmAgentError(f"no joint states for the scene of {stamp:.2f} s: {last}")

    def _is_of(self, stamp: float) -> bool:
        return self._joints is not None and self._joints.stamp >= stamp - self._slack - 1e-6

    @property
    def positions(self) -> Mapping[str, float] | None:
        with self._changed:
            return None if self._joints is None else self._joints.positions

    def target(self, action: str) -> JointTarget:
        with self._changed:
            assert self._joints is not None, "wait first"
            return self._stepper.target(action, self._joints.positions)

    def forget(self) -> None:
        with self._changed:
            self._stepper.forget()
