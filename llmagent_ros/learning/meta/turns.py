"""Whose turn it is: which of many tasks the robot does next, so that what it cannot do yet gets most of its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TurnsBy = Literal["need", "rounds"]

_RATE = 0.2  # of the moving average of outcomes
_LEAST = 0.1  # of the weight of a task that always fails, for one that never does


class Turns:
    """The order of tasks.

    "rounds": all of them in every round, each round in an order of its own. "need": one such round, and from then on
    task i with a probability proportional to

        0.1 + 0.9 (1 - s_i)        s_i: moving average of its outcomes, 1/2 before the first, rate 0.2

    As in prioritised level replay (Jiang, Grefenstette & Rocktaeschel 2021) tasks of which there is more to be learned
    come more often, told by failures in place of temporal-difference errors.

    Args:
        tasks: how many there are. seed: of all draws; they depend on it, on the episode and on the outcomes told.
    """

    def __init__(self, tasks: int, by: TurnsBy, seed: int) -> None:
        self._by, self._seed = by, seed
        self.success: NDArray[np.float64] = np.full(tasks, 0.5)

    def next(self, episode: int) -> int:
        """The task of an episode, counted from 0."""
        rounds, place = divmod(episode, len(self.success))
        if self._by == "rounds" or not rounds:
            return int(np.random.default_rng([self._seed, rounds, 2]).permutation(len(self.success))[place])
        weights = _LEAST + (1 - _LEAST) * (1 - self.success)
        drawn = np.random.default_rng([self._seed, episode, 3]).choice(len(weights), p=weights / weights.sum())
        return int(drawn)

    def tell(self, task: int, success: bool) -> None:
        """How an episode of a task ended."""
        self.success[task] += _RATE * (success - self.success[task])

    def state(self) -> dict[str, Any]:
        """What it needs to go on exactly, as JSON."""
        return {"success": self.success.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.success[:] = state["success"]
