"""What several commands read from their command line alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmagent_ros.config import parse_yaml
from llmagent_ros.errors import ConfigError


def put_setting(settings: dict[str, Any], setting: str) -> None:
    """Puts "learner.beta=0.03" into nested settings.

    Raises:
        ConfigError: it has no "=", a value that is not YAML, or a key below a value.
    """
    key, found, value = setting.partition("=")
    if not found:
        raise ConfigError(f"--set {setting!r}; valid: KEY=VALUE, e.g. learner.beta=0.03")
    *path, last = key.split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"--set {setting!r}: {part} is no group of settings")
    try:
        settings[last] = parse_yaml(value)
    except ConfigError as error:
        raise ConfigError(f"--set {setting!r}: {error}") from error


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
