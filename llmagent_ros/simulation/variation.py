"""How a simulated robot differs from what its contract says: wear, load, mistakes in the wiring, worse sensors."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import NotNegative, Positive

_Share = Annotated[float, Field(ge=0.2, le=1.5)]
_Degrees = Annotated[float, Field(ge=-180, le=180)]


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class Variation:
    """What is different about the body and what it senses. Neither perception nor policy is told.

    Attributes:
        left_wheel, right_wheel: speed of the wheel over the commanded one.
        swapped: each wheel gets what is meant for the other, so that turning goes the other way.
        reversed: both wheels turn backwards.
        length: distance between the wheels over that of the contract: it turns so much less than it reckons.
        delay: control periods until a command acts; until then the ones before it do, at first none.
        friction: of the tyres on the floor (Coulomb's coefficient; 1.0 without a variation).
        load: mass of the body over the one without.
        blind: bearings from and to which the scanner sees nothing, degrees counter-clockwise; None sees all round.
        scan_turned, camera_turned: degrees, counter-clockwise, by which the sensor was screwed on askew.
        scan_noise: standard deviation of ranges, m.
        refreshed: control periods for which a reading of scanner and camera is told again before there is a new one.
    """

    left_wheel: _Share = 1.0
    right_wheel: _Share = 1.0
    swapped: bool = False
    reversed: bool = False
    length: Annotated[float, Field(ge=0.5, le=2.0)] = 1.0
    delay: Annotated[int, Field(ge=0, le=5)] = 0
    friction: Positive = 1.0
    load: Annotated[float, Field(gt=0, le=20)] = 1.0
    blind: tuple[_Degrees, _Degrees] | None = None
    scan_turned: _Degrees = 0.0
    camera_turned: _Degrees = 0.0
    scan_noise: NotNegative = 0.0
    refreshed: Annotated[int, Field(ge=1, le=5)] = 1

    @property
    def symmetric(self) -> bool:
        """Whether what happens on one side could happen on the other the same way."""
        wheels = self.left_wheel == self.right_wheel
        return wheels and self.blind is None and not self.scan_turned and not self.camera_turned

    def wheels(self, left: float, right: float) -> tuple[float, float]:
        """What the left and the right wheel do when they are told these speeds; any unit."""
        if self.swapped:
            left, right = right, left
        sign = -1.0 if self.reversed else 1.0
        return sign * self.left_wheel * left, sign * self.right_wheel * right
