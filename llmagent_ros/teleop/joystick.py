"""Axes and buttons to commands, while a dead-man button is held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
        arm_axes: of an arm, the axis for each pair of opposite phrases: along x, y, z, then the others in the order of
            the contract (default: left stick, right stick up and down, right stick left and right, cross).
        arm: full deflection as a share of a phrase's speed, which is its step in a control period; negative as above.
        dead_zone: deflections up to it are none; what is beyond is stretched to the whole range.
        timeout: s after the last message at which the dead-man counts as released.
    """

    dead_man: Index = 4
    e_stop: Index = 1
    linear_axis: Index = 1
    angular_axis: Index = 3
    linear: Factor = 1.0
    angular: Factor = 1.0
    arm_axes: Annotated[tuple[Index, ...], Field(min_length=1, max_length=32)] = (1, 0, 4, 3, 7, 6)
    arm: Factor = 1.0
    dead_zone: Annotated[float, Field(ge=0, lt=1)] = 0.1
    timeout: Annotated[float, Field(gt=0, le=2)] = 0.5


class DeadMan:
    """A joystick whose axes count while a button is held. Times are s of one monotonic clock.

    Args:
        axes: numbers of those that are used, by what they are called.
    """

    def __init__(self, config: JoystickConfig, axes: Mapping[str, int]) -> None:
        self.config = config
        self._axes = axes
        self._until = -math.inf
        self._e_stop_held = False

    def _take(self, axes: Sequence[float] | None) -> None:
        """Takes the axes of a message; None: the dead-man is not held."""
        raise NotImplementedError

    def on_joy(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> bool:
        """Takes a message; whether the e-stop button went down with it.

        Axes and buttons that the device does not have are not deflected and not pressed, so that a wrong number moves
        nothing. A value that is not finite stops.
        """
        pressed = _at(buttons, self.config.e_stop) > 0
        went_down, self._e_stop_held = pressed and not self._e_stop_held, pressed
        self._until = now + self.config.timeout
        self._take(axes if _at(buttons, self.config.dead_man) > 0 else None)
        return went_down

    def missing(self, axes: Sequence[float], buttons: Sequence[int]) -> list[str]:
        """The configured axes and buttons that a device with so many does not have."""
        wanted: dict[str, tuple[int, Sequence[float]]] = {
            **{name: (number, axes) for name, number in self._axes.items()},
            "dead_man": (self.config.dead_man, buttons),
            "e_stop": (self.config.e_stop, buttons),
        }
        return [f"{name} {number}" for name, (number, there) in wanted.items() if number >= len(there)]

    def deflection(self, axes: Sequence[float], number: int) -> float:
        """Of an axis, -1..1, 0 within the dead zone."""
        value = float(_at(axes, number))
        if not math.isfinite(value):
            return 0.0
        size = min(abs(value), 1.0)
        zone = self.config.dead_zone
        return math.copysign(max(0.0, size - zone) / (1.0 - zone), value)


class JoystickTeleop(DeadMan):
    """Velocities of a base by two axes, see `DeadMan`."""

    def __init__(self, limits: Limits, config: JoystickConfig | None = None) -> None:
        config = config or JoystickConfig()
        super().__init__(config, {"linear_axis": config.linear_axis, "angular_axis": config.angular_axis})
        self._limits = limits
        self._velocity: Velocity | None = None

    def _take(self, axes: Sequence[float] | None) -> None:
        self._velocity = None
        if axes is not None:
            self._velocity = Velocity(
                self.config.linear * self._limits.linear * self.deflection(axes, self.config.linear_axis),
                self.config.angular * self._limits.angular * self.deflection(axes, self.config.angular_axis),
            )

    def velocity(self, now: float) -> Velocity | None:
        """The command, None while the dead-man is not held."""
        return self._velocity if now < self._until else None


def _at(values: Sequence[float], number: int) -> float:
    return values[number] if number < len(values) else 0.0
