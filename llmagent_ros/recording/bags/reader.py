"""Reading bags: finished ones, and as much as there is of one that a kill has cut off or that is still written."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, Footer, Header, McapRecord, Metadata, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import MCAP0_MAGIC

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.messages import Message
from llmagent_ros.recording.bags.codec import Codec
from llmagent_ros.recording.bags.metadata import METADATA, BagMetadata, read_metadata
from llmagent_ros.recording.bags.topics import BagMessage, BagTopic, load_qos

_RECORD = struct.Struct("<BQ")  # what a record begins with: opcode, and bytes that follow
_IN_CHUNK = b"\x04\x00\x00\x00zstd"  # near the beginning of every chunk of ours,
_CHUNK_HEAD = _RECORD.size + 28 + len(_IN_CHUNK)  # which is so long with it
_NOT_WHOLE = (McapError, ValueError, KeyError, struct.error)  # of a file that was cut off or damaged


@dataclass
class FileContent:
    """What reading a file has found out so far.

    Attributes:
        topics: by channel id. notes: metadata records in order. whole: it ends with a footer.
        written_by: name of the program, None where not even that is in the file.
        problem: why what follows could not be read. cut: as the file ends there, like one whose writer was killed;
            else something in it is damaged, and what comes after that may be sound.
    """

    topics: dict[int, BagTopic] = field(default_factory=dict)
    notes: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    whole: bool = False
    written_by: str | None = None
    problem: str = ""
    cut: bool = False


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
    schemas = {0: Schema(id=0, name="", encoding="", data=b"")}  # that of a channel that has none
    whole = len(MCAP0_MAGIC)  # bytes up to the last whole record
    with file:
        try:
            limit = path.stat().st_size
            for record in StreamReader(file, emit_chunks=True, record_size_limit=limit).records:
                for inner in _parts(record):
                    message = _take(inner, content, schemas)
                    if message is not None:
                        yield message
                whole = file.tell()
        except _NOT_WHOLE as error:
            content.cut = _is_cut_off(file, whole)
            content.problem = "it is cut off" if content.cut else str(error) or "it is damaged"


def _is_cut_off(file: BinaryIO, whole: int) -> bool:
    """Whether the record that begins at byte `whole` is the last, and goes on beyond the end of the file.

    A power cut may leave zeros in its place. One whose length is damaged has other chunks behind it.
    """
    file.seek(0)
    magic = file.read(len(MCAP0_MAGIC))
    if magic != MCAP0_MAGIC:
        return MCAP0_MAGIC.startswith(magic)
    file.seek(whole)
    rest = file.read()
    ends = len(rest) < _RECORD.size or _RECORD.size + int(_RECORD.unpack_from(rest)[1]) > len(rest) or not any(rest)
    return ends and rest.find(_IN_CHUNK, _CHUNK_HEAD) < 0


def _parts(record: McapRecord) -> list[McapRecord]:
    if not isinstance(record, Chunk):
        return [record]
    try:
        return list(breakup_chunk(record, validate_crc=True))
    except Exception as error:  # those of zstd, lz4 and struct have no base in common
        raise ValueError(f"a chunk is damaged: {error}") from error


def _take(record: McapRecord, content: FileContent, schemas: dict[int, Schema]) -> BagMessage | None:
    match record:
        case McapMessage():
            topic = content.topics[record.channel_id]
            return BagMessage(topic, record.data, record.log_time, record.publish_time, record.sequence)
        case Schema():
            schemas[record.id] = record
        case Channel():
            schema, said = schemas[record.schema_id], record.metadata
            qos = load_qos(said.get("offered_qos_profiles", ""))
            definition = schema.data.decode("utf-8", "replace")
            content.topics[record.id] = BagTopic(
                name=record.topic,
                type=schema.name,
                definition=definition,
                type_hash=said.get("topic_type_hash", ""),
                qos=qos,
                encoding=record.message_encoding,
                definition_encoding=schema.encoding,
            )
        case Header(library=writer):
            content.written_by = writer
        case Metadata():
            content.notes.append((record.name, dict(record.metadata)))
        case Footer():
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
        self.damaged = False

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
                beginning is read; `damaged` says whether one is more than cut off.
        """
        self.problems, self.damaged = [], False
        for path in self.files:
            content = FileContent()
            for message in read_file(path, content):
                if not types or message.topic.type in types:
                    yield message
            if not content.whole or content.problem:
                self.problems.append(f"{path.name}: {content.problem or 'it has no footer'}")
                self.damaged = self.damaged or not content.cut

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
