"""How many of the last actions a scene says, as a gene: of a robot its contract says it, of others their description.

Both are YAML files, so a member whose history differs has a file of its own, which a robot can be started with.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from llmagent_ros.config import read_yaml
from llmagent_ros.contract import contract_path
from llmagent_ros.durable import write_atomic
from llmagent_ros.experiments.environments import ARM_ROBOT, DEFAULT_ROBOT, EnvironmentSpec, make_environment
from llmagent_ros.perception.gymnasium_text import ArmText, DescribedText, TextEnvironment

_PART = "history"


def history_of(spec: EnvironmentSpec) -> int:
    """How many of the last actions a scene of this environment says."""
    env = make_environment(spec)
    try:
        if isinstance(env, DescribedText):
            return env.description.history
        scene = read_yaml(contract_path(_robot_of(spec, env))).get("scene", {})
        parts = scene.get("parts", [_PART])
        return int(scene.get("history", 3)) if _PART in parts else 0
    finally:
        env.close()


def with_history(spec: EnvironmentSpec, history: int, folder: Path) -> EnvironmentSpec:
    """The same environment with so many of the last actions in its scenes.

    Where it does not say so many anyway, a file of its own is made in `folder`.

    Raises:
        ConfigError: nobody knows the environment. StoreError: the file cannot be written.
    """
    if history == history_of(spec):
        return spec
    env = make_environment(spec)
    try:
        if isinstance(env, DescribedText):
            content = _plain(dataclasses.asdict(env.description)) | {"history": history}
            path = folder / f"environment-history-{history}.yaml"
            _write(path, content)
            return EnvironmentSpec(str(path), spec.robot)
        robot = _robot_of(spec, env)
    finally:
        env.close()
    content = read_yaml(contract_path(robot))
    scene = dict(content.get("scene", {}))
    if history and _PART not in scene.get("parts", [_PART]):
        scene["parts"] = [*scene["parts"], _PART]
    path = folder / f"{content['robot']}-history-{history}.yaml"
    _write(path, {**content, "scene": {**scene, "history": history}})
    return EnvironmentSpec(spec.name, str(path))


def _robot_of(spec: EnvironmentSpec, env: TextEnvironment) -> str:
    return ARM_ROBOT if isinstance(env, ArmText) and spec.robot == DEFAULT_ROBOT else spec.robot


def _write(path: Path, content: dict[str, Any]) -> None:
    data = yaml.safe_dump(content, sort_keys=False).encode()
    if not path.exists() or path.read_bytes() != data:
        write_atomic(path, data)


def _plain(value: Any) -> Any:
    """Without tuples, and without keys that say nothing."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if each is not None and each != "" and each != ()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
