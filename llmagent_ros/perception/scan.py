"""Clearances by sector from a laser scan."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmagent_ros.geometry import CENTRE, Mount, bearings_deg, full_circle, is_blind, told_from_base, valid_ranges
from llmagent_ros.types import LaserScan

__all__ = ["bearings_deg", "full_circle", "is_blind", "range_at", "sector_clearances", "valid_ranges"]

_FAR = 2.0  # m from the base centre: where a thing is that a ray which ends nowhere does not meet
_NEAR = 0.5  # m from the robot's edge: what a ray that ends nowhere tells of is the sector where it is there


def sector_clearances(
    scan: LaserScan,
    sectors: Mapping[str, tuple[float, float]],
    robot_radius: float,
    max_clearance: float,
    mount: Mount = CENTRE,
) -> dict[str, float | None]:
    """Free distance from the robot's edge in each sector about the base centre, m, at most `max_clearance`.

    A sector is None (unknown) when more than half of its rays, or all of them, are no measurement: a few lost rays
    are normal, a blind sector must not read as free. Of a scanner that does not stand in the middle a ray is of the
    sector in which it ends.

    Args:
        sectors: name to (from, to) in degrees, counter-clockwise. mount: of the scanner.
    """
    angles, ranges = told_from_base(scan, mount, robot_radius + _NEAR)
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


def range_at(scan: LaserScan, bearing: float, half_width: float, mount: Mount = CENTRE) -> float | None:
    """Nearest thing within `half_width` of a bearing (both rad) from the base centre, m; +inf when free, None when not
    measured."""
    angles, ranges = told_from_base(scan, mount, _FAR)
    offset = np.abs(np.angle(np.exp(1j * (np.radians(angles) - bearing))))
    near = ranges[offset <= max(half_width, scan.angle_increment)]
    near = near[~np.isnan(near)]
    return float(near.min()) if len(near) else None
