"""Which jobs a member needs, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmagent_ros.experiments.evolution.config import EvolutionConfig, merged
from llmagent_ros.experiments.evolution.workers import Job
from llmagent_ros.learning.evolution.lineage import Lineage
from llmagent_ros.learning.evolution.population import Member

MEMBERS, ARCHIVE, SCENES = "members", "archive", "scenes"


class Planner:
    """Makes jobs for the folder of an evolution. All members of a generation meet the same worlds, in learning too."""

    def __init__(self, config: EvolutionConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.tasks = config.tasks()

    def task(self, generation: int) -> int:
        """The number of the task that a generation learns."""
        return generation % len(self.tasks)

    def folder(self, name: str) -> Path:
        return self.out / MEMBERS / name

    def train(self, member: Member) -> Job:
        """Makes a member, lets it learn for a slice, and gives it its first repetitions."""
        generation, lineage = member.lineage.generation, member.lineage
        parents: list[list[Any]] = []
        if lineage.parents and self.config.breeding.inherit:
            home = ARCHIVE if lineage.operator == "archive" else MEMBERS
            weights = lineage.weights or (1.0,)
            parents = [[str(self.out / home / n), w] for n, w in zip(lineage.parents, weights, strict=False)]
        elif self.config.start:
            parents = [[self.config.start, 1.0]]
        return {
            **self._job("train", generation, member.name, range(self.config.race.block)),
            "steps": self.config.slice,
            "seed": int(np.random.default_rng([self.config.seed, generation]).integers(2**31)),
            "settings": merged(self.config.settings, member.genome.settings()),
            "parents": parents,
            "inherited": lineage.inherited,
            "lineage": lineage.plain() | {"genes": member.genome.plain()},
        }

    def evaluate(self, generation: int, name: str, repetitions: range, task: int | None = None) -> Job:
        """Further repetitions. task: of another generation than the one whose seeds they have."""
        return self._job("evaluate", generation, name, repetitions, task)

    def mixture(
        self, generation: int, lineage: Lineage, repetitions: int, *, task: int | None = None, keep: bool = False
    ) -> Job:
        """Measures a mixture of members; keep: as a member of its own."""
        pairs = zip(lineage.parents, lineage.weights, strict=True)
        return {
            **self._job("mixture", generation, lineage.name, range(repetitions), task),
            "parents": [[str(self.folder(name)), weight] for name, weight in pairs if weight > 0.0],
            "lineage": lineage.plain(),
            "keep": keep,
        }

    def _job(self, kind: str, generation: int, name: str, repetitions: Sequence[int], task: int | None = None) -> Job:
        spec = self.config.spec(generation if task is None else task)
        first = repetitions[0] if len(repetitions) else 0
        return {
            "key": f"{name}-{kind}-{first}-{len(repetitions)}",
            "kind": kind,
            "folder": str(self.folder(name)),
            "scenes": str(self.out / SCENES),
            "environment": spec.name,
            "robot": spec.robot,
            "fitness": self.config.fitness,
            "generation": generation,
            "first": first,
            "count": len(repetitions),
        }
