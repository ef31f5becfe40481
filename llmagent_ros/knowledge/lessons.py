"""Lessons with evidence: what is said again gains, what is no longer said or is contradicted goes.

Which of two sentences mean the same is asked of their embeddings, but not of these alone: "clear ahead under 0.3: not
forward" and "clear ahead under 0.3: not back" embed almost alike and say opposite things. So the specifics have to be
the same as well: numbers, negations, and words that make a difference.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from llmagent_ros.errors import ConfigError
from llmagent_ros.knowledge.skill import MAX_COUNT, MAX_TEXTS, wilson_lower_bound
from llmagent_ros.types import FloatArray, Lesson

MIN_EVIDENCE = 1.0  # less than one observation is none
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?")
# And every word in n't.
_NEGATIONS = frozenset({
    "avoid", "avoiding", "avoids", "cannot", "neither", "never", "no", "nor", "not", "refrain", "stop", "unless",
    "without",
})  # fmt: skip
_TELLING = frozenset({
    "forward", "forwards", "ahead", "front", "back", "backward", "backwards", "behind", "reverse", "left", "right",
    "up", "down", "turn", "curve", "straight", "clockwise", "counterclockwise", "under", "over", "above", "below",
    "less", "more", "least", "most", "before", "after", "near", "far", "closer", "farther", "slow", "slower",
    "slowly", "fast", "faster", "quickly", "open", "closed", "first", "last", "always", "sometimes", "seen",
    "unseen", "known", "unknown", "red", "green", "blue", "yellow", "black", "white", "orange", "purple",
})  # fmt: skip


@config_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class LessonConfig:
    """Which lessons are one, and which stay.

    Attributes:
        similarity: cosine of two lessons' embeddings from which on they may be one.
        decay: what is left of a lesson's evidence at each update of its skill, before the new is added.
        min_share: lower end of the Wilson interval of support / evidence, below which a lesson goes.
        most: lessons that a skill keeps.
    """

    similarity: Annotated[float, Field(ge=-1, le=1)] = 0.9
    decay: Annotated[float, Field(ge=0, le=1)] = 0.8
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    most: Annotated[int, Field(ge=0, le=MAX_TEXTS)] = 16


def merge(
    stored: Sequence[Lesson],
    stored_vectors: FloatArray,
    new: Sequence[Lesson],
    new_vectors: FloatArray,
    config: LessonConfig,
    vocabulary: Collection[str] = (),
) -> tuple[list[Lesson], FloatArray]:
    """What a skill knows after new evidence.

        support' = decay · support + Σ support of the new ones that say the same;   against likewise

    A lesson keeps the wording it was stored with. It goes when the lower end of the Wilson interval of
    support' / evidence' is below `min_share`, or evidence' below MIN_EVIDENCE.

    Args:
        stored_vectors, new_vectors: of the lessons' texts, unit norm, shape (lessons, d).
        vocabulary: words or phrases that make a difference, such as a robot's action phrases and objects.

    Returns:
        Lessons, best first by the Wilson bound, at most `most`; and their vectors, shape (lessons, d).

    Raises:
        ConfigError: as many vectors are needed as lessons.
    """
    if len(stored) != len(stored_vectors) or len(new) != len(new_vectors):
        raise ConfigError("lessons: need a vector for each")
    vectors = np.concatenate([stored_vectors, new_vectors])  # (stored + new, d)
    kept: list[_Kept] = []
    for row, lesson in enumerate(stored):
        left = replace(lesson, support=lesson.support * config.decay, against=lesson.against * config.decay)
        kept.append(_Kept(left, row, specifics(lesson.text, vocabulary)))
    for row, lesson in enumerate(new, start=len(stored)):
        one = _Kept(lesson, row, specifics(lesson.text, vocabulary))
        same = _same(one, kept, vectors, config.similarity)
        if same is None:
            kept.append(one)
        else:
            kept[same] = replace(kept[same], lesson=_added(kept[same].lesson, lesson))
    stay = [one for one in kept if one.lesson.evidence >= MIN_EVIDENCE and one.bound >= config.min_share]
    best = sorted(stay, key=lambda one: (-one.bound, -one.lesson.evidence, one.row))[: config.most]
    return [one.lesson for one in best], vectors[np.array([one.row for one in best], np.int64)]


@dataclass(frozen=True)
class _Kept:
    """A lesson, the row of its vector, and its specifics."""

    lesson: Lesson
    row: int
    says: tuple[object, ...]

    @property
    def bound(self) -> float:
        return wilson_lower_bound(self.lesson.support, self.lesson.evidence)


def specifics(text: str, vocabulary: Collection[str] = ()) -> tuple[object, ...]:
    """What two lessons must have in common to be one: numbers, how often they negate, and telling words."""
    lower = text.lower().replace("’", "'")
    words = _WORD.findall(lower)
    numbers = sorted(float(number.replace("−", "-")) for number in _NUMBER.findall(lower))
    negations = sum(word in _NEGATIONS or word.endswith("n't") for word in words)
    telling = Counter(word for word in words if word in _TELLING)
    spaced = f" {_plain(lower)} "
    named = frozenset(entry for entry in map(_plain, vocabulary) if f" {entry} " in spaced)
    return tuple(numbers), negations, frozenset(telling.items()), named


def _plain(entry: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", entry.lower()))


def _same(one: _Kept, kept: Sequence[_Kept], vectors: FloatArray, similarity: float) -> int | None:
    """Which of those kept is the nearest that says the same; None if none does."""
    words = _normal(one.lesson.text)
    alike: list[tuple[float, int]] = []
    for n, other in enumerate(kept):
        if _normal(other.lesson.text) == words:
            return n
        if other.says == one.says and (cosine := float(vectors[other.row] @ vectors[one.row])) >= similarity:
            alike.append((-cosine, n))
    return min(alike)[1] if alike else None


def _normal(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def _added(lesson: Lesson, more: Lesson) -> Lesson:
    # Capped, so that what is repeated for ever stays a count that the store takes.
    support, against = lesson.support + more.support, lesson.against + more.against
    return replace(lesson, support=min(support, float(MAX_COUNT)), against=min(against, float(MAX_COUNT)))
