"""Batches of n-step transitions from the replay's index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.learning.rl.replay_index import TERMINATED, ReplayIndex
from llmagent_ros.types import FloatArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """The steps from each sampled transition on, B samples of up to n steps; what `mask` leaves out is 0.

    Attributes:
        positions: of the first step in the store, (B,). tasks: label ids, (B,).
        scene_ids: text ids of the state that each step starts from, (B, n).
        actions: vocabulary indices, (B, n). rewards: (B, n).
        log_probabilities: of the actions under the policy that chose them, (B, n).
        sources: codes of `replay_rows.SOURCES`, (B, n).
        next_ids: text ids of the state after each step, (B, n).
        terminated: (B, n).
        mask: which steps exist, (B, n); True first, then False; column 0 is all True.
    """

    positions: IntArray
    tasks: IntArray
    scene_ids: IntArray
    actions: IntArray
    rewards: FloatArray
    log_probabilities: FloatArray
    sources: IntArray
    next_ids: IntArray
    terminated: BoolArray
    mask: BoolArray


@dataclass(frozen=True)
class NStepBatch:
    """n-step targets are returns + discount * V(bootstrap), V being the learner's (Sutton & Barto 2018, eq. 7.1):

        returns  = sum_{i<m} gamma^i r_{t+i}
        discount = gamma^m, or 0 where step t+m-1 terminated

    with m <= n the steps that there are: fewer than n where the episode terminates, is truncated (the state after it is
    bootstrapped from all the same), has a gap, changes its task, or is not stored any further.

    Later actions are those of the behaviour; for another policy they bias the return.

    Attributes:
        window: the single steps. scene_id: text id of the state, (B,). action: vocabulary index, (B,).
        log_probability: of it under the behaviour, (B,). task: label id, (B,). source: its code, (B,).
        returns: float32, (B,). bootstrap_id: text id of the state after m steps, (B,).
        discount: float32, (B,). steps: m, (B,).
    """

    window: Window
    scene_id: IntArray
    action: IntArray
    log_probability: FloatArray
    task: IntArray
    source: IntArray
    returns: FloatArray
    bootstrap_id: IntArray
    discount: FloatArray
    steps: IntArray

    def __len__(self) -> int:
        return len(self.action)

    @property
    def demonstration(self) -> BoolArray:
        """Whether a person or a script chose the (first) action, (B,)."""
        return np.asarray(self.source != 0)


def check_sampling(batch_size: int, n_step: int, gamma: float, demo_share: float | None) -> None:
    """Raises ConfigError for a value that no batch can have."""
    if batch_size < 1:
        raise ConfigError(f"batch_size: at least 1 (got {batch_size})")
    if n_step < 1:
        raise ConfigError(f"n_step: at least 1 (got {n_step})")
    if not 0.0 <= gamma <= 1.0:
        raise ConfigError(f"gamma: in [0, 1] (got {gamma})")
    if demo_share is not None and not 0.0 <= demo_share <= 1.0:
        raise ConfigError(f"demo_share: in [0, 1] or None (got {demo_share})")


def draw_positions(index: ReplayIndex, batch_size: int, rng: np.random.Generator, demo_share: float | None) -> IntArray:
    """Uniform draws with replacement, O(batch_size) whatever the size of the store.

    Args:
        demo_share: that share of the batch (rounded to whole samples) is drawn from demonstrations and interventions,
            the rest from the policy's own (symmetric sampling at 0.5: RLPD, Ball et al. 2023); where one of the two
            kinds has none yet, all come from the other. None: from all alike.

    Returns:
        Positions, (batch_size,); demonstrations first.
    """
    if len(index) == 0:
        raise StoreError("the replay is empty: nothing to sample from")
    if demo_share is None:
        return rng.integers(0, len(index), batch_size)
    own, demonstrations = index.own, index.demonstrations
    wanted = round(demo_share * batch_size)
    shown = 0 if len(demonstrations) == 0 else batch_size if len(own) == 0 else wanted
    parts = [
        pool[rng.integers(0, len(pool), count)]
        for pool, count in ((demonstrations, shown), (own, batch_size - shown))
        if count
    ]
    return np.concatenate(parts).astype(np.int64)


def gather(index: ReplayIndex, positions: IntArray, n_step: int) -> Window:
    """Follows the successors of each position, (B,), for up to n_step steps."""
    shape = (len(positions), n_step)
    path = np.zeros(shape, np.int64)  # position of each step
    mask = np.zeros(shape, bool)
    at, alive = positions, np.ones(len(positions), bool)
    for step in range(n_step):
        path[:, step], mask[:, step] = at, alive
        following = index.successor[at]
        alive = alive & (following >= 0)
        at = np.where(alive, following, at)

    def column(values: NDArray[Any], dtype: type) -> NDArray[Any]:
        return np.where(mask, values, 0).astype(dtype)

    return Window(
        positions=positions,
        tasks=index.task[positions].astype(np.int64),
        scene_ids=column(index.scene[path], np.int64),
        actions=column(index.action[path], np.int64),
        rewards=column(index.reward[path], np.float32),
        log_probabilities=column(index.log_probability[path], np.float32),
        sources=column(index.source(path), np.int64),
        next_ids=column(index.next_scene[path], np.int64),
        terminated=column(index.flags[path] & TERMINATED, np.bool_),
        mask=mask,
    )


def n_step_batch(window: Window, gamma: float) -> NStepBatch:
    """The n-step quantities of a window; sums in float64, so that they do not depend on n's order of addition."""
    rows = np.arange(len(window.positions))
    steps = window.mask.sum(axis=1)  # (B,)
    last = steps - 1
    powers = gamma ** np.arange(window.mask.shape[1], dtype=np.float64)  # (n,)
    returns = (window.rewards.astype(np.float64) * window.mask) @ powers
    return NStepBatch(
        window=window,
        scene_id=window.scene_ids[:, 0],
        action=window.actions[:, 0],
        log_probability=window.log_probabilities[:, 0],
        task=window.tasks,
        source=window.sources[:, 0],
        returns=returns.astype(np.float32),
        bootstrap_id=window.next_ids[rows, last],
        discount=np.where(window.terminated[rows, last], 0.0, gamma**steps).astype(np.float32),
        steps=steps,
    )
