"""What lies on a simulated table and how it is drawn at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.contract import ArmContract, NotNegative
from llmagent_ros.contract.arm_keys import Range
from llmagent_ros.errors import ConfigError, UnknownNameError

_STRICT = ConfigDict(extra="forbid")
_ATTEMPTS = 500
FLAT = 0.01  # m; a lower object is a mark on the table: nothing can be done to it, things can be brought there
_Count = Annotated[int, Field(ge=1, le=20)]


@dataclass(config=_STRICT, frozen=True)
class TableConfig:
    """A file of sim/tables. Lengths in m, in the arm's base frame.

    Attributes:
        x, y: where objects lie. objects: how many solid ones (from, to), the target among them.
        gap: free width between any two. apart: from the target to its place, where it has one (from, to).
        spread: rad by which the joints differ from home at the start.
    """

    table: str
    x: Range
    y: Range
    objects: tuple[_Count, _Count] = (2, 3)
    gap: NotNegative = 0.05
    apart: tuple[NotNegative, NotNegative] = (0.08, 0.25)
    spread: NotNegative = 0.1


@plain_dataclass(frozen=True)
class Table:
    """One drawn table: where each named thing lies (x, y of its middle, m), the joints at the start, and the target."""

    places: Mapping[str, tuple[float, float]]
    start: Mapping[str, float]
    target: str


def load_table(name: str) -> TableConfig:
    """A shipped table ("table") or a path to a YAML file."""
    return config.load(TableConfig, config.named_file("table", name, config.share_dir() / "sim" / "tables"))


def draw_table(table: TableConfig, contract: ArmContract, place: str, rng: np.random.Generator) -> Table:
    """A random table.

    Args:
        place: name of the mark that the target is to be brought to; empty for none.

    Raises:
        ConfigError: nothing to draw, no such mark, or no room.
    """
    solid = [name for name, look in contract.objects.items() if look.height >= FLAT]
    marks = [name for name in contract.objects if name not in solid]
    if not solid:
        raise ConfigError(f"robot contract {contract.robot}: objects: none that is solid, so there is no target")
    if place and place not in marks:
        raise UnknownNameError(f"mark of robot {contract.robot}", place, marks)
    for _ in range(_ATTEMPTS):
        drawn = _draw_once(table, contract, solid, place, rng)
        if drawn is not None:
            return drawn
    raise ConfigError(f"table {table.table}: no layout in {_ATTEMPTS} draws; fewer objects or more room")


def _draw_once(
    table: TableConfig, contract: ArmContract, solid: list[str], place: str, rng: np.random.Generator
) -> Table | None:
    wanted = min(int(rng.integers(table.objects[0], table.objects[1] + 1)), len(solid))
    chosen = [solid[i] for i in rng.permutation(len(solid))[:wanted]]
    places: dict[str, tuple[float, float]] = {}
    for name in [*chosen, *([place] if place else [])]:
        spot = float(rng.uniform(*table.x)), float(rng.uniform(*table.y))
        radius = contract.objects[name].radius
        if any(
            math.dist(spot, other) < radius + contract.objects[known].radius + table.gap
            for known, other in places.items()
        ):
            return None
        places[name] = spot
    if place and not table.apart[0] <= math.dist(places[chosen[0]], places[place]) <= table.apart[1]:
        return None
    start = {}
    for name, limits in contract.limits.items():
        at = contract.arm.home[name] + float(rng.uniform(-table.spread, table.spread))
        start[name] = min(max(at, limits.lower), limits.upper)
    return Table(places, start, chosen[0])
