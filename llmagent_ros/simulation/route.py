"""The way to the target of a drawn world: what teachers drive by, and what SPL compares a path with."""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.simulation.world import GRID, Body, World, WorldConfig, free_grid

_NEIGHBOURS = [(i, j, math.hypot(i, j)) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


class Route:
    """Lengths of the shortest ways to the target over an 8-connected grid of free robot positions.

    Args:
        radius: of the robot, m. reach: m between its edge and the target's surface that count as reached.
        margin: m that the way keeps from everything besides.
        target: what to reach, if not the world's.
    """

    def __init__(
        self,
        config: WorldConfig,
        world: World,
        radius: float,
        reach: float,
        margin: float = 0.03,
        target: Body | None = None,
    ) -> None:
        target = target or world.object(world.target)
        assert target is not None
        self._radius, self._bodies = radius, (*world.obstacles, *world.objects)
        self._half = (config.size[0] / 2, config.size[1] / 2)
        self._free = free_grid(config, world, radius, margin)
        xs, ys = ((np.arange(n) + 0.5) * GRID - half for n, half in zip(self._free.shape, self._half, strict=True))
        from_target = np.hypot(xs[:, None] - target.x, ys[None, :] - target.y)
        self._length = self._search(self._free & (from_target <= target.radius + radius + reach))

    @property
    def exists(self) -> bool:
        """Whether there is a way from anywhere."""
        return bool(np.isfinite(self._length).any())

    def length(self, x: float, y: float) -> float:
        """m from a position to where the target is reached; infinite where there is no way."""
        i, j = self._cell(x, y)
        if np.isfinite(self._length[i, j]):
            return float(self._length[i, j])
        near = self._length[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]  # beside something: closer than the margin
        return float(near.min() + 2 * GRID)

    def clearance(self, x: float, y: float) -> float:
        """m between the robot's edge and the nearest body or wall; below 0 inside it."""
        bodies = [math.hypot(b.x - x, b.y - y) - b.radius for b in self._bodies]
        walls = [half - abs(v) for v, half in zip((x, y), self._half, strict=True)]
        return min(*bodies, *walls) - self._radius

    def direction(self, x: float, y: float, ahead: float = 0.5) -> float:
        """Bearing in the world's frame, rad, of the point `ahead` m along the way; along it past the end."""
        i, j = self._cell(x, y)
        if not np.isfinite(self._length[i, j]):
            i, j = self._nearest(i, j)
        start = (i, j)
        for _ in range(max(1, round(ahead / GRID))):
            i, j = self._next(i, j)
        if (i, j) == start:
            return math.nan
        at_x, at_y = ((n + 0.5) * GRID - half for n, half in zip((i, j), self._half, strict=True))
        return math.atan2(at_y - y, at_x - x)

    def _cell(self, x: float, y: float) -> tuple[int, int]:
        i, j = (int((v + half) / GRID) for v, half in zip((x, y), self._half, strict=True))
        return min(max(i, 0), self._free.shape[0] - 1), min(max(j, 0), self._free.shape[1] - 1)

    def _nearest(self, i: int, j: int) -> tuple[int, int]:
        cells = np.argwhere(np.isfinite(self._length))
        best = cells[np.argmin(np.hypot(*(cells - (i, j)).T))]
        return int(best[0]), int(best[1])

    def _next(self, i: int, j: int) -> tuple[int, int]:
        around = [(i + a, j + b) for a, b, _ in _NEIGHBOURS if self._inside(i + a, j + b)]
        return min([(i, j), *around], key=lambda cell: float(self._length[cell]))

    def _inside(self, i: int, j: int) -> bool:
        return 0 <= i < self._free.shape[0] and 0 <= j < self._free.shape[1]

    def _search(self, goal: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Dijkstra's algorithm from all goal cells at once."""
        length = np.full(self._free.shape, np.inf)
        queue = [(0.0, int(i), int(j)) for i, j in np.argwhere(goal)]
        for _, i, j in queue:
            length[i, j] = 0.0
        while queue:
            so_far, i, j = heapq.heappop(queue)
            if so_far > length[i, j]:
                continue
            for a, b, step in _NEIGHBOURS:
                at = (i + a, j + b)
                if self._inside(*at) and self._free[at] and so_far + step * GRID < length[at]:
                    length[at] = so_far + step * GRID
                    heapq.heappush(queue, (float(length[at]), *at))
        return length
