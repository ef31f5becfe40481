"""One writer per store, enforced by the kernel: the lock goes with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from llmagent_ros.errors import StoreError


class StoreLock:
    """Holds `<store>.lock` until `release`.

    flock() rather than POSIX record locks: those are per process, so a second instance in the same process would get
    in, and closing any other descriptor of the file would drop them. The file stays: removing it while another process
    has it open would let two processes lock two files of one name.

    Raises:
        StoreError: another instance holds it (named by its process id), or the file cannot be made.
    """

    def __init__(self, store: Path) -> None:
        path = store.with_name(store.name + ".lock")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StoreError(f"{store}: in use by process {holder}, which holds {path.name}") from error
        except OSError as error:  # a file system without locks
            self.release()
            raise StoreError(f"{path}: cannot be locked: {error.strerror}") from error
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise StoreError(f"{path}: cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Lets another instance in; calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
