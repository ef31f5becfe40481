"""What the contracts of all robots have."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from llmagent_ros.contract.topics import Qos, TopicSpec
from llmagent_ros.contract.values import STRICT, Finite, Hue, Phrase, Positive, Share, Topic, Words
from llmagent_ros.errors import ConfigError, UnknownNameError

OUTCOME = "llmagent_interfaces/msg/Outcome"


@dataclass(config=STRICT, frozen=True)
class ObjectAppearance:
    """How an object that has a name looks.

    Attributes:
        hue: from and to, degrees 0..360; from > to wraps through 0.
        min_saturation, min_value: 0..1, below which a pixel has no colour.
        height, radius: of the object, m: height gives the distance from its size in the image where the
            scanner does not see it; to an arm, twice the height of its middle above the table.
    """

    hue: tuple[Hue, Hue]
    min_saturation: Share = 0.5
    min_value: Share = 0.2
    height: Positive = 0.5
    radius: Positive = 0.15


@dataclass(config=STRICT, frozen=True, kw_only=True)
class RewardSources:
    """Where rewards come from. outcome_topic: of llmagent_interfaces/Outcome messages, one for each control period in
    simulation, or at the end of a task on a robot."""

    outcome_topic: Topic = "outcome"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SimulatedCamera:
    """The simulated camera. image_width, image_height: pixels. horizontal_fov: degrees."""

    image_width: Annotated[int, Field(ge=16, le=1000)] = 96
    image_height: Annotated[int, Field(ge=16, le=1000)] = 64
    horizontal_fov: Annotated[Positive, Field(le=150)] = 100.0


@dataclass(config=STRICT, frozen=True, kw_only=True)
class RobotContract(ABC):
    """One robot. See the package and docs/contract.md.

    Attributes:
        control_period: s between two decisions, 0.02 to 60. actions: the closed vocabulary, in file order.
    """

    robot: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    control_period: Annotated[Finite, Field(ge=0.02, le=60)]
    actions: Mapping[Phrase, Any]
    description: str = ""
    objects: dict[Words, ObjectAppearance] = Field(default_factory=dict)
    reward: RewardSources = Field(default_factory=RewardSources)

    @property
    @abstractmethod
    def base_frame(self) -> str:
        """The frame that commands and scenes are in."""

    @property
    @abstractmethod
    def topics(self) -> tuple[TopicSpec, ...]:
        """What is read, then the command, then the outcomes."""

    @abstractmethod
    def _effect(self, phrase: str) -> tuple[float, ...]:
        """What a phrase does, along each axis as a share of the phrase that does most along it."""

    @property
    def phrases(self) -> tuple[str, ...]:
        """The closed vocabulary, in file order."""
        return tuple(self.actions)

    def meaning(self, other: RobotContract) -> dict[str, str]:
        """Of each phrase of another contract, in its order, the phrase here that does the same on this robot.

        Speeds are compared as shares of the fastest phrase of each robot, so that a slow robot's "ahead" means a fast
        one's "forward".

        Raises:
            ConfigError: the other robot moves in another way.
        """
        if type(other) is not type(self):
            raise ConfigError(f"robots {self.robot} and {other.robot} move in different ways: no phrase means the same")
        own = {phrase: self._effect(phrase) for phrase in self.actions}
        return {
            phrase: min(own, key=lambda known: math.dist(own[known], other._effect(phrase))) for phrase in other.actions
        }

    def refusal(self, instruction: str) -> str:
        """Why the robot cannot carry out an instruction; empty when it can. A robot without objects takes any."""
        if not instruction:
            return "it is empty"
        if self.objects and not any(name.lower() in instruction.lower() for name in self.objects):
            return f"it names nothing that {self.robot} knows; valid: {', '.join(self.objects)}"
        return ""

    def generalised(self, instruction: str) -> str:
        """An instruction with "object" for the names of objects: what it asks for, whichever object it is about."""
        for name in sorted(self.objects, key=len, reverse=True):
            instruction = re.sub(re.escape(name), "object", instruction, flags=re.IGNORECASE)
        return instruction

    def _action(self, phrase: str) -> Any:
        if phrase not in self.actions:
            raise UnknownNameError("action phrase", phrase, self.actions)
        return self.actions[phrase]

    def _check_vocabulary(self) -> None:
        if len(self.actions) < 2:
            raise ValueError("actions: at least two phrases are needed to choose from")

    def _outcomes(self) -> TopicSpec:
        qos = Qos(reliability="reliable", depth=100)
        return TopicSpec("reward.outcome_topic", self.reward.outcome_topic, OUTCOME, "read", qos, required=False)
