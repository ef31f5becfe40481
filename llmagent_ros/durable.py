"""What is on the disk stays there through a power cut; a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from llmagent_ros.errors import StoreError


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder: without the latter a rename is atomic, but may be undone.

    Raises:
        OSError: it cannot be opened or flushed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Makes a folder of files that is there whole and on the disk, or not at all; its parent must exist.

    Raises:
        OSError: it cannot be written, or something that is not an empty folder has its name; nothing is left of it.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp's 0700 would outlive the rename
        for name, data in contents.items():
            with (temporary / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(folder.parent)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents.

    Raises:
        StoreError: it cannot be made; names the folder and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}") from error


def check_room(path: Path) -> None:
    """Whether a file can be made at `path`; a trial beside it is taken away again, and no folder is made.

    Raises:
        StoreError: the folder cannot be written, or the disk is full; names `path`.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=folder, buffering=0) as trial:
            write_fully(trial.fileno(), bytes(4096))
            os.fsync(trial.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error


def write_fully(descriptor: int, data: bytes) -> None:
    """Write all of `data`; a nearly full disk writes a part first and says so only at the next call."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: temporary file in the same folder, fsync, rename.

    Raises:
        StoreError: the disk is full or the folder cannot be written; the old file is kept and nothing else is left.
    """
    make_folder(path.parent)
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            write_fully(descriptor, data)
            os.fchmod(descriptor, 0o644)  # mkstemp makes it 0600, but a summary is for others to read
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        temporary = None
        sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
