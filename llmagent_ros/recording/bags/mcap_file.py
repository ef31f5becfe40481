"""One MCAP file that grows by whole chunks: whatever ends the process, what is in the file is a readable beginning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mcap.writer import CompressionType, Writer

from llmagent_ros import __version__
from llmagent_ros.durable import write_fully
from llmagent_ros.errors import StoreError
from llmagent_ros.recording.bags.topics import CDR, ROS2MSG, BagMessage, BagTopic

LIBRARY = "llmagent_ros "  # and its version: what a file says wrote it
_CHUNK = 1 << 20  # bytes of messages after which a chunk is written though its time has not come


@dataclass
class FileSummary:
    """What metadata.yaml says of a file. start, end: log times of the earliest and latest message, ns."""

    name: str
    start: int = 0
    end: int = 0
    messages: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # by topic

    def count(self, message: BagMessage) -> None:
        """Takes a message into account."""
        self.start = min(self.start, message.log_time) if self.messages else message.log_time
        self.end = max(self.end, message.log_time)
        self.messages += 1
        self.counts[message.topic.name] = self.counts.get(message.topic.name, 0) + 1


class _Stream:
    """The bytes of the file, written at once; counts them, as the writer asks for its position."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.position = descriptor, 0

    def write(self, data: bytes) -> int:
        write_fully(self.descriptor, data)
        self.position += len(data)
        return len(data)

    def tell(self) -> int:
        return self.position

    def flush(self) -> None:
        """Nothing is held back."""


class McapFile:
    """Writes a new file. `flush` ends a chunk; between two of them messages are in memory only.

    Raises:
        StoreError: from every method: it cannot be written, for instance because the disk is full. The file then ends
            with its last whole chunk, and nothing more is written to it.
    """

    def __init__(self, path: Path, facts: Mapping[str, str]) -> None:
        self.path = path
        self.summary = FileSummary(path.name)
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._pending = 0  # bytes of the chunk under way
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: cannot be made: {error.strerror}") from error
        self._stream = _Stream(descriptor)
        self._whole = 0  # bytes up to the last whole record
        # a chunk is ended here alone, so that a write that fails leaves none half done
        self._writer = Writer(cast("Any", self._stream), chunk_size=1 << 62, compression=CompressionType.ZSTD)
        self._guarded(lambda: self._writer.start("ros2", f"{LIBRARY}{__version__}"))
        self.note("llmagent", facts)

    @property
    def nbytes(self) -> int:
        """On disk."""
        return self._stream.position

    @property
    def nbytes_at_most(self) -> int:
        """With what a flush would add if nothing of it could be compressed."""
        return self._stream.position + self._pending

    def write(self, message: BagMessage) -> None:
        """Takes a message."""
        channel = self._channels.get(message.topic.name)
        if channel is None:
            channel = self._register(message.topic)
        m = message
        self._writer.add_message(channel, m.log_time, m.data, m.publish_time, m.sequence & 0xFFFFFFFF)
        self.summary.count(message)
        self._pending += len(m.data) + 31  # of the record around it
        if self._pending >= _CHUNK:
            self.flush()

    def note(self, name: str, values: Mapping[str, str]) -> None:
        """Writes a metadata record."""
        self._guarded(lambda: self._writer.add_metadata(name, dict(values)))

    def flush(self) -> None:
        """Ends the chunk: what was taken survives kill -9 from here on."""
        if self._pending:
            self._guarded(self._writer.flush)
            self._pending = 0

    def finish(self) -> FileSummary:
        """Writes the index and the footer, and waits for the disk."""
        self.flush()
        self._guarded(self._writer.finish)
        self._guarded(lambda: os.fsync(self._stream.descriptor))
        self._close()
        return self.summary

    def abandon(self) -> None:
        """Closes the file as it is: without index and footer; may be called twice."""
        self._close()

    def _register(self, topic: BagTopic) -> int:
        schema = self._schemas.get(topic.type)
        if schema is None:
            schema = self._writer.register_schema(topic.type, ROS2MSG, topic.definition.encode())
            self._schemas[topic.type] = schema
        channel = self._writer.register_channel(topic.name, CDR, schema, topic.channel_metadata)
        self._channels[topic.name] = channel
        return channel

    def _guarded(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            os.ftruncate(self._stream.descriptor, self._whole)  # shorter needs no room
            self._close()
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._whole = self._stream.position

    def _close(self) -> None:
        if self._stream.descriptor >= 0:
            os.close(self._stream.descriptor)
            self._stream.descriptor = -1
