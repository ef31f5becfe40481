"""Skills, the vectors of their texts, and the log of changes in SQLite. What was acknowledged is on the disk."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmagent_ros.errors import StoreError
from llmagent_ros.knowledge import audit, rows
from llmagent_ros.knowledge.audit import AuditEntry, Cause
from llmagent_ros.knowledge.database import Database
from llmagent_ros.knowledge.index import IdArray
from llmagent_ros.knowledge.schema import COLUMNS, Filter, from_blobs, from_row, to_row
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import FloatArray, Lesson

_PUT = (
    f"INSERT INTO skills ({COLUMNS}) VALUES ({', '.join('?' * len(COLUMNS.split(', ')))}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS.split(', ')[1:])} "
    "RETURNING row"
)
_BATCH = 1000  # skills read at once


@dataclass(frozen=True)
class Entry:
    """A skill to be written.

    Attributes:
        skill: with its lessons as they are to be.
        vectors, lesson_vectors: of its texts and of its lessons, shapes (texts, d) and (lessons, d).
        digest: of its bundle; None keeps what it has.
        restored: its id must be free, and its time of creation stays.
    """

    skill: Skill
    vectors: FloatArray
    lesson_vectors: FloatArray
    digest: str | None = None
    restored: bool = False


@dataclass(frozen=True)
class Change:
    """What a write did: the skill as stored, ids of new vectors with the rows of `vectors` they are, ids gone."""

    skill: Skill
    added: dict[int, int]
    removed: tuple[int, ...]
    unused_digest: str = ""


class SkillStore:
    """One folder, one process: a second one is refused. Methods may be called from any thread.

    Raises (from any method):
        StoreError: the database is damaged, of another version, the disk is full, or the store is closed.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.database = Database(folder)
        self._clock = clock

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.database.closed

    def close(self) -> None:
        """Closes the database and lets another process in."""
        self.database.close()

    def put(self, entries: Sequence[Entry], cause: Cause) -> list[Change]:
        """Stores skills, or updates those with their ids; all of them on the disk when this returns, or none.

        Raises:
            UnknownNameError: no skill has this id. StoreError: also when an id that must be free is not.
        """
        with self.database.transaction() as database:
            changes = [self._put(database, entry, cause) for entry in entries]
            rows.count_change(database)
        return changes

    def delete(self, skill_id: str, cause: Cause) -> Change:
        """Deletes a skill.

        Raises:
            UnknownNameError: no skill has this id.
        """
        with self.database.transaction() as database:
            old = rows.find(database, skill_id)
            query = "SELECT vector FROM texts JOIN skills s ON s.row = skill WHERE s.id = ?"
            removed = tuple(vector for (vector,) in database.execute(query, (skill_id,)))
            database.execute("DELETE FROM skills WHERE id = ?", (skill_id,))
            told = {"description": old.description, "attempts": old.attempts, "successes": old.successes}
            audit.write(database, self._clock(), skill_id, "deleted", cause, {**told, "digest": old.digest})
            rows.add_totals(database, -1, -len(removed), -old.attempts, -old.successes)
            unused = rows.unused(database, old.digest)
            rows.count_change(database)
        return Change(old, {}, removed, unused)

    def get(self, skill_id: str) -> Skill:
        """The skill with this id.

        Raises:
            UnknownNameError: there is none.
        """
        with self.database.reading() as database:
            return rows.find(database, skill_id)

    def skills(self, ids: Collection[str] | None = None) -> Iterator[Skill]:
        """These skills (those that are there), or all, in the order they were stored; a batch in memory at a time."""
        chosen = "" if ids is None else "AND id IN (SELECT value FROM json_each(:ids))"
        query = f"SELECT row, {COLUMNS} FROM skills WHERE row > :last {chosen} ORDER BY row LIMIT {_BATCH}"
        values, last = {"ids": json.dumps(list(ids or ()))}, -1
        while True:
            with self.database.reading() as database:
                found = database.execute(query, {**values, "last": last}).fetchall()
                lessons = rows.lessons_of(database, [row[0] for row in found])
            if not found:
                return
            last = found[-1][0]
            yield from (from_row(row[1:], lessons.get(row[0], ())) for row in found)

    def lessons(self, skill_id: str) -> tuple[tuple[Lesson, ...], list[bytes]]:
        """The lessons of a skill, and their vectors as they are stored; none of a skill that is not there."""
        query = (
            "SELECT l.text, l.support, l.against, l.embedding FROM lessons l JOIN skills s ON s.row = l.skill "
            "WHERE s.id = ? ORDER BY rank"
        )
        with self.database.reading() as database:
            found = database.execute(query, (skill_id,)).fetchall()
        return tuple(Lesson(*row[:3]) for row in found), [row[3] for row in found]

    def owners(self, vectors: Sequence[int], passing: Filter) -> dict[int, str]:
        """Vector id to skill id, of those vectors whose skill passes."""
        chosen = "SELECT value FROM json_each(:vectors)"
        query = (
            "SELECT vector, s.id FROM texts CROSS JOIN skills s ON s.row = skill "  # CROSS: the vectors come first
            f"WHERE vector IN ({chosen}) AND {passing.condition}"
        )
        with self.database.reading() as database:
            return dict(database.execute(query, {"vectors": json.dumps(list(vectors)), **passing.values}).fetchall())

    def passing(self, passing: Filter) -> IdArray:
        """Ids of the vectors whose skill passes, shape (n,), in no order."""
        query = f"SELECT vector FROM skills s CROSS JOIN texts ON skill = s.row WHERE {passing.condition}"
        with self.database.reading() as database:
            return np.fromiter((row[0] for row in database.execute(query, passing.values)), np.int64)

    def few_pass(self, passing: Filter, limit: int) -> bool:
        """Whether at most `limit` skills pass; no more than these are looked at, in an index."""
        chosen = f"SELECT 1 FROM skills s WHERE {passing.condition} LIMIT :limit"
        with self.database.reading() as database:
            query = f"SELECT count(*) FROM ({chosen})"
            return int(database.execute(query, {**passing.values, "limit": limit + 1}).fetchone()[0]) <= limit

    def texts_of(self, ids: Collection[str]) -> dict[int, str]:
        """Vector id to skill id, of all texts of these skills."""
        query = (
            "SELECT vector, s.id FROM skills s CROSS JOIN texts ON skill = s.row "
            "WHERE s.id IN (SELECT value FROM json_each(?))"
        )
        with self.database.reading() as database:
            return dict(database.execute(query, (json.dumps(list(ids)),)).fetchall())

    def created(self, ids: Collection[str]) -> dict[str, float]:
        """When each of these skills was first stored, s since the epoch."""
        query = "SELECT id, created FROM skills WHERE id IN (SELECT value FROM json_each(?))"
        with self.database.reading() as database:
            return dict(database.execute(query, (json.dumps(list(ids)),)).fetchall())

    def vector_ids(self) -> IdArray:
        """Every vector's id, ascending, shape (n,)."""
        with self.database.reading() as database:
            return np.sort(np.fromiter((row[0] for row in database.execute("SELECT vector FROM texts")), np.int64))

    def vectors(self, after: int = -1, batch: int = 4096) -> Iterator[tuple[IdArray, FloatArray]]:
        """Vectors with ids above `after`, in batches in order of their ids: ids of shape (n,), vectors of (n, d)."""
        query = f"SELECT vector, embedding FROM texts WHERE vector > ? ORDER BY vector LIMIT {batch}"
        while True:
            with self.database.reading() as database:
                found = database.execute(query, (after,)).fetchall()
            if not found:
                return
            after = found[-1][0]
            yield np.array([row[0] for row in found], np.int64), from_blobs([row[1] for row in found])

    def re_embed(self, embedder: str, embed: Callable[[Sequence[str]], FloatArray], batch: int = 256) -> None:
        """Replaces every vector by what another embedder makes of its text; all or none."""
        with self.database.transaction() as database:
            for table, key in (("texts", "vector"), ("lessons", "rowid")):
                rows.re_embed(database, table, key, embed, batch)
            found = database.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchone()
            database.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (embedder,))
            if found is not None:
                told = {"embedder": [found[0], embedder]}
                audit.write(database, self._clock(), "", "embedded anew", Cause(), told)
            rows.count_change(database)

    def embed_lessons(self, embed: Callable[[Sequence[str]], FloatArray], batch: int = 256) -> None:
        """Gives lessons that have no vector yet (those of version 1) theirs."""
        with self.database.reading() as database:
            missing = database.execute("SELECT 1 FROM lessons WHERE embedding IS NULL LIMIT 1").fetchone()
        if missing:
            with self.database.transaction() as database:
                rows.re_embed(database, "lessons", "rowid", embed, batch)

    def audit(self, skill_id: str | None, limit: int) -> list[AuditEntry]:
        """The newest lines of the log, newest first; of one skill, or of all."""
        with self.database.reading() as database:
            return audit.read(database, skill_id, limit)

    def meta(self, key: str) -> str:
        """A value the store keeps about itself: "store", "embedder", "generation"; empty if it has none."""
        with self.database.reading() as database:
            found = database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else ""

    def totals(self) -> tuple[int, int, int, int]:
        """How many skills, vectors, attempts and successes; at once, however many there are."""
        with self.database.reading() as database:
            for table in ("skills", "texts", "lessons"):  # so that whoever asks learns when one of them is damaged
                database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
            skills, vectors, attempts, successes = database.execute(
                "SELECT skills, vectors, attempts, successes FROM totals"
            ).fetchone()
        return skills, vectors, attempts, successes

    def digests(self) -> set[str]:
        """Digests of every bundle that a skill uses."""
        with self.database.reading() as database:
            return {digest for (digest,) in database.execute("SELECT DISTINCT digest FROM skills WHERE digest > ''")}

    def problems(self) -> list[str]:
        """What is wrong with the database by itself."""
        return self.database.problems()

    def _put(self, database: sqlite3.Connection, entry: Entry, cause: Cause) -> Change:
        skill = entry.skill
        if entry.restored and database.execute("SELECT 1 FROM skills WHERE id = ?", (skill.id,)).fetchone():
            raise StoreError(f"skill {skill.id}: there is one with this id already")
        old = rows.find(database, skill.id) if skill.id and not entry.restored else None
        now = self._clock()
        digest = entry.digest if entry.digest is not None else (old.digest if old else "")
        created = old.created if old else skill.created if entry.restored else now
        identifier = skill.id or secrets.token_hex(8)
        new = replace(skill, id=identifier, digest=digest, path=None, created=created, updated=now)
        ((row,),) = database.execute(_PUT, to_row(new)).fetchall()
        added, removed = rows.put_texts(database, row, new.texts, entry.vectors, old is None)
        rows.put_lessons(database, row, new.lessons, entry.lesson_vectors)
        for event, told in audit.changes(old, new, "imported" if entry.restored else "stored"):
            audit.write(database, now, new.id, event, cause, told)
        before = (old.attempts, old.successes) if old else (0, 0)
        grown = new.attempts - before[0], new.successes - before[1]
        rows.add_totals(database, int(old is None), len(added) - len(removed), *grown)
        unused = rows.unused(database, old.digest) if old and old.digest != digest else ""
        return Change(new, added, removed, unused)
