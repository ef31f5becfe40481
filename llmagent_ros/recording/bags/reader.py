"""Reading bags: finished ones, and as much as there is of one that a kill has cut off or that is still written."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, Footer, McapRecord, Metadata, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader, breakup_chunk

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.messages import Message
from llmagent_ros.recording.bags.codec import Codec
from llmagent_ros.recording.bags.metadata import METADATA, BagMetadata, read_metadata
from llmagent_ros.recording.bags.topics import BagMessage, BagTopic, load_qos

_NOT_WHOLE = (McapError, ValueError, KeyError, struct.error)  # of a file that was cut off or damaged


@dataclass
class FileContent:
    """What reading a file has found out so far.

    Attributes:
        topics: by channel id. notes: metadata records in order. whole: it ends with a footer.
    """

    topics: dict[int, BagTopic] = field(default_factory=dict)
    notes: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    whole: bool = False
    problem: str = ""


def read_file(path: Path, content: FileContent) -> Iterator[BagMessage]:
    """The messages of an MCAP file in the order in which they were written; fills `content` meanwhile.

    Ends without an error where the file is cut off or damaged: see `content.problem`.

    Raises:
        StoreError: it cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    schemas: dict[int, Schema] = {}
    with file:
        try:
            limit = path.stat().st_size
            for record in StreamReader(file, emit_chunks=True, record_size_limit=limit).records:
                for inner in _parts(record):
                    message = _take(inner, content, schemas)
                    if message is not None:
                        yield message
        except _NOT_WHOLE as error:
            content.problem = str(error) or "it is cut off"


def _parts(record: McapRecord) -> list[McapRecord]:
    if not isinstance(record, Chunk):
        return [record]
    try:
        return list(breakup_chunk(record, validate_crc=True))
    except Exception as error:  # those of zstd, lz4 and struct have no base in common
        raise ValueError(f"a chunk is damaged: {error}") from error


def _take(record: McapRecord, content: FileContent, schemas: dict[int, Schema]) -> BagMessage | None:
    if isinstance(record, McapMessage):
        topic = content.topics[record.channel_id]
        return BagMessage(topic, record.data, record.log_time, record.publish_time, record.sequence)
    if isinstance(record, Schema):
        schemas[record.id] = record
    elif isinstance(record, Channel):
        schema, said = schemas[record.schema_id], record.metadata
        qos = load_qos(said.get("offered_qos_profiles", ""))
        definition = schema.data.decode("utf-8", "replace")
        content.topics[record.id] = BagTopic(
            record.topic, schema.name, definition, said.get("topic_type_hash", ""), qos
        )
    elif isinstance(record, Metadata):
        content.notes.append((record.name, dict(record.metadata)))
    elif isinstance(record, Footer):
        content.whole = True
    return None


class Bag:
    """One bag: a folder as rosbag2 makes it with MCAP, finished or not, or an MCAP file.

    Raises:
        ConfigError: there is no such bag. StoreError: its metadata is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise ConfigError(f"{path}: no such bag")
        self.metadata: BagMetadata | None = None
        if path.is_file():
            self.files = [path]
        elif (path / METADATA).is_file():
            self.metadata = read_metadata(path)
            self.files = [path / name for name in self.metadata.files]
        else:
            self.files = sorted(path.glob("*.mcap"), key=_number)
        if not self.files or any(file.suffix != ".mcap" for file in self.files):
            raise ConfigError(f"{path}: no bag in MCAP; give a folder with .mcap files, or such a file")
        self.problems: list[str] = []

    @cached_property
    def facts(self) -> dict[str, str]:
        """What the recorder wrote down about the bag; of an unfinished one what it knew at the beginning."""
        if self.metadata is not None and self.metadata.facts:
            return dict(self.metadata.facts)
        facts: dict[str, str] = {}
        for name, values in self.notes:
            if name in ("llmagent", "llmagent.end"):
                facts |= values
        return facts

    @cached_property
    def notes(self) -> list[tuple[str, dict[str, str]]]:
        """The metadata records of all files."""
        return self._scanned[1]

    @cached_property
    def topics(self) -> dict[str, BagTopic]:
        """By name."""
        return self._scanned[0]

    @cached_property
    def codec(self) -> Codec:
        """Decodes its messages."""
        return Codec({topic.type: topic.definition for topic in self.topics.values()}, str(self.path))

    @property
    def nbytes(self) -> int:
        return folder_bytes(self.path)

    def messages(self, types: Collection[str] = ()) -> Iterator[BagMessage]:
        """In the order in which they were received.

        Args:
            types: of these only; none: all.

        Raises:
            StoreError: a file cannot be opened. Where one is cut off or damaged, `problems` says so and its sound
                beginning is read.
        """
        self.problems = []
        for path in self.files:
            content = FileContent()
            for message in read_file(path, content):
                if not types or message.topic.type in types:
                    yield message
            if not content.whole or content.problem:
                self.problems.append(f"{path.name}: {content.problem or 'it has no footer'}")

    def decoded(self, types: Collection[str] = ()) -> Iterator[tuple[BagMessage, Message]]:
        """Messages with what is in them.

        Raises:
            StoreError: one is not of the type that its topic has.
        """
        for message in self.messages(types):
            yield message, self.codec.decode(message.topic.type, message.data)

    @cached_property
    def _scanned(self) -> tuple[dict[str, BagTopic], list[tuple[str, dict[str, str]]]]:
        topics: dict[str, BagTopic] = {}
        notes: list[tuple[str, dict[str, str]]] = []
        for path in self.files:
            content = FileContent()
            for _ in read_file(path, content):
                pass
            for topic in content.topics.values():
                topics.setdefault(topic.name, topic)
            notes += content.notes
        return topics, notes


def find_bags(path: Path) -> list[Path]:
    """The bag folders that a path means: itself, those in it, or those in the `bags` of a run; oldest first.

    Raises:
        ConfigError: there is none.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such bag or run")
    if is_bag(path):
        return [path]
    for folder in (path / BAGS, path):
        found = sorted(each for each in folder.glob("*") if is_bag(each)) if folder.is_dir() else []
        if found:
            return found
    raise ConfigError(f"{path}: no bags; give a bag, a folder of bags, or a run that was recorded (record:=true)")


BAGS = "bags"  # in a run's folder


def is_bag(path: Path) -> bool:
    """Whether this is a bag in MCAP; what is being deleted or redacted has a name that begins with a dot."""
    if path.is_file():
        return path.suffix == ".mcap"
    return path.is_dir() and not path.name.startswith(".") and any(path.glob("*.mcap"))


def folder_bytes(path: Path) -> int:
    """Size of all files in a folder, or of a file; one that is deleted meanwhile counts as nothing."""
    total = 0
    for file in [path] if path.is_file() else path.glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _number(path: Path) -> tuple[int, str]:
    """Files are split as NAME_0, NAME_1 … NAME_10."""
    last = path.stem.rpartition("_")[2]
    return (int(last) if last.isdigit() else -1, path.name)
