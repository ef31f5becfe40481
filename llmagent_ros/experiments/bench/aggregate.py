"""What several seeds on several tasks say together, and how sure it is (Agarwal et al. 2021).

The interquartile mean of all runs, seeds and tasks alike, leaves out the lowest and the highest quarter of them. Its
interval is of the stratified bootstrap: seeds are drawn with replacement within each task, for each method by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmagent_ros.errors import ConfigError
from llmagent_ros.types import RealArray

_DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def iqm(scores: RealArray) -> RealArray:
    """Of the last axis, (…, n) -> (…): the mean without the lowest and highest n // 4."""
    ordered = np.sort(scores, axis=-1)
    count = ordered.shape[-1]
    cut = count // 4
    return np.asarray(ordered[..., cut : count - cut].mean(axis=-1))


def mean(scores: RealArray) -> RealArray:
    """Of the last axis."""
    return np.asarray(scores.mean(axis=-1))


def difference(
    ours: RealArray, theirs: RealArray, statistic: Callable[[RealArray], RealArray] = iqm, seed: int = 0
) -> Interval:
    """By how much a statistic of one method's runs lies above that of another's, with its percentile interval.

    Args:
        ours, theirs: scores, (seeds, tasks); the number of seeds may differ.

    Raises:
        ConfigError: no scores, other tasks, or scores that are not finite.
    """
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1:] != theirs.shape[1:] or not ours.size or not theirs.size:
        raise ConfigError(f"scores: need (seeds, tasks) twice, of the same tasks (got {ours.shape}, {theirs.shape})")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ConfigError("scores: not all of them are finite")
    rng = np.random.default_rng(seed)
    drawn = statistic(_resampled(ours, rng)) - statistic(_resampled(theirs, rng))
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = statistic(ours.reshape(-1)) - statistic(theirs.reshape(-1))
    return Interval(float(value), float(low), float(high))


def _resampled(scores: RealArray, rng: np.random.Generator) -> RealArray:
    """(draws, seeds * tasks): within each task as many seeds as there are, with replacement."""
    seeds, tasks = scores.shape
    chosen = rng.integers(seeds, size=(_DRAWS, seeds, tasks))
    return np.asarray(scores[chosen, np.arange(tasks)].reshape(_DRAWS, -1))
