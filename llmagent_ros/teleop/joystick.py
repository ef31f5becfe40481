"""Axes and buttons to velocities, while a dead-man button is held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import Limits
from llmagent_ros.types import Velocity

Index = Annotated[int, Field(ge=0, le=255)]
Factor = Annotated[float, Field(ge=-1, le=1)]


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class JoystickConfig:
    """Which axis and button does what; the numbers are those of sensor_msgs/Joy (default: an Xbox pad).

    Attributes:
        dead_man, e_stop: buttons. linear_axis, angular_axis: axes, 1 is forward and left.
        linear, angular: full deflection as a share of the contract's limits; negative turns the axis round.
        dead_zone: deflections up to it are none; what is beyond is stretched to the whole range.
        timeout: s after the last message at which the dead-man counts as released.
    """

    dead_man: Index = 4
    e_stop: Index = 1
    linear_axis: Index = 1
    angular_axis: Index = 3
    linear: Factor = 1.0
    angular: Factor = 1.0
    dead_zone: Annotated[float, Field(ge=0, lt=1)] = 0.1
    timeout: Annotated[float, Field(gt=0, le=2)] = 0.5


class JoystickTeleop:
    """What the last message means at a moment. Times are s of one monotonic clock."""

    def __init__(self, limits: Limits, config: JoystickConfig | None = None) -> None:
        self.config = config or JoystickConfig()
        self._limits = limits
        self._velocity: Velocity | None = None
        self._until = -math.inf
        self._e_stop_held = False

    def on_joy(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> bool:
        """Takes a message; whether the e-stop button went down with it.

        Axes and buttons that the device does not have are not deflected and not pressed, so that a wrong number moves
        nothing. A value that is not finite stops.
        """
        pressed = _at(buttons, self.config.e_stop) > 0
        went_down, self._e_stop_held = pressed and not self._e_stop_held, pressed
        self._until = now + self.config.timeout
        if _at(buttons, self.config.dead_man) > 0:
            self._velocity = Velocity(
                self.config.linear * self._limits.linear * self._deflection(axes, self.config.linear_axis),
                self.config.angular * self._limits.angular * self._deflection(axes, self.config.angular_axis),
            )
        else:
            self._velocity = None
        return went_down

    def velocity(self, now: float) -> Velocity | None:
        """The command, None while the dead-man is not held."""
        return self._velocity if now < self._until else None

    def missing(self, axes: Sequence[float], buttons: Sequence[int]) -> list[str]:
        """The configured axes and buttons that a device with so many does not have."""
        wanted = {
            "linear_axis": (self.config.linear_axis, axes),
            "angular_axis": (self.config.angular_axis, axes),
            "dead_man": (self.config.dead_man, buttons),
            "e_stop": (self.config.e_stop, buttons),
        }
        return [f"{name} {number}" for name, (number, there) in wanted.items() if number >= len(there)]

    def _deflection(self, axes: Sequence[float], number: int) -> float:
        value = float(_at(axes, number))
        if not math.isfinite(value):
            return 0.0
        size = min(abs(value), 1.0)
        zone = self.config.dead_zone
        return math.copysign(max(0.0, size - zone) / (1.0 - zone), value)


def _at(values: Sequence[float], number: int) -> float:
    return values[number] if number < len(values) else 0.0
