"""Keeps a folder of bags within its room: the oldest finished ones go."""

from __future__ import annotations

from pathlib import Path

from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.reader import folder_bytes, is_bag
from llmagent_ros.recording.bags.repair import discard


class Retention:
    """Knows the size of every finished bag in a folder.

    Args:
        max_bytes: of all bags together, those that are being written too.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.deleted = 0
        finished = [path for path in folder.glob("*") if is_bag(path) and (path / METADATA).is_file()]
        self._sizes = {path: folder_bytes(path) for path in sorted(finished)}  # their names begin with the time

    @property
    def nbytes(self) -> int:
        """Of all finished bags."""
        return sum(self._sizes.values())

    def add(self, path: Path) -> None:
        """A bag was finished."""
        self._sizes[path] = folder_bytes(path)

    def make_room(self, open_bytes: int) -> bool:
        """Deletes the oldest bags until those being written fit; False where even without any they do not.

        Raises:
            StoreError: a bag cannot be deleted.
        """
        while self._sizes and self.nbytes + open_bytes > self.max_bytes:
            oldest = next(iter(self._sizes))
            if oldest.exists():  # else a person was faster
                discard(oldest)
            del self._sizes[oldest]
            self.deleted += 1
        return open_bytes <= self.max_bytes
