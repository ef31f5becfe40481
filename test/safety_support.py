"""Scans for tests of the guard."""

from __future__ import annotations

import math

import numpy as np

from llmagent_ros.types import LaserScan

RANGE = 5.0  # m, of the scanner


def scan_of(points: np.ndarray, stamp: float, *, mount: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> LaserScan:
    """A scan with one ray to each point, (n, 2), of the base frame, in order of the bearings; between them free.

    mount: x, y (m) and yaw (rad) of the scanner in the base frame.
    """
    x, y, yaw = mount
    away = np.asarray(points, float).reshape(-1, 2) - (x, y)
    bearings = np.arctan2(away[:, 1], away[:, 0]) - yaw
    count = 3600
    ranges = np.full(count, math.inf, np.float32)
    at = np.round((bearings + math.pi) / (2 * math.pi) * count).astype(int) % count
    np.minimum.at(ranges, at, np.hypot(away[:, 0], away[:, 1]).astype(np.float32))
    return LaserScan(stamp, -math.pi, 2 * math.pi / count, ranges, 0.01, RANGE)


def open_scan(stamp: float, rays: int = 36) -> LaserScan:
    """Nothing within reach, all around."""
    return LaserScan(stamp, -math.pi, 2 * math.pi / rays, np.full(rays, math.inf, np.float32), 0.05, RANGE)
