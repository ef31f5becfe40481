"""The tables of the skill store, and skills and vectors as their rows."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmagent_ros.errors import StoreError
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import FloatArray, Lesson

VERSION = 2
_SKILLS_AND_TEXTS = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE skills (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, description TEXT NOT NULL, instructions TEXT NOT NULL,
    contract TEXT NOT NULL, attempts INTEGER NOT NULL, successes INTEGER NOT NULL,
    digest TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, parents TEXT NOT NULL
) STRICT;
CREATE TABLE texts (  -- AUTOINCREMENT: an id is never used again, so an older index can be caught up by its ids
    vector INTEGER PRIMARY KEY AUTOINCREMENT, skill INTEGER NOT NULL REFERENCES skills (row) ON DELETE CASCADE,
    text TEXT NOT NULL, embedding BLOB NOT NULL, UNIQUE (skill, text)
) STRICT;
CREATE INDEX skills_digest ON skills (digest)"""
_SINCE_2 = """
ALTER TABLE skills ADD COLUMN rate REAL AS (CASE WHEN attempts > 0 THEN CAST(successes AS REAL) / attempts END) VIRTUAL;
CREATE INDEX skills_contract ON skills (contract, rate);
CREATE INDEX skills_rate ON skills (rate);
CREATE TABLE lessons (  -- best first by rank; embedding: NULL until it is computed
    skill INTEGER NOT NULL REFERENCES skills (row) ON DELETE CASCADE, rank INTEGER NOT NULL, text TEXT NOT NULL,
    support REAL NOT NULL, against REAL NOT NULL, embedding BLOB, UNIQUE (skill, rank)
) STRICT;
CREATE TABLE audit (  -- no reference to the skill: what happened to it outlives it
    id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, skill TEXT NOT NULL, event TEXT NOT NULL,
    actor TEXT NOT NULL, reason TEXT NOT NULL, data TEXT NOT NULL
) STRICT;
CREATE INDEX audit_skill ON audit (skill, id);
CREATE TABLE totals (  -- one row, kept with each change: counting a million skills takes too long
    one INTEGER PRIMARY KEY CHECK (one = 1), skills INTEGER NOT NULL, vectors INTEGER NOT NULL,
    attempts INTEGER NOT NULL, successes INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (1, 0, 0, 0, 0)"""
COLUMNS = "id, description, instructions, contract, attempts, successes, digest, created, updated, parents"
COUNTED = "SELECT count(*), (SELECT count(*) FROM texts), total(attempts), total(successes) FROM skills"
_COUNTS = re.compile(r"^(.*\S)\s*\(failed (\d+) of (\d+)\)\.?$", re.DOTALL)  # how version 1 ended a lesson


@dataclass(frozen=True)
class Filter:
    """Which skills count. contract: its name, empty for any. min_success_rate: 0..1, 0 for any."""

    contract: str = ""
    min_success_rate: float = 0.0

    @property
    def condition(self) -> str:
        """For WHERE, of the skills as `s`; only what is asked, or SQLite would not take its indices."""
        parts = []
        if self.contract:
            parts.append("s.contract = :contract")
        if self.min_success_rate > 0:
            parts.append("s.rate >= :rate")
        return " AND ".join(parts) or "true"

    @property
    def values(self) -> dict[str, Any]:
        return {"contract": self.contract, "rate": self.min_success_rate}


def create(database: sqlite3.Connection) -> None:
    """Makes the tables of a new store."""
    for statement in (_SKILLS_AND_TEXTS + ";\n" + _SINCE_2).split(";\n"):
        database.execute(statement)
    database.execute("INSERT INTO meta VALUES ('store', ?), ('generation', '0')", (secrets.token_hex(16),))
    database.execute(f"PRAGMA user_version = {VERSION}")


def upgrade_from_1(database: sqlite3.Connection) -> int:
    """Version 1 kept lessons as texts in the skills' rows, counted at each question, and had no log of changes.

    Returns:
        How many lessons were kept.
    """
    old = database.execute("SELECT row, lessons FROM skills").fetchall()
    database.execute("DROP INDEX skills_contract")
    database.execute("ALTER TABLE skills DROP COLUMN lessons")
    for statement in _SINCE_2.split(";\n"):
        database.execute(statement)
    rows = [
        (row, rank, lesson.text, lesson.support, lesson.against)
        for row, texts in old
        for rank, lesson in enumerate(map(_lesson_of_version_1, json.loads(texts)))
    ]
    database.executemany("INSERT INTO lessons (skill, rank, text, support, against) VALUES (?, ?, ?, ?, ?)", rows)
    count_totals(database)
    database.execute(f"PRAGMA user_version = {VERSION}")
    return len(rows)


def _lesson_of_version_1(text: str) -> Lesson:
    """Its counts stood at its end; one without any counts as seen once."""
    match = _COUNTS.match(text)
    if match is None or not 0 < int(match[3]) >= int(match[2]):
        return Lesson(text, 1.0)
    return Lesson(match[1], float(match[2]), float(int(match[3]) - int(match[2])))


def count_totals(database: sqlite3.Connection) -> None:
    """Counts everything anew."""
    counts = tuple(int(count) for count in database.execute(COUNTED).fetchone())
    database.execute("UPDATE totals SET skills = ?, vectors = ?, attempts = ?, successes = ?", counts)


def to_row(skill: Skill) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    instructions, parents = (json.dumps(list(part), ensure_ascii=False) for part in (skill.instructions, skill.parents))
    counts = skill.attempts, skill.successes
    times = skill.created, skill.updated
    return skill.id, skill.description, instructions, skill.contract, *counts, skill.digest, *times, parents


def from_row(row: tuple[Any, ...], lessons: tuple[Lesson, ...]) -> Skill:
    """The skill of the values of `COLUMNS`; its path is for who knows the folder."""
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    lists = {name: tuple(json.loads(values[name])) for name in ("instructions", "parents")}
    return Skill(**{**values, **lists, "lessons": lessons})


def to_blob(vector: FloatArray) -> bytes:
    """A vector of shape (d,) as little-endian float32."""
    return np.ascontiguousarray(vector, "<f4").tobytes()


def from_blobs(blobs: list[bytes]) -> FloatArray:
    """Vectors of shape (n, d).

    Raises:
        StoreError: they are not of one length.
    """
    sizes = {len(blob) for blob in blobs}
    if len(sizes) != 1 or sizes.pop() % 4:
        raise StoreError("the stored vectors are damaged: not of one dimension")
    return np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), -1)
