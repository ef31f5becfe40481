"""Successive steps of an arm."""

from __future__ import annotations

from collections.abc import Mapping

from llmagent_ros.contract.arm import ArmContract
from llmagent_ros.types import JointTarget


class Stepper:
    """Successive action phrases as joint targets; see `Arm.tolerance`."""

    def __init__(self, contract: ArmContract) -> None:
        self._contract = contract
        self._last: dict[str, float] | None = None

    def forget(self) -> None:
        """The next step begins where the joints are measured."""
        self._last = None

    def target(self, phrase: str, measured: Mapping[str, float]) -> JointTarget:
        """Where the joints (rad) are to go. See `ArmContract.target`."""
        start = {name: float(measured[name]) for name in self._contract.joints}
        tolerance = self._contract.arm.tolerance
        if self._last is not None and all(abs(self._last[n] - start[n]) <= tolerance for n in start):
            start = self._last
        target = self._contract.target(phrase, start)
        self._last = dict(zip(target.joints, target.positions, strict=True))
        return target
