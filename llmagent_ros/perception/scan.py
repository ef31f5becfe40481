"""Clearances by sector from a laser scan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.types import LaserScan

_MOST_RAYS = 100_000  # all around


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


def sector_clearances(
    scan: LaserScan, sectors: Mapping[str, tuple[float, float]], robot_radius: float, max_clearance: float
) -> dict[str, float | None]:
    """Free distance from the robot's edge in each sector, m, at most `max_clearance`.

    A sector is None (unknown) when more than half of its rays, or all of them, are no measurement: a few lost rays
    are normal, a blind sector must not read as free.

    Args:
        sectors: name to (from, to) in degrees, counter-clockwise.
    """
    angles, ranges = bearings_deg(scan), valid_ranges(scan)
    clearances: dict[str, float | None] = {}
    for name, (start, end) in sectors.items():
        width = (end - start) % 360.0 or 360.0
        inside = ranges[(angles - start) % 360.0 < width]
        known = inside[~np.isnan(inside)]
        if len(known) == 0 or len(known) * 2 < len(inside):
            clearances[name] = None
        else:
            clearances[name] = float(np.clip(known.min() - robot_radius, 0.0, max_clearance))
    return clearances


def range_at(scan: LaserScan, bearing: float, half_width: float) -> float | None:
    """Nearest range within `half_width` of a bearing (both rad), m; +inf when free, None when not measured."""
    angles, ranges = np.radians(bearings_deg(scan)), valid_ranges(scan)
    offset = np.abs(np.angle(np.exp(1j * (angles - bearing))))
    near = ranges[offset <= max(half_width, scan.angle_increment)]
    near = near[~np.isnan(near)]
    return float(near.min()) if len(near) else None


def is_blind(scan: LaserScan) -> bool:
    """Whether no ray of the scan carries a measurement."""
    return bool(np.isnan(valid_ranges(scan)).all()) or not math.isfinite(scan.angle_increment)
