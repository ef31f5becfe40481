"""What a learner needs to do a changed task: outcomes after so many episodes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmagent_ros.experiments import runs
from llmagent_ros.experiments.evaluation import evaluate, figures
from llmagent_ros.experiments.families import SEPARATOR, load_family
from llmagent_ros.experiments.training import TrainConfig, Trainer
from llmagent_ros.learning.change import FEW_EPISODES, ChangeDetector
from llmagent_ros.learning.watch import episode_figures
from llmagent_ros.policy.surprise import surprise

QUIET, LEARNED, PATIENCE = 200, 60, 20  # episodes without a change, of them before one, and of a change


def adaptation_config(environment: str, start: str, seed: int, **settings: Any) -> TrainConfig:
    """Of a run that begins with a bundle and has a few episodes; learner settings in place of `FEW_EPISODES`."""
    values = {"steps": 100_000, "seed": seed, "start": start, "learner": {**FEW_EPISODES, **settings}}
    return runs.make_config(environment, values, "adaptation")


def adapt(
    config: TrainConfig, out: Path, after: Sequence[int], episodes: int, say: Callable[[str], None]
) -> list[dict[str, float]]:
    """Learns on for some episodes.

    Args:
        out: folder of the run; what is there of one that was interrupted is made again.
        after: numbers of episodes after which success is measured, rising.
        episodes: of each measurement, on held-out seeds.

    Returns:
        For each of `after`: episodes, env_steps, success.
    """
    shutil.rmtree(out, ignore_errors=True)
    trainer = Trainer(config, out)
    points: list[dict[str, float]] = []
    try:
        for count in after:
            while trainer.episode < count:
                trainer.run_episode()
            success = figures(evaluate(config.spec, trainer.log_probabilities, episodes))["success"]
            points.append({"episodes": count, "env_steps": trainer.env_steps, "success": success})
            say(f"{config.environment}: {success:.2f} after {count} episodes, {trainer.env_steps} steps")
    finally:
        trainer.close()
    return points


def watch(start: str, family: str, seed: int, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """How soon a robot that acts by a bundle, and learns nothing meanwhile, notices each held-out change of a family.

    Returns:
        delays: episodes of each change until the alarm, `PATIENCE` where there was none until then.
        false_alarms_per_100: in `QUIET` episodes without a change; after an alarm it begins anew.
    """
    config = load_family(family)
    usual = ChangeDetector()
    alarms = 0
    for episode, told in enumerate(_episodes(config.task, start, seed, out / "unchanged", QUIET)):
        if usual.add(told) is not None:
            alarms += 1
            usual.reset()
        if episode == LEARNED:
            known = usual.state()
    say(f"{alarms} alarms in {QUIET} episodes without a change")
    delays = []
    for number, name in enumerate(config.members("held_out")):
        detector = ChangeDetector()
        detector.load_state(known)
        changed = _episodes(f"{family}{SEPARATOR}{name}", start, seed, out / f"{number:02d}", PATIENCE)
        found = next((n for n, told in enumerate(changed, start=1) if detector.add(told) is not None), PATIENCE)
        delays.append(found)
        say(f"{name}: noticed after {found} episodes: {detector.alarm}")
    return {"delays": delays, "false_alarms_per_100": 100 * alarms / QUIET}


def _episodes(environment: str, start: str, seed: int, out: Path, count: int) -> Iterator[dict[str, float]]:
    """The figures of episodes in which nothing is learned."""
    config = adaptation_config(environment, start, seed, warmup=1_000_000)
    shutil.rmtree(out, ignore_errors=True)
    successes: list[bool] = []
    trainer = Trainer(config, out, on_episode=lambda *told: successes.append(bool(told[1])))
    try:
        for _ in range(count):
            first = len(trainer.replay)
            trainer.run_episode()
            episode = trainer.replay.recent(len(trainer.replay) - first)
            yield episode_figures(partial(surprise, trainer.model), trainer.learner, first, episode, successes[-1])
    finally:
        trainer.close()
