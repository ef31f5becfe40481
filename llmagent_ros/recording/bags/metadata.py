"""metadata.yaml of a bag folder, as rosbag2 of Jazzy writes it (version 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import StoreError
from llmagent_ros.recording.bags.mcap_file import FileSummary
from llmagent_ros.recording.bags.topics import BagTopic, dump_yaml, load_yaml

METADATA = "metadata.yaml"
_VERSION = 9
_TOP = "rosbag2_bagfile_information"


@dataclass(frozen=True)
class BagMetadata:
    """What metadata.yaml says. files: names in the bag's folder, in order. facts: rosbag2's custom_data."""

    files: tuple[str, ...]
    start: int
    duration: int
    messages: int
    counts: Mapping[str, int]
    types: Mapping[str, str]
    facts: Mapping[str, str]


def write_metadata(
    folder: Path, topics: Iterable[BagTopic], files: Iterable[FileSummary], facts: Mapping[str, str]
) -> None:
    """Writes metadata.yaml, whole or not at all: its presence says that the bag is finished.

    Raises:
        StoreError: it cannot be written.
    """
    text = dump_yaml({_TOP: _information(list(topics), list(files), facts)})
    write_atomic(folder / METADATA, text.encode())


def read_metadata(folder: Path) -> BagMetadata:
    """What metadata.yaml says.

    Raises:
        StoreError: it is missing, or not such a file.
    """
    path = folder / METADATA
    try:
        said = load_yaml(path.read_text(encoding="utf-8"))[_TOP]
        counts = {each["topic_metadata"]["name"]: int(each["message_count"]) for each in _topics(said)}
        types = {each["topic_metadata"]["name"]: str(each["topic_metadata"]["type"]) for each in _topics(said)}
        return BagMetadata(
            files=tuple(Path(str(name)).name for name in said["relative_file_paths"]),
            start=int(said["starting_time"]["nanoseconds_since_epoch"]),
            duration=int(said["duration"]["nanoseconds"]),
            messages=int(said["message_count"]),
            counts=counts,
            types=types,
            facts={str(key): str(value) for key, value in (said.get("custom_data") or {}).items()},
        )
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: not the metadata of a bag: {' '.join(str(error).split())}") from error


def _topics(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(said["topics_with_message_count"] or [])


def _information(topics: list[BagTopic], files: list[FileSummary], facts: Mapping[str, str]) -> dict[str, Any]:
    filled = [file for file in files if file.messages]
    start = min((file.start for file in filled), default=0)
    counts: dict[str, int] = {topic.name: 0 for topic in topics}
    for file in files:
        for name, count in file.counts.items():
            counts[name] = counts.get(name, 0) + count
    return {
        "version": _VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": max((file.end for file in filled), default=0) - start},
        "starting_time": {"nanoseconds_since_epoch": start},
        "message_count": sum(file.messages for file in files),
        "topics_with_message_count": [
            {"topic_metadata": _topic(topic), "message_count": counts[topic.name]} for topic in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file.name for file in files],
        "files": [_file(file) for file in files],
        "custom_data": dict(facts),
        "ros_distro": facts.get("ros_distro", ""),
    }


def _topic(topic: BagTopic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "type": topic.type,
        "serialization_format": "cdr",
        "offered_qos_profiles": [dict(each) for each in topic.qos],
        "type_description_hash": topic.type_hash,
    }


def _file(file: FileSummary) -> dict[str, Any]:
    return {
        "path": file.name,
        "starting_time": {"nanoseconds_since_epoch": file.start},
        "duration": {"nanoseconds": file.end - file.start},
        "message_count": file.messages,
    }
