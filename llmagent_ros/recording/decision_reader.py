"""Finding a decision among those that a run keeps, while it goes on or after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.recording.decision_rows import (
    DECISIONS,
    SELECT,
    DecisionRecord,
    EpisodeEnd,
    connect,
    errors,
    from_row,
    scalar,
)

COLLISION = "collision"  # the reason of the end that "worst" looks for
_NUMBER = re.compile(r"[0-9]{1,18}")
_STEP_OF_EPISODE = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")
_NEWEST = " ORDER BY d.number DESC LIMIT 1"


@dataclass(frozen=True)
class KeptEpisode:
    """An episode of which decisions are kept.

    Attributes:
        run, episode, task: as in `DecisionRecord`. adapter: of its last decision.
        first, last: numbers of its decisions. first_step, last_step: within the episode.
        end: None while it goes on, and of one that was pre-empted, cancelled or cut off by a kill.
    """

    run: str
    episode: int
    task: str
    adapter: str
    first: int
    last: int
    first_step: int
    last_step: int
    end: EpisodeEnd | None


class DecisionReader:
    """Reads the decisions in a run's folder; a context manager.

    Raises:
        ConfigError: there is no such folder, or it keeps no decisions.
        StoreError: from every method: the file is damaged, of another kind, or cannot be read.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / DECISIONS
        if not out.is_dir():
            raise ConfigError(f"{out}: no such run; give the folder that `make sim` or `llmagent train` has made")
        if not self._path.is_file():
            raise ConfigError(
                f"{out}: keeps no decisions ({DECISIONS}); runs of the graph and of `llmagent train` do, unless "
                "their room for them was set to 0"
            )
        self._db = connect(self._path, read_only=True)
        if self._scalar("SELECT min(number) FROM decisions") is None:
            self._db.close()
            raise ConfigError(f"{out}: keeps no decisions yet")

    def __enter__(self) -> DecisionReader:
        return self

    def __exit__(self, *unused: object) -> None:
        self._db.close()

    def find(self, step: str) -> DecisionRecord:
        """A decision by its number, EPISODE:STEP, "last", or "worst": the last one before the latest collision.

        Where several runs of the folder have the episode, the newest counts; numbers tell them apart.

        Raises:
            ConfigError: it is none of these, or is not kept; says which are.
        """
        if step in ("last", "worst"):
            clause, values = ("", ()) if step == "last" else ("WHERE e.reason = ?", (COLLISION,))
            problem = f"no {COLLISION} in the episodes that are kept"
            return self._found(self._first(clause + _NEWEST, values), problem)
        if _NUMBER.fullmatch(step):
            return self._found(self._number(int(step)), f"no step {step}")
        parts = _STEP_OF_EPISODE.fullmatch(step)
        if parts is None:
            raise ConfigError(f"{step!r} names no step; {self._valid()}")
        return self._step_of_episode(int(parts[1]), int(parts[2]))

    def following(self, record: DecisionRecord) -> DecisionRecord | None:
        """The next decision of the same episode; None where none is kept."""
        clause = "WHERE e.run = ? AND e.episode = ? AND d.step > ? ORDER BY d.step LIMIT 1"
        return self._first(clause, (record.run, record.episode, record.step))

    def episodes(self) -> list[KeptEpisode]:
        """All of which decisions are kept, in their order."""
        query = """WITH kept AS (SELECT episode, min(number) AS first, max(number) AS last, min(step) AS first_step,
                max(step) AS last_step FROM decisions GROUP BY episode)
            SELECT e.run, e.episode, c.task, d.adapter, k.first, k.last, k.first_step, k.last_step,
                e.success, e.reason, e.total_reward, e.steps
            FROM kept k JOIN episodes e ON e.id = k.episode JOIN decisions d ON d.number = k.last
            JOIN contexts c ON c.id = d.context ORDER BY k.first"""
        with errors(self._path, "read"):
            rows = self._db.execute(query).fetchall()
        return [
            KeptEpisode(*(*kept, None if success is None else EpisodeEnd(bool(success), *told)))
            for *kept, success, told in ((*row[:9], row[9:]) for row in rows)
        ]

    def _step_of_episode(self, episode: int, step: int) -> DecisionRecord:
        identity = self._scalar("SELECT max(id) FROM episodes WHERE episode = ?", (episode,))
        record = self._first("WHERE d.episode = ? AND d.step = ?", (identity, step))
        if record is None and identity is not None:
            low, high = self._row("SELECT min(step), max(step) FROM decisions WHERE episode = ?", (identity,))
            problem = f"no step {step} in episode {episode}; valid: {episode}:{low} to {episode}:{high}"
            raise ConfigError(f"{self._out}: {problem}")
        return self._found(record, f"no episode {episode}")

    def _found(self, record: DecisionRecord | None, problem: str) -> DecisionRecord:
        if record is None:
            raise ConfigError(f"{self._out}: {problem}; {self._valid()}")
        return record

    def _valid(self) -> str:
        low, high = self._row("SELECT min(number), max(number) FROM decisions", ())
        first, last = self._number(low), self._number(high)
        assert first is not None and last is not None
        return (
            f"valid: {low} to {high}, EPISODE:STEP from {first.episode}:{first.step} to {last.episode}:{last.step}, "
            "last, worst"
        )

    def _number(self, number: int) -> DecisionRecord | None:
        return self._first("WHERE d.number = ?", (number,))

    def _first(self, clause: str, values: tuple[Any, ...]) -> DecisionRecord | None:
        row = self._row(SELECT + clause, values)
        if row is None:
            return None
        try:
            return from_row(row)
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._path}: damaged: decision {row[0]}: {error}") from error

    def _row(self, query: str, values: tuple[Any, ...]) -> Any:
        with errors(self._path, "read"):
            return self._db.execute(query, values).fetchone()

    def _scalar(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        with errors(self._path, "read"):
            return scalar(self._db, query, values)
