"""Short statements about what was learned, distilled from transitions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from llmagent_ros.types import Transition

MIN_EVIDENCE = 3  # failures
_MARGIN = 0.1  # share by which an action must be worse than the average, beyond chance, to be worth a lesson
_Z = 1.645  # one-sided 95 %
_CLEARANCE = re.compile(r"\bclear ahead (\d+\.\d)")


def distil_lessons(transitions: Sequence[Transition], most: int = 3) -> list[str]:
    """Which actions ended episodes badly, and when; strongest evidence first.

    A lesson is said only after MIN_EVIDENCE bad endings, and if their share is well above that of all actions beyond
    chance: by the lower end of Wilson's interval. Its counts follow in parentheses, which a person reads and the prompt
    leaves out: "clear ahead under 0.3: not forward (failed 4 of 6)".
    """
    tried: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for transition in transitions:
        case = (transition.action, _situation(transition.scene))
        tried[case] += 1
        failed[case] += transition.terminated and transition.reward < 0
    total = sum(failed.values()) / max(sum(tried.values()), 1)
    found: list[tuple[float, str]] = []
    for (action, situation), count in tried.items():
        bad = failed[action, situation]
        share = _at_least(bad, count)
        if bad >= MIN_EVIDENCE and share > total + _MARGIN:
            found.append((share, f"{situation}: not {action} (failed {bad} of {count})"))
    return [text for _, text in sorted(found, reverse=True)[:most]]


def _at_least(count: int, total: int) -> float:
    """The share that `count` of `total` speaks for at least: lower end of the score interval (Wilson 1927)."""
    share, z2 = count / total, _Z**2
    spread = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return (share + z2 / (2 * total) - spread) / (1 + z2 / total)


def _situation(scene: str) -> str:
    """What stood in front, in words that can be counted."""
    match = _CLEARANCE.search(scene)
    if match is None:
        return "clear ahead unknown"
    metres = float(match.group(1))
    return "clear ahead " + ("under 0.3" if metres < 0.3 else "0.3 to 1.0" if metres < 1.0 else "1.0 or more")
