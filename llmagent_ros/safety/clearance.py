"""The collision check: a base goes no faster than it can stop before what the scan has seen."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import MobileContract, NotNegative, Positive
from llmagent_ros.geometry import (
    Mount,
    Points,
    along,
    arc,
    bearings_deg,
    distances,
    full_circle,
    mostly_lost,
    moved,
    outside,
    seen_from,
    valid_ranges,
)
from llmagent_ros.safety.reasons import BLIND, OBSTACLE
from llmagent_ros.safety.reckoning import ORIGIN, Pose, Reckoning
from llmagent_ros.types import LaserScan, Velocity

_STEP = 0.01  # m that a point of the outline moves at most between two places at which it is compared with the scan
_SLOWEST = 0.05  # of the velocity asked for: what is slower stands
_TOUCHING = 0.2  # of the margin: who is nearer than this to something gets no nearer to it
_LOOK = 0.1  # m before the edge: how far ahead the scanner must see
_UNEVEN = 1e-3  # m by which the points of an even wall differ in their distance from one that drives along it
_ROUNDING = 1e-9  # m
_STANDING = 1e-6  # m/s


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class ClearanceConfig:
    """How the collision check sees the robot.

    Attributes:
        margin: m that are kept free around the footprint.
        reaction: s from a command to the motion: of driver, motors and what is on the way between.
        blind_speed: m/s at which it may go where the scan measures nothing; 0: not at all.
    """

    margin: Positive = 0.05
    reaction: NotNegative = 0.1
    blind_speed: NotNegative = 0.1


class Clearance:
    """What of a velocity is free to be driven, by the newest scan.

    Constant velocities (v, w) lead along an arc; tau is the time for which they may be kept up before the footprint
    comes to within the margin of a point. Scaled by s, so that the arc stays the same, they are kept up for T (until
    the next decision and the reaction), then braked by the contract's accelerations (a, b), which takes s t_b with
    t_b = max(|v| / a, |w| / b):

        s T + s^2 t_b / 2 <= tau   =>   s = (sqrt(T^2 + 2 t_b tau) - T) / t_b,   at most 1

    That is the admissible velocity of the dynamic window approach (Fox, Burgard & Thrun 1997) for arcs of one
    curvature, as the approach mode of nav2_collision_monitor scales a velocity by the time to collision.

    A point that is within the margin already keeps the robot only from coming nearer, so that what leads away or along
    stays free: the margin then is the distance to the nearest point, but at least a fifth of itself. What is deeper
    inside of the footprint than the margin is taken for a part of the robot. The world is taken to stand still.

    Args:
        hold: s for which a command acts until the next one. see: m within which `around` must know the points.
    """

    def __init__(self, contract: MobileContract, config: ClearanceConfig, hold: float, see: float = 0.0) -> None:
        limits = contract.limits
        self._config, self._mount = config, contract.sensors.scan
        self._time = hold + config.reaction
        self._linear, self._angular = limits.linear_acceleration, limits.angular_acceleration
        self._radius, self._outline = contract.footprint_radius, contract.footprint_polygon()
        self._round = contract.footprint is None
        braking = max(limits.linear / self._linear, limits.angular / self._angular) / 2
        # beyond this nothing can matter before the scan is stale
        reach = self._radius + config.margin + limits.linear * (self._time + braking + self._mount.timeout)
        self._reach = max(reach, see)
        self._reckoning = Reckoning()
        self.lose_sight()

    def lose_sight(self) -> None:
        """The scan does not count any more."""
        self._points: Points | None = None
        self._stamp = -math.inf

    def forget(self) -> None:
        """What was driven does not count any more."""
        self._reckoning.forget()

    def see(self, scan: LaserScan, stamp: float, moved_since: Pose = ORIGIN) -> None:
        """Takes the newest scan.

        Args:
            stamp: when it was acquired by the guard's time, s.
            moved_since: where the robot stood then, in the frame in which what the scan says was seen: one that is the
                same as before may be an old one.
        """
        whole = full_circle(scan)
        bearings, ranges = np.radians(bearings_deg(whole)), valid_ranges(whole)
        mount = self._mount
        finite = np.isfinite(ranges)
        points = moved(along(bearings[finite], ranges[finite]), mount.x, mount.y, math.radians(mount.yaw))
        points = points[np.hypot(points[:, 0], points[:, 1]) < self._reach + math.hypot(*moved_since[:2])]
        others = points[self._outside(points) > -self._config.margin]
        self._points, self._stamp = seen_from(others, *moved_since), stamp
        self._bearings, self._lost = bearings + math.radians(mount.yaw) - moved_since[2], np.isnan(ranges)
        self._reckoning.older(stamp)

    def drive(self, velocity: Velocity, now: float) -> None:
        """Notes what the robot is told from `now` (s) on."""
        self._reckoning.drive(velocity, now)

    def around(self, now: float) -> tuple[Points, NDArray[np.float64]] | None:
        """Points of the scan as they are seen from where the robot is now, m, (n, 2), and bearings of rays that are no
        measurement, rad; None without a scan."""
        if self._points is None:
            return None
        pose = self._reckoning.since(self._stamp, now)
        return seen_from(self._points, *pose), self._bearings[self._lost] - pose[2]

    def limit(self, velocity: Velocity, now: float) -> tuple[Velocity, str | None]:
        """As much of a velocity as is free, and what keeps the rest: "obstacle" or "blind"; None where all of it is.

        Without a scan all of it passes: whether somebody may drive without one is for the guard to say.
        """
        if self._points is None or velocity == Velocity():
            return velocity, None
        braking = max(abs(velocity.linear) / self._linear, abs(velocity.angular) / self._angular)
        longest = self._time + braking / 2
        times = np.linspace(0.0, longest, self._steps(velocity, longest))
        places = self._places(velocity, times)
        scale, reason = 1.0, None
        pose = self._reckoning.since(self._stamp, now)
        free = self._free(velocity, places, times, seen_from(self._points, *pose))
        if free < longest:
            scale = (math.sqrt(self._time**2 + 2 * braking * free) - self._time) / braking
            reason = OBSTACLE
        creeping = self._config.blind_speed
        if scale * abs(velocity.linear) > creeping and self._is_blind(velocity, pose[2]):
            scale, reason = creeping / abs(velocity.linear), BLIND
        if reason is None:
            return velocity, None
        if scale < _SLOWEST:
            return Velocity(), reason
        return Velocity(scale * velocity.linear, scale * velocity.angular), reason

    def _steps(self, velocity: Velocity, longest: float) -> int:
        way = (abs(velocity.linear) + abs(velocity.angular) * self._radius) * longest
        return max(2, math.ceil(way / _STEP) + 1)

    def _places(self, velocity: Velocity, times: NDArray[np.float64]) -> Points:
        """Of the base centre, (times, 2), in its own frame."""
        if abs(velocity.linear) < _STANDING:
            return np.zeros((len(times), 2))
        return arc(velocity.angular / velocity.linear, velocity.linear * times)

    def _is_blind(self, velocity: Velocity, turned: float) -> bool:
        """Whether most of what lies next on the way was not measured. turned: rad, by the robot since the scan."""
        if abs(velocity.linear) < _STANDING or not self._lost.any():
            return False
        way = np.linspace(0.0, self._radius + _LOOK, 8)
        ahead = arc(velocity.angular / velocity.linear, np.copysign(way, velocity.linear))
        x, y = seen_from(np.array([[self._mount.x, self._mount.y]]), 0.0, 0.0, turned)[0]
        return mostly_lost(ahead, self._bearings - turned, self._lost, self._radius, Mount(x, y))

    def _free(self, velocity: Velocity, places: Points, times: NDArray[np.float64], points: Points) -> float:
        """s for which a velocity may be kept up among points as they are now, at most the last of `times`."""
        way = abs(velocity.linear) * float(times[-1])
        near = np.hypot(points[:, 0], points[:, 1]) < self._radius + self._config.margin + way
        if not near.any():
            return float(times[-1])
        apart = self._apart(points[near], places, velocity.angular * times)
        nearest = float(apart[0].min()) - _UNEVEN
        margin = min(max(nearest, _TOUCHING * self._config.margin), self._config.margin)
        touched = ((apart < margin - _ROUNDING) & (apart < apart[0] - _ROUNDING)).any(axis=1)
        return float(times[int(np.argmax(touched)) - 1]) if touched.any() else float(times[-1])

    def _apart(self, points: Points, places: Points, yaws: NDArray[np.float64]) -> NDArray[np.float64]:
        """From the footprint at each place to each point, (places, points); infinite where it is beyond the margin."""
        if self._round:
            return distances(places, points) - self._radius
        offset = points[None] - places[:, None]  # (places, points, 2)
        cos, sin = np.cos(yaws)[:, None], np.sin(yaws)[:, None]
        x, y = offset[..., 0], offset[..., 1]
        turned = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)
        near = np.hypot(x, y) < self._radius + self._config.margin
        apart = np.full(near.shape, np.inf)
        apart[near] = outside(turned[near], self._outline)
        return apart

    def _outside(self, points: Points) -> NDArray[np.float64]:
        """Signed distance from the footprint, (points,)."""
        if self._round:
            return np.asarray(np.hypot(points[:, 0], points[:, 1]) - self._radius)
        return outside(points, self._outline)
