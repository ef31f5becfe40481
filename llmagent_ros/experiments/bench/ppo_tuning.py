"""PPO that learned one task and goes on with each of some others: what numeric RL does where ours adapts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.bench.peers import PUBLISHED
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evaluation import evaluate, figures
from llmagent_ros.perception.gymnasium_text import NumericObservations
from llmagent_ros.types import RealArray

# One environment and a rate that does not fall: the schedules of the first training have ended.
_TUNING: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "learning_rate": 3e-4, "clip_range": 0.2}


def fine_tune_ppo(
    spec: EnvironmentSpec,
    changed: Mapping[str, EnvironmentSpec],
    steps: int,
    after: Sequence[int],
    episodes: int,
    seed: int,
    say: Say,
) -> dict[str, Any]:
    """Trains on `spec` for some steps, then from there on each changed one.

    Args:
        after: numbers of episodes of a change after which success is measured, rising. episodes: of a measurement.

    Returns:
        unchanged: success on `spec`. changes: for each, points of episodes and success.
    """
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    settings = {key: value for key, value in PUBLISHED["CartPole-v1"]["ppo"].items() if key != "steps"}
    envs = settings.pop("n_envs")
    trained: Any = PPO("MlpPolicy", make_vec_env(_maker(spec), envs, seed=seed), seed=seed, device="cpu", **settings)
    trained.learn(steps)
    trained.env.close()
    measured: dict[str, Any] = {"unchanged": _success(trained, spec, episodes), "changes": {}}
    say(f"{steps:,} steps unchanged: success {measured['unchanged']:.2f}")
    for name, other in changed.items():
        env = make_vec_env(_maker(other), 1, seed=seed)
        tuned = PPO("MlpPolicy", env, seed=seed, device="cpu", **{**settings, **_TUNING})
        tuned.set_parameters(trained.get_parameters())
        measured["changes"][name] = _tune(tuned, other, after, episodes)
        env.close()
        say(f"{name}: {[point['success'] for point in measured['changes'][name]]}")
    return measured


def _tune(model: Any, spec: EnvironmentSpec, after: Sequence[int], episodes: int) -> list[dict[str, float]]:
    from stable_baselines3.common.callbacks import BaseCallback

    waiting = list(after)
    points: list[dict[str, float]] = []

    class Measure(BaseCallback):
        done: int = 0

        def _on_training_start(self) -> None:
            self._measure()

        def _on_step(self) -> bool:
            self.done += int(np.sum(self.locals["dones"]))
            self._measure()
            return bool(waiting)

        def _measure(self) -> None:
            while waiting and self.done >= waiting[0]:
                count = waiting.pop(0)
                success = _success(self.model, spec, episodes)
                points.append({"episodes": count, "env_steps": self.num_timesteps, "success": success})

    model.learn(1_000_000, callback=Measure())
    return points


def _success(model: Any, spec: EnvironmentSpec, episodes: int) -> float:
    """Greedily or as it explores, whichever is better."""

    def log_probabilities(observations: Any) -> RealArray:
        batch, _ = model.policy.obs_to_tensor(observations)
        with torch.no_grad():
            chosen: Any = model.policy.get_distribution(batch).distribution
        return np.asarray(chosen.logits.double().numpy())

    return max(
        figures(evaluate(spec, log_probabilities, episodes, temperature=temperature, numeric=True))["success"]
        for temperature in (0.0, 1.0)
    )


def _maker(spec: EnvironmentSpec) -> Callable[[], NumericObservations]:
    return lambda: NumericObservations(make_environment(spec))
