"""Nearest vectors by inner product: exact while few, an HNSW graph when many.

HNSW: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable
small world graphs", TPAMI 42 (2020); the implementation is FAISS (Douze et al., 2024, arXiv:2401.08281).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from llmagent_ros.durable import sync
from llmagent_ros.errors import StoreError
from llmagent_ros.types import FloatArray

IdArray = NDArray[np.int64]

HEADER = "index.json"
_UNFINISHED = "index.faiss.tmp"
_VERSION = 2
_SLICE = 32  # vectors that are added at once, while no search can run
_PAUSE = 5e-4  # s between two of them
_GATHER = 4096  # vectors compared at once


@config_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class IndexConfig:
    """How vectors are searched.

    Attributes:
        exact_limit: vectors up to which the search is exact.
        neighbours: links of a vector in the graph (HNSW's M). construction, search: width of the beam.
        dead_share: share of deleted vectors in the graph at which it is built anew.
        threads: of FAISS, for the whole process; they help to build, one query uses one.
    """

    exact_limit: Annotated[int, Field(ge=0)] = 20_000
    neighbours: Annotated[int, Field(ge=4, le=128)] = 24
    construction: Annotated[int, Field(ge=8, le=1024)] = 120
    search: Annotated[int, Field(ge=8, le=4096)] = 256
    dead_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    threads: Annotated[int, Field(ge=1, le=256)] = 1


@dataclass(frozen=True)
class IndexOrigin:
    """What an index was made from: it is only used with the same. store: of the database; generation: its changes."""

    store: str
    embedder: str
    generation: int


class SkillIndex:
    """Vector ids (rising, never used twice) and their unit vectors of shape (d,).

    One writer at a time (`add`, `remove`, `save`); `search` and `scores` may run beside it and in many threads.
    A graph cannot forget a vector: deleted ones are passed over, until enough are dead to build it anew.
    Apart from the dead there is no Python object per vector: ids and vectors are read where FAISS has them.
    """

    def __init__(self, dimension: int, config: IndexConfig | None = None) -> None:
        self.config = config or IndexConfig()
        self.dimension = dimension
        self._lock = threading.Lock()
        faiss.omp_set_num_threads(self.config.threads)
        self._graph = self.config.exact_limit == 0
        self._faiss = self._empty(graph=self._graph)
        self._dead: set[int] = set()

    def __len__(self) -> int:
        return int(self._faiss.ntotal) - len(self._dead)

    @property
    def ids(self) -> IdArray:
        """Ids of the vectors that can be found, ascending, shape (len(self),)."""
        with self._lock:
            ids = self._all_ids()
            return ids[~np.isin(ids, np.fromiter(self._dead, np.int64))] if self._dead else ids.copy()

    @property
    def last(self) -> int:
        """The highest id that was added and is still there, dead or not; -1 without any."""
        with self._lock:
            ids = self._all_ids()
            return int(ids[-1]) if len(ids) else -1

    @property
    def kind(self) -> str:
        """ "exact" or "hnsw"."""
        return "hnsw" if self._graph else "exact"

    def add(self, ids: Iterable[int], vectors: FloatArray) -> None:
        """Adds vectors of shape (n, d) under new ids, which rise.

        Raises:
            StoreError: another shape, or an id that was already used.
        """
        new = np.fromiter(ids, np.int64)  # (n,)
        if vectors.shape != (len(new), self.dimension):
            raise StoreError(f"index: expected vectors of shape {(len(new), self.dimension)}, got {vectors.shape}")
        if len(new) and (int(new[0]) <= self.last or bool((np.diff(new) <= 0).any())):
            raise StoreError(f"index: ids are used twice or do not rise: {new[:5].tolist()} after {self.last}")
        if not self._graph and len(self) + len(new) > self.config.exact_limit:
            self._rebuild(graph=True)
        for start in range(0, len(new), _SLICE):
            part = slice(start, start + _SLICE)
            if start:
                time.sleep(_PAUSE)  # a lock is not fair: whoever waits for it would go on waiting
            with self._lock:
                self._faiss.add_with_ids(np.ascontiguousarray(vectors[part], np.float32), new[part])

    def remove(self, ids: Iterable[int]) -> None:
        """Takes vectors out; ids that are not there are passed over."""
        asked = np.fromiter(ids, np.int64)
        with self._lock:
            there = asked[self._positions(asked) >= 0].tolist()
            if self._graph:
                self._dead.update(there)
            elif there:
                self._faiss.remove_ids(np.array(there, np.int64))
        if len(self._dead) > self.config.dead_share * self._faiss.ntotal:
            self._rebuild(graph=len(self) > self.config.exact_limit)

    def search(self, vector: FloatArray, count: int) -> tuple[IdArray, FloatArray]:
        """The nearest vectors.

        Args:
            vector: the query, shape (d,), unit norm.

        Returns:
            ids and inner products, both of shape (min(count, len(self)),), best first; the graph may give fewer.

        Raises:
            StoreError: another shape.
        """
        query = self._checked(vector)
        wanted = count
        while True:
            with self._lock:
                total = self._faiss.ntotal
                wanted = min(wanted, total)
                if not wanted:
                    return np.zeros(0, np.int64), np.zeros(0, np.float32)
                if self._graph:
                    self._inner().hnsw.efSearch = max(self.config.search, 2 * wanted)
                scores, ids = self._faiss.search(query, wanted)
                live = np.array([i >= 0 and i not in self._dead for i in ids[0].tolist()], bool)
            if live.sum() >= count or wanted >= total or int(ids[0].min()) < 0:  # -1: the graph reaches no more
                return ids[0][live][:count], scores[0][live][:count]
            wanted *= 2

    def scores(self, vector: FloatArray, ids: IdArray) -> tuple[IdArray, FloatArray]:
        """Inner products with given vectors, exact: (those of `ids` that are there, their scores), in no order.

        Raises:
            StoreError: the query has another shape.
        """
        query = self._checked(vector)[0]
        kept, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        for start in range(0, len(ids), _GATHER):
            part = ids[start : start + _GATHER]
            with self._lock:
                positions = self._positions(part)
                there = positions >= 0
                scores.append(self._all_vectors()[positions[there]] @ query)
            kept.append(part[there])
        return np.concatenate(kept), np.concatenate(scores)

    def _checked(self, vector: FloatArray) -> FloatArray:
        if vector.shape != (self.dimension,):
            raise StoreError(f"index: expected a query of shape {(self.dimension,)}, got {vector.shape}")
        return np.ascontiguousarray(vector[None], np.float32)  # (1, d)

    def _all_ids(self) -> IdArray:
        """FAISS's own array, ascending, shape (ntotal,); only while the lock is held."""
        total = self._faiss.ntotal
        return faiss.rev_swig_ptr(self._faiss.id_map.data(), total) if total else np.zeros(0, np.int64)

    def _all_vectors(self) -> FloatArray:
        """FAISS's own array, shape (ntotal, d); only while the lock is held."""
        total = self._faiss.ntotal
        if not total:
            return np.zeros((0, self.dimension), np.float32)
        flat: Any = faiss.downcast_index(self._inner().storage) if self._graph else self._inner()
        return faiss.rev_swig_ptr(flat.get_xb(), total * self.dimension).reshape(total, self.dimension)

    def _positions(self, ids: IdArray) -> IdArray:
        """Where these ids stand, -1 for those that are dead or not there; only while the lock is held."""
        known = self._all_ids()
        positions = np.searchsorted(known, ids)
        found = positions < len(known)
        found[found] = known[positions[found]] == ids[found]
        if self._dead:
            found &= ~np.isin(ids, np.fromiter(self._dead, np.int64))
        return np.where(found, positions, -1)

    def save(self, folder: Path, origin: IndexOrigin) -> None:
        """Writes the index atomically: the header, renamed last, names the file with the vectors by its hash.

        Raises:
            StoreError: it cannot be written; the last one saved is still whole, and nothing is left of this one.
        """
        try:
            try:
                temporary, header = folder / _UNFINISHED, folder / f"{HEADER}.tmp"
                with temporary.open("wb") as file:  # FAISS's own files do not say when the last of it was not written
                    writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]  # not in its stubs
                    faiss.write_index(self._faiss, writer)
                digest = _sha256(temporary)
                _publish(temporary, _data_file(folder, digest))
                told = {"version": _VERSION, "sha256": digest, "dimension": self.dimension, "dead": sorted(self._dead)}
                header.write_text(json.dumps({**told, **vars(origin)}), encoding="utf-8")
                _publish(header, folder / HEADER)
            finally:
                sweep(folder)  # the index before this one; or of this one what a full disk has no room for
        except (OSError, RuntimeError) as error:  # RuntimeError is how FAISS says that a write failed
            raise StoreError(f"{folder}: the index cannot be saved: {str(error)[:200]}") from error

    @classmethod
    def load(cls, folder: Path, dimension: int, config: IndexConfig) -> tuple[SkillIndex, IndexOrigin]:
        """The saved index and what it was made from.

        Raises:
            StoreError: there is none, or it is damaged or of another format; it can be built anew.
        """
        header = _read_header(folder / HEADER)
        data = _data_file(folder, header["sha256"])
        if header["version"] != _VERSION or header["dimension"] != dimension:
            raise StoreError(f"{folder / HEADER}: of version {header['version']}, dimension {header['dimension']}")
        try:
            if _sha256(data) != header["sha256"]:
                raise StoreError(f"{data}: damaged: its SHA-256 is not the one in {HEADER}")
            loaded = faiss.read_index(str(data))
        except (OSError, RuntimeError) as error:
            raise StoreError(f"{data}: cannot be read: {str(error)[:200]}") from error
        if not isinstance(loaded, faiss.IndexIDMap) or loaded.d != dimension:
            raise StoreError(f"{data}: not an index of this program")
        index = cls(dimension, config)
        index._faiss = loaded
        index._graph = isinstance(index._inner(), faiss.IndexHNSWFlat)
        index._dead = set(header["dead"])
        return index, IndexOrigin(header["store"], header["embedder"], header["generation"])

    def _empty(self, *, graph: bool) -> Any:
        if not graph:
            return faiss.IndexIDMap(faiss.IndexFlatIP(self.dimension))
        inner = faiss.IndexHNSWFlat(self.dimension, self.config.neighbours, faiss.METRIC_INNER_PRODUCT)
        inner.hnsw.efConstruction = self.config.construction
        return faiss.IndexIDMap(inner)

    def _inner(self) -> Any:
        return faiss.downcast_index(self._faiss.index)  # valid only while self._faiss lives

    def _rebuild(self, *, graph: bool) -> None:
        """Builds it anew from the live vectors beside the old one, which goes on answering."""
        new = self._empty(graph=graph)
        for start in range(0, self._faiss.ntotal, _GATHER):
            with self._lock:
                part = slice(start, start + _GATHER)
                ids, vectors = self._all_ids()[part].copy(), self._all_vectors()[part].copy()
            live = np.array([i not in self._dead for i in ids.tolist()], bool)
            new.add_with_ids(vectors[live], ids[live])
        with self._lock:
            self._faiss, self._graph, self._dead = new, graph, set()


