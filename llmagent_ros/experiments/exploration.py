"""Text logs of environments in which nobody has a purpose: what `llmagent pretrain` learns from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.policy.logs import LoggedStep, write_log

FIRST_SEED = 1_000_000  # far from the seeds that people give to runs: no world of a log is met again


def explore(spec: EnvironmentSpec, shard: int, steps: int) -> Iterator[LoggedStep]:
    """About `steps` steps (whole episodes) of random, sticky behaviour; no action is preferred for its effect.

    Each episode draws how often each phrase is done and how long it is kept up, so that turning on the spot and long
    drives both occur.
    """
    env = make_environment(spec)
    rng = np.random.default_rng(FIRST_SEED + shard)
    count = 0
    try:
        scene, _ = env.reset(seed=FIRST_SEED + shard)
        while count < steps:
            preference, persistence = rng.dirichlet(np.ones(len(env.phrases))), rng.uniform(0.0, 0.7)
            action, ended = int(rng.choice(len(env.phrases), p=preference)), False
            while not ended:
                if rng.random() > persistence:
                    action = int(rng.choice(len(env.phrases), p=preference))
                following, _, terminated, truncated, _ = env.step(action)
                yield LoggedStep(scene, env.phrases[action], following, spec.name, env.task)
                scene, ended, count = following, terminated or truncated, count + 1
            scene, _ = env.reset()
    finally:
        env.close()


def write_shard(spec: EnvironmentSpec, shard: int, steps: int, folder: Path) -> Path:
    """Writes one shard; one that is there already is left as it is."""
    path = folder / f"{Path(spec.name).stem}-{spec.robot}-{steps}-{shard:03d}.jsonl"
    if not path.exists():
        write_log(explore(spec, shard, steps), path)
    return path
