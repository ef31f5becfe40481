"""Content-addressed bundle folders: bundles/<digest>/, complete or not there."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from llmagent_ros.bundle import ADAPTER, ADAPTER_CONFIG, CRITIC, MANIFEST, bundle_digest
from llmagent_ros.durable import sync
from llmagent_ros.errors import ModelError, StoreError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BundleFiles:
    """The bundles of a store. One writer; a bundle never changes once it has its name.

    Args:
        max_bytes: of a bundle; a larger one is neither stored nor read.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """The folder of a bundle.

        Raises:
            StoreError: not a digest, so perhaps a way out of the store.
        """
        if not _DIGEST.fullmatch(digest):
            raise StoreError(f"{self.folder}: {digest[:80]!r} is not a bundle's digest")
        return self.folder / digest

    def put(self, source: Path, expected: str = "") -> str:
        """Copies a bundle in, whole and on the disk when this returns, and returns its digest.

        Args:
            expected: the digest that it must have; empty for any.

        Raises:
            ModelError: `source` cannot be read, is not a sound bundle, or too large.
            StoreError: the disk is full.
        """
        digest = bundle_digest(source, self.max_bytes)
        if expected and digest != expected:
            raise ModelError(f"{source}: is the bundle {digest}, not {expected}")
        final = self.path(digest)
        if final.exists() and self.sound(digest):
            return digest
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        try:
            self._copy(source, temporary)
            # What was checked may have changed while it was copied: only the copy counts.
            if bundle_digest(temporary, self.max_bytes) != digest:
                raise ModelError(f"{source}: changed while it was copied")
            self.remove(digest)
            temporary.rename(final)
            sync(self.folder)
        except OSError as error:
            raise StoreError(f"{final}: cannot be stored: {error.strerror}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return digest

    def sound(self, digest: str) -> bool:
        """Whether the bundle is there and every file has its hash."""
        try:
            return bundle_digest(self.path(digest), self.max_bytes) == digest
        except ModelError:
            return False

    def remove(self, digest: str) -> None:
        """Deletes a bundle: it loses its name first, so that a name never stands for half a bundle.

        Raises:
            StoreError: the folder cannot be renamed.
        """
        grave = self.folder / f".{uuid.uuid4().hex}.tmp"
        try:
            self.path(digest).rename(grave)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.path(digest)}: cannot be removed: {error.strerror}") from error
        shutil.rmtree(grave, ignore_errors=True)  # without its name it is swept at the next opening at the latest

    def sweep(self, used: Collection[str]) -> None:
        """Deletes what an interrupted store or delete left: temporary folders and bundles that nothing uses.

        Raises:
            StoreError: the folder cannot be read.
        """
        try:
            names = [entry.name for entry in self.folder.iterdir()]
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be read: {error.strerror}") from error
        for name in names:
            if name.endswith(".tmp"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            elif _DIGEST.fullmatch(name) and name not in used:
                self.remove(name)

    def _copy(self, source: Path, target: Path) -> None:
        target.mkdir()
        # Only what belongs to a bundle; names are never taken from a file.
        for name in (name for name in (ADAPTER, ADAPTER_CONFIG, CRITIC, MANIFEST) if (source / name).exists()):
            shutil.copyfile(source / name, target / name, follow_symlinks=False)
            sync(target / name)
        sync(target)