def sweep(folder: Path) -> None:
    """Deletes what saves that failed or were interrupted have left: all but the header and the file that it names.

    Raises:
        StoreError: a file cannot be deleted.
    """
    try:
        kept = _data_file(folder, _read_header(folder / HEADER)["sha256"])
    except StoreError:  # no header that could be read: nothing uses any of the files
        kept = None
    try:
        for path in (folder / _UNFINISHED, folder / f"{HEADER}.tmp", *folder.glob("index-*.faiss")):
            if path != kept:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{error.filename or folder}: cannot be deleted: {error.strerror}") from error


def _data_file(folder: Path, digest: str) -> Path:
    return folder / f"index-{digest[:16]}.faiss"


def _read_header(path: Path) -> dict[str, Any]:
    kinds = {
        "version": int, "sha256": str, "dimension": int, "dead": list, "store": str, "embedder": str, "generation": int,
    }  # fmt: skip
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no index was saved") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read: {str(error)[:200]}") from error
    if not isinstance(header, dict) or any(not isinstance(header.get(name), kind) for name, kind in kinds.items()):
        raise StoreError(f"{path}: not an index header; it has {', '.join(kinds)}")
    return header


def _publish(temporary: Path, final: Path) -> None:
    """Gives a file its name once its content is on the disk."""
    sync(temporary)
    temporary.replace(final)
    sync(final.parent)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
