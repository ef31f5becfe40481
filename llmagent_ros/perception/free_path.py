"""How far each action phrase may be kept up before the robot touches something: affordances from a laser scan."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import ActionCommand
from llmagent_ros.geometry import (
    CENTRE,
    Mount,
    along,
    arc,
    bearings_deg,
    distances,
    mostly_lost,
    valid_ranges,
)
from llmagent_ros.types import LaserScan

_STEP = 0.05  # m between two places at which the footprint is compared with the scan
_MARGIN = 0.01  # m around the footprint


def free_paths(
    scan: LaserScan,
    actions: Mapping[str, ActionCommand],
    robot_radius: float,
    lookahead: float,
    mount: Mount = CENTRE,
) -> dict[str, float | None]:
    """Metres of way until contact along the arc of each phrase that drives, at most `lookahead`.

    Constant velocities are an arc (`geometry.arc`). Contact is a measured point within the robot's radius that is
    nearer than at the start, so that a robot may leave what it touches. Rounded down to `_STEP`.

    A phrase is None (unknown) when more than half of the rays that cross its way are no measurement.

    Args:
        actions: phrases with their velocities; those that only turn are left out. mount: of the scanner.
    """
    bearings, ranges = np.radians(bearings_deg(scan)) + math.radians(mount.yaw), valid_ranges(scan)
    seen = np.isfinite(ranges)
    points = along(bearings[seen], ranges[seen]) + mount[:2]
    lost = np.isnan(ranges)
    reach = robot_radius + _MARGIN
    free: dict[str, float | None] = {}
    for phrase, action in actions.items():
        if action.linear == 0.0:
            continue
        path = _arc(action, lookahead)
        if lost.any() and mostly_lost(path, bearings, lost, robot_radius, mount):
            free[phrase] = None
        else:
            free[phrase] = min(lookahead, _contact(path, points, reach) * _STEP)
    return free


def _arc(action: ActionCommand, lookahead: float) -> NDArray[np.float64]:
    """Places of the robot's centre in its own frame, m, (n, 2), from the start on, at most half a turn."""
    curvature = action.angular / action.linear
    length = min(lookahead, math.pi / abs(curvature)) if curvature else lookahead
    way = np.copysign(_STEP * np.arange(math.ceil(length / _STEP) + 1), action.linear)
    return arc(curvature, way)


def _contact(path: NDArray[np.float64], points: NDArray[np.float64], reach: float) -> float:
    """How many steps of a path come before contact; infinite without any."""
    if len(points) == 0:
        return math.inf
    apart = distances(path, points)
    touched = ((apart < reach) & (apart < apart[0])).any(axis=1)
    return int(np.argmax(touched)) - 1 if touched.any() else math.inf
