"""Simulated tasks: the instruction a world gives, when it is fulfilled, and its reward."""

from __future__ import annotations

from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.contract import Finite, Positive
from llmagent_ros.types import Outcome

_STRICT = ConfigDict(extra="forbid")


def _wording(text: str) -> str:
    try:
        fields = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"braces may only hold {{object}}; a brace itself is written twice: {error}") from error
    if any(field != ("object", "", None) for field in fields):
        raise ValueError("braces may only hold {object}; a brace itself is written twice")
    if not text.strip():
        raise ValueError("an instruction needs words")
    return text


Wording = Annotated[str, AfterValidator(_wording)]


@dataclass(config=_STRICT, frozen=True)
class RewardConfig:
    """Reward for reaching, for a collision, per metre of progress towards the target, and per step."""

    reached: Finite = 1.0
    collision: Finite = -1.0
    progress: Finite = 0.2
    step: Finite = -0.01


@dataclass(config=_STRICT, frozen=True)
class TaskConfig:
    """A file of config/tasks.

    Attributes:
        instructions: wordings with `{object}` for the target's name; one is drawn for each episode.
        max_steps: control periods until the episode is truncated.
        reach: m between the robot's edge and the target's surface that count as reached.
    """

    task: str
    world: str
    instructions: Annotated[tuple[Wording, ...], Field(min_length=1)]
    max_steps: Annotated[int, Field(gt=0)] = 80
    reach: Positive = 0.35
    reward: RewardConfig = Field(default_factory=RewardConfig)


def load_task(name: str) -> TaskConfig:
    """A shipped task ("navigate") or a path to a YAML file."""
    return config.load(TaskConfig, config.named_file("task", name, config.share_dir() / "config" / "tasks"))


def judge(
    task: TaskConfig, *, gap: float | None, previous_gap: float | None, collided: bool, steps: int
) -> Outcome:
    """The outcome of one control period.

    The progress term is the potential-based shaping of Ng, Harada & Russell (1999) with potential -gap and no
    discount, so it adds up to the metres gained over an episode whatever the path.

    Args:
        gap, previous_gap: m from the robot's edge to the target's surface now and one step before;
            None where the world does not hold what the instruction names.
        steps: control periods in the episode, this one included.
    """
    reward = task.reward.step
    if gap is not None and previous_gap is not None:
        reward += task.reward.progress * (previous_gap - gap)
    if gap is not None and gap <= task.reach:
        return Outcome(reward + task.reward.reached, terminated=True, success=True, reason="reached")
    if collided:
        return Outcome(reward + task.reward.collision, terminated=True, reason="collision")
    if steps >= task.max_steps:
        return Outcome(reward, truncated=True, reason="timeout")
    return Outcome(reward)
