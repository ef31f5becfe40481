"""Clearances by sector from a laser scan."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmagent_ros.geometry import bearings_deg, full_circle, is_blind, valid_ranges
from llmagent_ros.types import LaserScan

__all__ = ["bearings_deg", "full_circle", "is_blind", "range_at", "sector_clearances", "valid_ranges"]


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
