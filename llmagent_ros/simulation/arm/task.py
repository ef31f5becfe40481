"""Tasks of a simulated arm: the instruction, when it is fulfilled, and its reward."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.contract import Finite, Positive
from llmagent_ros.errors import ConfigError
from llmagent_ros.simulation.task import is_arm_task, shipped_tasks, task_files
from llmagent_ros.types import Outcome

_STRICT = ConfigDict(extra="forbid")
_FULFILLED = {"reach": "reached", "push": "pushed"}


def _wording(text: str) -> str:
    try:
        fields = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"braces may only hold {{object}} or {{place}}: {error}") from error
    if any(field not in {("object", "", None), ("place", "", None)} for field in fields):
        raise ValueError("braces may only hold {object} or {place}; a brace itself is written twice")
    if not text.strip():
        raise ValueError("an instruction needs words")
    return text


Wording = Annotated[str, AfterValidator(_wording)]


@dataclass(config=_STRICT, frozen=True)
class ArmRewardConfig:
    """Reward for fulfilling the task, for touching the table or losing the object, and per step; progress: per metre
    that less is left to do; approach: per metre that the tip is nearer to the object."""

    reached: Finite = 1.0
    collision: Finite = -1.0
    progress: Finite = 2.0
    approach: Finite = 0.0
    step: Finite = -0.01


@dataclass(config=_STRICT, frozen=True)
class ArmTaskConfig:
    """A file of config/tasks with `body: arm`.

    Attributes:
        table: a file of sim/tables, or a path.
        instructions: wordings with `{object}` for the target's name and `{place}` for that of its place.
        max_steps: control periods until the episode is truncated.
        goal: "reach": the tip comes to the target. "push": the target comes to its place.
        place: name of the mark that is the place.
        within: m from the tip to the target's surface, or from the target's middle to its place's, that is enough.
    """

    task: str
    body: Literal["arm"]
    table: str
    instructions: Annotated[tuple[Wording, ...], Field(min_length=1)]
    max_steps: Annotated[int, Field(gt=0)] = 60
    goal: Literal["reach", "push"] = "reach"
    place: str = ""
    within: Positive = 0.03
    reward: ArmRewardConfig = Field(default_factory=ArmRewardConfig)

    @model_validator(mode="after")
    def _placed(self) -> ArmTaskConfig:
        if (self.goal == "push") != bool(self.place):
            raise ValueError("place: needed where the goal is to push, and only there")
        if not self.place and any("{place}" in wording for wording in self.instructions):
            raise ValueError("instructions: {place} stands there, and there is no place")
        return self


def load_arm_task(name: str) -> ArmTaskConfig:
    """A shipped task of an arm ("reach") or a path to a YAML file.

    Raises:
        ConfigError: unknown, unreadable, invalid, or of a base.
    """
    if not is_arm_task(name):
        raise ConfigError(f"task {name}: of a base that drives; valid for an arm: {', '.join(shipped_tasks(arm=True))}")
    return config.load(ArmTaskConfig, config.named_file("task", name, task_files()))


def judge(
    task: ArmTaskConfig, *, left: float | None, gained: tuple[float, float], collided: bool, lost: bool, steps: int
) -> Outcome:
    """The outcome of one control period.

    Both gains are differences of potentials (Ng, Harada & Russell 1999), so over an episode they add up to what was
    gained whatever the path.

    Args:
        left: m that is left until the task is fulfilled, which it is from 0 on; None where nothing is named.
        gained: m by which less is left, and by which the tip is nearer to the object, than one step before.
        collided: the arm touches the table. lost: the object is where the arm does not reach it.
        steps: control periods in the episode, this one included.
    """
    reward = task.reward.step + task.reward.progress * gained[0] + task.reward.approach * gained[1]
    if left is not None and left <= 0.0:
        return Outcome(reward + task.reward.reached, terminated=True, success=True, reason=_FULFILLED[task.goal])
    if collided or lost:
        reason = "collision" if collided else "lost"
        return Outcome(reward + task.reward.collision, terminated=True, reason=reason)
    if steps >= task.max_steps:
        return Outcome(reward, truncated=True, reason="timeout")
    return Outcome(reward)
