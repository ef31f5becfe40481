"""Reading YAML into validated dataclasses, with errors that name the file, the key and the valid choices."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from llmagent_ros.errors import ConfigError, UnknownNameError

T = TypeVar("T")

_LONGEST_VALUE = 100  # characters of a wrong value that are shown
SHARE_VARIABLE = "LLMAGENT_SHARE"


def share_dir() -> Path:
    """The folder that holds launch/, config/ and sim/: the checkout, or the installed share folder.

    Raises:
        ConfigError: neither is there.
    """
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "config" / "robots").is_dir():
        return checkout
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError as error:
        raise ConfigError(f"no config folder beside {checkout} and no ament index to look it up") from error
    try:
        return Path(get_package_share_directory("llmagent_ros"))
    except PackageNotFoundError as error:
        raise ConfigError("package llmagent_ros is not in the ament index: source the workspace") from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML's rule that a mapping has no key twice, which PyYAML lets pass: the last one would win unseen."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: key {key.value!r} is given twice")
                seen.add((key.tag, key.value))
        return node


def parse_yaml(text: str) -> Any:
    """What a YAML text says.

    Raises:
        ConfigError: it is not YAML, gives a key twice, or is nested too deeply.
    """
    try:
        return yaml.load(text, _UniqueKeys)
    except RecursionError as error:
        raise ConfigError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # The last three are PyYAML's own for a scalar that is none of its kind: 2024-13-45, !!bool perhaps, !!int "".
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(content).__name__}")
    return content


def build(kind: type[T], values: Mapping[str, Any], origin: str) -> T:
    """A validated `kind` (a pydantic dataclass) from plain values.

    Args:
        origin: where the values come from; begins every message.

    Raises:
        ConfigError: a value is wrong or missing, or a key is unknown (the valid keys are listed).
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(kind, error)}") from error


def load(kind: type[T], path: Path) -> T:
    """`build` from a YAML file."""
    return build(kind, read_yaml(path), str(path))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two mappings differ, mappings in them included: "model.rank 4, now 8", in alphabetical order."""
    told = []
    for key in sorted({*before, *now}):
        one, other = before.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            told += [f"{key}.{each}" for each in differences(one, other)]
        elif one != other:
            told.append(f"{key} {_short(one)}, now {_short(other)}")
    return told


def named_file(kind: str, name: str, folder: Path) -> Path:
    """The YAML file of a shipped name ("sim_diffdrive") or of a path to one's own file.

    Raises:
        UnknownNameError: neither a shipped name nor an existing file.
    """
    own = Path(name).expanduser()
    if own.suffix in {".yaml", ".yml"} and own.is_file():
        return own
    shipped = {path.stem: path for path in folder.glob("*.yaml")}
    if name not in shipped:
        raise UnknownNameError(kind, name, shipped)
    return shipped[name]


def _first_problem(kind: type[Any], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "(top)"
    if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        parent = _follow(kind, problem["loc"][:-1])
        valid = ", ".join(sorted(_keys(parent))) if parent else "see the docs"
        return f"unknown key {where!r}; valid: {valid}"
    if problem["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return f"{where}: needed, and not given"
    if problem["type"] == "value_error":  # ours: says itself what was given
        said = str(problem["ctx"]["error"])
        return f"{where}: {said}" if problem["loc"] else said
    return f"{where}: {problem['msg']} (got {_short(problem['input'])})"


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= _LONGEST_VALUE else f"{told[:_LONGEST_VALUE]}…"


def _keys(kind: Any) -> list[str]:
    """The keys of a pydantic dataclass: its fields' names, or what stands for them in a file."""
    described = getattr(kind, "__pydantic_fields__", {})
    aliases = {name: field.alias for name, field in described.items()}
    return [aliases.get(field.name) or field.name for field in dataclasses.fields(kind)]


def _follow(kind: Any, location: tuple[int | str, ...]) -> Any:
    """The dataclass that the keys in `location` lead to, or None."""
    for part in location:
        if dataclasses.is_dataclass(kind):
            by_key = dict(zip(_keys(kind), dataclasses.fields(kind), strict=True))
            field = by_key.get(str(part))
            kind = typing.get_type_hints(kind).get(field.name) if field is not None else None
        else:  # dict[str, X] or tuple[X, ...]: the member type
            members = [arg for arg in typing.get_args(kind) if dataclasses.is_dataclass(arg)]
            kind = members[-1] if members else None
    if not dataclasses.is_dataclass(kind):
        members = [arg for arg in typing.get_args(kind) if dataclasses.is_dataclass(arg)]
        kind = members[0] if members else None
    return kind
