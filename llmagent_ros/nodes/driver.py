"""Whose commands the robot follows, as the guard says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import reports
from llmagent_ros.nodes.wire.commands import command_topics
from llmagent_ros.safety.reasons import NO_COMMAND, STALE_COMMAND
from llmagent_ros.types import Command, JointTarget, Source, Velocity


class Driver:
    """Follows the guard's diagnostics and a person's commands.

    Only what the robot did may be learned from: under an e-stop or without a scan it does nothing that was decided, and
    while a person drives it does what they want.

    Args:
        on_change: called in the executor when somebody else drives, and with None when a person stands still, whose
            step is not what it began as.
        joints: where an arm's joints are, rad; None while that is not known.
    """

    def __init__(
        self,
        node: Node,
        contract: RobotContract,
        on_change: Callable[[Source | None], None],
        joints: Callable[[], Mapping[str, float] | None] = lambda: None,
    ) -> None:
        self._contract, self._on_change, self._joints = contract, on_change, joints
        self._guard = node.get_namespace().rstrip("/") + "/guard"
        self._wanted: Command = Velocity()  # a person's last command
        self._topics = command_topics(contract)
        self.source: Source | None = Source.POLICY  # None: the guard has stopped the robot
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.COMMAND)
        node.create_subscription(self._topics.kind, self._topics.teleop, self._on_teleop, qos.COMMAND)

    def phrase(self) -> str | None:
        """The action phrase that says what the person does now; None when none does."""
        contract, wanted = self._contract, self._wanted
        if isinstance(contract, MobileContract) and isinstance(wanted, Velocity):
            return contract.nearest_phrase(wanted)
        positions = self._joints()
        if positions is None or not (isinstance(contract, ArmContract) and isinstance(wanted, JointTarget)):
            return None
        return contract.nearest_phrase(positions, _change(contract, wanted, positions))

    def _on_teleop(self, message: Any) -> None:
        drove = self.source is Source.HUMAN and self.phrase() is not None
        self._wanted = self._topics.from_message(message)
        if drove and self.phrase() is None:  # before the guard lets anybody else drive
            self._on_change(None)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._guard:
                said = reports.values(status)
                self._take(said.get("source", ""), said.get("reason", ""))

    def _take(self, source: str, reason: str) -> None:
        # where it only waits for the policy, nobody keeps the next command from acting
        waits = source == "stop" and reason in ("", NO_COMMAND, STALE_COMMAND)
        driver = Source.HUMAN if source == "teleop" else Source.POLICY if source == "policy" or waits else None
        if driver is not self.source:
            self.source = driver
            self._on_change(driver)


def _change(contract: ArmContract, wanted: JointTarget, positions: Mapping[str, float]) -> dict[str, float]:
    """How far a target moves the joints of an arm in a control period, rad.

    By its velocities, where it has some; else to where it ends, as far on the straight way as each joint may be sent.
    """
    if not set(wanted.joints) <= set(positions):
        return {}
    if any(wanted.velocities):
        return {n: v * contract.control_period for n, v in zip(wanted.joints, wanted.velocities, strict=True)}
    left = {n: at - positions[n] for n, at in zip(wanted.joints, wanted.positions, strict=True)}
    ahead = max((abs(way) / contract.longest_step(n) for n, way in left.items() if n in contract.limits), default=0.0)
    return {n: way / max(ahead, 1.0) for n, way in left.items()}
