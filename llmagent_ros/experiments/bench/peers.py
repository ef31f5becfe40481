"""Peers: Stable-Baselines3's DQN, QR-DQN and PPO on numbers, with the settings that their authors published.

Settings are those of RL Baselines3 Zoo (hyperparams/{dqn,qrdqn,ppo}.yml, commit 22e3ff2) for CartPole-v1 and
LunarLander. Each is set up to run as long as it was tuned for, because schedules end with it; a benchmark may stop
before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.evaluation import Policy
from llmagent_ros.types import RealArray

NAMES = ("dqn", "qrdqn", "ppo")
_NET = {"net_arch": [256, 256]}
_DQN_CARTPOLE: dict[str, Any] = {
    "steps": 50_000,
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": _NET,
}


def _linear(start: float) -> Callable[[float], float]:
    return lambda left: start * left


PUBLISHED: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "CartPole-v1": {
        "dqn": _DQN_CARTPOLE,
        "qrdqn": _DQN_CARTPOLE | {"policy_kwargs": _NET | {"n_quantiles": 10}},
        "ppo": {
            "steps": 100_000,
            "n_envs": 8,
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": _linear(0.001),
            "clip_range": _linear(0.2),
        },
    },
    "LunarLander-v3": {
        "dqn": {
            "steps": 100_000,
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "buffer_size": 50_000,
            "learning_starts": 0,
            "gamma": 0.99,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": -1,
            "exploration_fraction": 0.12,
            "exploration_final_eps": 0.1,
            "policy_kwargs": _NET,
        },
        "qrdqn": {
            "steps": 100_000,
            "learning_rate": _linear(1.5e-3),
            "batch_size": 128,
            "buffer_size": 100_000,
            "learning_starts": 10_000,
            "gamma": 0.995,
            "target_update_interval": 1,
            "train_freq": 256,
            "gradient_steps": -1,
            "exploration_fraction": 0.24,
            "exploration_final_eps": 0.18,
            "policy_kwargs": _NET | {"n_quantiles": 170},
        },
        "ppo": {
            "steps": 1_000_000,
            "n_envs": 16,
            "n_steps": 1024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "n_epochs": 4,
            "ent_coef": 0.01,
        },
    },
}


def train_peer(
    name: str,
    settings: Mapping[str, Any],
    make_env: Callable[[], gym.Env[Any, Any]],
    seed: int,
    every: int,
    on_evaluation: Callable[[int, Policy], bool],
) -> None:
    """Trains a peer on one CPU thread.

    Args:
        settings: its arguments, with "steps", and "n_envs" where there are several environments.
        on_evaluation: called each `every` steps with (steps, policy); False ends the training. The policy is the one
            that explores: PPO's own, and for the others the best action but for the last share of random ones.

    Raises:
        ConfigError: Stable-Baselines3 is not installed.
    """
    try:
        from sb3_contrib import QRDQN
        from stable_baselines3 import DQN, PPO
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError as error:
        raise ConfigError(f"peers need stable-baselines3 and sb3-contrib (requirements/dev.txt): {error}") from error

    class Evaluate(BaseCallback):
        _reported: int = 0

        def _on_step(self) -> bool:
            if self.num_timesteps // every == self._reported:
                return True
            self._reported = self.num_timesteps // every
            return on_evaluation(self.num_timesteps, self._log_probabilities)

        def _log_probabilities(self, observations: Any) -> RealArray:
            model: Any = self.model
            if isinstance(model, PPO):
                batch, _ = model.policy.obs_to_tensor(observations)
                with torch.no_grad():
                    choice: Any = model.policy.get_distribution(batch).distribution
                return np.asarray(choice.logits.double().numpy())
            best, _ = model.predict(observations, deterministic=True)
            count, share = int(model.action_space.n), float(model.exploration_final_eps)
            return np.log(share / count + (1.0 - share) * np.eye(count)[best])

    torch.set_num_threads(1)
    kinds: dict[str, Any] = {"dqn": DQN, "qrdqn": QRDQN, "ppo": PPO}
    arguments = dict(settings)
    steps, envs = arguments.pop("steps"), arguments.pop("n_envs", 1)
    model = kinds[name]("MlpPolicy", make_vec_env(make_env, envs, seed=seed), seed=seed, device="cpu", **arguments)
    model.learn(steps, callback=Evaluate())
    model.env.close()
