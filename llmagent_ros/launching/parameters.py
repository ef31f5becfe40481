"""ROS parameters from launch files: their types by YAML's rules, and the files that hand them to a node."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.launching import substitution
from llmagent_ros.launching.context import Context, ParameterValue

_SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
_LIST = "list_of_"
TYPES = (*_SCALARS, *(_LIST + name for name in _SCALARS))


def evaluate(name: str, text: str, type_name: str | None, context: Context) -> ParameterValue:
    """A parameter's value from the text of its attribute.

    Without a type the text is read as YAML, before substitution and again after it, so `value="'3'"` is a string and
    `value="$(var n)"` has the type that n looks like. A type makes it exact: text that must stay text needs `str`.

    Raises:
        ConfigError: the text is not of that type, or of no type that a parameter can have.
    """
    if type_name == "yaml":
        type_name = None
    if type_name is not None and type_name not in TYPES:
        raise UnknownNameError(f"type of parameter {name}", type_name, [*TYPES, "yaml"])
    literal = text if type_name in _SCALARS else _literal(name, text)
    if isinstance(literal, list):
        item_type = type_name.removeprefix(_LIST) if type_name else None
        items = [_substituted(name, item, item_type, context) if isinstance(item, str) else item for item in literal]
        return _checked(name, items, type_name, text)
    if isinstance(literal, str):
        return _substituted(name, literal, type_name, context)
    return _checked(name, literal, type_name, text)


def from_yaml(name: str, text: str, type_name: str | None = None) -> ParameterValue:
    """A parameter's value from YAML text; empty text is the empty string.

    Raises:
        ConfigError: see `evaluate`.
    """
    if text == "" and type_name in (None, "str"):
        return ""
    if type_name in ("int", "float"):  # as Python reads them: "1e-3" is a float here, but text in YAML 1.1
        try:
            return _SCALARS[type_name](text)
        except ValueError as error:
            raise ConfigError(f"parameter {name}: {text!r} is not {type_name}") from error
    return _checked(name, _load(name, text), type_name, text)


def write(values: dict[str, ParameterValue], node: str, context: Context) -> Path:
    """A parameter file for a node's full name, or for every node ("/**")."""
    return _file(yaml.safe_dump({node: {"ros__parameters": values}}, default_flow_style=False), context)


def substituted(path: Path, context: Context) -> Path:
    """A copy of a parameter file with the substitutions in it carried out.

    Raises:
        ConfigError: one cannot be, or the result is not YAML.
    """
    text = substitution.perform(substitution.parse(path.read_text(encoding="utf-8")), context)
    try:
        yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML after substitution: {' '.join(str(error).split())}") from error
    return _file(text, context)


def rule(name: str, value: ParameterValue) -> str:
    """The `-p` argument that sets a parameter."""
    text = yaml.safe_dump(value, default_flow_style=True).strip() if isinstance(value, list) else str(value)
    return f"{name}:={text}"


def _file(text: str, context: Context) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="launch_params_", suffix=".yaml", dir=context.scratch, delete=False, encoding="utf-8"
    ) as handle:
        handle.write(text)
    return Path(handle.name)


def _substituted(name: str, text: str, type_name: str | None, context: Context) -> ParameterValue:
    """A text's value after substitution; one without substitutions stays text unless a type was asked for."""
    parts = substitution.parse(text)
    performed = substitution.perform(parts, context)
    if type_name == "str" or (type_name is None and all(isinstance(part, str) for part in parts)):
        return performed
    return from_yaml(name, performed, type_name)


def _literal(name: str, text: str) -> Any:
    """The text as YAML, or itself where its substitutions keep it from being YAML."""
    try:
        return _load(name, text) if text else text
    except ConfigError:
        if "$(" in text:
            return text
        raise


def _load(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: a date that there is not
        raise ConfigError(f"parameter {name}: {text!r} is not YAML; add type=\"str\" if it is plain text") from error


def _checked(name: str, value: Any, type_name: str | None, text: str) -> ParameterValue:
    """`value` when it has the type asked for, or any type that a parameter can have."""
    for candidate in (type_name,) if type_name else TYPES:
        of_list = candidate.startswith(_LIST)
        kind = _SCALARS[candidate.removeprefix(_LIST)]
        items = value if of_list else [value]
        if isinstance(items, list) and items and all(_is(item, kind, type_name is not None) for item in items):
            converted = [kind(item) for item in items]
            return converted if of_list else converted[0]
    wanted = type_name or "bool, int, float, str or a list of one of them"
    raise ConfigError(f"parameter {name}: {text!r} is not {wanted}; add type=\"str\" if it is plain text")


def _is(value: Any, kind: type, asked: bool) -> bool:
    """Whether a YAML value has a type; an integer also serves where a float was asked for."""
    return type(value) is kind or (asked and kind is float and type(value) is int)
