"""Position, step, speed and acceleration limits of joint targets."""

from __future__ import annotations

import math

from llmagent_ros.contract import JointLimits
from llmagent_ros.safety.limits import ACCELERATION, SPEED

POSITION = "position"
STEP = "step"


def clamp_target(target: float, measured: float | None, step: float, limits: JointLimits) -> tuple[float, set[str]]:
    """A position within the joint's limits and within `step` of where it is measured, and which of the two changed it.

    Args:
        target: rad. measured: rad; None: not known, so there is nothing to keep near to. step: rad.
    """
    inside = min(max(target, limits.lower), limits.upper)
    changed = {POSITION} if inside != target else set()
    if measured is None:
        return inside, changed
    # of a joint that is measured outside of its limits this is outside too, but never farther
    near = min(max(inside, measured - step), measured + step)
    return near, changed | ({STEP} if near != inside else set())


def ramp_joint(
    setpoint: float, speed: float, target: float, elapsed: float, limits: JointLimits
) -> tuple[float, float, set[str]]:
    """The position that `setpoint` may become after `elapsed` s on its way to `target`.

    It goes straight to the target and never past it. Speed grows by at most acceleration times elapsed time, and ahead
    of the target falls in time to stop there by the same deceleration a, in steps of dt:

        v^2 / (2 a) + v dt / 2 = d   =>   v = a (sqrt(dt^2 / 4 + 2 d / a) - dt / 2)

    Braking for a target behind is not limited: the setpoint stands at once.

    Args:
        setpoint: rad. speed: of the setpoint, signed, rad/s. target: rad. elapsed: s, at least 0.

    Returns:
        position, signed speed, and which limits of "speed" and "acceleration" it kept from the target.
    """
    distance = target - setpoint
    if elapsed <= 0.0 or distance == 0.0:
        return setpoint, 0.0 if distance == 0.0 else speed, set()
    way, forward = abs(distance), math.copysign(1.0, distance)
    wanted = way / elapsed
    growing = max(0.0, speed * forward) + limits.acceleration * elapsed
    braking = limits.acceleration * (math.sqrt(elapsed**2 / 4 + 2 * way / limits.acceleration) - elapsed / 2)
    allowed = min(limits.velocity, growing, braking)
    if wanted <= allowed:
        return target, forward * wanted, set()
    changed = {SPEED} if wanted > limits.velocity else set()
    if allowed < min(wanted, limits.velocity):
        changed.add(ACCELERATION)
    return setpoint + forward * allowed * elapsed, forward * allowed, changed
