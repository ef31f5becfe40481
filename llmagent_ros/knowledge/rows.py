"""What the transactions of the skill store are made of: reading and writing rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence

from llmagent_ros.errors import UnknownNameError
from llmagent_ros.knowledge.schema import COLUMNS, from_row, to_blob
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import FloatArray, Lesson


def find(database: sqlite3.Connection, skill_id: str) -> Skill:
    """The skill with this id.

    Raises:
        UnknownNameError: there is none.
    """
    row = database.execute(f"SELECT row, {COLUMNS} FROM skills WHERE id = ?", (skill_id,)).fetchone()
    if row is None:
        # A store can hold a million: a few say what an id looks like.
        newest = [found for (found,) in database.execute("SELECT id FROM skills ORDER BY row DESC LIMIT 6")]
        raise UnknownNameError("skill", skill_id[:80], newest[:5] + ["…"] * (len(newest) > 5))
    return from_row(row[1:], lessons_of(database, [row[0]]).get(row[0], ()))


def lessons_of(database: sqlite3.Connection, rows: Sequence[int]) -> dict[int, tuple[Lesson, ...]]:
    """Of the skills in these rows, those that have any."""
    found: dict[int, tuple[Lesson, ...]] = {}
    query = (
        "SELECT skill, text, support, against FROM lessons "
        "WHERE skill IN (SELECT value FROM json_each(?)) ORDER BY skill, rank"
    )
    for row, *lesson in database.execute(query, (json.dumps(list(rows)),)):
        found[row] = (*found.get(row, ()), Lesson(*lesson))
    return found


def put_texts(
    database: sqlite3.Connection, row: int, texts: tuple[str, ...], vectors: FloatArray, is_new: bool
) -> tuple[dict[int, int], tuple[int, ...]]:
    """Makes these the texts of the skill in a row: (ids of new vectors with their places in `texts`, ids gone)."""
    query = "SELECT text, vector FROM texts WHERE skill = ?"
    old = {} if is_new else dict(database.execute(query, (row,)).fetchall())
    removed = tuple(vector for text, vector in old.items() if text not in texts)
    database.executemany("DELETE FROM texts WHERE vector = ?", [(vector,) for vector in removed])
    added = {}
    for position, text in enumerate(texts):
        if text not in old:
            values = (row, text, to_blob(vectors[position]))
            cursor = database.execute("INSERT INTO texts (skill, text, embedding) VALUES (?, ?, ?)", values)
            added[int(cursor.lastrowid or 0)] = position
    return added, removed


def put_lessons(database: sqlite3.Connection, row: int, lessons: tuple[Lesson, ...], vectors: FloatArray) -> None:
    """Makes these the lessons of the skill in a row, best first."""
    database.execute("DELETE FROM lessons WHERE skill = ?", (row,))
    rows = [(row, rank, one.text, one.support, one.against, to_blob(vectors[rank])) for rank, one in enumerate(lessons)]
    query = "INSERT INTO lessons (skill, rank, text, support, against, embedding) VALUES (?, ?, ?, ?, ?, ?)"
    database.executemany(query, rows)


def re_embed(
    database: sqlite3.Connection, table: str, key: str, embed: Callable[[Sequence[str]], FloatArray], batch: int
) -> None:
    """Gives every text of a table a new vector."""
    last = -1
    query = f"SELECT {key}, text FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?"
    while rows := database.execute(query, (last, batch)).fetchall():
        last = rows[-1][0]
        blobs = [to_blob(vector) for vector in embed([text for _, text in rows])]
        pairs = [(blob, row[0]) for blob, row in zip(blobs, rows, strict=True)]
        database.executemany(f"UPDATE {table} SET embedding = ? WHERE {key} = ?", pairs)


def unused(database: sqlite3.Connection, digest: str) -> str:
    """The digest, if no skill has it any more; else empty."""
    used = database.execute("SELECT 1 FROM skills WHERE digest = ? LIMIT 1", (digest,)).fetchone()
    return "" if used else digest


def add_totals(database: sqlite3.Connection, skills: int, vectors: int, attempts: int, successes: int) -> None:
    """Keeps the totals with a change."""
    query = (
        "UPDATE totals SET skills = skills + ?, vectors = vectors + ?, "
        "attempts = attempts + ?, successes = successes + ?"
    )
    database.execute(query, (skills, vectors, attempts, successes))


def count_change(database: sqlite3.Connection) -> None:
    """The generation rises with each transaction, so that an index knows what it was made from."""
    database.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
