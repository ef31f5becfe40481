"""What a skill is, and what makes one valid."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from llmagent_ros.errors import ConfigError
from llmagent_ros.types import Lesson

MAX_TEXT = 2000  # characters of one text
MAX_TEXTS = 64  # instructions, lessons or parents of one skill
MAX_COUNT = 2**32 - 1  # attempts, as wide as in the Skill message

_CONTRACT = re.compile(r"[a-z][a-z0-9_]*")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Skill:
    """One thing the robot learned to do.

    Attributes:
        description: what it does, in language. instructions: wordings it was learned on.
        contract: name of the robot contract it was learned with.
        lessons: short statements for the prompt with their evidence, best first.
        attempts, successes: episodes.
        digest: of its bundle, empty if it has none. path: the bundle's folder in the store, None if it has none.
        created, updated: s since the epoch; the store sets them.
        parents: ids of the skills it was made from.
        id: given by the store; empty for a new one.
    """

    description: str
    instructions: tuple[str, ...] = ()
    contract: str = ""
    lessons: tuple[Lesson, ...] = ()
    attempts: int = 0
    successes: int = 0
    digest: str = ""
    path: Path | None = None
    created: float = 0.0
    updated: float = 0.0
    parents: tuple[str, ...] = ()
    id: str = ""

    @property
    def success_rate(self) -> float:
        """Share of attempts that succeeded, 0 without attempts."""
        return self.successes / self.attempts if self.attempts else 0.0

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text it can be found by, each once, the description first."""
        return tuple(dict.fromkeys((self.description, *self.instructions)))


@dataclass(frozen=True)
class Found:
    """A skill as a search answers it. similarity: cosine of its nearest text to the query, -1..1."""

    skill: Skill
    similarity: float


def check_skill(skill: Skill) -> None:
    """Refuses a skill that could not be found again or does not fit its store.

    Raises:
        ConfigError: naming the field.
    """
    check_text("description", skill.description)
    lessons = tuple(lesson.text for lesson in skill.lessons)
    for name, texts in (("instructions", skill.instructions), ("lessons", lessons), ("parents", skill.parents)):
        if len(texts) > MAX_TEXTS:
            raise ConfigError(f"skill {name}: at most {MAX_TEXTS} (got {len(texts)})")
        for text in texts:
            check_text(f"skill {name}", text)
    for lesson in skill.lessons:
        check_lesson(lesson)
    if skill.contract and not is_contract(skill.contract):
        raise ConfigError(f"skill contract: {skill.contract[:80]!r} is not a contract's name (a-z, 0-9, _)")
    if not 0 <= skill.successes <= skill.attempts <= MAX_COUNT:
        raise ConfigError(
            f"skill successes, attempts: need 0 <= successes <= attempts <= {MAX_COUNT} "
            f"(got {skill.successes}, {skill.attempts})"
        )


def is_contract(name: str) -> bool:
    """Whether it can be the name of a robot contract."""
    return _CONTRACT.fullmatch(name) is not None


def check_lesson(lesson: Lesson) -> None:
    """Refuses a lesson whose evidence is not a number of times, or none at all.

    Raises:
        ConfigError: naming its text.
    """
    counts = lesson.support, lesson.against
    if not all(0.0 <= count <= MAX_COUNT for count in counts) or lesson.evidence <= 0.0:  # also refuses NaN
        raise ConfigError(
            f"skill lessons: {lesson.text[:80]!r}: need support, against >= 0, at most {MAX_COUNT}, and evidence "
            f"(got {lesson.support}, {lesson.against})"
        )


def check_id(skill_id: str) -> None:
    """Refuses an id that a store would not give.

    Raises:
        ConfigError: naming it.
    """
    if not _ID.fullmatch(skill_id):
        raise ConfigError(f"skill id: {skill_id[:80]!r} is not an id (up to 64 of A-Z, a-z, 0-9, _, -)")


def check_text(name: str, text: str) -> None:
    """Refuses a text that is empty, too long, or cannot be written as UTF-8.

    Raises:
        ConfigError: naming it.
    """
    if not text.strip():
        raise ConfigError(f"{name}: is empty")
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{name}: at most {MAX_TEXT} characters (got {len(text)})")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{name}: contains a NUL or an unpaired surrogate")


def wilson_lower_bound(successes: float, attempts: float, z: float = 1.96) -> float:
    """The lower end of Wilson's score interval: a success rate that few attempts cannot flatter.

        p = s / n,   bound = (p + z^2/2n - z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212.

    Args:
        successes, attempts: counts; they may be weighted, and then need not be whole.
        z: standard normal quantile; 1.96 is a two-sided 95 % interval.

    Returns:
        0..1; 0 without attempts.
    """
    if not 0 <= successes <= attempts < math.inf:
        raise ConfigError(f"need 0 <= successes <= attempts (got {successes}, {attempts})")
    if attempts == 0:
        return 0.0
    share, spread = successes / attempts, z * z / attempts
    root = z * math.sqrt(share * (1.0 - share) / attempts + spread / (4.0 * attempts))
    return max(0.0, (share + spread / 2.0 - root) / (1.0 + spread))
