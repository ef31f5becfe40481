"""How a simulated body differs from what its robot contract says: wear, load, and mistakes in the wiring."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import Positive

_Share = Annotated[float, Field(ge=0.2, le=1.5)]


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class Variation:
    """What is different about the body. Neither perception nor policy is told.

    Attributes:
        left_wheel, right_wheel: speed of the wheel over the commanded one.
        swapped: each wheel gets what is meant for the other, so that turning goes the other way.
        reversed: both wheels turn backwards.
        delay: control periods until a command acts; until then the ones before it do, at first none.
        friction: of the tyres on the floor (Coulomb's coefficient; 1.0 without a variation).
        load: mass of the body over the one without.
    """

    left_wheel: _Share = 1.0
    right_wheel: _Share = 1.0
    swapped: bool = False
    reversed: bool = False
    delay: Annotated[int, Field(ge=0, le=5)] = 0
    friction: Positive = 1.0
    load: Annotated[float, Field(gt=0, le=20)] = 1.0

    @property
    def symmetric(self) -> bool:
        """Whether what happens on one side could happen on the other the same way."""
        return self.left_wheel == self.right_wheel

    def wheels(self, left: float, right: float) -> tuple[float, float]:
        """What the left and the right wheel do when they are told these speeds; any unit."""
        if self.swapped:
            left, right = right, left
        sign = -1.0 if self.reversed else 1.0
        return sign * self.left_wheel * left, sign * self.right_wheel * right
