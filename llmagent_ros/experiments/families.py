"""Families of tasks that differ in body, sensors, wording or goal: some to learn from, others kept apart.

A member is an environment by name, "FAMILY:MEMBER", wherever an environment is named.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.simulation.task import TaskConfig, load_task

_STRICT = ConfigDict(extra="forbid")
SEPARATOR = ":"


@dataclass(config=_STRICT, frozen=True)
class Change:
    """What is different in some members.

    Attributes:
        members: how many there are, each with numbers of its own; one keeps the name, more are counted from 1.
        task: of config/tasks, or a path; empty for the family's.
        instructions: wordings in place of the task's.
        variation: of the body and its sensors (`simulation.variation.Variation`).
        drawn: keys of it that each member draws from a range.
    """

    members: Annotated[int, Field(ge=1, le=100)] = 1
    task: str = ""
    instructions: tuple[str, ...] = ()
    variation: dict[str, Any] = Field(default_factory=dict)
    drawn: dict[str, tuple[float, float]] = Field(default_factory=dict)

    def draw(self, task: TaskConfig, name: str, rng: np.random.Generator) -> TaskConfig:
        """A task that differs from `task` in this, with numbers of its own.

        Raises:
            ConfigError: that is no valid task.
        """
        drawn = {key: float(rng.uniform(*bounds)) for key, bounds in self.drawn.items()}
        values: dict[str, Any] = {"task": name, "variation": {**self.variation, **drawn}}
        if self.instructions:
            values["instructions"] = self.instructions
        return config.build(TaskConfig, {**dataclasses.asdict(task), **values}, name)


@dataclass(config=_STRICT, frozen=True)
class Family:
    """A file of config/families.

    Attributes:
        task: what all members have in common.
        train, held_out: changes by name.
        mirror: whether the mirror image of each member is like another member, so that `perception.mirror` holds of
            all of them together.
    """

    family: str
    task: str
    train: Annotated[dict[str, Change], Field(min_length=1)]
    held_out: dict[str, Change] = Field(default_factory=dict)
    mirror: bool = True

    def members(self, split: str) -> dict[str, TaskConfig]:
        """Tasks by the members' names. split: "train" or "held_out".

        Raises:
            ConfigError: a change makes no valid task.
        """
        changes: Mapping[str, Change] = {"train": self.train, "held_out": self.held_out}[split]
        return {name: self._task(name, change) for name, change in _by_member(changes).items()}

    def member(self, name: str) -> TaskConfig:
        """One of either split.

        Raises:
            UnknownNameError: there is none of that name.
        """
        changes = _by_member(self.train) | _by_member(self.held_out)
        if name not in changes:
            raise UnknownNameError(f"member of the family {self.family}", name, changes)
        return self._task(name, changes[name])

    def draw(self, task: TaskConfig, rng: np.random.Generator) -> TaskConfig:
        """A task that differs from `task` in what one of the changes to learn from makes different.

        Changes are drawn as often as they have members, with numbers that no member need have.
        """
        kinds = [kind for kind, change in self.train.items() for _ in range(change.members)]
        kind = kinds[int(rng.integers(len(kinds)))]
        return self.train[kind].draw(task, f"{self.family}{SEPARATOR}{kind}", rng)

    def _task(self, name: str, change: Change) -> TaskConfig:
        origin = f"{self.family}{SEPARATOR}{name}"
        rng = np.random.default_rng(zlib.crc32(origin.encode()))
        return change.draw(load_task(change.task or self.task), origin, rng)


def load_family(name: str) -> Family:
    """A shipped family ("changes") or a path to a YAML file.

    Raises:
        ConfigError: it is wrong, or a name stands in both splits.
    """
    path = config.named_file("family", name, _folder())
    return _load(name, path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load(name: str, path: Path, changed: int) -> Family:
    """Once for each state of a file: an evaluation makes fifty environments of one member."""
    family = config.load(Family, path)
    both = set(family.members("train")) & set(family.members("held_out"))
    if both:
        raise ConfigError(f"family {name}: {', '.join(sorted(both))}: to learn from or held out, not both")
    return family


def is_member(environment: str) -> bool:
    """Whether an environment's name is that of a family's member; "module:Id" of Gymnasium has a colon, too."""
    family, found, _ = environment.partition(SEPARATOR)
    return bool(found) and (Path(family).suffix in {".yaml", ".yml"} or family in shipped_families())


def find_member(environment: str) -> tuple[Family, TaskConfig]:
    """What "FAMILY:MEMBER" names.

    Raises:
        ConfigError, UnknownNameError: see `load_family` and `Family.member`.
    """
    name, _, member = environment.partition(SEPARATOR)
    family = load_family(name)
    return family, family.member(member)


def shipped_families() -> list[str]:
    """Names of the files of config/families."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    return config.share_dir() / "config" / "families"


def _by_member(changes: Mapping[str, Change]) -> dict[str, Change]:
    return {name: change for kind, change in changes.items() for name in _names(kind, change.members)}


def _names(kind: str, members: int) -> list[str]:
    return [kind] if members == 1 else [f"{kind} {number}" for number in range(1, members + 1)]
