"""The log of changes: what happened to which skill, when, by whom and why. Written with the change, or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmagent_ros.errors import ConfigError
from llmagent_ros.knowledge.skill import Skill, check_text
from llmagent_ros.types import Lesson

MAX_DATA = 1 << 16  # characters of JSON
_FIELDS = ("description", "instructions", "contract", "attempts", "successes", "parents")


@dataclass(frozen=True)
class Cause:
    """Why a change is made.

    Attributes:
        reason: in words. actor: who makes it. Both may be empty.
        data: what else is to be kept of it; JSON values.

    Raises:
        ConfigError: a text is too long, or the data is not JSON.
    """

    reason: str = ""
    actor: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("reason", "actor"):
            if text := getattr(self, name):
                check_text(name, text)
        _to_json(self.data)


@dataclass(frozen=True)
class AuditEntry:
    """One line of the log.

    Attributes:
        id: rises with each change. time: s since the epoch. skill: its id, empty for the store as a whole.
        event: stored, updated, adapter replaced, evidence, imported, deleted, migrated or embedded anew.
        data: what changed; under "given" what the actor added.
    """

    id: int
    time: float
    skill: str
    event: str
    actor: str
    reason: str
    data: dict[str, Any]


def changes(old: Skill | None, new: Skill, first: str = "stored") -> Iterator[tuple[str, dict[str, Any]]]:
    """Events of a write, with what they are about. first: the event of a skill that was not there."""
    if old is None:
        counts = {"attempts": new.attempts, "successes": new.successes}
        yield first, {"description": new.description, **counts, "digest": new.digest, "lessons": len(new.lessons)}
        return
    changed = {name: [getattr(old, name), getattr(new, name)] for name in _FIELDS}
    yield "updated", {name: values for name, values in changed.items() if values[0] != values[1]}
    if old.digest != new.digest:
        yield "adapter replaced", {"digest": [old.digest, new.digest]}
    if old.lessons != new.lessons:
        yield "evidence", _evidence(old.lessons, new.lessons)


def _evidence(old: tuple[Lesson, ...], new: tuple[Lesson, ...]) -> dict[str, Any]:
    there = {lesson.text for lesson in new}
    told = [[lesson.text, round(lesson.support, 3), round(lesson.against, 3)] for lesson in new]
    return {"lessons": told, "dropped": [lesson.text for lesson in old if lesson.text not in there]}


def write(
    database: sqlite3.Connection, time: float, skill: str, event: str, cause: Cause, data: Mapping[str, Any]
) -> None:
    """Adds a line; the caller's transaction makes it last."""
    told = {**data, "given": dict(cause.data)} if cause.data else data
    values = (time, skill, event, cause.actor, cause.reason, json.dumps(told, ensure_ascii=False))
    database.execute("INSERT INTO audit (time, skill, event, actor, reason, data) VALUES (?, ?, ?, ?, ?, ?)", values)


def read(database: sqlite3.Connection, skill: str | None, limit: int) -> list[AuditEntry]:
    """The newest lines, newest first; of one skill, or of all."""
    condition = "" if skill is None else "WHERE skill = :skill"
    query = f"SELECT id, time, skill, event, actor, reason, data FROM audit {condition} ORDER BY id DESC LIMIT :limit"
    rows = database.execute(query, {"skill": skill, "limit": limit})
    return [
        AuditEntry(number, when, name, event, actor, reason, json.loads(data))
        for number, when, name, event, actor, reason, data in rows
    ]


def _to_json(data: Mapping[str, Any]) -> None:
    try:
        text = json.dumps(dict(data), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"data of a change: not JSON: {error}") from error
    if len(text) > MAX_DATA:
        raise ConfigError(f"data of a change: at most {MAX_DATA} characters of JSON (got {len(text)})")
