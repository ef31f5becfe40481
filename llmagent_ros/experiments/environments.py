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
from llmagent_ros.experiments import families
from llmagent_ros.perception.description import EnvironmentDescription, derive_description, load_description
from llmagent_ros.perception.gymnasium_text import ArmText, DescribedText, RobotText, TextEnvironment
from llmagent_ros.simulation.arm.env import ArmEnv
from llmagent_ros.simulation.env import NavigateEnv
from llmagent_ros.simulation.task import is_arm_task

DEFAULT_ROBOT = "sim_diffdrive"
MAX_STEPS = 1000  # of an episode, where Gymnasium does not know how long one may be
ARM_ROBOT = "sim_arm"  # of the tasks of an arm, where no robot was asked for
# What the shipped base has read: the robot with many wordings, the arm, and these descriptions; and how many steps.
BASE_ENVIRONMENTS: Mapping[str, int] = {
    "explore": 45_000,
    "reach": 10_000,
    "push": 10_000,
    "Acrobot-v1": 30_000,
    "CartPole-v1": 30_000,
    "FrozenLake-v1": 10_000,
    "LunarLander-v3": 30_000,
    "Taxi-v4": 30_000,
}


@dataclass(frozen=True)
class EnvironmentSpec:
    """Which environment; what a run writes down, and what makes it again.

    Attributes:
        name: a task of the simulated robot ("navigate"), a member of a family of its tasks ("changes:delay of 2"), a
            shipped description ("CartPole-v1"), a path to a YAML file of a task or a description, or the id of any
            environment that Gymnasium knows.
        robot: contract, for a task of the simulated robot. The default base stands for the shipped arm in a task of an
            arm.
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
    if families.is_member(spec.name):
        return RobotText(_member(spec))
    if _is_task(spec.name):
        return _task_environment(spec)
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


def _task_environment(spec: EnvironmentSpec) -> TextEnvironment:
    """A task of the robot, or of the shipped robot of its kind where none was asked for."""
    if is_arm_task(spec.name):
        robot = ARM_ROBOT if spec.robot == DEFAULT_ROBOT else spec.robot
        return ArmText(ArmEnv(robot, spec.name))
    return RobotText(NavigateEnv(spec.robot, spec.name))


def _member(spec: EnvironmentSpec) -> NavigateEnv:
    family, task = families.find_member(spec.name)
    env = NavigateEnv(spec.robot, family.task)
    env.simulator.set_task(task)
    return env


def _is_task(name: str) -> bool:
    if Path(name).suffix in {".yaml", ".yml"}:
        return not {"world", "table"}.isdisjoint(config.read_yaml(Path(name)))
    return name in shipped("tasks")


def _make(environment: str, arguments: Mapping[str, Any]) -> gym.Env[Any, Any]:
    try:
        env = gym.make(environment, **arguments)
    except gym.error.DependencyNotInstalled as error:
        raise ConfigError(f"environment {environment}: {error}") from error
    except (gym.error.NameNotFound, gym.error.NamespaceNotFound, gym.error.VersionNotFound) as error:
        raise UnknownNameError(
            "environment", environment, [*shipped("tasks"), *shipped("environments"), "any id of Gymnasium"]
        ) from error
    except (gym.error.Error, TypeError, ModuleNotFoundError) as error:
        raise ConfigError(f"environment {environment} cannot be made: {error}") from error
    endless = env.spec is None or env.spec.max_episode_steps is None
    return gym.wrappers.TimeLimit(env, MAX_STEPS) if endless else env
