"""Skills and the vectors of their texts in SQLite. What was acknowledged is on the disk."""

from __future__ import annotations

import fcntl
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmagent_ros.errors import StoreError, UnknownNameError
from llmagent_ros.knowledge.index import IdArray
from llmagent_ros.knowledge.schema import (
    COLUMNS,
    PASSES,
    SCHEMA,
    VERSION,
    Filter,
    from_blobs,
    from_row,
    to_blob,
    to_row,
)
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import FloatArray


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
        self.path = folder / "skills.sqlite"
        self._clock = clock
        self._guard = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = (folder / "lock").open("w")
        except OSError as error:
            raise StoreError(f"{folder}: cannot be opened as a store: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise StoreError(f"{folder}: another instance has this store open") from error
        self._database: sqlite3.Connection | None = None
        try:
            self._open()
        except StoreError:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._database is None

    def close(self) -> None:
        """Closes the database and lets another process in."""
        with self._guard:
            if self._database is not None:
                self._database.close()
                self._database = None
            self._lock_file.close()

    def put(self, skill: Skill, digest: str | None, vectors: FloatArray) -> Change:
        """Stores a skill, or updates the one with its id; on the disk when this returns.

        Args:
            digest: of its bundle; None keeps what it has.
            vectors: of `skill.texts`, shape (texts, d).

        Raises:
            UnknownNameError: no skill has this id.
        """
        with self._transaction() as database:
            old = self._find(database, skill.id) if skill.id else None
            now = self._clock()
            kept = digest if digest is not None else (old.digest if old else "")
            created, identifier = old.created if old else now, skill.id or secrets.token_hex(8)
            new = replace(skill, id=identifier, digest=kept, path=None, created=created, updated=now)
            marks = ", ".join("?" * 11)
            updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS.split(", ")[1:])
            database.execute(
                f"INSERT INTO skills ({COLUMNS}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}", to_row(new)
            )
            row = database.execute("SELECT row FROM skills WHERE id = ?", (new.id,)).fetchone()[0]
            added, removed = self._put_texts(database, row, new.texts, vectors)
            unused = self._unused(database, old.digest) if old and old.digest != kept else ""
            self._count_change(database)
        return Change(new, added, removed, unused)

    def delete(self, skill_id: str) -> Change:
        """Deletes a skill.

        Raises:
            UnknownNameError: no skill has this id.
        """
        with self._transaction() as database:
            old = self._find(database, skill_id)
            query = "SELECT vector FROM texts JOIN skills s ON s.row = skill WHERE s.id = ?"
            removed = tuple(vector for (vector,) in database.execute(query, (skill_id,)))
            database.execute("DELETE FROM skills WHERE id = ?", (skill_id,))
            unused = self._unused(database, old.digest)
            self._count_change(database)
        return Change(old, {}, removed, unused)

    def get(self, skill_id: str) -> Skill:
        """The skill with this id.

        Raises:
            UnknownNameError: there is none.
        """
        with self._reading() as database:
            return self._find(database, skill_id)

    def skills(self, ids: Collection[str] | None = None) -> Iterator[Skill]:
        """These skills (those that are there), or all, in the order they were stored."""
        with self._reading() as database:
            if ids is None:
                rows = database.execute(f"SELECT {COLUMNS} FROM skills ORDER BY row").fetchall()
            else:
                query = f"SELECT {COLUMNS} FROM skills WHERE id IN (SELECT value FROM json_each(?)) ORDER BY row"
                rows = database.execute(query, (json.dumps(list(ids)),)).fetchall()
        return map(from_row, rows)

    def owners(self, vectors: Sequence[int], passing: Filter) -> dict[int, str]:
        """Vector id to skill id, of those vectors whose skill passes."""
        chosen = "SELECT value FROM json_each(:vectors)"
        query = f"SELECT vector, s.id FROM texts JOIN skills s ON s.row = skill WHERE vector IN ({chosen}) AND {PASSES}"
        with self._reading() as database:
            return dict(database.execute(query, {"vectors": json.dumps(list(vectors)), **passing.values}).fetchall())

    def vector_ids(self) -> set[int]:
        """Every vector's id."""
        with self._reading() as database:
            return {vector for (vector,) in database.execute("SELECT vector FROM texts")}

    def vectors(
        self, passing: Filter | None = None, only: Collection[int] | None = None, batch: int = 8192
    ) -> Iterator[tuple[IdArray, FloatArray]]:
        """Vectors in batches: ids of shape (n,), vectors of shape (n, d)."""
        last = -1
        query = f"SELECT vector, embedding FROM texts JOIN skills s ON s.row = skill WHERE vector > :last AND {PASSES}"
        if only is not None:
            query += " AND vector IN (SELECT value FROM json_each(:only))"
        values = {**(passing or Filter()).values, "only": json.dumps(list(only or ()))}
        while True:
            with self._reading() as database:
                rows = database.execute(f"{query} ORDER BY vector LIMIT {batch}", {**values, "last": last}).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield np.array([row[0] for row in rows], np.int64), from_blobs([row[1] for row in rows])

    def re_embed(self, embedder: str, embed: Callable[[Sequence[str]], FloatArray], batch: int = 256) -> None:
        """Replaces every vector by what another embedder makes of its text; all or none."""
        with self._transaction() as database:
            last = -1
            while rows := database.execute(
                "SELECT vector, text FROM texts WHERE vector > ? ORDER BY vector LIMIT ?", (last, batch)
            ).fetchall():
                last = rows[-1][0]
                blobs = [to_blob(vector) for vector in embed([text for _, text in rows])]
                pairs = [(blob, row[0]) for blob, row in zip(blobs, rows, strict=True)]
                database.executemany("UPDATE texts SET embedding = ? WHERE vector = ?", pairs)
            database.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (embedder,))
            self._count_change(database)

    def meta(self, key: str) -> str:
        """A value the store keeps about itself: "store", "embedder", "generation"; empty if it has none."""
        with self._reading() as database:
            found = database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else ""

    def totals(self) -> tuple[int, int, int, int]:
        """How many skills, vectors, attempts and successes."""
        query = "SELECT count(*), (SELECT count(*) FROM texts), total(attempts), total(successes) FROM skills"
        with self._reading() as database:
            skills, vectors, attempts, successes = database.execute(query).fetchone()
        return skills, vectors, int(attempts), int(successes)

    def digests(self) -> set[str]:
        """Digests of every bundle that a skill uses."""
        with self._reading() as database:
            return {digest for (digest,) in database.execute("SELECT DISTINCT digest FROM skills WHERE digest != ''")}

    def problems(self) -> list[str]:
        """What SQLite's own checks of structure and references find wrong."""
        with self._reading() as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
            return found + [f"broken reference in {row[0]}" for row in database.execute("PRAGMA foreign_key_check")]

    def _open(self) -> None:
        with self._translated():
            database = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._database = database
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
                database.execute(f"PRAGMA {pragma}")
            version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in {0, VERSION}:
            raise StoreError(f"{self.path}: of version {version}; this program reads version {VERSION}")
        if version == 0:
            with self._transaction() as database:
                for statement in SCHEMA.split(";\n"):
                    database.execute(statement)
                database.execute("INSERT INTO meta VALUES ('store', ?), ('generation', '0')", (secrets.token_hex(16),))
                database.execute(f"PRAGMA user_version = {VERSION}")

    def _find(self, database: sqlite3.Connection, skill_id: str) -> Skill:
        row = database.execute(f"SELECT {COLUMNS} FROM skills WHERE id = ?", (skill_id,)).fetchone()
        if row is None:
            # A store can hold a million: the newest few say what an id looks like.
            newest = [found for (found,) in database.execute("SELECT id FROM skills ORDER BY updated DESC LIMIT 6")]
            raise UnknownNameError("skill", skill_id[:80], newest[:5] + ["…"] * (len(newest) > 5))
        return from_row(row)

    def _put_texts(
        self, database: sqlite3.Connection, row: int, texts: tuple[str, ...], vectors: FloatArray
    ) -> tuple[dict[int, int], tuple[int, ...]]:
        old = dict(database.execute("SELECT text, vector FROM texts WHERE skill = ?", (row,)).fetchall())
        removed = tuple(vector for text, vector in old.items() if text not in texts)
        database.executemany("DELETE FROM texts WHERE vector = ?", [(vector,) for vector in removed])
        added = {}
        for position, text in enumerate(texts):
            if text not in old:
                values = (row, text, to_blob(vectors[position]))
                cursor = database.execute("INSERT INTO texts (skill, text, embedding) VALUES (?, ?, ?)", values)
                added[int(cursor.lastrowid or 0)] = position
        return added, removed

    def _unused(self, database: sqlite3.Connection, digest: str) -> str:
        used = database.execute("SELECT 1 FROM skills WHERE digest = ? LIMIT 1", (digest,)).fetchone()
        return "" if used else digest

    def _count_change(self, database: sqlite3.Connection) -> None:
        database.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guard, self._translated():
            if self._database is None:
                raise StoreError(f"{self.path}: the store is closed")
            yield self._database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:  # COMMIT did not happen, whatever the reason
                    database.execute("ROLLBACK")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
