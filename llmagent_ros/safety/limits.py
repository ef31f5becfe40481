"""Limits of speed, acceleration and jerk of a planar velocity command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from llmagent_ros.contract import Limits
from llmagent_ros.types import Velocity

SPEED = "speed"
ACCELERATION = "acceleration"
JERK = "jerk"


def clamp_speed(target: Velocity, limits: Limits) -> Velocity:
    """The command inside [-limits.linear, limits.linear] m/s and [-limits.angular, limits.angular] rad/s."""
    return Velocity(_clamp(target.linear, limits.linear), _clamp(target.angular, limits.angular))


@dataclass(frozen=True)
class Moving:
    """What was commanded last. gaining: how fast each axis grew, m/s^2 and rad/s^2; 0 where it did not."""

    velocity: Velocity = field(default_factory=Velocity)
    gaining: tuple[float, float] = (0.0, 0.0)


def ramp(last: Moving, target: Velocity, elapsed: float, limits: Limits) -> Moving:
    """The command nearest to `target` that `last` may become after `elapsed` seconds.

    Each axis by itself:  v = last + clamp(target - last, -a t, a t)

    Where there is a limit of jerk j, an axis that grows does so by at most j t more than before, and less in time to
    end at the target without a jolt (as `joints.ramp_joint` does for speed):

        a' = min(a, a_last + j t, j (sqrt(t^2 / 4 + 2 |target - last| / j) - t / 2))

    What slows down is not kept from it: jerk delays no stop. On its way to the other side an axis stops at zero.

    Args:
        last: what was published before. elapsed: s since then, at least 0.
    """
    linear, gained = _axis(
        last.velocity.linear, last.gaining[0], target.linear, elapsed, limits.linear_acceleration, limits.linear_jerk
    )
    angular, turned = _axis(
        last.velocity.angular,
        last.gaining[1],
        target.angular,
        elapsed,
        limits.angular_acceleration,
        limits.angular_jerk,
    )
    return Moving(Velocity(linear, angular), (gained, turned))


def limit(last: Moving, target: Velocity, elapsed: float, limits: Limits) -> tuple[Moving, tuple[str, ...]]:
    """`target` within the limits of speed, acceleration and jerk, and which of them changed it.

    The speed limit holds whatever `last` was; clamping both ends of a ramp keeps everything between within.
    """
    slow = clamp_speed(target, limits)
    ramped = ramp(last, slow, elapsed, limits)
    smooth = clamp_speed(ramped.velocity, limits)
    free = ramp(last, slow, elapsed, replace(limits, linear_jerk=None, angular_jerk=None)).velocity
    cut = ((SPEED, slow != target), (ACCELERATION, free != slow), (JERK, ramped.velocity != free))
    return Moving(smooth, ramped.gaining), tuple(name for name, is_cut in cut if is_cut)


def _axis(
    last: float, gained: float, target: float, elapsed: float, acceleration: float, jerk: float | None
) -> tuple[float, float]:
    """The value of one axis, and how fast it grew."""
    if jerk is None or elapsed <= 0.0 or target == last:
        return _toward(last, target, acceleration * elapsed), gained if elapsed <= 0.0 else 0.0
    if last * target < 0.0:
        return _toward(last, 0.0, acceleration * elapsed), 0.0
    if abs(target) < abs(last):
        return _toward(last, target, acceleration * elapsed), 0.0
    ending = jerk * (math.sqrt(elapsed**2 / 4 + 2 * abs(target - last) / jerk) - elapsed / 2)
    growing = min(acceleration, gained + jerk * elapsed, ending)
    return _toward(last, target, growing * elapsed), growing


def _clamp(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)


def _toward(last: float, target: float, step: float) -> float:
    # Returning the target itself, not last + difference, keeps rounding from leaving a residue on a reached target.
    if abs(target - last) <= step:
        return target
    return last + _clamp(target - last, step)
