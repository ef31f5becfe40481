"""Speed and acceleration limits of a planar velocity command."""

from __future__ import annotations

from llmagent_ros.contract import Limits
from llmagent_ros.types import Velocity

SPEED = "speed"
ACCELERATION = "acceleration"


def clamp_speed(target: Velocity, limits: Limits) -> Velocity:
    """The command inside [-limits.linear, limits.linear] m/s and [-limits.angular, limits.angular] rad/s."""
    return Velocity(_clamp(target.linear, limits.linear), _clamp(target.angular, limits.angular))


def ramp(last: Velocity, target: Velocity, elapsed: float, limits: Limits) -> Velocity:
    """The command nearest to `target` that `last` may become after `elapsed` seconds.

    Each axis by itself:  v = last + clamp(target - last, -a t, a t)

    Args:
        last: what was published before, m/s and rad/s.
        elapsed: s since then, at least 0.
    """
    return Velocity(
        _toward(last.linear, target.linear, limits.linear_acceleration * elapsed),
        _toward(last.angular, target.angular, limits.angular_acceleration * elapsed),
    )


def limit(last: Velocity, target: Velocity, elapsed: float, limits: Limits) -> tuple[Velocity, tuple[str, ...]]:
    """`target` within speed and acceleration limits, and which of the two changed it.

    The speed limit holds whatever `last` was; clamping both ends of a ramp keeps everything between within.
    """
    slow = clamp_speed(target, limits)
    smooth = clamp_speed(ramp(last, slow, elapsed, limits), limits)
    changed = tuple(name for name, cut in ((SPEED, slow != target), (ACCELERATION, smooth != slow)) if cut)
    return smooth, changed


def _clamp(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)


def _toward(last: float, target: float, step: float) -> float:
    # Returning the target itself, not last + difference, keeps rounding from leaving a residue on a reached target.
    if abs(target - last) <= step:
        return target
    return last + _clamp(target - last, step)
