"""Keys to velocities. A terminal tells presses and repeats, never releases: a key counts as held for a while."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import Limits
from llmagent_ros.types import Velocity

DRIVE_HELP = "w/s forward, back   a/d left, right"
HELP = "space stop   e e-stop on/off   r reset e-stop   q quit"
STOP = " "
_LINEAR = {"w": 1.0, "s": -1.0, "up": 1.0, "down": -1.0}
_ANGULAR = {"a": 1.0, "d": -1.0, "left": 1.0, "right": -1.0}

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class KeysConfig:
    """How keys drive.

    Attributes:
        linear, angular: of the contract's limits.
        step: of an arm, of a phrase's speed, which is its step in a control period.
        hold: s for which a key counts as held after it was last heard; must outlast the pause before a key repeats. Of
            an arm at most so long.
    """

    linear: Share = 0.5
    angular: Share = 0.5
    step: Share = 1.0
    hold: Annotated[float, Field(gt=0, le=2)] = 0.6


class KeyTeleop:
    """What the keys that were heard mean at a moment. Times are s of one monotonic clock."""

    def __init__(self, limits: Limits, config: KeysConfig | None = None) -> None:
        self._config = config or KeysConfig()
        self._limits = limits
        self._linear: tuple[float, float] | None = None  # value, until when
        self._angular: tuple[float, float] | None = None
        self._stop_until: float | None = None

    def press(self, character: str, now: float) -> bool:
        """Takes a key; whether it is one that drives."""
        key, until = character.lower(), now + self._config.hold
        if key == STOP:
            self._linear = self._angular = None
            self._stop_until = until
        elif key in _LINEAR:
            self._linear = (_LINEAR[key] * self._config.linear * self._limits.linear, until)
        elif key in _ANGULAR:
            self._angular = (_ANGULAR[key] * self._config.angular * self._limits.angular, until)
        else:
            return False
        if key != STOP:
            self._stop_until = None
        return True

    def velocity(self, now: float) -> Velocity | None:
        """The command, None when no key is held."""
        linear, angular = _held(self._linear, now), _held(self._angular, now)
        if linear is None and angular is None:
            return Velocity() if self._stop_until is not None and now < self._stop_until else None
        return Velocity(linear or 0.0, angular or 0.0)


def _held(axis: tuple[float, float] | None, now: float) -> float | None:
    return axis[0] if axis is not None and now < axis[1] else None
