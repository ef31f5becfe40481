"""Geometry of a base among the points of a scan, for whoever looks along its way: perception and the guard.

Lengths in m, angles in rad, in the base frame unless it is said otherwise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.types import LaserScan

_MOST_RAYS = 100_000  # all around
_MOST_TURNS = 1.5  # from zero to the first ray, and that all may cover: some drivers send a little more than one
_STRAIGHT = 1e-9  # 1/m; a curvature below it is none: its arc would be lost in the rounding of tiny numbers
_PROBES = (0.1, 0.5, 1.0)  # m from the robot's edge: where an unmeasured ray may hide something

Points = NDArray[np.float64]  # (n, 2)


class Mount(NamedTuple):
    """Where a scanner's centre is in the base frame, m, and where its zero points, degrees counter-clockwise."""

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0


CENTRE = Mount()


def bearings_deg(scan: LaserScan) -> NDArray[np.float64]:
    """Bearing of each ray in degrees, shape (rays,), in (-180, 180]."""
    angles = np.degrees(scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges)))
    return -((-angles + 180.0) % 360.0 - 180.0)


def full_circle(scan: LaserScan) -> LaserScan:
    """The scan with lost rays where the scanner does not look: what it cannot see must not read as free.

    One that looks all around is returned as it is.
    """
    step = abs(scan.angle_increment)
    if not 2 * math.pi / _MOST_RAYS < step < math.inf:  # no scanner's
        return scan
    missing = int(2 * math.pi / step - len(scan.ranges) + 0.5)
    if missing < 1:
        return scan
    lost = np.full(missing, np.nan, np.float32)
    return replace(scan, ranges=np.concatenate([np.asarray(scan.ranges, np.float32), lost]))


def valid_ranges(scan: LaserScan) -> NDArray[np.float64]:
    """Ranges in m, shape (rays,): NaN where there is no measurement, +inf where nothing is within reach.

    REP-117: -inf (too close) counts as range_min, +inf as free; finite values outside the limits and NaN are none.
    """
    ranges = np.asarray(scan.ranges, dtype=np.float64).copy()
    ranges[np.isneginf(ranges)] = scan.range_min
    outside = np.isfinite(ranges) & ((ranges < scan.range_min) | (ranges > scan.range_max))
    ranges[outside] = np.nan
    return ranges


