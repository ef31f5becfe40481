"""Config dataclasses as ROS parameters."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from rclpy.node import Node

from llmagent_ros import config
from llmagent_ros.errors import ConfigError

T = TypeVar("T")
_BUILT_IN = ("use_sim_time", "start_type_description_service", "qos_overrides")


def parameters(node: Node, kind: type[T], fixed: Mapping[str, Any] | None = None) -> T:
    """Declares a config dataclass as ROS parameters and returns it with the values that were set.

    A nested dataclass becomes a prefix ("critic.heads"). The node must have been made with
    `automatically_declare_parameters_from_overrides=True`, so that unknown names can be told.

    Args:
        fixed: values that are not parameters.

    Raises:
        ConfigError: an unknown parameter (the valid ones are listed) or a wrong value.
    """
    names = _leaves(kind, fixed or {})
    declared: dict[str, Any] = dict(node.get_parameters_by_prefix(""))
    given = {
        name: parameter.value
        for name, parameter in declared.items()
        if not name.startswith(_BUILT_IN)
    }
    unknown = sorted(set(given) - set(names))
    if unknown:
        valid = ", ".join(sorted(names))
        raise ConfigError(f"node {node.get_name()}: unknown parameter {unknown[0]!r}; valid: {valid}")
    values: dict[str, Any] = dict(fixed or {})
    for name, value in given.items():
        _put(values, name.split("."), value)
    built = config.build(kind, values, f"node {node.get_name()}, parameters")
    for name in sorted(set(names) - set(given)):
        default = _get(built, name.split("."))
        if default is not None and default != ():  # ROS cannot type an empty list
            node.declare_parameter(name, list(default) if isinstance(default, tuple) else default)
    return built


def _leaves(kind: Any, fixed: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for field in dataclasses.fields(kind):
        if not prefix and field.name in fixed:
            continue
        nested = _dataclass_of(kind, field)
        name = prefix + field.name
        names += _leaves(nested, {}, f"{name}.") if nested else [name]
    return names


def _dataclass_of(kind: Any, field: dataclasses.Field[Any]) -> Any:
    hint = typing.get_type_hints(kind).get(field.name)
    return hint if dataclasses.is_dataclass(hint) else None


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def _get(built: Any, path: list[str]) -> Any:
    for part in path:
        built = getattr(built, part)
    return built
