"""An initial state learned from the replays of many tasks, one meta-update after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.meta.methods import METHODS, MetaConfig, Stats
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay

_STANDARD = 2048  # transitions of all tasks whose features are the measure of the others


class MetaLearner:
    """Draws a task, and lets the method make its meta-update on it.

    What it learns are the learner's weights: its critic (`average` is what acts) and the model's adapter.

    Args:
        learner: of any of the tasks; it is turned to the one that is drawn.
        replays: of the tasks. Each must have its features prepared (`Learner.prepare`) when `update` is called.
        ready: transitions that a task needs before it is drawn. total: critic updates that the whole is to take, by
            which the method knows how much is done.
    """

    def __init__(
        self, learner: Learner, replays: Sequence[Replay], config: MetaConfig, *, seed: int, ready: int, total: int
    ) -> None:
        if not replays:
            raise ConfigError("meta-learning: no task to learn from")
        self.learner, self.replays = learner, list[Replay]()
        for replay in replays:
            self.add(replay)
        self.method = METHODS[config.method](config)
        self._ready, self._total = ready, max(1, total)
        self._rng = np.random.default_rng(seed)
        self.updates = 0  # critic updates, those that a method throws away included

    def add(self, replay: Replay) -> None:
        """Takes in the replay of one more task."""
        if replay is not self.learner.replay:
            self.learner.take_in(replay)
        self.replays.append(replay)

    def prepare(self, limit: int = 64) -> int:
        """As `Learner.prepare`, for all tasks; returns how many features it computed."""
        for replay in self.replays:
            self.learner.turn_to(replay)
            if made := self.learner.prepare(limit):
                return made
        return 0

    def tasks(self) -> list[int]:
        """Which replays are ready to be learned from."""
        return [number for number, replay in enumerate(self.replays) if len(replay) >= self._ready]

    def update(self) -> Stats:
        """One meta-update.

        Raises:
            ConfigError: no task has enough transitions yet. DivergenceError: see `Learner.update`.
        """
        ready = self.tasks()
        if not ready:
            raise ConfigError(f"meta-learning: no task has {self._ready} transitions yet")
        if not self.learner.standardised:
            self.learner.standardise(self._some_features(ready))
        self.learner.turn_to(self.replays[int(self._rng.choice(ready))])
        stats = self.method.update(self.learner, min(1.0, self.updates / self._total))
        self.updates += self.method.updates
        return stats

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What it needs beside the learner's checkpoint to go on exactly: tensors, and facts as JSON."""
        facts = {"updates": self.updates, "random": self._rng.bit_generator.state}
        return self.method.state(), facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.updates = int(facts["updates"])
        self._rng.bit_generator.state = facts["random"]
        if tensors:
            self.method.load_state(self.learner, tensors)

    def _some_features(self, ready: Sequence[int]) -> Tensor:
        """(N, feature_size), as many of each task."""
        share = -(-_STANDARD // len(ready))
        found: list[NDArray[Any]] = []
        for number in ready:
            replay = self.replays[number]
            first = replay.at(np.arange(min(len(replay), share)), 1, self.learner.config.gamma)
            found.append(replay.features(first.scene_id))
        return torch.from_numpy(np.concatenate(found))
