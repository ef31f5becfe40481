"""What a bag says of a topic, and one message of it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import yaml

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in C where PyYAML was built with it: ten times as fast
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CDR, ROS2MSG = "cdr", "ros2msg"  # how ROS 2 encodes messages, and definitions that are .msg files
Qos = Mapping[str, Any]  # one offered profile, with the keys and words of rosbag2's metadata of version 9


@dataclass(frozen=True)
class BagTopic:
    """A topic as it is recorded.

    Attributes:
        name: resolved, "/scan". type: "sensor_msgs/msg/LaserScan".
        definition: text of the message and of all that it is made of, as "ros2msg".
        type_hash: REP-2016 hash, empty where the distribution has none. qos: of its publishers.
        encoding, definition_encoding: of its messages, and of the definition. None but these can be read or written.
    """

    name: str
    type: str
    definition: str
    type_hash: str = ""
    qos: tuple[Qos, ...] = ()
    encoding: str = CDR
    definition_encoding: str = ROS2MSG

    @cached_property
    def channel_metadata(self) -> dict[str, str]:
        """What rosbag2's MCAP storage keeps with a channel."""
        return {"offered_qos_profiles": dump_qos(self.qos), "topic_type_hash": self.type_hash}


@dataclass(frozen=True)
class BagMessage:
    """One message, serialised.

    Attributes:
        data: CDR with its four bytes of encapsulation. log_time, publish_time: ns of the wall clock.
        sequence: of the publisher, 0 where the middleware does not say.
    """

    topic: BagTopic
    data: bytes
    log_time: int
    publish_time: int
    sequence: int = 0


def dump_qos(profiles: Sequence[Qos]) -> str:
    """YAML of offered profiles, empty for none."""
    return dump_yaml([dict(each) for each in profiles]).strip() if profiles else ""


class _Plain(_DUMPER):  # type: ignore[misc, valid-type]
    """Without anchors: what is there twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(content: Any) -> str:
    """YAML as rosbag2 writes it: keys in their order, Unicode as it is, no folded lines."""
    return str(yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1 << 20))


@lru_cache(maxsize=64)
def load_qos(text: str) -> tuple[Qos, ...]:
    """The inverse of `dump_qos`."""
    return tuple(load_yaml(text) or ()) if text else ()


def load_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, _LOADER)


def header_stamp(data: bytes) -> int:
    """The stamp, ns, of a serialised message that begins with a std_msgs/Header."""
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
