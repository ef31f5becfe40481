"""The best mixture of several adapters and critics, found without gradients.

As LoraHub (Huang et al. 2023) composes adapters by weights that a gradient-free search finds from few examples; here by
CMA-ES, and as a mean, which is exact (`learning.merging`): with logits z in R^n,

    w = softmax(z),   B = sum_i w_i B_i,   critic: heads of each in proportion to w

A mixture adds no parameters and no time to a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.evolution.search import Search
from llmagent_ros.learning.merging import State, merge_adapters, merge_critics
from llmagent_ros.types import RealArray

_SPREAD = 1.5  # of the logits at first: from nearly alike to nearly one alone


@dataclass(frozen=True)
class Mixture:
    """weights: of each parent, not negative, with the sum 1. fitness: as it was judged; None: it failed."""

    weights: tuple[float, ...]
    fitness: float | None


Judge = Callable[[Sequence[tuple[float, ...]]], Sequence[float | None]]
"""How good mixtures of these weights are, in their order; more is better. They may be judged side by side."""


def search_mixture(parents: int, judge: Judge, *, seed: int, rounds: int = 6, batch: int = 0) -> list[Mixture]:
    """Mixtures that were tried, the best first; those that failed are the last.

    The parents by themselves and their plain mean are judged first, so that the best is never judged worse than they.

    Args:
        parents: how many there are. rounds: of CMA-ES. batch: mixtures in each; 0: CMA-ES's own number.

    Raises:
        ConfigError: no parents.
    """
    if parents < 1:
        raise ConfigError("mixture: no parents")
    first = [tuple(float(i == j) for j in range(parents)) for i in range(parents)]
    if parents > 1:
        first.append((1.0 / parents,) * parents)
    tried = [Mixture(w, f) for w, f in zip(first, judge(first), strict=True)]
    if parents > 1:
        search = Search(np.zeros(parents), seed, spread=_SPREAD, batch=batch, bounds=None)
        for _ in range(rounds):
            asked = [candidate for _ in range(search.batch) if (candidate := search.ask()) is not None]
            weights = [weights_of(point) for _, point in asked]
            for (number, _), shares, fitness in zip(asked, weights, judge(weights), strict=True):
                search.tell(number, fitness)
                tried.append(Mixture(shares, fitness))
    return sorted(tried, key=lambda each: -np.inf if each.fitness is None else each.fitness, reverse=True)


def weights_of(logits: RealArray) -> tuple[float, ...]:
    """Softmax, (n,)."""
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return tuple(float(each) for each in powers / powers.sum())


def mix(
    adapters: Sequence[State], critics: Sequence[State], weights: Sequence[float]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The adapter and the critic of a mixture.

    Args:
        critics: empty where they do not mix, such as those of other phrases; the mixture then has none.

    Raises:
        ModelError: they have no exact mean. ConfigError: weights that do not say one.
    """
    return merge_adapters(adapters, weights), merge_critics(critics, weights) if critics else {}
