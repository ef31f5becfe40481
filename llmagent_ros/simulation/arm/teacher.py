"""The scripted teacher of an arm: it sees the true state, which no policy does."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmagent_ros.simulation.arm.env import ArmEnv

_AXES = 3


class ArmTeacher:
    """Steps of the tip along the axes of the base.

    To reach, it goes to the thing along whichever axis it is farthest away. To push, it brings the tip behind the
    thing, above the table, lowers it, and pushes along one axis until the thing is level with its place; then along
    the other.
    """

    HIGH, LOW = 0.08, 0.048  # m above the table from which on the tip passes over things, and up to which it pushes
    BEHIND = 0.025  # m of free space behind a thing before it is pushed
    LEVEL = 0.02  # m off its place along an axis at which a thing counts as level
    ASIDE = 0.017  # m that the tip may be off the line that it pushes along: just over half a step

    def __init__(self, env: ArmEnv) -> None:
        self._simulator, self._contract = env.simulator, env.contract
        steps = np.array([[action.x, action.y, action.z] for action in env.contract.actions.values()])  # (phrases, 3)
        self._steps = steps

    def __call__(self, observation: Any) -> int:
        simulator = self._simulator
        tip, thing = simulator.tip(), simulator.position(simulator.target)
        assert thing is not None, "the instruction names nothing that is here"
        if simulator.task.goal == "reach":
            return self._towards(tip, thing)
        place = simulator.position(simulator.task.place)
        assert place is not None
        return self._push(tip, thing, place)

    def _towards(self, tip: np.ndarray, point: np.ndarray) -> int:
        """The phrase that ends nearest to a point, (3,)."""
        reached = np.array([self._contract.arm.workspace.clamp(tip + step) for step in self._steps])
        return int(np.argmin(np.linalg.norm(reached - point, axis=1)))

    def _along(self, axis: int, sign: float) -> int:
        """The phrase of the step along an axis."""
        return int(np.argmax(sign * self._steps[:, axis]))

    def _push(self, tip: np.ndarray, thing: np.ndarray, place: np.ndarray) -> int:
        away = (place - thing)[:2]
        if tip[2] <= self.LOW:
            for axis in (0, 1):
                if abs(away[axis]) > self.LEVEL and self._is_behind(tip, thing, axis, np.sign(away[axis])):
                    return self._along(axis, np.sign(away[axis]))
        axis = int(np.argmax(np.abs(away)))
        sign = float(np.sign(away[axis]))
        behind = thing[:2].copy()
        behind[axis] -= sign * (self._radius + self._tool + self.BEHIND)
        off = behind - tip[:2]
        if np.abs(off).max() > self.ASIDE:
            if tip[2] < self.HIGH:
                return self._along(2, 1.0)
            farthest = int(np.argmax(np.abs(off)))
            return self._along(farthest, float(np.sign(off[farthest])))
        if tip[2] > self.LOW:
            return self._along(2, -1.0)
        return self._along(axis, sign)

    def _is_behind(self, tip: np.ndarray, thing: np.ndarray, axis: int, sign: float) -> bool:
        """Whether the tip stands so that a step along the axis pushes the thing on."""
        away = (thing - tip)[:2]
        reach = self._radius + self._tool
        return bool(0.6 * reach < sign * away[axis] < reach + 0.05 and abs(away[1 - axis]) < 1.3 * self.ASIDE)

    @property
    def _radius(self) -> float:
        return self._contract.objects[self._simulator.target].radius

    _tool = 0.02  # m, radius of the tool of sim/urdf/arm.urdf
