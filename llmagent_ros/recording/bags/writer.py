"""A bag folder: MCAP files that are split by size, and metadata.yaml when it is finished."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from llmagent_ros.durable import sync
from llmagent_ros.errors import StoreError
from llmagent_ros.recording.bags.mcap_file import FileSummary, McapFile
from llmagent_ros.recording.bags.metadata import write_metadata
from llmagent_ros.recording.bags.topics import BagMessage, BagTopic


class BagWriter:
    """Writes one new bag. Not thread-safe.

    Args:
        folder: made by this, must not be there yet. facts: of the bag, at the beginning of each file.
        max_file_bytes: after which the next file begins.

    Raises:
        StoreError: from every method: the folder is there, or the disk is full. What was flushed stays readable; of a
            bag whose first file could not be made nothing stays.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str], max_file_bytes: int) -> None:
        self.folder, self.facts = folder, dict(facts)
        self._max_file_bytes = max_file_bytes
        self._topics: dict[str, BagTopic] = {}
        self._done: list[FileSummary] = []
        self._done_bytes = 0
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be made: {error.strerror}") from error
        try:
            self._file = self._next_file()
        except StoreError:
            shutil.rmtree(folder, ignore_errors=True)  # made just now, and nothing is in it
            raise

    @property
    def nbytes(self) -> int:
        """On disk."""
        return self._done_bytes + self._file.nbytes

    @property
    def messages(self) -> int:
        return sum(file.messages for file in self._done) + self._file.summary.messages

    def write(self, message: BagMessage) -> None:
        """Takes a message, into the next file if this one is full."""
        if self._file.nbytes_at_most + len(message.data) > self._max_file_bytes and self._file.summary.messages:
            self._finish_file()
            self._file = self._next_file()
        self._topics.setdefault(message.topic.name, message.topic)
        self._file.write(message)

    def note(self, name: str, values: Mapping[str, str]) -> None:
        """Writes a metadata record into the present file."""
        self._file.note(name, values)

    def flush(self) -> None:
        """What was taken survives kill -9 from here on."""
        self._file.flush()

    def close(self) -> None:
        """Finishes the bag, with the facts as they are now; all of it is on disk when this returns."""
        self._file.note("llmagent.end", self.facts)
        self._finish_file()
        write_metadata(self.folder, self._topics.values(), self._done, self.facts)
        sync(self.folder.parent)

    def abandon(self) -> None:
        """Lets go of the file as it is; what was flushed is found by `repair`."""
        self._file.abandon()

    def _finish_file(self) -> None:
        self._done.append(self._file.finish())
        self._done_bytes += self._file.nbytes

    def _next_file(self) -> McapFile:
        return McapFile(self.folder / f"{self.folder.name}_{len(self._done)}.mcap", self.facts)
