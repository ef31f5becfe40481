"""With what to begin where robot or world have changed: what explains best what has happened since.

Of each candidate's critic Q the error over the steps (s, a, r, s') since the change, whichever policy made them:

    e = mean |r + gamma (1 - terminated) sum_a pi_Q(a|s') Q(s', a) - Q(s, a)|

Where nothing is known, Q is 0, and e is the mean |r|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.rl.critic import build_critic
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.types import FloatArray


def misfits(critics: Sequence[Mapping[str, Tensor] | None], learner: Learner, first: int) -> FloatArray:
    """e of each candidate, float32, (candidates,), in units of return; infinite for one that the learner cannot take.

    Args:
        critics: their states; None: nothing is known. learner: whose replay holds the steps, with their features
            prepared. first: position of the first step since the change.

    Raises:
        ConfigError: there is no step since.
    """
    positions = np.arange(first, len(learner.replay))
    if not len(positions):
        raise ConfigError(f"no step since position {first}; the replay holds {len(learner.replay)}")
    return np.array([_misfit(state, learner, positions) for state in critics], np.float32)


def _misfit(state: Mapping[str, Tensor] | None, learner: Learner, positions: NDArray[np.int64]) -> float:
    if state is None:
        return float(np.abs(learner.replay.at(positions, 1, learner.config.gamma).returns).mean())
    shapes = {name: tensor.shape for name, tensor in learner.critic.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != shapes:
        return float("inf")
    critic = build_critic(state).to(next(learner.critic.parameters()).device)
    return float(learner.errors(positions, critic).mean())
