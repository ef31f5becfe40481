"""The part of the replay that sampling reads: 31 bytes a transition in arrays, texts as ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

TERMINATED = 1
TRUNCATED = 2
_SOURCE_SHIFT = 2


class GrowingArray:
    """A one-dimensional array with an amortised O(1) append and at most 25 % to spare.

    Doubling would take up to twice the memory; copying 1.25-fold costs each element four copies in its life.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._data: NDArray[Any] = np.zeros(1024, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """A view of what is filled, shape (len,); one taken before an `extend` may no longer be the array."""
        return self._data[: self._size]

    @property
    def nbytes(self) -> int:
        return int(self._data.nbytes)

    def extend(self, values: Sequence[Any] | NDArray[Any]) -> None:
        size = self._size + len(values)
        if size > len(self._data):
            grown = np.zeros(max(size, len(self._data) * 5 // 4), self._data.dtype)
            grown[: self._size] = self.values
            self._data = grown
        self._data[self._size : size] = values
        self._size = size


class ReplayIndex:
    """Columns by position in the store.

    Attributes (all of shape (transitions,)):
        scene, next_scene: text ids. action: index into the vocabulary. task: label id.
        reward, log_probability: float32. flags: TERMINATED | TRUNCATED | source code << 2.
        successor: position of the next step of the same episode, -1 where there is none: the episode ended here, the
            step is not stored, or it belongs to another task.
        own, demonstrations: the positions whose source is, and is not, the policy; ascending.
    """

    def __init__(self) -> None:
        self._columns = {
            "scene": GrowingArray(np.int32),
            "next_scene": GrowingArray(np.int32),
            "task": GrowingArray(np.int32),
            "action": GrowingArray(np.int16),
            "reward": GrowingArray(np.float32),
            "log_probability": GrowingArray(np.float32),
            "flags": GrowingArray(np.uint8),
            "successor": GrowingArray(np.int32),
        }
        self._own = GrowingArray(np.int32)
        self._demonstrations = GrowingArray(np.int32)

    def __len__(self) -> int:
        return len(self._columns["flags"])

    def __getattr__(self, name: str) -> NDArray[Any]:
        columns: dict[str, GrowingArray] = self.__dict__.get("_columns", {})
        if name not in columns:
            raise AttributeError(f"no column {name!r}; valid: {', '.join(columns)}")
        return columns[name].values

    @property
    def own(self) -> NDArray[np.int32]:
        return self._own.values

    @property
    def demonstrations(self) -> NDArray[np.int32]:
        return self._demonstrations.values

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(array.nbytes for array in (*self._columns.values(), self._own, self._demonstrations))

    def extend(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Appends (scene, next_scene, task, action, reward, log_probability, terminated, truncated, source) rows."""
        if not rows:
            return
        start = len(self)
        table = np.asarray(rows, np.float64)  # (rows, 9); ids are far below 2^53
        for column, name in enumerate(("scene", "next_scene", "task", "action", "reward", "log_probability")):
            self._columns[name].extend(table[:, column])
        terminated, truncated, source = table[:, 6:9].astype(np.uint8).T
        self._columns["flags"].extend(terminated * TERMINATED | truncated * TRUNCATED | source << _SOURCE_SHIFT)
        self._columns["successor"].extend(np.full(len(rows), -1))
        positions = np.arange(start, start + len(rows))
        self._own.extend(positions[source == 0])
        self._demonstrations.extend(positions[source != 0])

    def link(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Makes, of each (before, after), after the successor of the step before it, unless episode or task ended."""
        if pairs:
            self._link(*np.asarray(pairs, np.int64).T)

    def link_all(self, keys: Iterable[Sequence[tuple[int, int, int, int]]]) -> None:
        """Finds every successor from chunks of (run, episode, step, position) in sorted order."""
        self.successor[:] = -1
        last = np.full((1, 4), -1, np.int64)
        for chunk in keys:
            table = np.concatenate([last, np.asarray(chunk, np.int64)])  # the last key of the chunk before, then these
            last = table[-1:]
            run, episode, step, position = table.T
            follows = (np.diff(run) == 0) & (np.diff(episode) == 0) & (np.diff(step) == 1)
            self._link(position[:-1][follows], position[1:][follows])

    def _link(self, before: NDArray[np.int64], after: NDArray[np.int64]) -> None:
        ended = self.flags[before] & (TERMINATED | TRUNCATED)
        linked = (ended == 0) & (self.task[before] == self.task[after])
        self.successor[before[linked]] = after[linked]

    def source(self, positions: NDArray[Any]) -> NDArray[np.uint8]:
        """Codes of `replay_rows.SOURCES`, in the shape of `positions`."""
        return np.asarray(self.flags[positions] >> _SOURCE_SHIFT)
