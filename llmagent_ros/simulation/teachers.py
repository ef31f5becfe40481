"""Scripted teachers: they see the true state, which no policy does, and make demonstrations marked as a script's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from llmagent_ros.errors import UnknownNameError
from llmagent_ros.simulation.arm.env import ArmEnv
from llmagent_ros.simulation.arm.teacher import ArmTeacher
from llmagent_ros.simulation.driving import WayAhead, check_drivable
from llmagent_ros.simulation.env import NavigateEnv
from llmagent_ros.simulation.world import World

Act = Callable[[Any], int]
"""The index of the action to do, from the environment's observation."""


def teacher(env: gym.Env[Any, Any]) -> Act:
    """Who knows how to act in an environment; it may be asked before every step of any number of episodes.

    Raises:
        UnknownNameError: nobody does.
    """
    inner = env.unwrapped
    if isinstance(inner, NavigateEnv):
        return NavigationTeacher(inner)
    if isinstance(inner, ArmEnv):
        return ArmTeacher(inner)
    name = env.spec.id.rpartition("-v")[0] if env.spec is not None else type(inner).__name__
    if name not in _TEACHERS:
        raise UnknownNameError("teacher of the environment", name, ["navigate", "reach", "push", *_TEACHERS])
    return _TEACHERS[name](inner)


class NavigationTeacher:
    """Drives along the shortest way that keeps clear of everything: of each phrase it imagines where two periods of it
    would lead, and takes the one from which the way is shortest, facing along it.
    """

    def __init__(self, env: NavigateEnv) -> None:
        self._simulator, self._contract = env.simulator, env.contract
        check_drivable(self._simulator.task)
        self._way: WayAhead | None = None
        self._world: World | None = None

    def __call__(self, observation: Any) -> int:
        world = self._simulator.world
        assert world is not None, "reset first"
        if self._way is None or self._world is not world:
            self._way = WayAhead(self._contract, self._simulator.task, self._simulator.world_config, world)
            self._world = world
        pose, way, contract = self._simulator.pose(), self._way, self._contract
        return int(np.argmin([way.cost(contract.command(phrase), pose) for phrase in contract.phrases]))


def _cart_pole(env: Any) -> Act:
    """A linear feedback on the state."""

    def act(observation: Any) -> int:
        position, speed, angle, turning = (float(value) for value in observation)
        return int(angle + 0.4 * turning + 0.1 * position + 0.2 * speed > 0.0)

    return act


def _acrobot(env: Any) -> Act:
    """Pumps energy: turns the lower link against the swing of the upper one."""

    def act(observation: Any) -> int:
        return 0 if float(observation[4]) > 0 else 2

    return act


def _lunar_lander(env: Any) -> Act:
    """Gymnasium's own heuristic."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    def act(observation: Any) -> int:
        return int(heuristic(env, observation))

    return act


def _tabular(gamma: float) -> Callable[[Any], Act]:
    """The optimal policy of an environment that tells its transition table, by value iteration."""

    def make(env: Any) -> Act:
        best = _value_iteration(env.P, gamma)

        def act(observation: Any) -> int:
            return best[int(observation)]

        return act

    return make


def _value_iteration(table: Mapping[int, Mapping[int, Any]], gamma: float) -> list[int]:
    values = np.zeros(len(table))
    while True:
        q = np.array(
            [
                [sum(p * (r + gamma * values[n] * (not end)) for p, n, r, end in outcomes) for outcomes in row.values()]
                for row in table.values()
            ]
        )
        change = float(np.abs(q.max(1) - values).max())
        values = q.max(1)
        if change < 1e-9:
            return [int(action) for action in q.argmax(1)]


_TEACHERS: dict[str, Callable[[Any], Act]] = {
    "CartPole": _cart_pole,
    "Acrobot": _acrobot,
    "LunarLander": _lunar_lander,
    "FrozenLake": _tabular(0.999),
    "Taxi": _tabular(0.99),
}
