"""Simulated tasks: the instruction a world gives, when it is fulfilled, and its reward."""

from __future__ import annotations

import math
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.contract import Finite, Positive
from llmagent_ros.errors import ConfigError
from llmagent_ros.simulation.variation import Variation
from llmagent_ros.types import Outcome

_STRICT = ConfigDict(extra="forbid")
ARM = "arm"  # the key `body` of a task for an arm
_FULFILLED = {"reach": "reached", "leave": "left", "face": "faced"}


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
    """Reward for fulfilling the task, for a collision, per metre (or radian) of progress towards it, and per step."""

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
        goal: what is to be done about the target: "reach" it, "leave" it, or "face" it.
        reach: m between the robot's edge and the target's surface that count as reached. away: m from which on it
            counts as left. facing: degrees from straight ahead within which it counts as faced.
        variation: how the body differs from what its contract says.
    """

    task: str
    world: str
    instructions: Annotated[tuple[Wording, ...], Field(min_length=1)]
    max_steps: Annotated[int, Field(gt=0)] = 80
    goal: Literal["reach", "leave", "face"] = "reach"
    reach: Positive = 0.35
    away: Positive = 2.5
    facing: Annotated[float, Field(gt=0, lt=180)] = 10.0
    variation: Variation = Field(default_factory=Variation)
    reward: RewardConfig = Field(default_factory=RewardConfig)


def load_task(name: str) -> TaskConfig:
    """A shipped task of a base ("navigate") or a path to a YAML file.

    Raises:
        ConfigError: unknown, unreadable, invalid, or of an arm.
    """
    if is_arm_task(name):
        raise ConfigError(f"task {name}: of an arm; valid for a base: {', '.join(shipped_tasks(arm=False))}")
    return config.load(TaskConfig, config.named_file("task", name, task_files()))


def is_arm_task(name: str) -> bool:
    """Whether a task (a shipped name, or a path to a YAML file) is of an arm.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    return bool(config.read_yaml(config.named_file("task", name, task_files())).get("body") == ARM)


def task_files() -> Path:
    """The folder of the shipped tasks, of bases and of arms (`simulation.arm.task`)."""
    return config.share_dir() / "config" / "tasks"


def shipped_tasks(*, arm: bool) -> list[str]:
    """Names of the shipped tasks of an arm, or of a base."""
    return sorted(path.stem for path in task_files().glob("*.yaml") if is_arm_task(path.stem) == arm)


def left_to_do(task: TaskConfig, gap: float, bearing: float) -> float:
    """What is left until the task is fulfilled, which it is from 0 on: m, or rad where the target is to be faced.

    Args:
        gap: m from the robot's edge to the target's surface. bearing: of its centre, rad from straight ahead.
    """
    if task.goal == "leave":
        return task.away - gap
    return gap - task.reach if task.goal == "reach" else abs(bearing) - math.radians(task.facing)


def judge(
    task: TaskConfig, *, left: float | None, previously_left: float | None, collided: bool, steps: int
) -> Outcome:
    """The outcome of one control period.

    The progress term is the potential-based shaping of Ng, Harada & Russell (1999) with potential -left and no
    discount, so it adds up to the metres gained over an episode whatever the path.

    Args:
        left, previously_left: see `left_to_do`, now and one step before; None where the world does not hold what the
            instruction names.
        steps: control periods in the episode, this one included.
    """
    reward = task.reward.step
    if left is not None and previously_left is not None:
        reward += task.reward.progress * (previously_left - left)
    if left is not None and left <= 0.0:
        return Outcome(reward + task.reward.reached, terminated=True, success=True, reason=_FULFILLED[task.goal])
    if collided:
        return Outcome(reward + task.reward.collision, terminated=True, reason="collision")
    if steps >= task.max_steps:
        return Outcome(reward, truncated=True, reason="timeout")
    return Outcome(reward)
