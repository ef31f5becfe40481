"""Where a base has got to by the velocities that it was given."""

from __future__ import annotations

import math
from collections import deque

from llmagent_ros.types import Velocity

_MOST = 4096  # velocities that are remembered

Pose = tuple[float, float, float]  # m, m, rad
ORIGIN: Pose = (0.0, 0.0, 0.0)


def after(velocity: Velocity, seconds: float) -> Pose:
    """The pose to which a constant velocity leads from the origin: an arc, exactly."""
    turned = velocity.angular * seconds
    way = velocity.linear * seconds
    if abs(turned) < 1e-9:
        return way, 0.0, turned
    return way * math.sin(turned) / turned, way * (1.0 - math.cos(turned)) / turned, turned


def joined(pose: Pose, step: Pose) -> Pose:
    """Where a step leads that is told in the frame of a pose."""
    x, y, yaw = pose
    dx, dy, turned = step
    cos, sin = math.cos(yaw), math.sin(yaw)
    return x + cos * dx - sin * dy, y + sin * dx + cos * dy, yaw + turned


class Reckoning:
    """Velocities that went out, each from when on, s; the robot is taken to follow them at once.

    One that is slow to follow is not as far yet: nearer to what it came from than is reckoned, never nearer to what it
    goes to. How far it runs on after a sudden stop is not reckoned.
    """

    def __init__(self) -> None:
        self._given: deque[tuple[float, Velocity]] = deque(maxlen=_MOST)

    def drive(self, velocity: Velocity, now: float) -> None:
        """From `now` on this one holds."""
        if not self._given or velocity != self._given[-1][1]:
            self._given.append((now, velocity))

    def forget(self) -> None:
        self._given.clear()

    def since(self, then: float, now: float) -> Pose:
        """The pose at `now` in the frame in which the robot stood at `then`."""
        pose = ORIGIN
        given = [each for each in self._given if each[0] < now]
        ends = [*(begin for begin, _ in given[1:]), now]
        for (begin, velocity), end in zip(given, ends, strict=False):
            if end <= then:
                continue
            pose = joined(pose, after(velocity, end - max(begin, then)))
        return pose

    def older(self, than: float) -> None:
        """Forgets what had ended before this time, s."""
        while len(self._given) > 1 and self._given[1][0] <= than:
            self._given.popleft()
