"""Keeps every decision of a run on disk, in bounded room, with what becomes known of it later."""

from __future__ import annotations

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from llmagent_ros.durable import make_folder
from llmagent_ros.recording.decision_rows import (
    INSERT,
    Context,
    DecisionRecord,
    EpisodeEnd,
    connect,
    dump_skills,
    errors,
    late_columns,
    scalar,
    to_row,
)
from llmagent_ros.types import Outcome, RetrievedSkill, Verdict

DEFAULT_MB = 256.0
_JOINED = 2000  # keys of the newest decisions, two each, for what comes late
_EARLY = 2000  # moments of which something was known before the decision
_TASKS = 64
_CHUNK = 64  # decisions, of the oldest, that go at once where the room is full

Moment = float | tuple[str, int, int]  # a scene's stamp, s, or (run, episode, step)
Skills = tuple[RetrievedSkill, ...]
K = TypeVar("K")
V = TypeVar("V")


class DecisionLog:
    """Writes decisions into an SQLite file that others may read meanwhile. Not thread-safe.

    What was put is there for readers, and survives kill -9, `delay` seconds later at most, as long as something goes
    on being put or `flush` is called. Nothing waits for the disk. Verdicts and latencies are joined by the
    scene's stamp, outcomes by (run, episode, step), in whatever order they come; of each the first stays. Where the
    room is full the oldest decisions go. A file that is there is gone on with. It is made by the first decision.

    Args:
        max_bytes: of the file, but for what a second of decisions needs and the write-ahead log of a few MB.
        delay: s.

    Raises:
        StoreError: from every method: the disk is full, or the file is damaged or of another kind.
    """

    def __init__(self, path: Path, max_bytes: int = int(DEFAULT_MB * 1e6), delay: float = 1.0) -> None:
        self.path = path
        self._max_bytes, self._delay = max_bytes, delay
        self._db: sqlite3.Connection | None = None
        self._began = 0.0  # when the open transaction began, steady s
        self._next = 0
        self._episode: tuple[tuple[str, int], int] | None = None  # the last one and its id
        self._context: tuple[Context, int] | None = None  # the same
        self._numbers: OrderedDict[Moment, int] = OrderedDict()  # of the newest decisions
        self._early: OrderedDict[Moment, dict[str, Any]] = OrderedDict()
        self._tasks: OrderedDict[str, tuple[str, Skills, str]] = OrderedDict()
        self._last_steps: OrderedDict[tuple[str, int], int] = OrderedDict()  # of episodes that have ended

    # --- decisions -----------------------------------------------------------------------------------

    def put(self, record: DecisionRecord) -> None:
        """Takes a decision; one that is in already, or that came after its episode's last step, is left alone."""
        episode = (record.run, int(record.episode))
        moment = (*episode, int(record.step))
        if record.step > self._last_steps.get(episode, record.step):
            return
        with self._writing() as db:
            number = self._insert(db, record)
            for key in (float(record.stamp), moment):
                _remember(self._numbers, key, number, _JOINED)
                columns = self._early.pop(key, None)
                if columns is not None:
                    _update(db, number, columns)

    def on_task(self, task_id: str, task: str, skills: Skills, beginning: str = "") -> None:
        """Takes what a task asks for and what was found for it, for the decisions that are made for it."""
        _remember(self._tasks, task_id, (task, skills, beginning), _TASKS)
        if self._context is not None and self._context[0].task_id == task_id:  # they were faster
            with self._writing() as db:
                values = (task, dump_skills(skills), beginning, self._context[1])
                db.execute("UPDATE contexts SET task = ?, skills = ?, beginning = ? WHERE id = ?", values)

    def rewind(self, number: int) -> None:
        """Forgets decisions from `number` on, which are to be made again."""
        if self._db is None and not self.path.exists():
            return
        with self._writing() as db:
            db.execute("DELETE FROM decisions WHERE number >= ?", (number,))
            db.execute("DELETE FROM episodes WHERE id NOT IN (SELECT episode FROM decisions)")
            self._next = _next_number(db)
        self._episode = None
        self._numbers.clear()
        self._early.clear()
        self._last_steps.clear()

    # --- what comes late -------------------------------------------------------------------------------

    def on_verdict(self, verdict: Verdict) -> None:
        """Takes the guard's verdict on the command that answers the scene of its stamp."""
        self._join(verdict.stamp, late_columns(verdict=verdict))

    def on_latency(self, stamp: float, milliseconds: float) -> None:
        """Takes the time from the scene of this stamp, s, to the command that answers it."""
        self._join(stamp, late_columns(latency_ms=milliseconds))

    def on_outcome(self, run: str, episode: int, step: int, outcome: Outcome, next_scene: str) -> None:
        """Takes what came of a step. next_scene: kept of an episode's last step; after others there is a decision."""
        kept = next_scene if outcome.ended else ""
        self._join((run, episode, step), late_columns(outcome=outcome, next_scene=kept))
        if outcome.ended:
            _remember(self._last_steps, (run, episode), step, _TASKS)
            self._drop_after(run, episode, step)

    def on_episode_end(self, run: str, episode: int, end: EpisodeEnd) -> None:
        """Takes the end of an episode that decisions were made in."""
        if self._db is None:
            return
        values = (bool(end.success), end.reason, float(end.total_reward), int(end.steps), run, int(episode))
        with self._writing() as db:
            columns = "success = ?, reason = ?, total_reward = ?, steps = ?"
            db.execute(f"UPDATE episodes SET {columns} WHERE run = ? AND episode = ?", values)

    # --- the file ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Commits what was put; readers see it from now on."""
        if self._db is None or not self._db.in_transaction:
            return
        with errors(self.path, "written"):
            self._trim(self._db)
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Commits and closes; may be called twice."""
        try:
            self.flush()
        finally:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        db = self._open()
        with errors(self.path, "written"):
            if not db.in_transaction:
                db.execute("BEGIN IMMEDIATE")
                self._began = time.monotonic()
            yield db
        if time.monotonic() - self._began >= self._delay:
            self.flush()

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            make_folder(self.path.parent)
            self._db = connect(self.path, read_only=False)
            with errors(self.path, "read"):
                self._next = _next_number(self._db)
            self._episode = self._context = None
        return self._db

    def _insert(self, db: sqlite3.Connection, record: DecisionRecord) -> int:
        """Its number, also where it is in already."""
        number = self._next if record.number is None else int(record.number)
        episode = self._episode_id(db, (record.run, int(record.episode)))
        row = to_row(record, number, episode, self._context_id(db, record))
        if db.execute(INSERT, row).rowcount == 0:
            return int(scalar(db, "SELECT number FROM decisions WHERE episode = ? AND step = ?", (episode, row[2])))
        self._next = number + 1
        return number

    def _episode_id(self, db: sqlite3.Connection, episode: tuple[str, int]) -> int:
        if self._episode is None or self._episode[0] != episode:
            db.execute("INSERT INTO episodes(run, episode) VALUES(?, ?) ON CONFLICT DO NOTHING", episode)
            identity = scalar(db, "SELECT id FROM episodes WHERE run = ? AND episode = ?", episode)
            self._episode = (episode, int(identity))
        return self._episode[1]

    def _context_id(self, db: sqlite3.Connection, record: DecisionRecord) -> int:
        task, skills, beginning = record.task, record.skills, record.beginning
        if skills is None and record.task_id in self._tasks:
            task, skills, beginning = self._tasks[record.task_id]
        context = Context(record.task_id, task, record.prompt_prefix, record.decision.candidates, skills, beginning)
        if self._context is None or self._context[0] != context:
            self._context = (context, context.insert(db))
        return self._context[1]

    def _join(self, moment: Moment, columns: dict[str, Any]) -> None:
        number = self._numbers.get(moment)
        if number is None:
            known = self._early.pop(moment, {})
            _remember(self._early, moment, columns | known, _EARLY)
        else:
            with self._writing() as db:
                _update(db, number, columns)

    def _drop_after(self, run: str, episode: int, step: int) -> None:
        """A decision on what turned out to be an episode's last scene is no step."""
        late = [key for key in self._numbers if isinstance(key, tuple) and key[:2] == (run, episode) and key[2] > step]
        for key in late:
            number = self._numbers[key]
            with self._writing() as db:
                db.execute("DELETE FROM decisions WHERE number = ?", (number,))
                self._next = _next_number(db)
            for other in [other for other, at in self._numbers.items() if at == number]:
                del self._numbers[other]

    def _trim(self, db: sqlite3.Connection) -> None:
        """Deletes the oldest decisions where the room is full; their pages are used again."""
        size = int(scalar(db, "PRAGMA page_size"))
        while (scalar(db, "PRAGMA page_count") - scalar(db, "PRAGMA freelist_count")) * size > self._max_bytes:
            oldest = scalar(db, "SELECT number FROM decisions ORDER BY number LIMIT 1 OFFSET ?", (_CHUNK,))
            if oldest is None:  # not even these would fit
                return
            db.execute("DELETE FROM decisions WHERE number < ?", (oldest,))
            db.execute("DELETE FROM episodes WHERE id < (SELECT min(episode) FROM decisions)")
            db.execute("DELETE FROM contexts WHERE id < (SELECT context FROM decisions ORDER BY number LIMIT 1)")


def _next_number(db: sqlite3.Connection) -> int:
    return int(scalar(db, "SELECT coalesce(max(number), -1) + 1 FROM decisions"))


def _update(db: sqlite3.Connection, number: int, columns: dict[str, Any]) -> None:
    """What came first stays: a command may be sent, and answered, twice."""
    changes = ", ".join(f"{column} = coalesce({column}, ?)" for column in columns)
    db.execute(f"UPDATE decisions SET {changes} WHERE number = ?", (*columns.values(), number))


def _remember(kept: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)
