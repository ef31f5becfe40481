"""What a bag needs to know of a message type and of a topic, from the installed interfaces and the graph."""

from __future__ import annotations

import functools
import importlib
import json
import re
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile

from llmagent_ros.errors import ConfigError
from llmagent_ros.recording.bags.topics import BagTopic, Qos

_NESTED = re.compile(r"\b([a-z][a-z0-9_]*/[A-Z][A-Za-z0-9]*)")
_LINE = "=" * 80


def message_class(type_name: str) -> Any:
    """The class of "sensor_msgs/msg/LaserScan"."""
    package, _, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def message_names(package: str) -> list[str]:
    """The message types of an installed package: "LaserScan" and so on."""
    module = importlib.import_module(f"{package}.msg")
    return sorted(name for name, value in vars(module).items() if hasattr(value, "get_fields_and_field_types"))


def type_name_of(kind: type) -> str:
    """The inverse of `message_class`."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


@functools.cache
def definition(type_name: str) -> str:
    """The .msg text of a type, then those of all types in it, as rosbag2 puts them together.

    Raises:
        ConfigError: its package is installed without .msg files.
    """
    texts, waiting = {}, [type_name]
    while waiting:
        name = waiting.pop(0)
        if name in texts:
            continue
        texts[name] = _text(name)
        for field in message_class(name).get_fields_and_field_types().values():
            waiting += [nested.replace("/", "/msg/") for nested in _NESTED.findall(field)]
    first, *others = texts.items()
    parts = [f"{_LINE}\nMSG: {name.replace('/msg/', '/')}\n{text}" for name, text in others]
    return "\n".join([first[1], *parts])


@functools.cache
def type_hash(type_name: str) -> str:
    """The REP-2016 hash of a type; empty where the distribution has none (before Iron)."""
    path = _interface(type_name, "json")
    if not path.is_file():
        return ""
    hashes = {each["type_name"]: str(each["hash_string"]) for each in json.loads(path.read_text())["type_hashes"]}
    return hashes.get(type_name, "")


def bag_topic(node: Node, name: str, type_name: str) -> BagTopic:
    """A topic with the QoS that its publishers offer now. name: resolved."""
    offered = tuple(_qos(endpoint.qos_profile) for endpoint in node.get_publishers_info_by_topic(name))
    return BagTopic(name, type_name, definition(type_name), type_hash(type_name), offered)


def _qos(profile: QoSProfile) -> Qos:
    return {
        "history": profile.history.name.lower(),
        "depth": int(profile.depth),
        "reliability": profile.reliability.name.lower(),
        "durability": profile.durability.name.lower(),
        "deadline": _duration(profile.deadline),
        "lifespan": _duration(profile.lifespan),
        "liveliness": profile.liveliness.name.lower(),
        "liveliness_lease_duration": _duration(profile.liveliness_lease_duration),
        "avoid_ros_namespace_conventions": bool(profile.avoid_ros_namespace_conventions),
    }


def _duration(duration: Duration) -> dict[str, int]:
    seconds, nanoseconds = divmod(duration.nanoseconds, 1_000_000_000)
    return {"sec": seconds, "nsec": nanoseconds}


def _text(type_name: str) -> str:
    path = _interface(type_name, "msg")
    try:
        return path.read_text(encoding="utf-8").rstrip() + "\n"
    except OSError as error:
        raise ConfigError(f"the definition of {type_name} cannot be read: {error}") from error


def _interface(type_name: str, suffix: str) -> Path:
    """A file in the package's share folder, which stands under the prefix that its Python module is installed in."""
    package, kind, name = type_name.split("/")
    module = Path(str(importlib.import_module(package).__file__))
    shares = [parent / "share" / package for parent in module.parents]
    share = next((folder for folder in shares if folder.is_dir()), None)
    if share is None:
        raise ConfigError(f"package {package}: no share folder above {module.parent}; install its interfaces")
    return share / kind / f"{name}.{suffix}"
