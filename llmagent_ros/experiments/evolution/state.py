"""Where an evolution stands between two generations, as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import StoreError
from llmagent_ros.learning.evolution.population import Member
from llmagent_ros.learning.evolution.selection import Standing

STATE = "state.json"


@dataclass(frozen=True)
class Ranked:
    """A member, how it came out of a race, and the share of its episodes that succeeded."""

    member: Member
    standing: Standing
    success: float

    def plain(self) -> dict[str, Any]:
        """For JSON; a standard error of one repetition is null."""
        standing = {key: _number(value) for key, value in dataclasses.asdict(self.standing).items()}
        return {"member": self.member.plain(), "standing": standing, "success": self.success}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Ranked:
        standing = {**plain["standing"]}
        standing["error"] = float("inf") if standing["error"] is None else standing["error"]
        standing["mean"] = float("-inf") if standing["mean"] is None else standing["mean"]
        return cls(Member.of(plain["member"]), Standing(**standing), plain["success"])


@dataclass
class State:
    """See the module.

    Attributes:
        population: to be done next, as generation `generation`. kept: of the generation before, the best first.
        answers: what the search of genes was told. env_steps: of all members' training.
        episodes, evaluation_steps: of all evaluations by which members were selected.
        failures, history: of all generations. wall_s: of all generations. final: of the last race, the best first.
    """

    population: list[Member]
    generation: int = 0
    kept: list[Ranked] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    env_steps: int = 0
    episodes: int = 0
    evaluation_steps: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    wall_s: float = 0.0
    final: list[Ranked] = field(default_factory=list)


def write_state(out: Path, state: State) -> None:
    """Whole or not at all."""
    content = {**vars(state), "population": [each.plain() for each in state.population]}
    content |= {key: [each.plain() for each in getattr(state, key)] for key in ("kept", "final")}
    write_atomic(out / STATE, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_state(out: Path) -> State | None:
    """None where nothing was finished yet.

    Raises:
        StoreError: the file is damaged.
    """
    path = out / STATE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["population"] = [Member.of(each) for each in content["population"]]
        content |= {key: [Ranked.of(each) for each in content[key]] for key in ("kept", "final")}
        return State(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged: {error}") from error


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value
