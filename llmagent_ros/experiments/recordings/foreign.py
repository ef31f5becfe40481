"""Bags that others recorded, read by `rosbags`: of ROS 1 and ROS 2, in SQLite or MCAP."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.messages import Message


@dataclass(frozen=True)
class ForeignMessage:
    """time: at which it was received, ns. type: as of ROS 2, "sensor_msgs/msg/LaserScan"."""

    topic: str
    type: str
    time: int
    content: Message


def foreign_messages(path: Path, topics: Collection[str], needed: Collection[str] = ()) -> Iterator[ForeignMessage]:
    """The messages of some topics in the order in which they were received.

    Args:
        path: a folder of rosbag2, an MCAP file, or a .bag file of ROS 1. needed: of the topics.

    Raises:
        ConfigError: there is no such bag, or it lacks a topic that is needed (those that it has are listed).
        StoreError: it is damaged.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such bag")
    try:
        # a bag in SQLite before Iron has no definitions of its messages
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            connections = [each for each in reader.connections if each.topic in topics]
            missing = sorted(set(needed) - {each.topic for each in connections})
            if missing:
                found = ", ".join(sorted(each.topic for each in reader.connections)) or "(none)"
                raise ConfigError(f"{path}: has no topic {', '.join(missing)}; it has {found}")
            for connection, time, data in reader.messages(connections):
                content = reader.deserialize(data, connection.msgtype)
                yield ForeignMessage(connection.topic, connection.msgtype, time, content)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: not a bag: {error}") from error
    except (AnyReaderError, ValueError, KeyError, AssertionError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
