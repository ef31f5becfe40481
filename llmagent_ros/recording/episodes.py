"""The list of finished episodes on disk: one line each, there after a kill."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from llmagent_ros.durable import check_room, make_folder, sync, write_fully
from llmagent_ros.errors import StoreError

EPISODES = "episodes.csv"  # in a run's folder


@dataclass(frozen=True)
class Episode:
    """One finished episode; (run, episode) identifies it.

    Attributes:
        run: identifier of the run, may be empty. episode: counts from 0 within the run.
        success: the task was reached. total_reward: undiscounted sum. steps: control periods.
        reason: one word for why it ended, e.g. "reached", "collision", "timeout".
        duration_s: wall time. env_steps: control periods up to its end, over all episodes.
        adapter: the adapter version deployed when it ended, empty before the first.
    """

    run: str
    episode: int
    success: bool
    total_reward: float
    steps: int
    reason: str
    duration_s: float
    env_steps: int
    adapter: str


_HEADER = [field.name for field in fields(Episode)]
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # a line must stay one line, and UTF-8


def _flag(text: str) -> bool:
    return {"1": True, "0": False}[text]


_PARSERS: dict[str, Callable[[str], object]] = {"str": str, "int": int, "float": float, "bool": _flag}


class EpisodeLog:
    """Appends episodes to a CSV file; each is on disk (fsync) when `append` returns.

    Opening leaves the disk as it is; `begin`, or the first episode, makes the file. A last line that a kill cut off is
    dropped then; the lines before it stay.

    Args:
        path: the file; made with its folders if missing.
        resume: whether to go on with a file that already holds episodes.

    Raises:
        StoreError: another process has it open, it is not such a list, it holds episodes and `resume` is False, or
            it cannot be written.
    """

    def __init__(self, path: Path, resume: bool = True) -> None:
        self.path = path
        self.episodes: list[Episode] = []
        self._descriptor = -1
        self._begun = False
        if path.exists():
            self._open(resume)
        try:
            check_room(path)
        except StoreError:
            self.close()
            raise

    def begin(self) -> None:
        """Make the file ready for episodes; may be called again.

        Raises:
            StoreError: it cannot be written, or another process has taken it meanwhile.
        """
        if self._begun:
            return
        if self._descriptor < 0:
            make_folder(self.path.parent)
            self._open(resume=False)
        try:
            self._mend()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._begun = True

    def append(self, episode: Episode) -> None:
        """Add one episode.

        Raises:
            StoreError: the disk is full; what was in the file before is kept and the episode is not.
        """
        self.begin()
        self._append_line(_to_line(episode))
        self.episodes.append(episode)

    def close(self) -> None:
        """Close the file and let go of its lock; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, resume: bool) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {error.strerror}") from error
        try:
            self._take(resume)
        except StoreError:
            self.close()
            raise

    def _take(self, resume: bool) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{self.path}: in use by another recorder; give this one another out folder") from error
        self.episodes = read_episodes(self.path)
        if self.episodes and not resume:
            raise StoreError(
                f"{self.path}: already holds {len(self.episodes)} episodes; give another out folder or resume"
            )

    def _mend(self) -> None:
        """Drop what a kill cut off; the head of a new list."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
        if not whole:
            self._append_line(_csv_line(_HEADER))
            sync(self.path.parent)

    def _append_line(self, line: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            write_fully(self._descriptor, line)
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error


def recorded_episodes(out: Path) -> int:
    """How many episodes a run's folder holds already; 0 when it has no episodes.csv. See `read_episodes`."""
    path = out / EPISODES
    return len(read_episodes(path)) if path.exists() else 0


def read_episodes(path: Path) -> list[Episode]:
    """The episodes of a file that may still be written to; a cut-off last line is left out.

    Raises:
        StoreError: it cannot be read or is not such a list; names file and line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    return _parse(path, content[: content.rfind(b"\n") + 1])


def _parse(path: Path, content: bytes) -> list[Episode]:
    if not content:
        return []
    try:
        lines = content.decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: not a list of episodes: not UTF-8 at byte {error.start}") from error
    if lines[0].split(",") != _HEADER:
        raise StoreError(f"{path}:1: not a list of episodes; expected the columns {','.join(_HEADER)}")
    return [_from_line(line, f"{path}:{number}") for number, line in enumerate(lines[1:], start=2)]


def _from_line(line: str, origin: str) -> Episode:
    try:
        (cells,) = csv.reader([line], strict=True)
    except (csv.Error, ValueError) as error:
        raise StoreError(f"{origin}: not an episode: {line[:80]!r}") from error
    if len(cells) != len(_HEADER):
        raise StoreError(f"{origin}: {len(cells)} columns, expected {len(_HEADER)}")
    values: dict[str, object] = {}
    for field, cell in zip(fields(Episode), cells, strict=True):
        try:
            values[field.name] = _PARSERS[str(field.type)](cell)
        except (ValueError, KeyError) as error:
            raise StoreError(f"{origin}: {field.name}: {cell[:40]!r} is not of type {field.type}") from error
    return Episode(**values)  # type: ignore[arg-type]


def _to_line(episode: Episode) -> bytes:
    cells = [int(cell) if isinstance(cell, bool) else cell for cell in astuple(episode)]
    return _csv_line([_UNPRINTABLE.sub(" ", cell) if isinstance(cell, str) else repr(cell) for cell in cells])


def _csv_line(cells: list[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode("utf-8")
