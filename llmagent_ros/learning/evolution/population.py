"""Members and how the next generation is made of them.

The best are kept and go on ("elite"). The others are replaced by children of the kept ones (truncation selection, the
exploit of population-based training, Jaderberg et al. 2017), each made by one operator:

    explore     a parent's tensors, its genes mutated
    crossover   the exact mean of two parents' tensors where their structures agree; each gene of either of them
    search      the best one's tensors; continuous genes drawn by CMA-ES, the others mutated
    archive     as explore, of a parent out of the archive

Whatever is drawn for a member depends on (seed, generation, place) and on who its parents may be, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.evolution.genes import Genome, Heritage, Space
from llmagent_ros.learning.evolution.lineage import Lineage
from llmagent_ros.learning.evolution.search import Search

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_REPLACEMENT = 1000  # places from here on are those of replacements


@checked_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class BreedingConfig:
    """How children are made.

    Attributes:
        explore, crossover, search, archive: how often each operator, in proportion; 0: never.
        rate, structure_rate, size: of mutations, see `Space.mutate`.
        inherit: children go on with what their parents learned (Lamarck); without, each member learns from the start
            again, and it is settings that evolve.
    """

    explore: Weight = 3.0
    crossover: Weight = 2.0
    search: Weight = 2.0
    archive: Weight = 1.0
    rate: Annotated[float, Field(ge=0, le=1)] = 0.3
    structure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    size: Annotated[float, Field(gt=0, le=1)] = 0.1
    inherit: bool = True

    def __post_init__(self) -> None:
        if not self.explore + self.crossover + self.search + self.archive:
            raise ConfigError("operators: all of them are 0; valid: at least one above 0")


@dataclass(frozen=True)
class Member:
    """One of a population. candidate: its number in the search that drew it, or None."""

    genome: Genome
    lineage: Lineage
    candidate: int | None = None

    @property
    def name(self) -> str:
        return self.lineage.name

    @property
    def heritage(self) -> Heritage:
        return Heritage[self.lineage.inherited.upper()]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"genes": self.genome.plain(), "lineage": self.lineage.plain(), "candidate": self.candidate}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Member:
        return cls(Genome(plain["genes"]), Lineage.of(plain["lineage"]), plain["candidate"])


class Breeder:
    """See the module.

    Args:
        size: of the population. keep: how many are kept of a generation.
        start: whether there is something to begin with, which has the default structure.
        most: what a child goes on with of its parent at most; less than all where tasks change between generations.
        search: of the continuous genes; None does without, as where there are none.

    Raises:
        ConfigError: a population of none, or no one, or everyone, to keep.
    """

    def __init__(
        self,
        space: Space,
        config: BreedingConfig,
        *,
        size: int,
        keep: int,
        seed: int,
        search: Search | None,
        most: Heritage = Heritage.RUN,
        start: bool = False,
    ) -> None:
        if size < 2:
            raise ConfigError(f"population {size}: nothing to select from; valid: at least 2")
        if not 1 <= keep < size:
            raise ConfigError(f"keep {keep} of a population of {size}; valid: 1 to {size - 1}")
        self.space, self.config, self.size, self.keep = space, config, size, keep
        self._seed, self._search = seed, search
        self._most, self._start = most, start

    def first(self) -> list[Member]:
        """The first generation: the defaults, and genomes that are drawn; all of them from the start.

        Every second one has the structure of the defaults, so that there are some that can be crossed.
        """
        members, default = [], self.space.default
        structure = {n: default[n] for n, gene in self.space.genes.items() if gene.heritage is not Heritage.RUN}
        for place in range(self.size):
            drawn = self.space.sample(self._rng(0, place))
            genome = default if place == 0 else Genome({**drawn, **structure}) if place % 2 else drawn
            members.append(self._member(0, place, "first", genome, changed_from=self.space.default))
        return members

    def next(self, generation: int, kept: Sequence[Member], archived: Sequence[Member] = ()) -> list[Member]:
        """The generation after one of which `kept` were selected, the best first; as many as the population has.

        Args:
            generation: the number of the new one. archived: those that the archive holds.

        Raises:
            ConfigError: nobody was kept.
        """
        if not kept:
            raise ConfigError(f"generation {generation}: no parents")
        members = [
            self._member(generation, place, "elite", parent.genome, [parent])
            for place, parent in enumerate(kept[: self.keep])
        ]
        for place in range(len(members), self.size):
            members.append(self._child(generation, place, kept[: self.keep], archived))
        return members

    def replacement(self, failed: Member, attempt: int, kept: Sequence[Member]) -> Member:
        """In place of a member that failed: a mutated child of one that was kept, or of the defaults.

        Args:
            attempt: from 1 on.
        """
        generation, place = failed.lineage.generation, int(failed.name.split("-")[1][1:])
        rng = self._rng(generation, place + _REPLACEMENT * attempt)
        parents = [kept[int(rng.integers(len(kept)))]] if kept else []
        genome = self._mutated(parents[0].genome if parents else self.space.default, rng)
        made = self._member(
            generation, place, "replacement", genome, parents, changed_from=None if parents else self.space.default
        )
        return replace(made, lineage=replace(made.lineage, name=f"{failed.name.partition('-r')[0]}-r{attempt}"))

    # --- inside -------------------------------------------------------------------------------------------

    def _child(self, generation: int, place: int, kept: Sequence[Member], archived: Sequence[Member]) -> Member:
        rng = self._rng(generation, place)
        parent = kept[int(rng.integers(len(kept)))]
        mates = [each for each in kept if each.name != parent.name and self._agree(each, parent)]
        candidate = None
        operator = self._operator(rng, mates=bool(mates), archived=bool(archived))
        if operator == "search" and self._search is not None:
            candidate = self._search.ask()
            operator = operator if candidate is not None else "explore"  # its batch is asked for, and not yet answered
        if operator == "crossover":
            mate = mates[int(rng.integers(len(mates)))]
            share = float(rng.uniform(0.5, 0.8))  # of the first one, with whose replay the child goes on
            genome = self.space.cross(parent.genome, mate.genome, rng)
            return self._member(generation, place, operator, genome, [parent, mate], (share, 1.0 - share))
        if candidate is not None:
            parent, (number, point) = kept[0], candidate
            others = self._mutated(parent.genome, rng)
            genome = self.space.from_unit(point, others)
            made = self._member(generation, place, operator, genome, [parent])
            return replace(made, candidate=number)
        most = Heritage.RUN
        if operator == "archive":
            parent, most = archived[int(rng.integers(len(archived)))], Heritage.BUNDLE  # no more is kept there
        return self._member(generation, place, operator, self._mutated(parent.genome, rng), [parent], most=most)

    def _operator(self, rng: np.random.Generator, *, mates: bool, archived: bool) -> str:
        """One that is possible here; "explore" always is."""
        c = self.config
        weights = {
            "explore": c.explore,
            "crossover": c.crossover * mates,
            "search": c.search * (self._search is not None),
            "archive": c.archive * archived,
        }
        total = sum(weights.values())
        if not total:
            return "explore"
        return str(rng.choice(list(weights), p=[each / total for each in weights.values()]))

    def _agree(self, one: Member, other: Member) -> bool:
        """Whether their tensors have an exact mean: everything but hyperparameters is the same."""
        return self.space.heritage(one.genome, other.genome) is Heritage.RUN

    def _mutated(self, genome: Genome, rng: np.random.Generator) -> Genome:
        c = self.config
        return self.space.mutate(genome, rng, rate=c.rate, structure_rate=c.structure_rate, size=c.size)

    def _member(
        self,
        generation: int,
        place: int,
        operator: str,
        genome: Genome,
        parents: Sequence[Member] = (),
        weights: tuple[float, ...] = (),
        changed_from: Genome | None = None,
        most: Heritage = Heritage.RUN,
    ) -> Member:
        self.space.check(genome)
        if parents and self.config.inherit:
            inherited = min(self.space.heritage(genome, parents[0].genome), most, self._most)
        elif self._start:
            inherited = min(self.space.heritage(genome, self.space.default), Heritage.BUNDLE)
        else:
            inherited = Heritage.NOTHING
        changed_from = parents[0].genome if parents else changed_from
        lineage = Lineage(
            name=f"g{generation:03d}-m{place:02d}",
            generation=generation,
            operator=operator,
            parents=tuple(parent.name for parent in parents),
            weights=weights if self.config.inherit and inherited >= Heritage.BUNDLE else (),
            inherited=inherited.name.lower(),
            changed=Genome(genome.difference(changed_from or {})).plain(),
        )
        return Member(genome, lineage)

    def _rng(self, generation: int, place: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, generation, place])
