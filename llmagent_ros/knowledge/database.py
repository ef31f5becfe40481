"""The SQLite file of a store: one process, one connection that writes, one that reads beside it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmagent_ros.durable import make_folder
from llmagent_ros.errors import StoreError
from llmagent_ros.knowledge import audit, schema
from llmagent_ros.locking import HOLDER, FileLock

BUNDLES = "bundles"  # the folder beside the database; see BundleFiles
_READ_CACHE = 8192  # KiB of pages: what searches look up again and again


class Database:
    """Opened for one process: a second one is refused. From any thread.

    Attributes:
        path: of the file. migrated_from: the version that was found, where it was an older one; else 0.

    Raises (from any method):
        StoreError: the database is damaged, lost, of another version, the disk is full, or it is closed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "skills.sqlite"
        self.migrated_from = 0
        self._writing, self._reading = threading.RLock(), threading.RLock()
        self.writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        make_folder(folder)
        services = "(retrieve_skills, store_skill, delete_skill, knowledge/statistics)"
        busy = f"process {HOLDER} has this store open; a knowledge node that has it answers by its services {services}"
        self._lock = FileLock(folder / "lock", f"{folder}: {busy}")
        try:
            self._open()
        except StoreError:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        return self.writer is None

    def close(self) -> None:
        """Closes the database and lets another process in."""
        with self._writing, self._reading:
            for connection in (self._reader, self.writer):
                if connection is not None:
                    connection.close()
            self._reader = self.writer = None
            self._lock.release()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the database for all that is read inside; a write that goes on meanwhile holds nobody up."""
        with self._reading, self._translated():
            if self._reader is None:
                raise StoreError(f"{self.path}: the store is closed")
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                if self._reader.in_transaction:  # SQLite ends it itself when the disk fails
                    self._reader.execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; on the disk when it is left."""
        with self._writing, self._translated():
            if self.writer is None:
                raise StoreError(f"{self.path}: the store is closed")
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self.writer
                self.writer.execute("COMMIT")
            finally:
                if self.writer.in_transaction:  # COMMIT did not happen, whatever the reason
                    self.writer.execute("ROLLBACK")

    def problems(self) -> list[str]:
        """What SQLite's own checks of structure and references find wrong, and totals that are not what is there."""
        # Reads all of it, so on a connection of its own.
        with self._translated(), closing(self._connect()) as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
            found += [f"broken reference in {row[0]}" for row in database.execute("PRAGMA foreign_key_check")]
            totals = database.execute("SELECT skills, vectors, attempts, successes FROM totals").fetchone()
            counted = tuple(int(count) for count in database.execute(schema.COUNTED).fetchone())
        return found if totals == counted else [*found, f"totals are {totals}, but {counted} are there"]

    def _open(self) -> None:
        if not self.path.exists():
            self._check_new()
        with self._translated():
            self.writer = self._connect()
            version = self.writer.execute("PRAGMA user_version").fetchone()[0]
        if not 0 <= version <= schema.VERSION:
            raise StoreError(f"{self.path}: of version {version}; this program reads versions 1 to {schema.VERSION}")
        if version == 0:
            self._check_new()
            with self.transaction() as database:
                schema.create(database)
        elif version == 1:
            self._migrate()
        with self._translated():
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only = ON")
            self._reader.execute(f"PRAGMA cache_size = -{_READ_CACHE}")

    def _check_new(self) -> None:
        """Bundles without a database are what is left of a store: a new one would take them for unused, and sweep them.

        Raises:
            StoreError: there are some, or nobody can tell.
        """
        folder = self.path.parent / BUNDLES
        try:
            left = folder.is_dir() and any(not path.name.endswith(".tmp") for path in folder.iterdir())
        except OSError as error:
            raise StoreError(f"{folder}: cannot be read: {error.strerror}") from error
        if left:
            raise StoreError(
                f"{self.path}: missing or empty, while {folder} still holds bundles of its skills; put it back from a "
                "copy, or begin in another folder"
            )

    def _migrate(self) -> None:
        with self.transaction() as database:
            kept = schema.upgrade_from_1(database)
            skills = database.execute("SELECT skills FROM totals").fetchone()[0]
            told = {"versions": [1, schema.VERSION], "skills": skills, "lessons": kept}
            audit.write(database, time.time(), "", "migrated", audit.Cause(), told)
        self.migrated_from = 1

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {pragma}")
        return database

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
