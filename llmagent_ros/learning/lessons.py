"""Short statements about what was learned, distilled from transitions."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from llmagent_ros.types import Transition

MIN_EVIDENCE = 3  # failures
_MARGIN = 0.1  # share by which an action must be worse than the average, beyond chance, to be worth a lesson
_Z = 1.645  # one-sided 95 %
_CLEARANCE = re.compile(r"\bclear ahead (\d+\.\d)")


def distil_lessons(transitions: Sequence[Transition], most: int = 3) -> list[str]:
    """Which actions ended episodes badly, and when; strongest evidence first.

    A lesson is said only after MIN_EVIDENCE bad endings, and if their share is well above that of all actions beyond
    chance: by the lower end of Wilson's interval. It carries its counts, so that a person can judge it.
    """
    tried: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for transition in transitions:
        case = (transition.action, _situation(transition.scene))
        tried[case] += 1
        failed[case] += transition.terminated and transition.reward < 0
    total = sum(failed.values()) / max(sum(tried.values()), 1)
    found: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    for (action, situation), count in tried.items():
        bad = failed[action, situation]
        share = _at_least(bad, count)
        if bad >= MIN_EVIDENCE and share > total + _MARGIN:
            text = f"{action} {situation} failed {bad} of {count} times"
            found[f"{action} {situation}"] = max(found[f"{action} {situation}"], (share, text))
    return [text for _, text in sorted(found.values(), reverse=True)[:most]]


def _at_least(count: int, total: int) -> float:
    """The share that `count` of `total` speaks for at least: lower end of the score interval (Wilson 1927)."""
    share, z2 = count / total, _Z**2
    spread = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return (share + z2 / (2 * total) - spread) / (1 + z2 / total)


def _situation(scene: str) -> str:
    """What stood in front, in words that can be counted."""
    match = _CLEARANCE.search(scene)
    if match is None:
        return "when clear ahead is unknown"
    metres = float(match.group(1))
    return f"with clear ahead below {0.3 if metres < 0.3 else 1.0 if metres < 1.0 else 5.1:.1f}"
