"""What the guard must know of a kind of body: which commands it takes, how they are limited, and how it stops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from llmagent_ros.contract import ArmContract, JointLimits, Limits, MobileContract, RobotContract
from llmagent_ros.errors import ConfigError
from llmagent_ros.safety.clearance import Clearance
from llmagent_ros.safety.config import GuardConfig
from llmagent_ros.safety.fallback import FARTHEST, ClearanceFollower
from llmagent_ros.safety.joints import clamp_target, ramp_joint
from llmagent_ros.safety.limits import Moving, limit
from llmagent_ros.safety.reasons import NOT_FINITE, OTHER_BODY, REPEATED
from llmagent_ros.safety.reckoning import Pose
from llmagent_ros.types import Command, JointTarget, LaserScan, Velocity


@dataclass(frozen=True)
class Shaped:
    """A command that may go out.

    Attributes:
        limited: what kept it from the one that was chosen, sorted. blocked: why nothing of that one may go out.
    """

    command: Command
    limited: tuple[str, ...] = ()
    blocked: str | None = None


class Shaper(Protocol):
    """Turns commands that were chosen into commands that may go out, and remembers the last one."""

    @property
    def nothing(self) -> Command:
        """The command that asks for nothing."""

    def refusal(self, command: Command) -> str | None:
        """Why a command cannot be one of this body; None when it can."""

    def follow(self, target: Command, elapsed: float, now: float, *, checked: bool) -> Shaped:
        """The next command on the way to `target`, `elapsed` s after the last, at `now` (s).

        checked: whether the way must be free as well.
        """

    def stop(self, now: float) -> Command:
        """The command that stops the body, at once."""

    def lose_sight(self) -> None:
        """What was measured is out of date."""

    def forget(self) -> None:
        """What was commanded last does not count any more."""


class VelocityShaper:
    """Velocities of a base: clamped to speeds, ramped from the last one by accelerations and jerks. It stops by a zero,
    at once whoever asks for it.

    Args:
        clearance: what of a velocity is free; None: nobody looks. It comes after the ramp, which never delays it.
        follower: where to go when nobody else says it.
    """

    nothing = Velocity()

    def __init__(
        self, limits: Limits, clearance: Clearance | None = None, follower: ClearanceFollower | None = None
    ) -> None:
        self._limits, self._clearance, self._follower = limits, clearance, follower
        self._last = Moving()

    def refusal(self, command: Command) -> str | None:
        if not isinstance(command, Velocity):
            return OTHER_BODY
        return None if math.isfinite(command.linear) and math.isfinite(command.angular) else NOT_FINITE

    def see(self, scan: LaserScan, stamp: float, moved: Pose) -> None:
        """Takes the newest scan. stamp, moved: see `Clearance.see`."""
        if self._clearance is not None:
            self._clearance.see(scan, stamp, moved)

    def follow(self, target: Command, elapsed: float, now: float, *, checked: bool) -> Shaped:
        assert isinstance(target, Velocity)
        if target == self.nothing:  # a stop that is asked for is as immediate as the guard's own
            return Shaped(self.stop(now))
        going, limited = limit(self._last, target, elapsed, self._limits)
        free, kept = going.velocity, None
        if self._clearance is not None and checked:
            free, kept = self._clearance.limit(going.velocity, now)
        self._go(going if kept is None else Moving(free), now)
        if kept is None:
            return Shaped(free, limited)
        return Shaped(free, (*limited, kept)) if free != Velocity() else Shaped(free, blocked=kept)

    def followed(self, now: float) -> Velocity | None:
        """Where the clearances lead at `now`; None where they are not followed."""
        around = self._clearance.around(now) if self._clearance is not None else None
        return None if around is None or self._follower is None else self._follower.command(*around)

    def stop(self, now: float) -> Command:
        self._go(Moving(), now)
        return self._last.velocity

    def lose_sight(self) -> None:
        """A base is commanded by speed, whatever is measured; only what is free is not known any more."""
        if self._clearance is not None:
            self._clearance.lose_sight()

    def forget(self) -> None:
        self._last = Moving()
        if self._clearance is not None:
            self._clearance.forget()

    def _go(self, going: Moving, now: float) -> None:
        self._last = going
        if self._clearance is not None:
            self._clearance.drive(going.velocity, now)


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

    def follow(self, target: Command, elapsed: float, now: float, *, checked: bool) -> Shaped:
        """An arm's way is not checked."""
        assert isinstance(target, JointTarget)
        self._anchor(self._steps)  # a moving arm is behind its setpoint, but never as far as that
        changed: set[str] = set()
        before, self._speed = self._speed, {}
        for name, wanted in zip(target.joints, target.positions, strict=True):
            if name not in self._setpoint:
                continue
            limits, setpoint = self.limits[name], self._setpoint[name]
            to, cut = clamp_target(wanted, self._measured.get(name), self._steps[name], limits)
            ramped = ramp_joint(setpoint, before.get(name, 0.0), to, elapsed, limits)
            self._setpoint[name], self._speed[name], kept = ramped
            changed |= cut | kept
        return Shaped(self._command(max(elapsed, self._tick)), tuple(sorted(changed)))

    def stop(self, now: float) -> Command:
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


def make_shaper(contract: RobotContract, config: GuardConfig) -> VelocityShaper | JointShaper:
    """That of a robot.

    Raises:
        ConfigError: a fallback that this robot cannot have.
    """
    hold = contract.control_period if config.lockstep else 1.0 / config.rate  # s for which a command acts
    if isinstance(contract, MobileContract):
        return _make_velocity_shaper(contract, config, hold)
    if config.fallback != "stop":
        raise ConfigError(f"fallback: {config.fallback} is for robots that drive; valid for {contract.robot}: stop")
    assert isinstance(contract, ArmContract)
    steps = {name: contract.longest_step(name) for name in contract.joints}
    return JointShaper(contract.limits, steps, contract.arm.tolerance, hold)


def _make_velocity_shaper(contract: MobileContract, config: GuardConfig, hold: float) -> VelocityShaper:
    if not config.checks_collisions:
        return VelocityShaper(contract.limits)
    follows = config.fallback == "follow_clearances"
    see = contract.footprint_radius + FARTHEST if follows else 0.0
    follower = ClearanceFollower(contract, config.follow, config.clearance.margin) if follows else None
    return VelocityShaper(contract.limits, Clearance(contract, config.clearance, hold, see), follower)
