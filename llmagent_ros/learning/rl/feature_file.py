"""Features of scene texts under one frozen base, in a file of float16 rows beside the store.

They are derived: deleting the file costs time, never data. Rows are read through a memory map, so the kernel decides
how much of it stays in memory; they are written with pwrite, because a store to a mapped page kills the process when
the disk is full. Which rows are there is written to a second file only after the rows themselves are on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmagent_ros.errors import ConfigError, ModelError, StoreError
from llmagent_ros.learning.rl.replay_index import GrowingArray
from llmagent_ros.types import FloatArray

_HEADER_BYTES = 4096
_FORMAT = 1
_SYNC_EVERY = 1024  # rows that a crash may make the learner compute again


class FeatureFile:
    """Rows by text id.

    Args:
        store: the replay's path; files of other bases beside it are removed once there are features of this one.
        identity: of the store, since text ids mean something in it alone.
        base_digest: of the base that computes the features. width: numbers in a row.

    Raises:
        StoreError: a file cannot be read or written. ConfigError: a digest or width that none can have.
    """

    def __init__(self, store: Path, identity: str, base_digest: str, width: int) -> None:
        if not base_digest or width < 1:
            raise ConfigError(f"features: base_digest {base_digest!r} and width {width}: both have to be given")
        name = hashlib.sha256(base_digest.encode()).hexdigest()[:16]
        self._path = store.with_name(f"{store.name}.{name}.features")
        self._present_path = self._path.with_suffix(".present")
        self._width = width
        self._header = {"format": _FORMAT, "identity": identity, "base": base_digest, "width": width}
        self._present = GrowingArray(np.uint8)
        self._unsynced: list[NDArray[np.int64]] = []
        self._first_missing = 0  # no text before it is missing
        self._descriptor = -1
        self._begun = False
        self._store = store
        self._rows: NDArray[np.float16] = np.zeros((0, width), np.float16)
        try:
            if self._matches():
                self._open()
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be opened: {error.strerror}") from error

    @property
    def width(self) -> int:
        return self._width

    @property
    def nbytes(self) -> int:
        """Memory of its own, without the pages that the kernel keeps of the file."""
        return self._present.nbytes

    def put(self, text_ids: NDArray[np.int64], features: NDArray[Any], texts: int) -> None:
        """Writes rows.

        Args:
            text_ids: (k,), each below `texts`, the number of texts stored. features: (k, width).

        Raises:
            ConfigError: shapes or ids do not fit. ModelError: a value is not finite in float16. StoreError: disk full.
        """
        if features.shape != (len(text_ids), self._width):
            raise ConfigError(f"features: shape {features.shape}, expected {(len(text_ids), self._width)}")
        if len(text_ids) == 0:
            return
        if text_ids.min() < 0 or text_ids.max() >= texts:
            raise ConfigError(f"features: text ids {text_ids.min()}..{text_ids.max()}; valid: 0..{texts - 1}")
        with np.errstate(over="ignore"):  # looked at on the next line
            rows = features.astype(np.float16)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise ModelError(f"features of text {text_ids[~finite][0]}: not finite in float16")
        self._begin()
        self._grow(texts)
        order = np.argsort(text_ids, kind="stable")
        ids, rows = text_ids[order], rows[order]
        try:
            self._write_rows(ids, rows)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._present.values[ids] = 1
        self._unsynced.append(ids)
        if sum(map(len, self._unsynced)) >= _SYNC_EVERY:
            self.sync()

    def get(self, text_ids: ArrayLike) -> FloatArray:
        """Rows as float32, shape (*shape of text_ids, width).

        Needs no lock against one thread that puts: arrays only grow, and a row is marked present after it is written.

        Raises:
            StoreError: a text has no features yet.
        """
        ids = np.asarray(text_ids, np.int64)
        inside = (ids >= 0) & (ids < len(self._present))
        there = inside.copy()
        there[inside] = self._present.values[ids[inside]] == 1
        if not there.all():
            raise StoreError(f"{self._path}: {(~there).sum()} texts have no features yet, e.g. text {ids[~there][0]}")
        return np.asarray(self._rows[ids], np.float32)

    def missing(self, limit: int, texts: int) -> NDArray[np.int64]:
        """Up to `limit` ids below `texts` without features, ascending."""
        self._extend(texts)
        present = self._present.values
        found: list[NDArray[np.int64]] = []
        start, count = self._first_missing, 0
        while start < texts and count < limit:  # in blocks: the usual call finds its few at the end of a long array
            block = np.flatnonzero(present[start : start + 65536] == 0) + start
            if count == 0:
                self._first_missing = int(block[0]) if len(block) else min(start + 65536, texts)
            found.append(block)
            count += len(block)
            start += 65536
        return np.concatenate(found)[:limit] if found else np.zeros(0, np.int64)

    def sync(self) -> None:
        """Makes durable what was put; without it a crash costs its computation again."""
        if not self._unsynced:
            return
        ids = np.unique(np.concatenate(self._unsynced))
        try:
            os.fdatasync(self._descriptor)
            with open(self._present_path, "r+b", buffering=0) as file:
                for run in _runs(ids):
                    _write_all(file.fileno(), b"\1" * len(run), int(run[0]))
        except OSError as error:
            raise StoreError(f"{self._present_path}: cannot be written: {error.strerror}") from error
        self._unsynced = []

    def forget(self, texts: int) -> None:
        """Forgets all but the rows of the first `texts`, of every base."""
        try:
            self._remove_others()
            if self._present_path.is_file() and self._present_path.stat().st_size > texts:
                os.truncate(self._present_path, texts)
        except OSError as error:
            raise StoreError(f"{self._present_path}: cannot be written: {error.strerror}") from error
        present, self._present = self._present.values[:texts], GrowingArray(np.uint8)
        self._present.extend(present)
        self._unsynced = [ids[ids < texts] for ids in self._unsynced]
        self._first_missing = min(self._first_missing, texts)

    def close(self) -> None:
        if self._descriptor >= 0:
            try:
                self.sync()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def _begin(self) -> None:
        """Makes the files when they are not there; until now a start that comes to nothing costs no other base's."""
        if self._begun:
            return
        try:
            self._remove_others()
            if self._descriptor < 0:
                self._create()
                self._open()
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._begun = True

    def _remove_others(self) -> None:
        remove_features(self._store, {self._path, self._present_path})

    def _create(self) -> None:
        self._present_path.unlink(missing_ok=True)  # first: it must never speak for rows that are not its own
        self._path.write_bytes(json.dumps(self._header).encode().ljust(_HEADER_BYTES))
        self._present_path.touch()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._map()
        present = np.frombuffer(self._present_path.read_bytes(), np.uint8)[: len(self._rows)]
        self._present.extend(present[len(self._present) :])

    def _matches(self) -> bool:
        if not self._path.is_file() or not self._present_path.is_file():
            return False
        with self._path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        return header == json.dumps(self._header).encode().ljust(_HEADER_BYTES)

    def _map(self) -> None:
        capacity = (os.fstat(self._descriptor).st_size - _HEADER_BYTES) // (2 * self._width)
        if capacity == 0:
            self._rows = np.zeros((0, self._width), np.float16)
        else:
            self._rows = np.memmap(self._path, np.float16, "r", _HEADER_BYTES, (capacity, self._width))

    def _extend(self, texts: int) -> None:
        if texts > len(self._present):
            self._present.extend(np.zeros(texts - len(self._present)))

    def _grow(self, texts: int) -> None:
        self._extend(texts)
        if texts > len(self._rows):
            capacity = max(texts, len(self._rows) * 5 // 4, 4096)
            try:
                os.ftruncate(self._descriptor, _HEADER_BYTES + 2 * self._width * capacity)  # a hole: takes no space
                self._map()
            except OSError as error:
                raise StoreError(f"{self._path}: cannot grow: {error.strerror}") from error

    def _write_rows(self, ids: NDArray[np.int64], rows: NDArray[np.float16]) -> None:
        done = 0
        for run in _runs(ids):
            data = np.ascontiguousarray(rows[done : done + len(run)]).tobytes()
            _write_all(self._descriptor, data, _HEADER_BYTES + 2 * self._width * int(run[0]))
            done += len(run)


def remove_features(store: Path, but: Collection[Path] = ()) -> None:
    """Deletes the files of features beside a replay store."""
    for path in store.parent.iterdir():
        ours = path.name.startswith(f"{store.name}.") and path.suffix in {".features", ".present"}
        if ours and path not in but:
            path.unlink()


def _runs(ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Ascending ids in pieces without gaps."""
    return np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
