"""How good and how well calibrated the probabilities of a two-class classifier are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, roc_auc_score

BINS = 10
Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class Bin:
    """Scenes whose probabilities fall into one bin. predicted: their mean. observed: share of positives among them."""

    count: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Measures:
    """Of scenes that had no part in what is measured.

    Attributes:
        scenes, positives, episodes: how many.
        brier: mean squared difference between probability and label (Brier 1950); prior: that of always saying the
            share of positives.
        ece: expected calibration error, see `calibration_error`.
        auroc: that a positive has a higher probability than a negative; None where there are not both.
        threshold: at which the rest is measured. true, false, missed: positives above it, negatives above it, positives
            below it. precision: true / (true + false), None where nothing is above. recall: true / positives.
    """

    scenes: int
    positives: int
    episodes: int
    brier: float
    prior: float
    ece: float
    auroc: float | None
    threshold: float
    true: int
    false: int
    missed: int
    precision: float | None
    recall: float | None


def measure(probabilities: Floats, labels: Labels, episodes: int, threshold: float) -> Measures:
    """See `Measures`. probabilities, labels: (N,), N at least 1."""
    positives = int(labels.sum())
    above = probabilities >= threshold
    true, false = int((above & labels).sum()), int((above & ~labels).sum())
    share = np.full(len(labels), labels.mean())
    return Measures(
        scenes=len(labels),
        positives=positives,
        episodes=episodes,
        brier=float(brier_score_loss(labels, probabilities, pos_label=True)),
        prior=float(brier_score_loss(labels, share, pos_label=True)),
        ece=calibration_error(reliability(probabilities, labels)),
        auroc=float(roc_auc_score(labels, probabilities)) if 0 < positives < len(labels) else None,
        threshold=threshold,
        true=true,
        false=false,
        missed=positives - true,
        precision=true / (true + false) if true + false else None,
        recall=true / positives if positives else None,
    )


def reliability(probabilities: Floats, labels: Labels, bins: int = BINS) -> list[Bin]:
    """The reliability diagram: bins of equal width over [0, 1], those without scenes left out."""
    numbers = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    found = []
    for number in np.unique(numbers):
        inside = numbers == number
        found.append(Bin(int(inside.sum()), float(probabilities[inside].mean()), float(labels[inside].mean())))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Σ_b n_b / N |observed_b − predicted_b| (Naeini, Cooper & Hauskrecht, AAAI 2015)."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.observed - each.predicted) for each in bins) / total


def choose_threshold(probabilities: Floats, labels: Labels, precision: float, least: int) -> tuple[float | None, float]:
    """The lowest threshold whose precision is as wished, and the best precision that any gives.

    Args:
        probabilities, labels: (N,), of scenes that the classifier was not fitted to.
        precision: wished share of positives among what is at or above the threshold.
        least: positives that must be there at least: one scene alone has a precision of 1, which says nothing.

    Returns:
        The threshold, None where there is none, and the highest precision of those with `least` positives, else 0.
    """
    order = np.argsort(-probabilities, kind="stable")
    sorted_probabilities, sorted_labels = probabilities[order], labels[order]
    true = np.cumsum(sorted_labels)
    precisions = true / np.arange(1, len(labels) + 1)
    last_of_value = np.append(sorted_probabilities[1:] != sorted_probabilities[:-1], True)
    allowed = last_of_value & (true >= least)
    best = float(precisions[allowed].max()) if allowed.any() else 0.0
    fitting = np.flatnonzero(allowed & (precisions >= precision))
    return (float(sorted_probabilities[fitting[-1]]) if len(fitting) else None), best
