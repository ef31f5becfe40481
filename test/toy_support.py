"""A toy environment that any learner must solve, registered as "toy_support:Corridor-v0"."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

CELLS = 8


class Corridor(gym.Env[np.int64, np.int64]):
    """A line of cells; 1 for reaching the last one, which ends the episode, else -0.02. Actions: left, right, stay."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Discrete(CELLS)
        self.action_space = gym.spaces.Discrete(3)
        self._cell = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._cell = int(self.np_random.integers(CELLS - 1))
        return np.int64(self._cell), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._cell = min(max(self._cell + (-1, 1, 0)[int(action)], 0), CELLS - 1)
        done = self._cell == CELLS - 1
        return np.int64(self._cell), 1.0 if done else -0.02, done, False, {}


gym.register("Corridor-v0", entry_point=Corridor, max_episode_steps=30)