def told_from_base(
    scan: LaserScan, mount: Mount, reach: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each ray ends, from the base centre: bearing in degrees, and distance in m as of `valid_ranges`, (rays,).

    A ray that ends at nothing, or was not measured, is told where it is `reach` (m) from the base centre.
    """
    bearings, ranges = bearings_deg(scan), valid_ranges(scan)
    if mount == CENTRE:
        return bearings, ranges
    bearings = bearings + mount.yaw
    if mount.x == mount.y == 0.0:
        return bearings, ranges
    directions, ends = np.radians(bearings), np.isfinite(ranges)
    hit = along(directions, np.where(ends, ranges, 0.0)) + mount[:2]
    places = np.where(ends[:, None], hit, on_rays(directions, mount, reach))
    distance = np.where(ends, np.hypot(places[:, 0], places[:, 1]), ranges)
    return np.degrees(np.arctan2(places[:, 1], places[:, 0])), distance


def on_rays(directions: NDArray[np.float64], mount: Mount, distance: float) -> Points:
    """Where a scanner's rays are `distance` (m) from the base centre, (n, 2), or, where it is never so near, nearest.

    directions: of the rays, rad, in the base frame.
    """
    if mount.x == mount.y == 0.0:
        return along(directions, np.full(len(directions), distance))
    towards = mount.x * np.cos(directions) + mount.y * np.sin(directions)
    square = towards**2 - mount.x**2 - mount.y**2 + distance**2
    return along(directions, np.maximum(np.sqrt(np.maximum(square, 0.0)) - towards, 0.0)) + mount[:2]


def direction_problem(scan: LaserScan) -> str:
    """Why its rays lead nowhere that is known; empty for nothing. What they measured says nothing then."""
    step = abs(scan.angle_increment)
    if not abs(scan.angle_min) <= 2 * math.pi * _MOST_TURNS:  # degrees, or no number
        return f"angle_min is {scan.angle_min}"
    if not 2 * math.pi / _MOST_RAYS < step < math.inf:  # all rays in one direction, or none
        return f"angle_increment is {scan.angle_increment}"
    turns = step * (len(scan.ranges) - 1) / (2 * math.pi)
    if turns > _MOST_TURNS:  # degrees for radians, say
        return f"angle_increment is {scan.angle_increment}: {len(scan.ranges)} rays would turn {turns:.1f} times around"
    return ""


def is_empty(scan: LaserScan) -> bool:
    """Whether no ray of the scan carries a measurement, or there is none."""
    return bool(np.isnan(valid_ranges(scan)).all())


def is_blind(scan: LaserScan) -> bool:
    """Whether no ray of the scan carries a measurement of a direction that is known."""
    return is_empty(scan) or direction_problem(scan) != ""


def along(bearings: NDArray[np.float64], ranges: NDArray[np.float64]) -> Points:
    """The points at these bearings (rad) and ranges (m), in the scanner's frame."""
    return np.stack([ranges * np.cos(bearings), ranges * np.sin(bearings)], axis=1)


def arc(curvature: float, way: NDArray[np.float64]) -> Points:
    """Places on the arc that leaves the origin straight ahead, (n, 2), after so much signed way (n,).

    Constant linear and angular velocity is an arc of curvature angular / linear, 1/m, as in the dynamic window approach
    (Fox, Burgard & Thrun 1997).
    """
    if abs(curvature) < _STRAIGHT:
        return np.stack([way, np.zeros_like(way)], axis=1)
    return np.stack([np.sin(way * curvature), 1.0 - np.cos(way * curvature)], axis=1) / curvature


def distances(places: Points, points: Points) -> NDArray[np.float64]:
    """From each place to each point, (places, points)."""
    return np.asarray(np.hypot(*np.moveaxis(places[:, None] - points[None], -1, 0)))


def mostly_lost(
    places: Points,
    bearings: NDArray[np.float64],
    lost: NDArray[np.bool_],
    robot_radius: float,
    mount: Mount = CENTRE,
) -> bool:
    """Whether most rays that cross the way of a disc are no measurement.

    Args:
        places: of its centre. bearings: of the rays, rad. lost: which are no measurement. mount: where the rays begin;
            its yaw is in the bearings already.
    """
    crossing = np.zeros(len(bearings), bool)
    for probe in _PROBES:
        away = on_rays(bearings, mount, robot_radius + probe)
        crossing |= (distances(places, away) < robot_radius).any(axis=0)
    return bool(2 * lost[crossing].sum() > crossing.sum())


def moved(points: Points, x: float, y: float, yaw: float) -> Points:
    """Points of a frame that stands at (x, y, yaw) in another, in that other."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def seen_from(points: Points, x: float, y: float, yaw: float) -> Points:
    """The inverse of `moved`: points of a frame in the one that stands at (x, y, yaw) in it."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return (points - (x, y)) @ np.array([[cos, -sin], [sin, cos]])


def outside(points: Points, polygon: Points) -> NDArray[np.float64]:
    """Signed distance of each point to the edge of a simple polygon, (n,): negative inside.

    Inside by the even-odd rule along a ray in +x.

    Args:
        polygon: its corners, (corners, 2).
    """
    begin, end = polygon, np.roll(polygon, -1, axis=0)
    edge = end - begin
    offset = points[:, None] - begin[None]  # (n, corners, 2)
    share = np.clip((offset * edge).sum(-1) / (edge * edge).sum(-1), 0.0, 1.0)
    apart = offset - share[..., None] * edge
    nearest = np.sqrt((apart * apart).sum(-1).min(axis=1))
    above = points[:, None, 1] < begin[None, :, 1], points[:, None, 1] < end[None, :, 1]
    rise = np.where(edge[:, 1] == 0.0, 1.0, edge[:, 1])
    crosses = (above[0] != above[1]) & (offset[..., 0] < edge[:, 0] * offset[..., 1] / rise)
    return np.where(crosses.sum(axis=1) % 2 == 1, -nearest, nearest)
