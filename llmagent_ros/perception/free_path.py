"""How far each action phrase may be kept up before the robot touches something: affordances from a laser scan."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import ActionCommand
from llmagent_ros.perception.scan import bearings_deg, valid_ranges
from llmagent_ros.types import LaserScan

_STEP = 0.05  # m between two places at which the footprint is compared with the scan
_MARGIN = 0.01  # m around the footprint
_PROBES = (0.1, 0.5, 1.0)  # m from the robot's edge: where an unmeasured ray may hide something


def free_paths(
    scan: LaserScan, actions: Mapping[str, ActionCommand], robot_radius: float, lookahead: float
) -> dict[str, float | None]:
    """Metres of way until contact along the arc of each phrase that drives, at most `lookahead`.

    Constant linear and angular velocity is an arc of curvature angular / linear, as in the dynamic window approach
    (Fox, Burgard & Thrun 1997). Contact is a measured point within the robot's radius that is nearer than at the start,
    so that a robot may leave what it touches. Rounded down to `_STEP`.

    A phrase is None (unknown) when more than half of the rays that cross its way are no measurement.

    Args:
        actions: phrases with their velocities; those that only turn are left out.
    """
    bearings, ranges = np.radians(bearings_deg(scan)), valid_ranges(scan)
    seen = np.isfinite(ranges)
    points = _points(bearings[seen], ranges[seen])
    lost = np.isnan(ranges)
    reach = robot_radius + _MARGIN
    free: dict[str, float | None] = {}
    for phrase, action in actions.items():
        if action.linear == 0.0:
            continue
        path = _arc(action, lookahead)
        if lost.any() and _mostly_lost(path, bearings, lost, robot_radius):
            free[phrase] = None
        else:
            free[phrase] = min(lookahead, _contact(path, points, reach) * _STEP)
    return free


def _arc(action: ActionCommand, lookahead: float) -> NDArray[np.float64]:
    """Places of the robot's centre in its own frame, m, (n, 2), from the start on, at most half a turn."""
    curvature = action.angular / action.linear
    length = min(lookahead, math.pi / abs(curvature)) if curvature else lookahead
    way = np.copysign(_STEP * np.arange(math.ceil(length / _STEP) + 1), action.linear)
    if curvature == 0.0:
        return np.stack([way, np.zeros_like(way)], axis=1)
    return np.stack([np.sin(way * curvature), 1.0 - np.cos(way * curvature)], axis=1) / curvature


def _contact(path: NDArray[np.float64], points: NDArray[np.float64], reach: float) -> float:
    """How many steps of a path come before contact; infinite without any."""
    if len(points) == 0:
        return math.inf
    distances = np.hypot(*np.moveaxis(path[:, None] - points[None], -1, 0))
    touched = ((distances < reach) & (distances < distances[0])).any(axis=1)
    return int(np.argmax(touched)) - 1 if touched.any() else math.inf


def _mostly_lost(
    path: NDArray[np.float64], bearings: NDArray[np.float64], lost: NDArray[np.bool_], robot_radius: float
) -> bool:
    """Whether most rays that cross a path are no measurement."""
    crossing = np.zeros(len(bearings), bool)
    for probe in _PROBES:
        away = _points(bearings, np.full(len(bearings), robot_radius + probe))
        distances = np.hypot(*np.moveaxis(path[:, None] - away[None], -1, 0))
        crossing |= (distances < robot_radius).any(axis=0)
    return bool(2 * lost[crossing].sum() > crossing.sum())


def _points(bearings: NDArray[np.float64], ranges: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([ranges * np.cos(bearings), ranges * np.sin(bearings)], axis=1)
