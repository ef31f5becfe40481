"""One decision with all that became of it: the value type, and how it lies in OUT/decisions.sqlite.

SQLite, because what comes late (verdict, latency, outcome) is joined in place, and a decision is found by its number or
step without reading the others. Measured beside lines of JSON on one core of an AMD EPYC, 20,000 decisions of a
robot: a row of these columns with three joins costs 15 us and 470 bytes, a line 15 us and 1,140 bytes before anything
late is known; finding a row 14 us, a line in 23 MB 13 ms, as long as the file is not compressed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from llmagent_ros.errors import StoreError
from llmagent_ros.types import (
    Command,
    Decision,
    FloatArray,
    JointTarget,
    Outcome,
    RetrievedSkill,
    Source,
    Velocity,
    Verdict,
)

DECISIONS = "decisions.sqlite"  # in a run's folder
_APPLICATION_ID = 0x4C4C4D44  # "LLMD"
_SCHEMA_VERSION = 2
_SCHEMA = (
    """CREATE TABLE episodes(id INTEGER PRIMARY KEY, run TEXT NOT NULL, episode INTEGER NOT NULL,
        success INTEGER, reason TEXT, total_reward REAL, steps INTEGER, UNIQUE(run, episode))""",
    # what is the same for many decisions, of an episode mostly
    """CREATE TABLE contexts(id INTEGER PRIMARY KEY, task_id TEXT NOT NULL, task TEXT NOT NULL,
        prompt_prefix TEXT NOT NULL, candidates TEXT NOT NULL, skills TEXT, beginning TEXT NOT NULL)""",
    """CREATE TABLE decisions(number INTEGER PRIMARY KEY, episode INTEGER NOT NULL, step INTEGER NOT NULL,
        context INTEGER NOT NULL, stamp REAL NOT NULL, scene TEXT NOT NULL, probabilities BLOB NOT NULL,
        action_values BLOB NOT NULL, action TEXT NOT NULL, log_probability REAL NOT NULL, source TEXT NOT NULL,
        adapter TEXT NOT NULL, compute_ms REAL NOT NULL, latency_ms REAL, verdict TEXT, reward REAL,
        terminated INTEGER, truncated INTEGER, next_scene TEXT, said TEXT NOT NULL, UNIQUE(episode, step))""",
)
_COLUMNS = (
    "number, episode, step, context, stamp, scene, probabilities, action_values, action, log_probability, source, "
    "adapter, compute_ms, latency_ms, verdict, reward, terminated, truncated, next_scene, said"
)
INSERT = f"INSERT INTO decisions({_COLUMNS}) VALUES({','.join('?' * 20)}) ON CONFLICT(episode, step) DO NOTHING"
SELECT = """SELECT d.number, e.run, e.episode, d.step, c.task_id, c.task, c.prompt_prefix, c.candidates, c.skills,
    c.beginning, d.stamp, d.scene, d.probabilities, d.action_values, d.action, d.log_probability, d.source, d.adapter,
    d.compute_ms, d.latency_ms, d.verdict, d.reward, d.terminated, d.truncated, d.next_scene, d.said,
    e.success, e.reason, e.total_reward, e.steps
    FROM decisions d JOIN episodes e ON e.id = d.episode JOIN contexts c ON c.id = d.context """


@dataclass(frozen=True)
class Context:
    """What successive decisions have in common; see `DecisionRecord`."""

    task_id: str
    task: str
    prompt_prefix: str
    candidates: tuple[str, ...]
    skills: tuple[RetrievedSkill, ...] | None
    beginning: str

    def insert(self, db: sqlite3.Connection) -> int:
        """Its id as a new row of contexts."""
        columns = "task_id, task, prompt_prefix, candidates, skills, beginning"
        candidates = json.dumps(self.candidates, ensure_ascii=False)
        row = (self.task_id, self.task, self.prompt_prefix, candidates, dump_skills(self.skills), self.beginning)
        identity = db.execute(f"INSERT INTO contexts({columns}) VALUES(?, ?, ?, ?, ?, ?)", row).lastrowid
        assert identity is not None
        return identity


@dataclass(frozen=True)
class EpisodeEnd:
    """How an episode ended; see `Episode`."""

    success: bool
    reason: str
    total_reward: float
    steps: int


@dataclass(frozen=True)
class DecisionRecord:
    """One decision; (run, episode, step) identifies it.

    Attributes:
        run, episode, step: as in `Transition`. task_id: of the goal. task: instruction, empty where it is not known.
        stamp: of the scene, s; without a graph the number of the step.
        scene: the text that was read. prompt_prefix: the lessons before it.
        decision: what was chosen among what, by whom. compute_ms: wall time from scene to choice.
        skills: what was retrieved for the task, best first. beginning: in words, what it begins with where nothing was
            learned of its kind yet. latency_ms: from scene to command.
        verdict: the guard's, of the same stamp. outcome: of the step itself: its reward, and whether it was the last.
        next_scene: text of the scene after the episode's last step, else empty. end: of its episode.
        number: of the decision among all of the run's folder, from 0.

    What is not known, or not yet, is None; `number` is None in one that the log is to number.
    """

    run: str
    episode: int
    step: int
    task_id: str
    task: str
    stamp: float
    scene: str
    prompt_prefix: str
    decision: Decision
    compute_ms: float
    skills: tuple[RetrievedSkill, ...] | None = None
    beginning: str = ""
    latency_ms: float | None = None
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    next_scene: str = ""
    end: EpisodeEnd | None = None
    number: int | None = None


def late_columns(
    *,
    latency_ms: float | None = None,
    verdict: Verdict | None = None,
    outcome: Outcome | None = None,
    next_scene: str = "",
) -> dict[str, Any]:
    """Columns of what becomes known after the decision; only those that are."""
    columns: dict[str, Any] = {}
    if latency_ms is not None:
        columns["latency_ms"] = float(latency_ms)
    if verdict is not None:
        said = (verdict.source, verdict.reason, verdict.limited)
        columns["verdict"] = json.dumps([*said, *_plain(verdict.asked), *_plain(verdict.command)])
    if outcome is not None:
        columns["reward"] = float(outcome.reward)
        columns["terminated"], columns["truncated"] = bool(outcome.terminated), bool(outcome.truncated)
    if next_scene:
        columns["next_scene"] = next_scene
    return columns


def to_row(record: DecisionRecord, number: int, episode: int, context: int) -> tuple[Any, ...]:
    """A row of `INSERT`. episode, context: ids in their tables."""
    d = record.decision
    late = late_columns(
        latency_ms=record.latency_ms, verdict=record.verdict, outcome=record.outcome, next_scene=record.next_scene
    )
    return (
        *(number, episode, int(record.step), context, float(record.stamp), record.scene),
        *(_to_blob(d.probabilities), _to_blob(d.values), d.action, float(d.log_probability), d.source.value),
        *(d.adapter, float(record.compute_ms)),
        *map(late.get, ("latency_ms", "verdict", "reward", "terminated", "truncated", "next_scene")),
        d.said,
    )


def dump_skills(skills: tuple[RetrievedSkill, ...] | None) -> str | None:
    if skills is None:
        return None
    return json.dumps([[skill.id, skill.description, skill.similarity] for skill in skills], ensure_ascii=False)


def from_row(row: tuple[Any, ...]) -> DecisionRecord:
    """The record of a row of `SELECT`."""
    number, run, episode, step, task_id, task, prefix, candidates, skills, *rest = row
    beginning, stamp, scene, probabilities, values, action, log_probability, source, adapter, *rest = rest
    compute_ms, latency_ms, verdict, reward, terminated, truncated, next_scene, said, success, *told = rest
    end = None if success is None else EpisodeEnd(bool(success), *told)
    outcome = None
    if reward is not None:
        outcome = Outcome(reward, bool(terminated), bool(truncated))
        if outcome.ended and end is not None:
            outcome = Outcome(reward, bool(terminated), bool(truncated), end.success, end.reason)
    return DecisionRecord(
        *(run, episode, step, task_id, task, stamp, scene, prefix),
        Decision(
            *(action, log_probability, tuple(json.loads(candidates)), _from_blob(probabilities), _from_blob(values)),
            *(adapter, Source(source), said),
        ),
        compute_ms,
        skills=None if skills is None else tuple(RetrievedSkill(*skill) for skill in json.loads(skills)),
        beginning=beginning,
        latency_ms=latency_ms,
        verdict=None if verdict is None else _to_verdict(json.loads(verdict), stamp),
        outcome=outcome,
        next_scene=next_scene or "",
        end=end,
        number=number,
    )


def _to_verdict(said: list[Any], stamp: float) -> Verdict:
    source, reason, limited, *numbers = said
    half = len(numbers) // 2
    return Verdict(_command(numbers[half:]), source, reason, tuple(limited), stamp, _command(numbers[:half]))


def _plain(command: Command) -> list[Any]:
    """A base's two speeds, or an arm's one mapping of joint positions."""
    if isinstance(command, Velocity):
        return [command.linear, command.angular]
    return [dict(zip(command.joints, command.positions, strict=True))]


def _command(plain: list[Any]) -> Command:
    if len(plain) == 2:
        return Velocity(*plain)
    return JointTarget(tuple(plain[0]), tuple(plain[0].values()))


def _to_blob(values: FloatArray) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def _from_blob(blob: bytes) -> FloatArray:
    return np.frombuffer(blob, "<f4").astype(np.float32)


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """The database, made with its tables if it is empty and may be written.

    Raises:
        StoreError: it cannot be opened, is damaged, or of another kind or version.
    """
    with errors(path, "opened"):
        mode = "ro" if read_only else "rwc"
        uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        with errors(path, "opened"):
            _prepare(db, path, read_only)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, read_only: bool) -> None:
    # Looked at before anything is set: a path given by mistake may be somebody's own database.
    empty = scalar(db, "SELECT count(*) FROM sqlite_schema") == 0
    if empty and read_only:
        raise StoreError(f"{path}: holds nothing, or nothing yet")
    if scalar(db, "PRAGMA application_id") != _APPLICATION_ID and not empty:
        raise StoreError(f"{path}: a database, but not of decisions")
    if not read_only:
        # A kill takes nothing back that was committed; a power cut may take the last seconds, and damages nothing.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    if empty:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        db.execute("COMMIT")
    version = scalar(db, "PRAGMA user_version")
    if version != _SCHEMA_VERSION:
        raise StoreError(f"{path}: schema version {version}; this program reads version {_SCHEMA_VERSION}")


def scalar(db: sqlite3.Connection, query: str, values: tuple[Any, ...] = ()) -> Any:
    """The first column of the first row; None without rows."""
    row = db.execute(query, values).fetchone()
    return None if row is None else row[0]


@contextmanager
def errors(path: Path, what: str) -> Iterator[None]:
    """Errors of SQLite as StoreErrors that say what could not be done with the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be {what}: {error}") from error
