"""The topics of a task's conditions: whichever message types are installed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire.definitions import message_class, message_names
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.outcomes.conditions import Conditions, ConditionWatch


class ConditionTopics:
    """Subscribes them and hands their values on.

    Best effort and volatile, which every publisher matches. What a header's stamp says is when it was; without one it
    is when the message came.

    Args:
        now: the robot's clock, s.

    Raises:
        ConfigError: a type is not installed, or has no such field; or a topic is named with two types.
    """

    def __init__(self, node: Node, conditions: Conditions, now: Callable[[], float]) -> None:
        self._node, self._conditions, self._now = node, conditions, now
        of_topic: dict[str, str] = {}
        watches: defaultdict[str, list[ConditionWatch]] = defaultdict(list)
        for watch in conditions.watches:
            condition = watch.condition
            condition.check(_fields)
            if of_topic.setdefault(condition.topic, condition.type) != condition.type:
                raise ConfigError(
                    f"conditions: {condition.topic} is both {of_topic[condition.topic]} and {condition.type}"
                )
            watches[condition.topic].append(watch)
        for topic, all_of_it in watches.items():
            node.create_subscription(_class(of_topic[topic]), topic, self._taker(all_of_it), qos.SENSOR)

    def _taker(self, watches: list[ConditionWatch]) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            now = self._now()
            header: Any = getattr(message, "header", None)
            stamp = to_seconds(header.stamp) if hasattr(header, "stamp") else 0.0
            for watch in watches:  # what is stamped ahead of the clock would never get old
                watch.on_value(watch.condition.path.read(message), min(stamp, now) if stamp > 0 else now)

        return take

    def problems(self) -> list[str]:
        """What has never spoken, and why as far as can be seen."""
        types = dict(self._node.get_topic_names_and_types())
        return sorted({self._problem(watch, types) for watch in self._conditions.silent()})

    def _problem(self, watch: ConditionWatch, types: Mapping[str, list[str]]) -> str:
        condition = watch.condition
        name = self._node.resolve_topic_name(condition.topic)
        others = sorted(set(types.get(name, [])) - {condition.type})
        if others:
            return f"{name} is {', '.join(others)}, not {condition.type}"
        if not self._node.count_publishers(name):
            return f"nobody publishes {name}"
        return f"{name} says nothing"


def _class(type_name: str) -> Any:
    try:
        return message_class(type_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"type {type_name}: no package with messages of that name is installed") from error
    except AttributeError as error:
        package, _, name = type_name.split("/")
        raise UnknownNameError(f"message type of {package}", name, message_names(package)) from error


def _fields(type_name: str) -> Mapping[str, str]:
    fields: Mapping[str, str] = _class(type_name).get_fields_and_field_types()
    return fields
