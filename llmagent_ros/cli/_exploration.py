"""Text logs of a simulated robot that acts at random: what `llmagent pretrain` learns from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llmagent_ros.contract import load_contract
from llmagent_ros.perception.perception import Perception
from llmagent_ros.policy.logs import LoggedStep, write_log
from llmagent_ros.simulation.physics import Readings
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task

FIRST_SEED = 1_000_000  # far from the seeds that people give to runs: no world of a log is met again


def explore(robot: str, task: str, shard: int, steps: int) -> Iterator[LoggedStep]:
    """About `steps` steps (whole episodes) of random, sticky behaviour; no action is preferred for its effect.

    Each episode draws how often each phrase is done and how long it is kept up, so that turning on the spot and long
    drives both occur.
    """
    contract = load_contract(robot)
    simulator = Simulator(contract, load_task(task), seed=FIRST_SEED + shard)
    perception, rng = Perception(contract), np.random.default_rng(FIRST_SEED + shard)
    count = 0
    try:
        while count < steps:
            text = _begin(simulator, perception)
            preference, persistence = rng.dirichlet(np.ones(len(contract.phrases))), rng.uniform(0.0, 0.7)
            phrase, ended = contract.phrases[rng.choice(len(contract.phrases), p=preference)], False
            while not ended:
                if rng.random() > persistence:
                    phrase = contract.phrases[rng.choice(len(contract.phrases), p=preference)]
                perception.note_action(phrase)
                readings, outcome = simulator.step(contract.command(phrase))
                following = _see(simulator, perception, readings)
                yield LoggedStep(text, phrase, following, task)
                text, ended, count = following, outcome.ended, count + 1
    finally:
        simulator.close()


def write_shard(robot: str, task: str, shard: int, steps: int, folder: Path) -> Path:
    """Writes one shard; one that is there already is left as it is."""
    path = folder / f"{robot}-{task}-{steps}-{shard:03d}.jsonl"
    if not path.exists():
        write_log(explore(robot, task, shard, steps), path)
    return path


def _begin(simulator: Simulator, perception: Perception) -> str:
    readings = simulator.reset()
    perception.start_episode(simulator.instruction)
    return _see(simulator, perception, readings)


def _see(simulator: Simulator, perception: Perception, readings: Readings) -> str:
    perception.on_scan(readings.scan)
    perception.on_odometry(readings.odometry)
    perception.on_image(readings.image)
    return perception.scene(simulator.time).text
