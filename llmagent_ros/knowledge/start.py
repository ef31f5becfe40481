"""Where learning a task begins: with the skill that it is, with the skills that it is like, or with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ConfigError
from llmagent_ros.knowledge.skill import Found, wilson_lower_bound


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class StartConfig:
    """How near counts as what. Similarities are cosines of sentence embeddings, -1..1.

    Attributes:
        same: from here on it is the same task in other words, and its skill is learned on.
        near: from here on a skill is worth beginning with.
        most: skills that may be merged into one beginning.
    """

    same: Annotated[float, Field(ge=-1, le=1)] = 0.92
    near: Annotated[float, Field(ge=-1, le=1)] = 0.5
    most: Annotated[int, Field(ge=1, le=16)] = 1

    def __post_init__(self) -> None:
        if self.near > self.same:
            raise ConfigError(f"near {self.near}: at most same ({self.same})")


@plain_dataclass(frozen=True)
class Start:
    """Where learning begins.

    Attributes:
        kind: "same": the one skill goes on; "near": a new skill begins with these, merged; "initial": with nothing.
        skills, weights: best first; the weights add up to 1.
        why: in words.
    """

    kind: Literal["same", "near", "initial"]
    skills: tuple[Found, ...]
    weights: tuple[float, ...]
    why: str


def choose_start(found: Sequence[Found], contract: str, config: StartConfig | None = None) -> Start:
    """Decides by similarity, and among those that are near by how well they are known to do.

    Each of the nearest weighs (similarity - near) times the lower end of its success rate's interval; one that never
    succeeded weighs nothing. Skills without a bundle have nothing to begin with.

    Args:
        found: as `Knowledge.retrieve` answers, of any contract. contract: of the robot that is to learn; only a skill
            of its own can be the same.
    """
    config = config or StartConfig()
    usable = [each for each in found if each.skill.digest]
    if usable and usable[0].similarity >= config.same and usable[0].skill.contract == contract:
        best = usable[0]
        return Start("same", (best,), (1.0,), f"the same as {_named(best)}")
    weighed = [(_weight(each, config), each) for each in usable if each.similarity >= config.near]
    chosen = sorted((pair for pair in weighed if pair[0] > 0), key=lambda pair: -pair[0])[: config.most]
    if not chosen:
        return Start("initial", (), (), _why_nothing(found, config))
    total = sum(weight for weight, _ in chosen)
    told = ", ".join(f"{weight / total:.0%} {_named(each)}" for weight, each in chosen)
    return Start("near", tuple(each for _, each in chosen), tuple(w / total for w, _ in chosen), f"begins with {told}")


def _weight(found: Found, config: StartConfig) -> float:
    known = wilson_lower_bound(found.skill.successes, found.skill.attempts)
    return (found.similarity - config.near + 1e-3) * known


def _why_nothing(found: Sequence[Found], config: StartConfig) -> str:
    if not found:
        return "begins with the initial adapter: no skill is known"
    nearest = f"the nearest is {_named(found[0])}"
    if found[0].similarity < config.near:
        return f"begins with the initial adapter: nothing is like it, {nearest}"
    return f"begins with the initial adapter: what is like it never succeeded or has no bundle, {nearest}"


def _named(found: Found) -> str:
    return f"{found.skill.description!r} (similarity {found.similarity:.2f})"
