"""Paths to a field of a message: "data", "pose.pose.position.x", "ranges[0]"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmagent_ros.errors import ConfigError, UnknownNameError

Kind = Literal["boolean", "number", "string"]
FieldsOf = Callable[[str], Mapping[str, str]]
_STEP = re.compile(r"([a-zA-Z][a-zA-Z0-9_]*)(?:\[([0-9]{1,6})\])?")
_LIST = re.compile(r"sequence<(.+?)(?:, *[0-9]+)?>|(.+)\[[0-9]+\]")
_NESTED = re.compile(r"([a-z][a-z0-9_]*)/([A-Z][A-Za-z0-9]*)")
_NUMBERS = re.compile(r"u?int(8|16|32|64)|float|double|long double|octet")


@dataclass(frozen=True)
class FieldPath:
    """Names and indices, in the order in which they lead into a message."""

    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> FieldPath:
        """Raises ValueError where it is no path."""
        steps: list[str | int] = []
        for part in text.split("."):
            match = _STEP.fullmatch(part)
            if match is None:
                raise ValueError(f"{text!r} is no field; valid: names with dots between, as pose.position.x, ranges[0]")
            steps += [match[1]] if match[2] is None else [match[1], int(match[2])]
        return cls(tuple(steps))

    def __str__(self) -> str:
        words = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps)
        return "".join(words).removeprefix(".")

    def read(self, message: Any) -> bool | float | str | None:
        """The value in a message of the type that it was checked for; None where a list is too short."""
        value = message
        for step in self.steps:
            if isinstance(step, str):
                value = getattr(value, step)
            elif step < len(value):
                value = value[step]
            else:
                return None
        if isinstance(value, bytes):  # what rclpy makes of a byte
            return value[0]
        return value if isinstance(value, bool | str) else float(value)

    def kind(self, type_name: str, fields_of: FieldsOf) -> Kind:
        """What a message type ("nav_msgs/msg/Odometry") holds there.

        Args:
            fields_of: names and types of a message type's fields, as rosidl says them: "double", "sequence<float>",
                "geometry_msgs/Pose".

        Raises:
            ConfigError: there is no such field (the valid ones are listed), or it is no single value.
        """
        at, present = type_name, ""
        for step in self.steps:
            if isinstance(step, int):
                match = _LIST.fullmatch(at)
                if match is None:
                    raise ConfigError(f"field {self}: {present} of {type_name} is no list")
                at = _full(match[1] or match[2])
                continue
            fields = fields_of(at) if "/" in at and _LIST.fullmatch(at) is None else {}
            if step not in fields:
                raise UnknownNameError(f"field of {at} in the path {str(self)!r}:", step, fields)
            present, at = step, _full(fields[step])
        if at == "boolean":
            return "boolean"
        if at.startswith(("string", "wstring")):
            return "string"
        if _NUMBERS.fullmatch(at):
            return "number"
        problem = f"field {self}: {at} is no single value"
        if _LIST.fullmatch(at):
            raise ConfigError(f"{problem}; valid: {self}[0] and so on")
        raise ConfigError(f"{problem}; valid: {', '.join(f'{self}.{name}' for name in fields_of(at))}")


def _full(type_name: str) -> str:
    """ "geometry_msgs/Pose" as "geometry_msgs/msg/Pose"."""
    nested = _NESTED.fullmatch(type_name)
    return f"{nested[1]}/msg/{nested[2]}" if nested else type_name
