"""Environments by name, as text."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from llmagent_ros import config
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.perception.description import EnvironmentDescription, derive_description, load_description
from llmagent_ros.perception.gymnasium_text import DescribedText, RobotText, TextEnvironment
from llmagent_ros.simulation.env import NavigateEnv

DEFAULT_ROBOT = "sim_diffdrive"
# What the shipped base has read: the robot with many wordings, and these descriptions.
BASE_ENVIRONMENTS = ("explore", "Acrobot-v1", "CartPole-v1", "FrozenLake-v1", "LunarLander-v3", "Taxi-v4")


@dataclass(frozen=True)
class EnvironmentSpec:
    """Which environment; what a run writes down, and what makes it again.

    Attributes:
        name: a task of the simulated robot ("navigate"), a shipped description ("CartPole-v1"), a path to a YAML file
            of either kind, or the id of any environment that Gymnasium knows.
        robot: contract, for a task of the simulated robot.
    """

    name: str
    robot: str = DEFAULT_ROBOT


def shipped(kind: str) -> list[str]:
    """Names of the shipped files of config/KIND: "tasks" or "environments"."""
    return sorted(path.stem for path in (config.share_dir() / "config" / kind).glob("*.yaml"))


def make_environment(spec: EnvironmentSpec) -> TextEnvironment:
    """The environment with its text.

    Raises:
        ConfigError: nobody knows that name, or what it names is wrong.
    """
    if _is_task(spec.name):
        return RobotText(NavigateEnv(spec.robot, spec.name))
    if spec.name in shipped("environments") or Path(spec.name).suffix in {".yaml", ".yml"}:
        description = load_description(spec.name)
        inner = _make(description.environment, description.arguments)
        return DescribedText(inner, description, origin=f"description {spec.name}")
    return DescribedText(_make(spec.name, {}), _derived(spec.name), origin=spec.name)


@functools.cache
def _derived(name: str) -> EnvironmentDescription:
    """Once in a process: it takes 2,000 steps, and an evaluation makes fifty of one environment."""
    env = _make(name, {})
    try:
        return derive_description(env, name)
    finally:
        env.close()


def learner_settings(env: TextEnvironment) -> Mapping[str, Any]:
    """Settings of the learner that the environment's description gives."""
    return env.description.learner if isinstance(env, DescribedText) else {}


def _is_task(name: str) -> bool:
    if Path(name).suffix in {".yaml", ".yml"}:
        return "world" in config.read_yaml(Path(name))
    return name in shipped("tasks")


def _make(environment: str, arguments: Mapping[str, Any]) -> gym.Env[Any, Any]:
    try:
        return gym.make(environment, **arguments)
    except gym.error.DependencyNotInstalled as error:
        raise ConfigError(f"environment {environment}: {error}") from error
    except (gym.error.NameNotFound, gym.error.NamespaceNotFound, gym.error.VersionNotFound) as error:
        raise UnknownNameError(
            "environment", environment, [*shipped("tasks"), *shipped("environments"), "any id of Gymnasium"]
        ) from error
    except (gym.error.Error, TypeError, ModuleNotFoundError) as error:
        raise ConfigError(f"environment {environment} cannot be made: {error}") from error
