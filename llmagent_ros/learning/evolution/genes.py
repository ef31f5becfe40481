"""Genes: settings of a learner that evolution may change, and what a child keeps of its parent when one differs.

A gene is called as the setting that it sets ("learner.beta"). A genome gives each gene a value; it is frozen and can be
hashed. Continuous genes lie in the unit interval for search:

    linear      u = (v - low) / (high - low)
    log         u = (log v - log low) / (log high - log low)
    complement  the log scale of 1 - v, falling: a discount from 0.9 to 0.999 is a horizon 1 / (1 - v) from 10 to 1000
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.types import RealArray

Value: TypeAlias = bool | int | float | str | tuple[str, ...]


class Heritage(enum.IntEnum):
    """What a child can go on with of its parent; of several genes that differ, the least counts."""

    NOTHING = 0
    """The features are others, so that neither critic nor replay fits."""
    CRITIC = 1
    """The adapter has another shape; the critic reads features of the base alone, so it stays."""
    BUNDLE = 2
    """Adapter and critic; what is in the replay reads differently now."""
    RUN = 3
    """All of it: adapter, critic, optimisers, replay."""


@dataclass(frozen=True)
class Continuous:
    """A real number between two bounds; scale: see the module."""

    name: str
    low: float
    high: float
    scale: Literal["linear", "log", "complement"] = "linear"
    heritage: Heritage = Heritage.RUN

    def __post_init__(self) -> None:
        ends = self._warp(self.low), self._warp(self.high)
        if not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
            raise ConfigError(f"gene {self.name}: no {self.scale} scale from {self.low} to {self.high}")

    def to_unit(self, value: float) -> float:
        """Where a value lies between the bounds, in [0, 1]; one beyond them counts as the nearest bound."""
        low, high = self._warp(self.low), self._warp(self.high)
        return (self._warp(min(max(value, self.low), self.high)) - low) / (high - low)

    def from_unit(self, unit: float) -> float:
        """The value there; a number outside [0, 1] counts as the nearest end."""
        low, high = self._warp(self.low), self._warp(self.high)
        warped = low + min(max(unit, 0.0), 1.0) * (high - low)
        value = {"linear": warped, "log": math.exp(warped), "complement": 1.0 - math.exp(-warped)}[self.scale]
        return min(max(value, self.low), self.high)

    def accepts(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def sample(self, rng: np.random.Generator) -> float:
        return self.from_unit(rng.random())

    def mutate(self, value: Any, rng: np.random.Generator, size: float) -> float:
        """A Gaussian step of this size in the unit interval, reflected at its ends."""
        moved = abs(self.to_unit(value) + size * rng.standard_normal()) % 2.0
        return self.from_unit(min(moved, 2.0 - moved))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}, {self.scale}"

    def _warp(self, value: float) -> float:
        if self.scale == "linear":
            return value
        inside = value if self.scale == "log" else 1.0 - value
        if inside <= 0.0:
            return math.nan
        return math.log(inside) if self.scale == "log" else -math.log(inside)


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds, both of them possible."""

    name: str
    low: int
    high: int
    heritage: Heritage = Heritage.RUN

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ConfigError(f"gene {self.name}: nothing to choose from {self.low} to {self.high}")

    def accepts(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def sample(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high + 1))

    def mutate(self, value: Any, rng: np.random.Generator, size: float) -> int:
        """At least one up or down; further ones with a standard deviation of `size` of the range."""
        step = min(1 + int(abs(rng.standard_normal()) * size * (self.high - self.low)), self.high - self.low)
        sign = 1 if rng.random() < 0.5 else -1
        moved = int(value) + sign * step
        if not self.low <= moved <= self.high:
            moved = int(value) - sign * step
        return min(max(moved, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Choice:
    """One of several values without an order."""

    name: str
    values: tuple[Value, ...]
    heritage: Heritage = Heritage.RUN

    def __post_init__(self) -> None:
        if len(set(self.values)) < 2:
            raise ConfigError(f"gene {self.name}: needs at least two values (got {list(self.values)})")

    def accepts(self, value: object) -> bool:
        return value in self.values

    def sample(self, rng: np.random.Generator) -> Value:
        return self.values[int(rng.integers(len(self.values)))]

    def mutate(self, value: Any, rng: np.random.Generator, size: float) -> Value:
        """Another one."""
        others = [each for each in self.values if each != value]
        return others[int(rng.integers(len(others)))]

    def __str__(self) -> str:
        return ", ".join(map(show, self.values))


Gene: TypeAlias = Continuous | Integer | Choice

# Cues of which the shipped base makes as many tokens as of its own: its projection fits them.
_CUES = (" so now it is best to", " and so it is best to", " so it is now best to")
_MLP = ("gate_proj", "up_proj", "down_proj")

GENES: dict[str, Gene] = {
    gene.name: gene
    for gene in (
        Continuous("learner.beta", 0.003, 0.3, "log"),
        Continuous("learner.learning_rate", 5e-5, 5e-3, "log"),
        Continuous("learner.actor_learning_rate", 1e-4, 2e-2, "log"),
        Continuous("learner.average_rate", 1e-4, 5e-2, "log"),
        Continuous("learner.target_rate", 1e-3, 0.2, "log"),
        Continuous("learner.gamma", 0.9, 0.999, "complement"),
        Continuous("learner.pessimism", 0.0, 1.0),
        Continuous("learner.disagreement", 0.0, 3.0),
        Continuous("learner.updates_per_step", 0.5, 8.0, "log"),
        Integer("learner.n_step", 1, 10),
        Integer("learner.actor_every", 10, 100),
        Choice("model.rank", (2, 4, 8, 16, 32), Heritage.CRITIC),
        Choice("model.target_modules", ("all-linear", ("q_proj", "v_proj"), _MLP), Heritage.CRITIC),
        Integer("scene.history", 0, 8, Heritage.BUNDLE),
        Choice("prompt.cue", _CUES, Heritage.NOTHING),
        Choice("model.score", ("mean", "sum"), Heritage.BUNDLE),
        Choice("model.chat", (False, True), Heritage.NOTHING),
    )
}
"""Every gene there is, by name."""

USUAL = tuple(name for name in GENES if name not in ("prompt.cue", "model.score", "model.chat"))
"""Those that vary where nobody says which. The others change what the base reads, and ask for what it was made for."""


class Genome(Mapping[str, Value]):
    """A value for each gene, by name. Frozen; equal genomes are equal and have the same hash."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {name: _frozen(values[name]) for name in sorted(values)}

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"Genome({self._values})"

    def settings(self) -> dict[str, Any]:
        """Nested as settings are: {"learner": {"beta": 0.02}, …}; what is JSON stays JSON."""
        nested: dict[str, Any] = {}
        for name, value in self._values.items():
            *groups, last = name.split(".")
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = list(value) if isinstance(value, tuple) else value
        return nested

    def plain(self) -> dict[str, Any]:
        """For JSON; `Genome` of it is the same genome."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._values.items()}

    def difference(self, other: Mapping[str, Value]) -> dict[str, Value]:
        """The values of genes that the other lacks or has otherwise."""
        return {name: value for name, value in self._values.items() if name not in other or other[name] != value}


class Space:
    """The genes that vary, and how genomes are made of them.

    Args:
        genes: that vary. defaults: what each is where nothing was changed; it may lie beyond the gene's bounds.

    Raises:
        ConfigError: no genes, or one without a default.
    """

    def __init__(self, genes: Sequence[Gene], defaults: Mapping[str, Any]) -> None:
        if not genes:
            raise ConfigError("genes: none to vary; valid: " + ", ".join(GENES))
        self.genes = {gene.name: gene for gene in genes}
        missing = sorted(set(self.genes) - set(defaults))
        if missing:
            raise ConfigError(f"genes: no default of {', '.join(missing)}")
        self.default = Genome({name: defaults[name] for name in self.genes})
        self.continuous = tuple(name for name, gene in self.genes.items() if isinstance(gene, Continuous))

    def check(self, genome: Genome) -> None:
        """Refuses a genome of other genes, or with a value that its gene cannot have.

        Raises:
            UnknownNameError, ConfigError: that; the valid genes or values are listed.
        """
        for name in genome:
            if name not in self.genes:
                raise UnknownNameError("gene", name, self.genes)
        for name, gene in self.genes.items():
            if name not in genome:
                raise ConfigError(f"gene {name}: has no value")
            if genome[name] != self.default[name] and not gene.accepts(genome[name]):
                raise ConfigError(f"gene {name}: {show(genome[name])}; valid: {gene}")

    def sample(self, rng: np.random.Generator) -> Genome:
        """Every gene drawn by itself, uniformly on its scale."""
        return Genome({name: gene.sample(rng) for name, gene in self.genes.items()})

    def mutate(
        self,
        genome: Genome,
        rng: np.random.Generator,
        *,
        rate: float = 0.3,
        structure_rate: float = 0.1,
        size: float = 0.1,
    ) -> Genome:
        """A genome that differs in at least one gene.

        Args:
            rate: probability with which a gene changes by which a child loses nothing. structure_rate: of the others.
            size: standard deviation of a step in the unit interval.
        """
        rates = {name: rate if g.heritage is Heritage.RUN else structure_rate for name, g in self.genes.items()}
        chosen = [name for name in self.genes if rng.random() < rates[name]]
        if not chosen:
            weights = np.array([rates[name] for name in self.genes])
            total = weights.sum()
            chosen = [list(self.genes)[int(rng.choice(len(weights), p=weights / total if total else None))]]
        return Genome({**genome, **{name: self.genes[name].mutate(genome[name], rng, size) for name in chosen}})

    def cross(self, one: Genome, other: Genome, rng: np.random.Generator) -> Genome:
        """Each gene of either parent, with equal chances (uniform crossover, Syswerda 1989)."""
        return Genome({name: (one if rng.random() < 0.5 else other)[name] for name in self.genes})

    def to_unit(self, genome: Genome) -> RealArray:
        """The continuous genes, (len(continuous),), in [0, 1]."""
        return np.array([self._real(name).to_unit(float(genome[name])) for name in self.continuous])  # type: ignore[arg-type]

    def from_unit(self, point: Iterable[float], genome: Genome) -> Genome:
        """A genome with these continuous genes, and the others of `genome`."""
        values = {n: self._real(n).from_unit(float(u)) for n, u in zip(self.continuous, point, strict=True)}
        return Genome({**genome, **values})

    def heritage(self, child: Genome, parent: Mapping[str, Value]) -> Heritage:
        """What a child can go on with of a parent."""
        return min((self.genes[name].heritage for name in child.difference(parent)), default=Heritage.RUN)

    def _real(self, name: str) -> Continuous:
        gene = self.genes[name]
        assert isinstance(gene, Continuous)
        return gene


def genes_named(names: Iterable[str]) -> list[Gene]:
    """Genes by name; "usual" and "all" stand for several.

    Raises:
        UnknownNameError: there is no such gene; the valid ones are listed.
    """
    wanted: dict[str, Gene] = {}
    for name in names:
        several = {"usual": USUAL, "all": tuple(GENES)}.get(name, (name,))
        for each in several:
            if each not in GENES:
                raise UnknownNameError("gene", each, [*GENES, "usual", "all"])
            wanted[each] = GENES[each]
    return list(wanted.values())


def show(value: Value) -> str:
    """A gene's value for a person."""
    if isinstance(value, tuple):
        return "+".join(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _frozen(value: Any) -> Value:
    return tuple(value) if isinstance(value, list | tuple) else value
