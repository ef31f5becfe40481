"""Measuring a policy on episodes that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.perception.gymnasium_text import TextEnvironment
from llmagent_ros.policy.text_policy import among, draw
from llmagent_ros.types import RealArray

HELD_OUT_SEED = 2_000_000  # of the first evaluation episode; training and pre-training stay below and never meet one
MOST_LANES = 50  # episodes that run side by side, so that the model reads their scenes as one batch


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluated episode.

    Attributes:
        seed: of the environment's reset. total_reward: undiscounted, as the environment gives it. steps: its length.
        success, reason: as the environment says. details: further figures of it, e.g. spl.
    """

    seed: int
    total_reward: float
    steps: int
    success: bool
    reason: str
    details: dict[str, float]


class Policy(Protocol):
    """log pi of every phrase, (N, phrases), for each of N scenes, or with `numeric` of N observations, (N, …)."""

    def __call__(self, scenes: Any, /) -> RealArray: ...


def evaluate(
    spec: EnvironmentSpec,
    policy: Policy,
    episodes: int,
    first_seed: int = HELD_OUT_SEED,
    progress: Callable[[int], None] | None = None,
    *,
    temperature: float | None = None,
    numeric: bool = False,
    seen_as: Callable[[TextEnvironment], TextEnvironment] | None = None,
) -> list[EpisodeResult]:
    """Episodes of the seeds first_seed, first_seed + 1, …, in that order; nothing is learned.

    Args:
        progress: called with the number of episodes that are over.
        temperature: at which phrases are drawn, see `draw`; None takes the environment's. What is drawn depends on the
            episode's seed and the policy alone.
        numeric: the policy is given observations (stacked) and not scenes.
        seen_as: what stands between each environment and the policy.
    """
    lanes = [make_environment(spec) for _ in range(min(episodes, MOST_LANES))]
    try:
        if seen_as is not None:
            lanes = [seen_as(env) for env in lanes]
        asked = policy if numeric else _Memory(policy)
        at = lanes[0].temperature if temperature is None else temperature
        return _Evaluation(lanes, asked, episodes, first_seed, progress, numeric, at).run()
    finally:
        for env in lanes:
            env.close()


class _Memory:
    """A policy that is asked once about each scene: scenes are rounded, so that many come again."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known: dict[str, RealArray] = {}

    def __call__(self, scenes: Sequence[str], /) -> RealArray:
        new = list(dict.fromkeys(scene for scene in scenes if scene not in self._known))
        if new:
            self._known.update(zip(new, self._policy(new), strict=True))
        return np.stack([self._known[scene] for scene in scenes])


class _Evaluation:
    def __init__(
        self,
        lanes: list[TextEnvironment],
        policy: Policy,
        episodes: int,
        first_seed: int,
        progress: Callable[[int], None] | None,
        numeric: bool,
        temperature: float,
    ) -> None:
        self._policy, self._progress, self._numeric, self._temperature = policy, progress, numeric, temperature
        self._waiting = list(range(first_seed + episodes - 1, first_seed - 1, -1))
        self._results: list[EpisodeResult] = []
        self._lanes = [lane for env in lanes if (lane := self._begin(env)) is not None]

    def run(self) -> list[EpisodeResult]:
        while self._lanes:
            log_pi = self._policy(self._seen())
            self._lanes = [
                after
                for lane, each in zip(self._lanes, log_pi, strict=True)
                if (after := self._step(lane, each)) is not None
            ]
        return sorted(self._results, key=lambda result: result.seed)

    def _seen(self) -> Any:
        if self._numeric:
            return np.stack([lane.env.observation for lane in self._lanes])
        return [lane.scene for lane in self._lanes]

    def _begin(self, env: TextEnvironment) -> _Lane | None:
        if not self._waiting:
            return None
        seed = self._waiting.pop()
        scene, _ = env.reset(seed=seed)
        return _Lane(env, seed, scene, np.random.default_rng([seed, 1]))  # [seed] alone is what the world is drawn from

    def _step(self, lane: _Lane, log_pi: RealArray) -> _Lane | None:
        action, _ = draw(among(log_pi, lane.env.sayable), self._temperature, lane.rng.random())
        lane.scene, reward, terminated, truncated, info = lane.env.step(action)
        lane.total_reward += float(reward)
        lane.steps += 1
        if not (terminated or truncated):
            return lane
        self._results.append(lane.result(info))
        if self._progress is not None:
            self._progress(len(self._results))
        return self._begin(lane.env)


@dataclass
class _Lane:
    env: TextEnvironment
    seed: int
    scene: str
    rng: np.random.Generator
    total_reward: float = 0.0
    steps: int = 0

    def result(self, info: dict[str, Any]) -> EpisodeResult:
        details = {name: float(info[name]) for name in ("spl",) if name in info}
        success, reason = bool(info["success"]), str(info.get("reason", ""))
        return EpisodeResult(self.seed, self.total_reward, self.steps, success, reason, details)


def figures(results: Sequence[EpisodeResult]) -> dict[str, float]:
    """Means over episodes.

    Keys: episodes, return_mean, return_std, return_min, steps_mean, success (share), collisions_per_episode, and the
    means of the episodes' details.
    """
    returns = [result.total_reward for result in results]
    mean = math.fsum(returns) / len(results)
    names = sorted({name for result in results for name in result.details})
    return {
        "episodes": len(results),
        "return_mean": mean,
        "return_std": float(np.std(returns)),
        "return_min": min(returns),
        "steps_mean": sum(result.steps for result in results) / len(results),
        "success": sum(result.success for result in results) / len(results),
        "collisions_per_episode": sum(result.reason == "collision" for result in results) / len(results),
        **{name: math.fsum(r.details.get(name, 0.0) for r in results) / len(results) for name in names},
    }


def as_rows(results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    """For a JSON file."""
    return [asdict(result) for result in results]
