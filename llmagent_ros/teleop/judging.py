"""Keys and buttons by which a person says what they think of what the robot does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ConfigError
from llmagent_ros.teleop.joystick import JoystickConfig
from llmagent_ros.types import Judgement

HELP = "y success, n failure: the episode ends so   + good, - bad: reward"
_VERDICTS = {"y": "success", "n": "failure"}
_REWARDS = {"+": 1.0, "=": 1.0, "-": -1.0, "_": -1.0}  # with Shift and without

Button = Annotated[int, Field(ge=-1, le=255)]


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class JudgeConfig:
    """How a person judges.

    Attributes:
        reward: that one press of good gives, and one of bad takes.
        success, failure, good, bad: buttons of the joystick, numbered as in sensor_msgs/Joy (default: start, back, Y
            and X of an Xbox pad); -1: none.
    """

    reward: Annotated[float, Field(gt=0, le=100)] = 0.2
    success: Button = 7
    failure: Button = 6
    good: Button = 3
    bad: Button = 2

    @property
    def buttons(self) -> dict[str, int]:
        """Those that there are."""
        given = {"success": self.success, "failure": self.failure, "good": self.good, "bad": self.bad}
        return {name: number for name, number in given.items() if number >= 0}

    def check(self, joystick: JoystickConfig) -> None:
        """Raises ConfigError where one button means two things."""
        of: dict[int, str] = {joystick.dead_man: "joystick.dead_man", joystick.e_stop: "joystick.e_stop"}
        for name, number in self.buttons.items():
            other = of.setdefault(number, f"judge.{name}")
            if other != f"judge.{name}":
                raise ConfigError(
                    f"judge.{name}: button {number} is {other} already; valid: another one, or -1 for none"
                )


class Judge:
    """Presses to judgements; a button counts once, when it goes down. Of keys see `keyboard.Repeats`."""

    def __init__(self, config: JudgeConfig | None = None) -> None:
        self.config = config or JudgeConfig()
        self._held: set[str] = set()

    def press(self, character: str) -> Judgement | None:
        """What a key says; None for one that judges nothing."""
        key = character.lower()
        if key in _VERDICTS:
            return Judgement(_VERDICTS[key])
        return Judgement(reward=_REWARDS[key] * self.config.reward) if key in _REWARDS else None

    def on_joy(self, buttons: Sequence[int]) -> list[Judgement]:
        """Takes a message of the joystick; what the buttons that went down with it say."""
        held = {name for name, number in self.config.buttons.items() if number < len(buttons) and buttons[number] > 0}
        pressed, self._held = held - self._held, held
        said: Mapping[str, Judgement] = {
            "success": Judgement("success"),
            "failure": Judgement("failure"),
            "good": Judgement(reward=self.config.reward),
            "bad": Judgement(reward=-self.config.reward),
        }
        return [said[name] for name in said if name in pressed]

    def missing(self, buttons: Sequence[int]) -> list[str]:
        """The configured buttons that a device with so many does not have."""
        return [f"judge.{name} {number}" for name, number in self.config.buttons.items() if number >= len(buttons)]
