"""Text logs of environments in which nobody has a purpose: what `llmagent pretrain` learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.families import load_family
from llmagent_ros.perception.gymnasium_text import DescribedText, TextEnvironment
from llmagent_ros.policy.logs import LoggedStep, write_log
from llmagent_ros.simulation.env import NavigateEnv

VARIED = "changes"  # family of what may be different about the robot
FIRST_SEED = 1_000_000  # far from the seeds that people give to runs: no world of a log is met again


def explore(spec: EnvironmentSpec, shard: int, steps: int) -> Iterator[LoggedStep]:
    """About `steps` steps (whole episodes) of random, sticky behaviour; no action is preferred for its effect.

    Each episode draws how often each phrase is done and how long it is kept up, so that turning on the spot and long
    drives both occur. In half of the episodes of the simulated robot its body or its sensors are other than they should
    be, by `VARIED`: what comes of an action must be read off what came of those before, and so it is in the features.
    """
    env = make_environment(spec)
    rng = np.random.default_rng(FIRST_SEED + shard)
    count = 0
    vary = _varying(env)
    if isinstance(env, DescribedText):
        env.hold = 1  # a log shows every step
    try:
        vary(rng)
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
            vary(rng)
            scene, _ = env.reset()
    finally:
        env.close()


def _varying(env: TextEnvironment) -> Callable[[np.random.Generator], None]:
    """What makes the next episode's robot another one in half of the cases; does nothing where there is no robot."""
    robot = env.unwrapped
    if not isinstance(robot, NavigateEnv):
        return lambda rng: None
    simulator, task, family = robot.simulator, robot.simulator.task, load_family(VARIED)
    return lambda rng: simulator.set_task(family.draw(task, rng) if rng.random() < 0.5 else task)


def write_shard(spec: EnvironmentSpec, shard: int, steps: int, folder: Path) -> Path:
    """Writes one shard; one that is there already is left as it is."""
    path = folder / f"{Path(spec.name).stem}-{spec.robot}-{steps}-{shard:03d}.jsonl"
    if not path.exists():
        write_log(explore(spec, shard, steps), path)
    return path
