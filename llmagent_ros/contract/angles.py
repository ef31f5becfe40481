"""Angles and sectors."""

from __future__ import annotations

import math


def in_sector(bearing_deg: float, sector: tuple[float, float]) -> bool:
    """Whether a bearing lies in [from, to) counter-clockwise, all in degrees."""
    start, end = sector
    width = (end - start) % 360.0 or 360.0
    return (bearing_deg - start) % 360.0 % 360.0 < width  # twice: the remainder of -1e-20 is 360.0


def wrap_angle(angle: float) -> float:
    """An angle in (-pi, pi], rad."""
    wrapped = -((-angle + math.pi) % (2.0 * math.pi) - math.pi)
    return math.pi if wrapped <= -math.pi else wrapped  # the remainder rounds up to 2 pi just beyond pi
