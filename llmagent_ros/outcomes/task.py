"""Task files of a real robot: what tells on its topics that a task is fulfilled or has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.contract import RobotContract
from llmagent_ros.contract.values import STRICT, NotNegative
from llmagent_ros.outcomes.conditions import Condition

_OBJECT = "{object}"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class RobotTask:
    """A file of config/robot_tasks.

    Attributes:
        task: its name.
        instructions: wordings that it is about, `{object}` for the name of any object; empty: whatever is asked for.
        success: conditions that must hold at once. failure: of which one is enough.
        time_limit: s from the first decision on; 0: none; None: as the node is told.
    """

    task: Annotated[str, Field(min_length=1)]
    instructions: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    success: tuple[Condition, ...] = ()
    failure: tuple[Condition, ...] = ()
    time_limit: NotNegative | None = None

    def is_about(self, instruction: str, contract: RobotContract) -> bool:
        """Whether an instruction is one of its wordings, about whichever object."""
        asked = contract.generalised(instruction).lower()
        known = (wording.replace(_OBJECT, "object") for wording in self.instructions)
        return not self.instructions or asked in {contract.generalised(wording).lower() for wording in known}


def load_robot_task(name: str) -> RobotTask:
    """A shipped task of a real robot ("dock") or a path to a YAML file.

    Raises:
        ConfigError: unknown, unreadable or invalid.
    """
    return config.load(RobotTask, config.named_file("task of a real robot", name, robot_task_files()))


def robot_task_files() -> Path:
    """The folder of the shipped ones."""
    return config.share_dir() / "config" / "robot_tasks"
