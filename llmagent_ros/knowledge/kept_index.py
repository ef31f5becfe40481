"""The index of a store as it is opened, kept up with the database, and saved now and then. It can be made anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmagent_ros.errors import StoreError
from llmagent_ros.knowledge.embedding import Embedder
from llmagent_ros.knowledge.index import IndexConfig, IndexOrigin, SkillIndex, sweep
from llmagent_ros.knowledge.store import Change, SkillStore
from llmagent_ros.types import FloatArray

_WORTH_SAVING = 1e-3  # share of the vectors: fewer changes are caught up faster at the next opening than saved now


class KeptIndex:
    """One writer at a time; `index` may be searched meanwhile.

    Args:
        save_every, save_share: it is saved after so many changes, and that share of its size at least.

    Attributes:
        opened: how the index came to be, in words. save_error: why it could not be saved last; empty if it could.

    Raises:
        StoreError: the database cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        store: SkillStore,
        embedder: Embedder,
        config: IndexConfig,
        save_every: int,
        save_share: float,
    ) -> None:
        self._folder, self._store = folder, store
        self._save_every, self._save_share = save_every, save_share
        self._unsaved = self._tried = 0  # changes since the last save, and how many of them at the last try
        self.save_error = ""
        self.opened = self._open(embedder, config)

    def apply(self, changes: Sequence[Change], vectors: Sequence[FloatArray]) -> None:
        """Takes up what was written to the database; saves when enough has changed.

        Args:
            vectors: of each change's texts, shape (texts, d).
        """
        gone = {vector for change in changes for vector in change.removed}
        self.index.remove(gone)
        new = [
            (vector, given[row])
            for change, given in zip(changes, vectors, strict=True)
            for vector, row in change.added.items()
            if vector not in gone  # a later change of the same transaction took it out again
        ]
        if new:
            self.index.add([vector for vector, _ in new], np.stack([row for _, row in new]))
        self._unsaved += len(changes)
        if self._unsaved - self._tried >= max(self._save_every, self._save_share * len(self.index)):
            self._try_to_save()

    def save(self) -> None:
        """Saves the index, if it changed.

        Raises:
            StoreError: it cannot be written.
        """
        if self._unsaved:
            self.index.save(self._folder, self._origin())
            self._unsaved = self._tried = 0
            self.save_error = ""

    def close(self) -> None:
        """Saves it where that is worth more than what the next opening has to catch up, and if it can be."""
        if self._unsaved >= _WORTH_SAVING * len(self.index):
            self._try_to_save()

    def _try_to_save(self) -> None:
        try:
            self.save()
        except StoreError as error:
            # The changes are on the disk: they must not look as if they had failed. An older index is caught up.
            self.save_error = str(error)
            self._tried = self._unsaved

    def _origin(self) -> IndexOrigin:
        store = self._store
        return IndexOrigin(store.meta("store"), store.meta("embedder"), int(store.meta("generation")))

    def _open(self, embedder: Embedder, config: IndexConfig) -> str:
        """Makes `index` the saved one, caught up with the database, or a new one; which of these, in words."""
        sweep(self._folder)
        origin = self._origin()
        try:
            index, saved = SkillIndex.load(self._folder, embedder.dimension, config)
            if (saved.store, saved.embedder) != (origin.store, origin.embedder):
                raise StoreError("the saved index belongs to another store or embedder")
            if saved != origin:
                self._catch_up(index)
            self.index = index
            return "loaded" if saved == origin else "caught up"
        except StoreError as error:
            reason = str(error)
        self.index = SkillIndex(embedder.dimension, config)
        self._catch_up(self.index)
        if self.index.kind == "hnsw":  # it took long to build: not again after a crash
            self._try_to_save()
        return f"built anew: {reason}"

    def _catch_up(self, index: SkillIndex) -> None:
        """Makes it hold the vectors of the database.

        Raises:
            StoreError: an older vector is missing, so it was not made from this database.
        """
        wanted, known = self._store.vector_ids(), index.ids
        index.remove(np.setdiff1d(known, wanted, assume_unique=True))
        last = index.last
        if len(np.setdiff1d(wanted[wanted <= last], known, assume_unique=True)):
            raise StoreError("the saved index lacks vectors of the database")
        for ids, vectors in self._store.vectors(after=last):
            index.add(ids, vectors)
        self._unsaved = 1 + int((wanted > last).sum())
