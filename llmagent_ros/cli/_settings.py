"""What several commands read from their command line alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmagent_ros.config import parse_yaml, read_yaml
from llmagent_ros.errors import ConfigError

_OF_MODEL = ("model", "device", "dtype", "chat", "rank")  # parameters of a learner node


def put_setting(settings: dict[str, Any], setting: str) -> None:
    """Puts "learner.beta=0.03" into nested settings.

    Raises:
        ConfigError: it has no "=", a value that is not YAML, or a key below a value.
    """
    key, found, value = setting.partition("=")
    if not found:
        raise ConfigError(f"--set {setting!r}; valid: KEY=VALUE, e.g. learner.beta=0.03")
    try:
        _put(settings, key, parse_yaml(value))
    except ConfigError as error:
        raise ConfigError(f"--set {setting!r}: {error}") from error


def of_learner(path: Path) -> dict[str, Any]:
    """What a learner node with this parameter file learns with, as settings: its `model` and, of rl, its `learner`.

    Raises:
        ConfigError: it cannot be read, or is no parameter file.
    """
    settings: dict[str, Any] = {}
    for node, content in read_yaml(path).items():
        if str(node).rsplit("/", 1)[-1] not in ("**", "*", "learner"):
            continue
        values = content.get("ros__parameters") if isinstance(content, dict) else None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {node}: no ros__parameters")
        for key, value in _flat(values):
            if key in _OF_MODEL:
                _put(settings, f"model.{key}", value)
            elif key.startswith("rl."):
                _put(settings, f"learner.{key.removeprefix('rl.')}", value)
    return settings


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """{"rl": {"beta": 0.03}} and {"rl.beta": 0.03} alike as ("rl.beta", 0.03)."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{part} is no group of settings")
    settings[last] = value


def bundle_of(path: Path, argument: str = "--start") -> str:
    """The bundle that an argument names: itself, or the newest one of a run's folder.

    Raises:
        ConfigError: there is none.
    """
    from llmagent_ros.bundle import latest_bundle
    from llmagent_ros.experiments.training import BUNDLES

    newest = latest_bundle(path / BUNDLES) if (path / BUNDLES).is_dir() else path
    if newest is None or not (newest / "bundle.json").is_file():
        raise ConfigError(f"{argument} {path}: neither a bundle nor the folder of a run that has one")
    return str(newest)
