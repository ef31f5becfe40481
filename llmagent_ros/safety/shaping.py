"""What the guard must know of a kind of body: which commands it takes, how they are limited, and how it stops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from llmagent_ros.contract import ArmContract, JointLimits, Limits, MobileContract, RobotContract
from llmagent_ros.safety.joints import clamp_target, ramp_joint
from llmagent_ros.safety.limits import limit
from llmagent_ros.safety.reasons import NOT_FINITE, OTHER_BODY, REPEATED
from llmagent_ros.types import Command, JointTarget, Velocity


class Shaper(Protocol):
    """Turns commands that were chosen into commands that may go out, and remembers the last one."""

    @property
    def nothing(self) -> Command:
        """The command that asks for nothing."""

    def refusal(self, command: Command) -> str | None:
        """Why a command cannot be one of this body; None when it can."""

    def follow(self, target: Command, elapsed: float) -> tuple[Command, tuple[str, ...]]:
        """The next command on the way to `target`, `elapsed` s after the last, and which limits changed it."""

    def stop(self) -> Command:
        """The command that stops the body, at once."""

    def lose_sight(self) -> None:
        """What was measured is out of date."""

    def forget(self) -> None:
        """What was commanded last does not count any more."""


class VelocityShaper:
    """Velocities of a base: clamped to speeds, ramped from the last one by accelerations. It stops by a zero."""

    nothing = Velocity()

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last = Velocity()

    def refusal(self, command: Command) -> str | None:
        if not isinstance(command, Velocity):
            return OTHER_BODY
        return None if math.isfinite(command.linear) and math.isfinite(command.angular) else NOT_FINITE

    def follow(self, target: Command, elapsed: float) -> tuple[Command, tuple[str, ...]]:
        assert isinstance(target, Velocity)
        self._last, limited = limit(self._last, target, elapsed, self._limits)
        return self._last, limited

    def stop(self) -> Command:
        self._last = Velocity()
        return self._last

    def lose_sight(self) -> None:
        """A base is commanded by speed, whatever is measured."""

    def forget(self) -> None:
        self._last = Velocity()


class JointShaper:
    """Joint targets of an arm, see `safety.joints`. It stops by holding its position.

    That is the one commanded last, or the measured one where a joint is farther from it than `tolerance`: a moving
    arm stops where it is, one that hangs a little under its load does not sink by every stop, and one that was moved by
    hand does not jump back. A joint of which neither is known is not commanded.

    Args:
        limits: by joint, in the order of commands. steps: rad that each may be sent from where it is measured.
        tick: s until a command is to be reached, where less time has passed since the last.
    """

    nothing = JointTarget()

    def __init__(
        self, limits: Mapping[str, JointLimits], steps: Mapping[str, float], tolerance: float, tick: float
    ) -> None:
        self.limits, self._steps, self._tick = limits, steps, tick
        self._tolerances = dict.fromkeys(limits, tolerance)
        self._measured: dict[str, float] = {}
        self._setpoint: dict[str, float] = {}
        self._speed: dict[str, float] = {}

    def measure(self, positions: Mapping[str, float]) -> None:
        """Notes where the joints are, rad, all of them and finite."""
        self._measured = {name: positions[name] for name in self.limits}

    def refusal(self, command: Command) -> str | None:
        if not isinstance(command, JointTarget) or not set(command.joints) <= set(self.limits):
            return OTHER_BODY
        if len(set(command.joints)) < len(command.joints):  # each time it would move another step
            return REPEATED
        return None if all(map(math.isfinite, command.positions)) else NOT_FINITE

    def follow(self, target: Command, elapsed: float) -> tuple[Command, tuple[str, ...]]:
        assert isinstance(target, JointTarget)
        self._anchor(self._steps)  # a moving arm is behind its setpoint, but never as far as that
        changed: set[str] = set()
        before, self._speed = self._speed, {}
        for name, wanted in zip(target.joints, target.positions, strict=True):
            if name not in self._setpoint:
                continue
            limits, setpoint = self.limits[name], self._setpoint[name]
            to, cut = clamp_target(wanted, self._measured.get(name), self._steps[name], limits)
            now = ramp_joint(setpoint, before.get(name, 0.0), to, elapsed, limits)
            self._setpoint[name], self._speed[name], kept = now
            changed |= cut | kept
        return self._command(max(elapsed, self._tick)), tuple(sorted(changed))

    def stop(self) -> Command:
        self._anchor(self._tolerances)
        self._speed.clear()
        return self._command(self._tick)

    def lose_sight(self) -> None:
        self._measured = {}

    def forget(self) -> None:
        self._setpoint, self._speed = {}, {}

    def _anchor(self, tolerances: Mapping[str, float]) -> None:
        """A joint that is measured farther than this (rad) from its setpoint, or has none, counts as where it is."""
        for name, measured in self._measured.items():
            if abs(self._setpoint.get(name, math.inf) - measured) > tolerances[name]:
                self._setpoint[name] = measured
                self._speed.pop(name, None)

    def _command(self, duration: float) -> JointTarget:
        joints = tuple(name for name in self.limits if name in self._setpoint)
        return JointTarget(joints, tuple(self._setpoint[name] for name in joints), duration)


def make_shaper(contract: RobotContract, tick: float) -> VelocityShaper | JointShaper:
    """That of a robot. tick: see `JointShaper`."""
    if isinstance(contract, MobileContract):
        return VelocityShaper(contract.limits)
    assert isinstance(contract, ArmContract)
    steps = {name: contract.longest_step(name) for name in contract.joints}
    return JointShaper(contract.limits, steps, contract.arm.tolerance, tick)
