"""Which transitions a batch is made of: those that the critic is most wrong about come more often.

Proportional prioritised replay (Schaul et al. 2016), over the policy's own transitions and demonstrations apart, so
that each kind keeps its share of a batch:

    P(i) = p_i / sum_j p_j        p_i = (|error_i| + 0.001)^exponent
    w_i  = (N P(i))^-importance / max_k w_k        k over the batch
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from llmagent_ros.errors import ModelError
from llmagent_ros.learning.rl.sampling import BoolArray, IntArray, shown_count
from llmagent_ros.types import RealArray

_LEAST = 1e-3  # of an error, in units of return: nothing is never drawn again
_SMALLEST = 1 << 10  # leaves


class SumTree:
    """Weights that are drawn from, and changed, in O(log N) each; 8 to 16 bytes a weight.

    Attributes:
        members: how many weights are above 0.
    """

    def __init__(self) -> None:
        self._nodes = np.zeros(2 * _SMALLEST, np.float32)  # the root is 1, the children of n are 2n and 2n + 1
        self._count = 0
        self.members = 0

    def __len__(self) -> int:
        return self._count

    @property
    def _leaves(self) -> int:
        return len(self._nodes) // 2

    @property
    def values(self) -> RealArray:
        """The weights, float32, (N,)."""
        return self._nodes[self._leaves : self._leaves + self._count]

    @property
    def total(self) -> float:
        return float(self._nodes[1])

    def extend(self, values: RealArray) -> None:
        """Appends weights, from 0 on; what has 0 is never drawn, and keeps it."""
        self.members += int((values > 0.0).sum())
        before, count = self._count, self._count + len(values)
        if count > self._leaves:
            values, before = np.concatenate([self.values, values]), 0
            self._nodes = np.zeros(2 << (count - 1).bit_length(), np.float32)
        self._count = count
        self.set(np.arange(before, count), values)

    def set(self, numbers: IntArray, values: RealArray) -> None:
        """Changes some weights; of one that is named twice the last counts."""
        nodes = self._leaves + numbers
        self._nodes[nodes] = values
        while len(nodes) and nodes[0] > 1:
            nodes = np.unique(nodes // 2)
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def draw(self, uniforms: RealArray) -> IntArray:
        """Numbers, (B,), each with the probability weight / total, for B draws from [0, 1)."""
        rest = uniforms * self.total
        nodes = np.ones(len(uniforms), np.int64)
        for _ in range(self._leaves.bit_length() - 1):
            left, right = self._nodes[2 * nodes], self._nodes[2 * nodes + 1]
            turns_right = (rest >= left) & (right > 0.0)  # rounding must not lead to where nothing is
            rest = np.where(turns_right, rest - left, rest)
            nodes = 2 * nodes + turns_right
        return nodes - self._leaves


class PrioritisedSampler:
    """Draws positions of a replay for the critic, and is told how wrong it was there. What is new comes soon.

    Args:
        demonstrations: of the transitions from a position on, in their order, whether each is a demonstration.
        exponent: 0 draws uniformly. importance: how far weights make up for what is drawn more often; 1: wholly.
    """

    def __init__(self, demonstrations: Callable[[int], BoolArray], exponent: float, importance: float) -> None:
        self._demonstrations, self._exponent, self._importance = demonstrations, exponent, importance
        self._own, self._shown = SumTree(), SumTree()  # by position; the weight of what is not of that kind is 0
        self._greatest = 1.0

    def draw(self, size: int, demo_share: float, rng: np.random.Generator) -> tuple[IntArray, RealArray]:
        """Positions, demonstrations first, and the weights of their losses, float32, each (size,).

        Raises:
            StoreError: nothing is stored.
        """
        self._extend(self._demonstrations(len(self._own)), self._greatest)
        shown = shown_count(size, demo_share, self._own.members, self._shown.members)
        drawn = [
            self._draw(tree, count, rng) for tree, count in ((self._shown, shown), (self._own, size - shown)) if count
        ]
        positions, weights = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        return positions, (weights / weights.max()).astype(np.float32)

    def _draw(self, tree: SumTree, count: int, rng: np.random.Generator) -> tuple[IntArray, RealArray]:
        positions = tree.draw(rng.random(count))
        chances = tree.values[positions].astype(np.float64) / tree.total
        return positions, (tree.members * chances) ** -self._importance

    def learn(self, positions: IntArray, errors: RealArray) -> None:
        """Takes the critic's errors, (B,), where it was just trained."""
        weights = (np.abs(errors) + _LEAST) ** self._exponent
        self._greatest = max(self._greatest, float(weights.max()))
        for tree in (self._own, self._shown):
            of_this_kind = tree.values[positions] > 0.0
            tree.set(positions[of_this_kind], weights[of_this_kind])

    def _extend(self, demonstrations: BoolArray, weights: float | RealArray) -> None:
        if len(demonstrations):
            self._own.extend(np.where(demonstrations, 0.0, weights))
            self._shown.extend(np.where(demonstrations, weights, 0.0))

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        weights = self._own.values + self._shown.values
        return {"weights": torch.from_numpy(weights), "greatest": torch.tensor(self._greatest, dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on as when `state` was called; what the replay holds more than then is new.

        Raises:
            ModelError: the replay holds less than then.
        """
        weights = state["weights"].numpy()
        demonstrations = self._demonstrations(0)[: len(weights)]
        if len(demonstrations) < len(weights):
            raise ModelError(f"priorities of {len(weights)} transitions, the replay holds {len(demonstrations)}")
        self._own, self._shown = SumTree(), SumTree()
        self._extend(demonstrations, weights)
        self._greatest = float(state["greatest"])
