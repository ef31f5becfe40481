"""What a simulated world holds and how one is drawn at random."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, NotNegative, Positive
from llmagent_ros.errors import ConfigError

_STRICT = ConfigDict(extra="forbid")
GRID = 0.1  # m, resolution of the grid of free positions
_ATTEMPTS = 200
_MOST = 1000  # bodies of a kind
_Number = TypeVar("_Number", int, float)


def _ordered(bounds: tuple[_Number, _Number]) -> tuple[_Number, _Number]:
    if bounds[0] > bounds[1]:
        raise ValueError("[from, to] with from at most to")
    return bounds


_Side = Annotated[float, Field(gt=0, le=100)]
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_AtLeastOne = Annotated[int, Field(ge=1, le=_MOST)]
_Counts = Annotated[tuple[_Count, _Count], AfterValidator(_ordered)]
_Objects = Annotated[tuple[_AtLeastOne, _AtLeastOne], AfterValidator(_ordered)]
_Radii = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
_Distances = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ordered)]


@dataclass(config=_STRICT, frozen=True)
class ObstacleConfig:
    """Round obstacles: how many (from, to), radius m (from, to), height m."""

    count: _Counts = (6, 12)
    radius: _Radii = (0.12, 0.3)
    height: Annotated[float, Field(gt=0.3, allow_inf_nan=False)] = 0.6


@dataclass(config=_STRICT, frozen=True)
class WorldConfig:
    """A file of sim/worlds. Lengths in m; ranges are (from, to)."""

    world: str
    size: tuple[_Side, _Side] = (6.0, 6.0)
    obstacles: ObstacleConfig = Field(default_factory=ObstacleConfig)
    objects: _Objects = (2, 3)
    gap: NotNegative = 0.5
    start_distance: _Distances = (1.5, 4.5)


@plain_dataclass(frozen=True)
class Body:
    """A body that stands in the world: position of its centre and radius, m; name is empty for an obstacle."""

    x: float
    y: float
    radius: float
    name: str = ""


@plain_dataclass(frozen=True)
class World:
    """One drawn world: start pose (m, m, rad), obstacles, objects, and the name of the object to reach."""

    start: tuple[float, float, float]
    obstacles: tuple[Body, ...]
    objects: tuple[Body, ...]
    target: str

    def object(self, name: str) -> Body | None:
        """The object of that name, or None when this world has none."""
        return next((body for body in self.objects if body.name == name), None)


def load_world(name: str) -> WorldConfig:
    """A shipped world ("clutter") or a path to a YAML file."""
    return config.load(WorldConfig, config.named_file("world", name, config.share_dir() / "sim" / "worlds"))


def draw_world(
    world: WorldConfig, contract: MobileContract, rng: np.random.Generator, *, away: float = 0.0
) -> World:
    """A random world in which the robot can reach its target, and a place from which the target is `away` m.

    Args:
        away: m between the robot's edge and the target's surface; 0: any place will do.

    Raises:
        ConfigError: no such world was found; the configuration leaves too little room.
    """
    if not contract.objects:
        raise ConfigError(f"robot contract {contract.robot}: objects: none, so there is no target to go to")
    for _ in range(_ATTEMPTS):
        drawn = _draw_once(world, contract, rng)
        if drawn is not None and _solvable(world, drawn, contract.footprint_radius, away):
            return drawn
    far = f" with a way to {away:g} m from the target" if away else ""
    raise ConfigError(
        f"world {world.world}: no solvable layout{far} in {_ATTEMPTS} draws; fewer obstacles or more room"
    )


def _draw_once(world: WorldConfig, contract: MobileContract, rng: np.random.Generator) -> World | None:
    names = list(contract.objects)
    wanted = min(int(rng.integers(world.objects[0], world.objects[1] + 1)), len(names))
    chosen = [names[i] for i in rng.permutation(len(names))[:wanted]]
    placed: list[Body] = []
    start = _place(world, placed, contract.footprint_radius, rng)
    if start is None:
        return None
    placed.append(start)
    objects: list[Body] = []
    for name in chosen:
        radius = contract.objects[name].radius
        body = _place(world, placed, radius, rng, name=name)
        if body is None:
            return None
        objects.append(body)
        placed.append(body)
    distance = math.hypot(objects[0].x - start.x, objects[0].y - start.y)
    if not world.start_distance[0] <= distance <= world.start_distance[1]:
        return None
    obstacles: list[Body] = []
    for _ in range(int(rng.integers(world.obstacles.count[0], world.obstacles.count[1] + 1))):
        body = _place(world, placed, float(rng.uniform(*world.obstacles.radius)), rng)
        if body is not None:
            obstacles.append(body)
            placed.append(body)
    heading = float(rng.uniform(-math.pi, math.pi))
    return World((start.x, start.y, heading), tuple(obstacles), tuple(objects), objects[0].name)


def _place(
    world: WorldConfig, placed: list[Body], radius: float, rng: np.random.Generator, name: str = ""
) -> Body | None:
    """A free spot `gap` away from everything placed and from the walls, or None."""
    half = np.asarray(world.size) / 2 - radius - world.gap / 2
    if (half < 0).any():
        return None
    for _ in range(50):
        x, y = rng.uniform(-half, half)
        if all(math.hypot(b.x - x, b.y - y) >= b.radius + radius + world.gap for b in placed):
            return Body(float(x), float(y), radius, name)
    return None


def _solvable(world: WorldConfig, drawn: World, robot_radius: float, away: float) -> bool:
    """Whether the robot gets from its start to beside the target, and to `away` m from it."""
    target = drawn.object(drawn.target)
    assert target is not None
    goal = _cell(world, target.x, target.y)
    beside, far = ((target.radius + robot_radius + distance) / GRID for distance in (0.2, away))
    free = free_grid(world, drawn, robot_radius)
    start = _cell(world, drawn.start[0], drawn.start[1])
    if not any(math.hypot(i - goal[0], j - goal[1]) <= beside for i, j in _connected(free, start)):
        return False
    x, y = ((at + side / 2) / GRID - 0.5 for at, side in zip((target.x, target.y), world.size, strict=True))
    return away == 0 or any(math.hypot(i - x, j - y) >= far for i, j in _connected(free, start))


def _cell(world: WorldConfig, x: float, y: float) -> tuple[int, int]:
    return int((x + world.size[0] / 2) / GRID), int((y + world.size[1] / 2) / GRID)


def _connected(free: NDArray[np.bool_], start: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cells that the robot gets to over free ones, nearest first: breadth-first search."""
    seen = np.zeros_like(free)
    queue = deque([start])
    seen[start] = True
    while queue:
        i, j = queue.popleft()
        yield i, j
        for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if 0 <= a < free.shape[0] and 0 <= b < free.shape[1] and free[a, b] and not seen[a, b]:
                seen[a, b] = True
                queue.append((a, b))


def free_grid(
    world: WorldConfig, drawn: World, robot_radius: float, margin: float = 0.03
) -> NDArray[np.bool_]:
    """Cells of GRID m, (x, y) from the lower corner, in which the robot keeps `margin` m from everything."""
    xs = (np.arange(int(world.size[0] / GRID)) + 0.5) * GRID - world.size[0] / 2
    ys = (np.arange(int(world.size[1] / GRID)) + 0.5) * GRID - world.size[1] / 2
    margin = robot_radius + margin
    inside_x, inside_y = np.abs(xs) <= world.size[0] / 2 - margin, np.abs(ys) <= world.size[1] / 2 - margin
    free: NDArray[np.bool_] = inside_x[:, None] & inside_y[None, :]
    for body in (*drawn.obstacles, *drawn.objects):
        free &= np.hypot(xs[:, None] - body.x, ys[None, :] - body.y) > body.radius + margin
    return free
