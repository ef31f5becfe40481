"""Short statements about what was learned, distilled from transitions of any environment that is told in text.

A scene's quantities are its numbers with the words before them. Where a quantity lies below or above a threshold, a
phrase is compared with all phrases: how often it ended an episode with less reward than is usual, and how often more
reward followed than in the median there. What is well above the average, beyond chance, is worth a sentence:

    "clear ahead under 0.3: not forward"      it failed
    "it left over 20: curve left"             it helped
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.types import Lesson, RealArray, Transition

MIN_EVIDENCE = 3  # times that a statement has to have held
_MARGIN = 0.1  # share by which it must be above the average, beyond chance
_Z = 1.645  # one-sided 95 %
_AHEAD = 5  # steps whose rewards say what a phrase was good for
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # thresholds that are tried
_COMMON = 0.2  # share of the scenes that say a quantity
_PAIR = re.compile(r"([a-z][a-z ]*?) (-?\d+(?:\.\d+)?)(?![\d.]*\d)")
_SENTENCE = re.compile(r"\.(?!\d)")
_STATEMENT = re.compile(r"(.+) (under|over) (-?\d+(?:\.\d+)?): (not )?(.+)")

Mask = NDArray[np.bool_]


def distil_lessons(transitions: Sequence[Transition], most: int = 3, known: Sequence[str] = ()) -> list[Lesson]:
    """The lessons of some transitions, strongest first, each about another phrase or of another kind.

    A lesson's support is how often it held, against it are the other times that the phrase was done there.

    Args:
        known: statements from before. What these transitions say of them follows, also where it is little, so that
            whoever keeps them can tell what no longer holds.
    """
    if not transitions:
        return []
    seen = _Seen(transitions)
    best: dict[tuple[str, bool], tuple[float, Lesson]] = {}
    for region in seen.regions():
        for action in seen.vocabulary:
            for helps in (False, True):
                rated = seen.rate(region, action, helps=helps)
                if rated is not None and rated[0] > best.get((action, helps), (0.0,))[0]:
                    best[action, helps] = rated
    new = [lesson for _, lesson in sorted(best.values(), key=lambda each: (-each[0], each[1].text))[:most]]
    said = {lesson.text for lesson in new}
    again = (seen.evidence(text) for text in dict.fromkeys(known) if text not in said)
    return new + [lesson for lesson in again if lesson is not None]


@dataclass(frozen=True)
class _Region:
    """Where a quantity is under or over a threshold, both sides rounded as scenes say it."""

    name: str
    over: bool
    threshold: float
    inside: Mask  # (N,)

    def __str__(self) -> str:
        return f"{self.name} {'over' if self.over else 'under'} {self.threshold:g}"


class _Seen:
    """Transitions as columns.

    Attributes:
        vocabulary: phrases that were done.
    """

    def __init__(self, transitions: Sequence[Transition]) -> None:
        actions = np.array([transition.action for transition in transitions])
        self.vocabulary: list[str] = sorted(set(actions.tolist()))
        self._done: dict[str, Mask] = {action: actions == action for action in self.vocabulary}
        self._following = _following(transitions)
        below = self._following < self._following.mean()
        self._bad: Mask = np.array([each.terminated for each in transitions]) & below
        self._quantities = _quantities(transitions)

    def regions(self) -> Iterator[_Region]:
        """Both sides of every threshold of every common quantity."""
        for name, values in self._quantities.items():
            told = values[np.isfinite(values)]
            if len(told) < _COMMON * len(values):
                continue
            thresholds = dict.fromkeys(round(float(q), 1) for q in np.quantile(told, _QUANTILES))
            for threshold in thresholds:
                for over in (False, True):
                    region = self._region(name, threshold, over=over)
                    if 0 < region.inside.sum() < len(values):
                        yield region

    def rate(self, region: _Region, action: str, *, helps: bool) -> tuple[float, Lesson] | None:
        """By how much a statement is above the average beyond chance, and the lesson; None where it is not."""
        held, tried, average = self._count(region, action, helps=helps)
        if held < MIN_EVIDENCE:
            return None
        above = _at_least(held, tried) - average
        if above <= _MARGIN:
            return None
        statement = f"{region}: {'' if helps else 'not '}{action}"
        return above, Lesson(statement, float(held), float(tried - held))

    def evidence(self, text: str) -> Lesson | None:
        """What the transitions say of a statement; None where it is of another form, or nothing was seen of it."""
        match = _STATEMENT.fullmatch(text)
        if match is None or match[1] not in self._quantities or match[5] not in self._done:
            return None
        region = self._region(match[1], float(match[3]), over=match[2] == "over")
        held, tried, _ = self._count(region, match[5], helps=match[4] is None)
        return Lesson(text, float(held), float(tried - held)) if tried else None

    def _region(self, name: str, threshold: float, *, over: bool) -> _Region:
        values = self._quantities[name]
        with np.errstate(invalid="ignore"):
            inside = values > threshold if over else values < threshold
        return _Region(name, over, threshold, inside)

    def _count(self, region: _Region, action: str, *, helps: bool) -> tuple[int, int, float]:
        """How often it held, how often the phrase was done there, and the average share: of everything that was done,
        for failures; there, for what helps.
        """
        there = region.inside & self._done[action]
        if not helps:
            return int((self._bad & there).sum()), int(there.sum()), float(self._bad.mean())
        following = self._following[region.inside]
        if not len(following):
            return 0, 0, 1.0
        good = self._following > np.median(following) + 1e-9
        return int((good & there).sum()), int(there.sum()), float(good[region.inside].mean())


def _following(transitions: Sequence[Transition]) -> RealArray:
    """Sum of the rewards of each step and those after it in its episode, _AHEAD in all, (N,)."""
    sums = np.zeros(len(transitions))
    for start, first in enumerate(transitions):
        for step, each in enumerate(transitions[start : start + _AHEAD]):
            if (each.run, each.episode, each.step) != (first.run, first.episode, first.step + step):
                break
            sums[start] += each.reward
    return sums


def _quantities(transitions: Sequence[Transition]) -> dict[str, RealArray]:
    """Name of a quantity to its values, (N,), NaN where a scene does not say it."""
    found: dict[str, RealArray] = defaultdict(lambda: np.full(len(transitions), np.nan))
    for row, transition in enumerate(transitions):
        for name, value in _said(transition.scene):
            found[name][row] = value
    return dict(found)


def _said(scene: str) -> Iterator[tuple[str, float]]:
    """Quantities of a scene, without the instruction that begins it and without what was done before.

    The object of the instruction is "it". A sentence that begins with a heading ("clear ahead 2.7 left 1.0") lends it
    to all of its quantities ("clear left").
    """
    instruction, _, rest = scene.partition(". ")
    for sentence in map(str.strip, _SENTENCE.split(rest)):
        if sentence.startswith("did "):
            continue
        text = _about_it(sentence, instruction)
        heading = ""
        for number, match in enumerate(_PAIR.finditer(text)):
            name = match[1].strip()
            if number == 0 and " " in name:
                heading = name.split()[0] + " "
            yield (name if number == 0 or not heading else heading + name), float(match[2])


def _about_it(sentence: str, instruction: str) -> str:
    """The sentence with "it" for the words that it begins with and the instruction has, two at least."""
    words = sentence.split()
    for count in range(min(4, len(words)), 1, -1):
        named = " ".join(words[:count])
        if named in instruction:
            return " ".join(["it", *words[count:]])
    return sentence


def _at_least(count: int, total: int) -> float:
    """The share that `count` of `total` speaks for at least: lower end of the score interval (Wilson 1927)."""
    share, z2 = count / total, _Z**2
    spread = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return (share + z2 / (2 * total) - spread) / (1 + z2 / total)
