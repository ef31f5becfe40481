"""The outline of a base on the floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from llmagent_ros.contract.values import Finite

CIRCLE_POINTS = 16  # vertices of a polygon that stands for a circle
_Corner = tuple[Finite, Finite]


def circle(radius: float) -> NDArray[np.float64]:
    """A regular polygon around a circle about the origin, m, (CIRCLE_POINTS, 2), counter-clockwise.

    It encloses the circle: what does not touch it does not touch the robot either.
    """
    angles = 2 * math.pi * np.arange(CIRCLE_POINTS) / CIRCLE_POINTS
    corner = radius / math.cos(math.pi / CIRCLE_POINTS)
    return corner * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _simple_polygon(corners: tuple[_Corner, ...]) -> tuple[_Corner, ...]:
    """Corners in counter-clockwise order; ValueError unless they make a polygon that does not cross itself."""
    area = _signed_area(corners)
    if abs(area) < 1e-6:
        raise ValueError("the corners enclose no area")
    edges = list(zip(corners, (*corners[1:], corners[0]), strict=True))
    for i, (a, b) in enumerate(edges):
        for j in range(i + 2, len(edges) - (i == 0)):  # neighbours share a corner
            if _cross(a, b, *edges[j]):
                raise ValueError(f"edges {i + 1} and {j + 1} cross")
    return corners if area > 0 else corners[::-1]


Polygon = Annotated[tuple[_Corner, ...], Field(min_length=3, max_length=64), AfterValidator(_simple_polygon)]


def _signed_area(corners: Sequence[_Corner]) -> float:
    points = np.asarray(corners)
    following = np.roll(points, -1, axis=0)
    return float((points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum()) / 2


def _cross(a: _Corner, b: _Corner, c: _Corner, d: _Corner) -> bool:
    """Whether the segments a-b and c-d have a point in common."""

    def side(p: _Corner, q: _Corner, r: _Corner) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0
