"""Transitions in SQLite: what is acknowledged is on disk, each key once, each text once.

Text ids and transition positions are 0, 1, 2, … in order of arrival and never change, so arrays outside can be indexed
by them. Write-ahead log with synchronous=FULL: COMMIT returns after fsync, so neither kill -9 nor power loss takes back
what `append` acknowledged.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llmagent_ros.errors import StoreError
from llmagent_ros.learning.rl.replay_rows import ADAPTER, SOURCES, dump_extra, load_extra, text_hash
from llmagent_ros.types import Transition

APPLICATION_ID = 0x4C4C4D52  # "LLMR"
SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # runs, tasks, action phrases, adapter names: few, repeated often
    "CREATE TABLE labels(id INTEGER PRIMARY KEY, label TEXT NOT NULL UNIQUE)",
    "CREATE TABLE texts(id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, text TEXT NOT NULL)",
    """CREATE TABLE transitions(
        id INTEGER PRIMARY KEY, run INTEGER NOT NULL, episode INTEGER NOT NULL, step INTEGER NOT NULL,
        task INTEGER NOT NULL, scene INTEGER NOT NULL, action INTEGER NOT NULL, reward REAL NOT NULL,
        next_scene INTEGER NOT NULL, terminated INTEGER NOT NULL, truncated INTEGER NOT NULL, source INTEGER NOT NULL,
        log_probability REAL NOT NULL, adapter INTEGER, stamp REAL NOT NULL, extra TEXT,
        UNIQUE(run, episode, step))""",
)
_INSERT = f"INSERT INTO transitions VALUES({','.join('?' * 16)})"
_FIND = "SELECT id FROM transitions WHERE run = ? AND episode = ? AND step = ?"
_SELECT = """SELECT t.run, t.episode, t.step, t.task, s.text, t.action, t.reward, n.text, t.terminated, t.truncated,
    t.source, t.log_probability, t.adapter, t.stamp, t.extra
    FROM transitions t JOIN texts s ON s.id = t.scene JOIN texts n ON n.id = t.next_scene """
_CHUNK = 1 << 13

Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Stored:
    """A transition that was new, with the ids it got.

    Attributes:
        position: its place in the store. task: label id. scene, next_scene: text ids.
        previous, following: positions of the steps before and after it in its episode, -1 where not stored.
    """

    position: int
    transition: Transition
    task: int
    scene: int
    next_scene: int
    previous: int
    following: int

    def row(self, action: int) -> tuple[float, ...]:
        """As `ReplayIndex.extend` wants it, `action` being the index of the phrase in the vocabulary."""
        t = self.transition
        ends = (t.terminated, t.truncated, SOURCES.index(t.source))
        return (self.scene, self.next_scene, self.task, action, t.reward, t.log_probability, *ends)


@dataclass(frozen=True)
class EpisodeSummary:
    """What is stored of one episode: steps, the sum of their rewards, and whether an end is among them."""

    run: str
    episode: int
    steps: int
    reward: float
    terminated: bool
    truncated: bool


class TransitionStore:
    """The database file. One thread at a time; one writing process at a time (see `locking`).

    Args:
        max_bytes: the file grows no further; the append that would exceed it fails as on a full disk.

    Raises:
        StoreError: from every method: the file is damaged, of another kind or version, full, or cannot be opened.
    """

    def __init__(self, path: Path, *, read_only: bool, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._labels: list[str] = []
        self._label_ids: dict[str, int] = {}
        self._texts = 0
        self._transitions = 0
        if read_only and not path.is_file():
            raise StoreError(f"{path}: no such replay store")
        with self._errors("opened"):
            mode = "ro" if read_only else "rwc"
            uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            with self._errors("opened"):
                self._prepare(read_only)
                self._reload_counts()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, read_only: bool) -> None:
        # Looked at before anything is set: a path given by mistake may be somebody's own database.
        empty = self._scalar("SELECT count(*) FROM sqlite_schema") == 0
        if self._scalar("PRAGMA application_id") != APPLICATION_ID and (read_only or not empty):
            raise StoreError(f"{self._path}: a database, but not a replay store")
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            page_size = self._scalar("PRAGMA page_size")
            self._db.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page_size)}")
        if empty:
            self._create()
        version = self._scalar("PRAGMA user_version")
        if version != SCHEMA_VERSION:
            raise StoreError(f"{self._path}: schema version {version}; this program reads version {SCHEMA_VERSION}")
        self.identity = str(self._scalar("SELECT value FROM meta WHERE key = 'identity'"))

    def _create(self) -> None:
        with self._transaction():
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES('identity', ?)", (uuid.uuid4().hex,))
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        self._db.close()

    @property
    def transitions(self) -> int:
        """How many are stored."""
        return self._transitions

    @property
    def texts(self) -> int:
        """How many different scene texts are stored."""
        return self._texts

    def label(self, label_id: int) -> str:
        """The run, task, action phrase or adapter name that an id stands for."""
        if not 0 <= label_id < len(self._labels):
            raise StoreError(f"{self._path}: no label {label_id}; there are {len(self._labels)}")
        return self._labels[label_id]

    def append(self, transitions: Sequence[Transition]) -> list[Stored]:
        """Stores what is new by (run, episode, step), all of it or nothing, and returns that after the commit."""
        labels, texts, count = len(self._labels), self._texts, self._transitions
        try:
            with self._errors("written; nothing of this append was stored"), self._transaction():
                return self._insert(transitions)
        except BaseException:
            for label in self._labels[labels:]:
                del self._label_ids[label]
            del self._labels[labels:]
            self._texts, self._transitions = texts, count
            raise

    def use_mirror(self, rule: str) -> list[tuple[int, int]]:
        """(text id, id of its mirror image or -1) as they were put under this rule; those of another are dropped."""
        with self._errors("written"), self._transaction():
            self._db.execute("CREATE TABLE IF NOT EXISTS images(text INTEGER PRIMARY KEY, image INTEGER NOT NULL)")
            if self._scalar("SELECT value FROM meta WHERE key = 'mirror'") != rule:
                self._db.execute("DELETE FROM images")
                self._db.execute("INSERT OR REPLACE INTO meta VALUES('mirror', ?)", (rule,))
            return self._db.execute("SELECT text, image FROM images ORDER BY text").fetchall()

    def put_images(self, text_ids: Sequence[int], images: Sequence[str | None]) -> list[tuple[int, int]]:
        """Stores the mirror images of texts, None where there is none; returns (text id, image id or -1), both ways."""
        texts = self._texts
        try:
            with self._errors("written"), self._transaction():
                pairs: dict[int, int] = {}
                for text_id, image in zip(text_ids, images, strict=True):
                    image_id = -1 if image is None else self._text_id(image)
                    pairs[text_id] = image_id
                    if image_id >= 0:
                        pairs[image_id] = text_id
                self._db.executemany("INSERT OR REPLACE INTO images VALUES(?, ?)", pairs.items())
                return list(pairs.items())
        except BaseException:
            self._texts = texts
            raise

    def texts_of(self, transitions: int) -> int:
        """How many texts there were when there were so many transitions: up to the last of theirs and their images."""
        with self._errors("read"):
            query = "SELECT max(max(scene), max(next_scene)) FROM transitions WHERE id < ?"
            last = self._db.execute(query, (transitions,)).fetchone()[0]
            if last is not None and self._has_images():
                query = "SELECT max(image) FROM images WHERE text <= ?"
                last = max(last, self._db.execute(query, (last,)).fetchone()[0] or 0)
        return 0 if last is None else int(last) + 1

    def truncate(self, transitions: int, texts: int) -> None:
        """Deletes all but the first `transitions` and the first `texts`; labels stay."""
        with self._errors("written"), self._transaction():
            self._db.execute("DELETE FROM transitions WHERE id >= ?", (transitions,))
            self._db.execute("DELETE FROM texts WHERE id >= ?", (texts,))
            if self._has_images():
                self._db.execute("DELETE FROM images WHERE text >= ? OR image >= ?", (texts, texts))
        self._transitions, self._texts = min(self._transitions, transitions), min(self._texts, texts)

    def _has_images(self) -> bool:
        return self._scalar("SELECT count(*) FROM sqlite_schema WHERE name = 'images'") > 0

    def _insert(self, transitions: Sequence[Transition]) -> list[Stored]:
        inserted: list[tuple[Key, Transition, tuple[int, int, int, int]]] = []
        at: dict[Key, int] = {}
        for transition in transitions:
            # int(): SQLite would keep a NumPy integer as a blob
            key = (self._label_id(transition.run), int(transition.episode), int(transition.step))
            task, scene, next_scene = self._insert_one(key, transition)
            if task < 0:
                continue
            at[key] = self._transitions
            inserted.append((key, transition, (self._transitions, task, scene, next_scene)))
            self._transitions += 1
        return [
            Stored(ids[0], transition, *ids[1:], previous=self._near(key, -1, at), following=self._near(key, 1, at))
            for key, transition, ids in inserted
        ]

    def _insert_one(self, key: Key, t: Transition) -> Key:
        """(task, scene, next scene) ids of a row just inserted; all -1 when the key was there."""
        if self._db.execute(_FIND, key).fetchone() is not None:
            return -1, -1, -1
        task, scene, next_scene = self._label_id(t.task), self._text_id(t.scene), self._text_id(t.next_scene)
        adapter = self._label_id(t.extra[ADAPTER]) if ADAPTER in t.extra else None
        ids = (self._transitions, *key, task, scene, self._label_id(t.action), float(t.reward), next_scene)
        ends = (bool(t.terminated), bool(t.truncated), SOURCES.index(t.source))
        rest = (float(t.log_probability), adapter, float(t.stamp), dump_extra(t.extra))
        self._db.execute(_INSERT, (*ids, *ends, *rest))
        return task, scene, next_scene

    def _near(self, key: Key, offset: int, at: dict[Key, int]) -> int:
        wanted = (key[0], key[1], key[2] + offset)
        if wanted in at:
            return at[wanted]
        row = self._db.execute(_FIND, wanted).fetchone()
        return -1 if row is None else int(row[0])

    def _label_id(self, label: str) -> int:
        if label not in self._label_ids:
            self._db.execute("INSERT INTO labels VALUES(?, ?)", (len(self._labels), label))
            self._label_ids[label] = len(self._labels)
            self._labels.append(label)
        return self._label_ids[label]

    def _text_id(self, text: str) -> int:
        hashed = text_hash(text)
        row = self._db.execute("SELECT id FROM texts WHERE hash = ?", (hashed,)).fetchone()
        if row is not None:
            return int(row[0])
        self._db.execute("INSERT INTO texts VALUES(?, ?, ?)", (self._texts, hashed, text))
        self._texts += 1
        return self._texts - 1

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see one state of the store, whatever another process commits meanwhile."""
        with self._errors("read"):
            self._db.execute("BEGIN")
            try:
                self._reload_counts()
                yield
            finally:
                self._db.rollback()

    def columns(self, start: int) -> Iterator[list[tuple[Any, ...]]]:
        """Chunks, by position from `start` on, of (scene, next_scene, task, action label id, reward, log_probability,
        terminated, truncated, source)."""
        query = """SELECT scene, next_scene, task, action, reward, log_probability, terminated, truncated, source
            FROM transitions WHERE id >= ? ORDER BY id"""
        return self._chunks(query, (start,))

    def keys(self) -> Iterator[list[tuple[int, int, int, int]]]:
        """Chunks of (run label id, episode, step, position), sorted; read from the unique index alone."""
        return self._chunks("SELECT run, episode, step, id FROM transitions ORDER BY run, episode, step", ())

    def _chunks(self, query: str, values: tuple[int, ...]) -> Iterator[list[tuple[Any, ...]]]:
        with self._errors("read"):
            cursor = self._db.execute(query, values)
            while chunk := cursor.fetchmany(_CHUNK):
                yield chunk

    def scenes(self, text_ids: Sequence[int]) -> list[str]:
        """The texts of ids, in their order."""
        texts = []
        with self._errors("read"):
            for text_id in text_ids:
                row = self._db.execute("SELECT text FROM texts WHERE id = ?", (int(text_id),)).fetchone()
                if row is None:
                    raise StoreError(f"{self._path}: no text {text_id}; there are {self._texts}")
                texts.append(str(row[0]))
        return texts

    def recent(self, count: int) -> list[Transition]:
        """The last `count` to arrive, oldest first."""
        return self._select("WHERE t.id >= ? ORDER BY t.id", (max(0, self._transitions - count),))

    def episode(self, run: str, episode: int) -> list[Transition]:
        """The stored steps of one episode in order of step; empty when there are none."""
        values = (self._label_ids.get(run, -1), episode)
        return self._select("WHERE t.run = ? AND t.episode = ? ORDER BY t.step", values)

    def _select(self, clause: str, values: tuple[int, ...]) -> list[Transition]:
        with self._errors("read"):
            return [self._transition(row) for row in self._db.execute(_SELECT + clause, values)]

    def _transition(self, row: tuple[Any, ...]) -> Transition:
        run, episode, step, task, scene, action, reward, next_scene, terminated, truncated, source, *rest = row
        log_probability, adapter, stamp, extra = rest
        return Transition(
            *(self.label(run), episode, step, self.label(task), scene, self.label(action), reward, next_scene),
            *(bool(terminated), bool(truncated), SOURCES[source], log_probability, stamp),
            extra=load_extra(None if adapter is None else self.label(adapter), extra),
        )

    def episodes(self, last: int) -> list[EpisodeSummary]:
        """The `last` episodes by the arrival of their newest step, oldest first."""
        query = """SELECT run, episode, count(*), sum(reward), max(terminated), max(truncated) FROM transitions
            GROUP BY run, episode ORDER BY max(id) DESC LIMIT ?"""
        with self._errors("read"):
            rows = self._db.execute(query, (last,)).fetchall()
        return [
            EpisodeSummary(self.label(run), episode, steps, reward, bool(terminated), bool(truncated))
            for run, episode, steps, reward, terminated, truncated in reversed(rows)
        ]

    def _reload_counts(self) -> None:
        self._labels = [str(label) for (label,) in self._db.execute("SELECT label FROM labels ORDER BY id")]
        self._label_ids = {label: label_id for label_id, label in enumerate(self._labels)}
        self._texts = int(self._scalar("SELECT coalesce(max(id), -1) + 1 FROM texts"))
        self._transitions = int(self._scalar("SELECT coalesce(max(id), -1) + 1 FROM transitions"))

    def _scalar(self, query: str) -> Any:
        row = self._db.execute(query).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.rollback()
            raise

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            if "full" in reason:
                reason = f"the disk is full, or the store is at its limit of {self._max_bytes} bytes"
            raise StoreError(f"{self._path}: cannot be {what}: {reason}") from error
