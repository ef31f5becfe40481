"""One owner of what is on the disk, enforced by the kernel: the lock goes with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from llmagent_ros.errors import StoreError

HOLDER = "{holder}"  # in what is said of a lock that another holds: its process id


class FileLock:
    """Holds a file, which is made if missing, until `release`.

    flock() rather than POSIX record locks: those are per process, so a second instance in the same process would get
    in, and closing any other descriptor of the file would drop them. The file stays: removing it while another process
    has it open would let two processes lock two files of one name.

    Args:
        busy: what is said where another instance holds it.

    Raises:
        StoreError: another instance holds it, or the file cannot be made.
    """

    def __init__(self, path: Path, busy: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise StoreError(busy.replace(HOLDER, holder)) from error
        except OSError as error:  # a file system without locks, or a full one
            self.release()
            raise StoreError(f"{path}: cannot be locked: {error.strerror}") from error

    def release(self) -> None:
        """Lets another instance in; calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def lock_beside(store: Path) -> FileLock:
    """Holds `<store>.lock`.

    Raises:
        StoreError: as `FileLock`.
    """
    path = store.with_name(f"{store.name}.lock")
    return FileLock(path, f"{store}: in use by process {HOLDER}, which holds {path.name}")
