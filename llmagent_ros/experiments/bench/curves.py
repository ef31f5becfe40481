"""Learning curves: evaluations along the steps of a run, and what is read off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Point = Mapping[str, float]
"""One evaluation: env_steps, and the figures of `evaluation.figures`."""


def first_step(curve: Sequence[Point], key: str, threshold: float) -> float | None:
    """Steps at the first evaluation whose figure is at least the threshold; None when none is."""
    return next((point["env_steps"] for point in curve if point[key] >= threshold), None)


def held_share(curve: Sequence[Point], key: str, threshold: float, count: int) -> float | None:
    """Of the `count` evaluations after the first that reaches the threshold, the share that does too.

    None when none reaches it, or fewer follow.
    """
    first = next((number for number, point in enumerate(curve) if point[key] >= threshold), None)
    if first is None or len(curve) < first + 1 + count:
        return None
    return sum(point[key] >= threshold for point in curve[first + 1 : first + 1 + count]) / count


def is_over(curve: Sequence[Point], key: str, threshold: float, count: int) -> bool:
    """Whether `count` evaluations followed the first that reached the threshold."""
    return held_share(curve, key, threshold, count) is not None


def point(env_steps: int, figures: Mapping[str, float]) -> dict[str, Any]:
    return {"env_steps": env_steps, **figures}
