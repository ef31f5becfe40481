"""How an initial state is learned from many tasks. One meta-update looks at one task.

With theta the initial critic and adapter (their B; A is the same for all tasks) and U_i^k(theta) what k updates of the
learner on the replay of task i make of it:

    Reptile    theta <- theta + step (U_i^k(theta) - theta)                  Nichol, Achiam & Schulman 2018, eq. 2
    FOMAML     theta <- Adam(theta, grad L_i(U_i^k(theta)), fresh batch)     Finn, Abbeel & Levine 2017, first order
    joint      theta <- U_i^1(theta)                                         what all tasks ask for at once

Adapters of a base share A, so what they add to the weights is linear in B, and Reptile's step between them is exact:
the new adapter does to the model the mean of what the two do. Between critics it is a step in their parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from llmagent_ros.learning.meta.steps import blend, gradient, remember
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.optimiser_state import load_optimiser, optimiser_tensors

_STRICT = ConfigDict(extra="forbid")
Stats = dict[str, float]
MethodName = Literal["reptile", "fomaml", "joint"]


@dataclass(config=_STRICT, frozen=True)
class MetaConfig:
    """How an initial state is learned.

    Attributes:
        method: see the module.
        inner_updates: critic updates of a task in one meta-update (k); "joint" makes one whatever this says.
        step, last_step: how far Reptile goes towards what a task made of it, at first and at the end; in between it
            falls linearly, as in its source.
        learning_rate: of FOMAML's outer optimiser.
    """

    method: MethodName = "reptile"
    inner_updates: Annotated[int, Field(gt=0)] = 40
    step: Annotated[float, Field(gt=0, le=1)] = 1.0
    last_step: Annotated[float, Field(gt=0, le=1)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4


class MetaMethod(Protocol):
    """What `MetaLearner` needs of a method."""

    updates: int
    """Critic updates that a meta-update takes."""

    def update(self, learner: Learner, done: float) -> Stats:
        """One meta-update on the task whose replay the learner has. done: share of the whole, in [0, 1]."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What it needs to go on exactly."""
        ...

    def load_state(self, learner: Learner, state: Mapping[str, Tensor]) -> None: ...


class Reptile:
    """See the module."""

    def __init__(self, config: MetaConfig) -> None:
        self.updates = config.inner_updates
        self._step, self._last = config.step, config.last_step

    def update(self, learner: Learner, done: float) -> Stats:
        before = remember(learner)
        stats: Stats = {}
        for _ in range(self.updates):
            stats |= learner.update()
        blend(learner, before, self._step + (self._last - self._step) * done, self.updates)
        return stats

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, learner: Learner, state: Mapping[str, Tensor]) -> None:
        pass


class Fomaml:
    """See the module. The adapter has a gradient as often as it has updates: once in `actor_every` of the critic's."""

    def __init__(self, config: MetaConfig) -> None:
        self.updates = config.inner_updates + 1
        self._learning_rate = config.learning_rate
        self._optimiser: torch.optim.Adam | None = None

    def update(self, learner: Learner, done: float) -> Stats:
        before = remember(learner)
        actors, stats = learner.actor_updates, Stats()
        for _ in range(self.updates - 1):
            stats |= learner.update()
        slopes = gradient(learner, adapter=learner.actor_updates > actors)
        blend(learner, before, 0.0, 0)
        for weight, each in zip(learner.weights(), slopes, strict=True):
            weight.grad = each
        self._adam(learner).step()
        learner.follow(self.updates)
        return stats

    def state(self) -> dict[str, Tensor]:
        return {} if self._optimiser is None else optimiser_tensors("outer", self._optimiser)

    def load_state(self, learner: Learner, state: Mapping[str, Tensor]) -> None:
        load_optimiser({name.removeprefix("outer/"): tensor for name, tensor in state.items()}, self._adam(learner))

    def _adam(self, learner: Learner) -> torch.optim.Adam:
        if self._optimiser is None:
            ratio = learner.config.actor_learning_rate / learner.config.learning_rate
            critic = list(learner.critic.parameters())
            adapter = learner.weights()[len(critic) :]
            groups: list[dict[str, Any]] = [{"params": critic}, {"params": adapter, "lr": ratio * self._learning_rate}]
            self._optimiser = torch.optim.Adam(groups, lr=self._learning_rate)
        return self._optimiser


class Joint(Reptile):
    """See the module: each update is of another task, and all of it is kept."""

    def __init__(self, config: MetaConfig) -> None:
        super().__init__(config)
        self.updates, self._step, self._last = 1, 1.0, 1.0

    def update(self, learner: Learner, done: float) -> Stats:
        return learner.update()


METHODS: dict[MethodName, Callable[[MetaConfig], MetaMethod]] = {
    "reptile": Reptile, "fomaml": Fomaml, "joint": Joint,
}  # fmt: skip
