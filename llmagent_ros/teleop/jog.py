"""What a person wants of an arm, as joint targets a tick ahead."""

from __future__ import annotations

from collections.abc import Mapping

from llmagent_ros.contract import ArmContract
from llmagent_ros.teleop.arm import Shares
from llmagent_ros.types import JointTarget


class Jog:
    """Phrases that are kept up: the tip, or the joints, go at the speed of a phrase's step in a control period.

    A target is only as far ahead as a tick, at most as far as `ArmContract.longest_step` allows in it, so that an arm
    whose operator falls silent stops there. The next begins where the last was to end, since a moving arm is behind. It
    waits for one that is farther behind than a longest step, and begins anew where the joints are measured if they are
    as far away for another reason, or, after a rest, farther than `Arm.tolerance`.
    """

    def __init__(self, contract: ArmContract) -> None:
        self._contract = contract
        self._last: dict[str, float] | None = None
        self._moving = False

    def rest(self) -> JointTarget:
        """The target of no joint: the guard holds the arm where it was commanded to be."""
        self._moving = False
        return JointTarget()

    def target(self, shares: Shares, measured: Mapping[str, float], elapsed: float) -> JointTarget:
        """Where the joints are to be next.

        Args:
            measured: where they are, rad. elapsed: s since the last target.
        """
        if not shares:
            return self.rest()
        contract = self._contract
        periods = elapsed / contract.control_period
        actions = [(contract.actions[phrase], share * periods) for phrase, share in shares.items()]
        tip = [sum(getattr(action, axis) * part for action, part in actions) for axis in ("x", "y", "z")]
        joints = {
            name: sum(action.joints.get(name, 0.0) * part for action, part in actions) for name in contract.joints
        }
        start = self._start(measured)
        wanted = contract.stepped(start, tip, joints)
        longest = {name: contract.longest_step(name) * periods for name in contract.joints}
        fast = max(1.0, *(abs(wanted[name] - start[name]) / longest[name] for name in contract.joints))
        reached = {name: start[name] + (wanted[name] - start[name]) / fast for name in contract.joints}
        if start is self._last and not self._within(reached, measured):
            reached = start
        self._last, self._moving = reached, True
        speeds = tuple((reached[name] - start[name]) / elapsed for name in contract.joints)
        return JointTarget(contract.joints, tuple(reached.values()), elapsed, speeds)

    def _start(self, measured: Mapping[str, float]) -> dict[str, float]:
        last, tolerance = self._last, self._contract.arm.tolerance
        if last is not None and self._moving and self._within(last, measured):
            return last
        if last is not None and not self._moving and all(abs(last[n] - measured[n]) <= tolerance for n in last):
            return last
        return {name: float(measured[name]) for name in self._contract.joints}

    def _within(self, positions: Mapping[str, float], measured: Mapping[str, float]) -> bool:
        """Whether the guard would let each joint be sent there from where it is."""
        return all(abs(at - measured[name]) <= self._contract.longest_step(name) for name, at in positions.items())
