"""Where a member came from; it goes with its bundle, and so with the skill that is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llmagent_ros.errors import ConfigError, UnknownNameError

LINEAGE = "lineage"  # in a bundle's meta


@dataclass(frozen=True)
class Lineage:
    """How one member was made.

    Attributes:
        name: of the member. generation: from 0 on.
        operator: "first", "elite", "explore", "crossover", "search", "archive", "mixture", or "replacement".
        parents: names of the members it was made of; where tensors were merged, in order of the weights.
        weights: of the parents in a merge; empty where there was none.
        inherited: what it went on with of the first parent, see `genes.Heritage`; in lower case.
        changed: genes that differ from those of the first parent.
    """

    name: str
    generation: int
    operator: str
    parents: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    inherited: str = "nothing"
    changed: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.parents):
            raise ConfigError(f"lineage of {self.name}: {len(self.weights)} weights of {len(self.parents)} parents")

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"parents": list(self.parents), "weights": list(self.weights)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Lineage:
        """From `plain`.

        Raises:
            ConfigError: something is missing or unknown.
        """
        try:
            made = cls(**plain)
            return cls(**{**vars(made), "parents": tuple(made.parents), "weights": tuple(made.weights)})
        except TypeError as error:
            raise ConfigError(f"lineage: {error}") from error


def ancestors(name: str, lineages: Iterable[Lineage]) -> list[Lineage]:
    """A member and all that it came from, each once: itself, its parents, theirs …

    Raises:
        UnknownNameError: one of them is not there.
    """
    known = {each.name: each for each in lineages}
    found: dict[str, Lineage] = {}
    waiting = [name]
    while waiting:
        here = waiting.pop(0)
        if here not in known:
            raise UnknownNameError("member", here, known)
        if here not in found:
            found[here] = known[here]
            waiting += known[here].parents
    return list(found.values())
