"""What a learner needs to do a changed task: outcomes after so many episodes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


def adaptation_config(
    environment: str, start: str, seed: int, *, calibrate: bool = True, **settings: Any
) -> TrainConfig:
    """Of a run that begins with a bundle and has a few episodes; learner settings in place of `FEW_EPISODES`."""
    learner = {**FEW_EPISODES, **settings}
    values = {"steps": 100_000, "seed": seed, "start": start, "calibrate": calibrate, "learner": learner}
    return runs.make_config(environment, values, "adaptation")


def adapt(
    config: TrainConfig,
    out: Path,
    after: Sequence[int],
    episodes: int,
    say: Callable[[str], None],
    ends: Callable[[Sequence[dict[str, float]]], bool] = lambda points: False,
) -> list[dict[str, float]]:
    """Learns on for some episodes.

    Args:
        out: folder of the run; what is there of one that was interrupted is made again.
        after: numbers of episodes after which success is measured, rising.
        episodes: of each measurement, on held-out seeds.
        ends: whether nothing more need be known after these measurements.

    Returns:
        For each of `after`, until it ends: episodes, env_steps, success.
    """
    shutil.rmtree(out, ignore_errors=True)
    trainer = Trainer(config, out)
    points: list[dict[str, float]] = []
    try:
        for count in after:
            while trainer.episode < count:
                trainer.run_episode()
            results = evaluate(config.spec, trainer.log_probabilities, episodes, seen_as=trainer.seen_as)
            success = figures(results)["success"]
            points.append({"episodes": count, "env_steps": trainer.env_steps, "success": success})
            say(f"{config.environment}: {success:.2f} after {count} episodes, {trainer.env_steps} steps")
            if ends(points):
                break
    finally:
        trainer.close()
    return points


def watch(start: str, family: str, seed: int, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """How soon a robot that acts by a bundle, and learns nothing meanwhile, notices each held-out change of a family.

    It has noticed when the change detector gives the alarm, or when the calibration says phrases in other words.

    Returns:
        delays: episodes of each change until then, `PATIENCE` where it did not notice until then.
        false_alarms_per_100: in `QUIET` episodes without a change, after each of which it looks on.
    """
    config = load_family(family)
    usual = ChangeDetector()
    alarms, said = 0, ""
    for count, told in enumerate(_episodes(config.task, start, seed, out / "unchanged", QUIET), start=1):
        if usual.add(told.figures) is not None or (told.said and not said):
            alarms += 1
            usual.dismiss()
        said = told.said
        if count == LEARNED:
            known = usual.state()
    say(f"{alarms} alarms in {QUIET} episodes without a change")
    delays = []
    for number, name in enumerate(config.members("held_out")):
        detector = ChangeDetector()
        detector.load_state(known)
        episodes = _episodes(f"{family}{SEPARATOR}{name}", start, seed, out / f"{number:02d}", PATIENCE)
        found, by = PATIENCE, "nothing"
        for count, told in enumerate(episodes, start=1):
            alarm = detector.add(told.figures)
            if alarm is not None or told.said:
                found, by = count, told.said or str(alarm)
                break
        delays.append(found)
        say(f"{name}: noticed after {found} episodes: {by}")
    return {"delays": delays, "false_alarms_per_100": 100 * alarms / QUIET}


@dataclass(frozen=True)
class _Told:
    """Of an episode: the figures that a change is seen by, and what the calibration says in other words by its end."""

    figures: dict[str, float]
    said: str


def _episodes(environment: str, start: str, seed: int, out: Path, count: int) -> Iterator[_Told]:
    """Episodes in which nothing is learned but what the robot makes of its phrases."""
    config = adaptation_config(environment, start, seed, warmup=1_000_000)
    shutil.rmtree(out, ignore_errors=True)
    successes: list[bool] = []
    trainer = Trainer(config, out, on_episode=lambda *told: successes.append(bool(told[1])))
    assert trainer.calibration is not None
    try:
        for _ in range(count):
            first = len(trainer.replay)
            trainer.run_episode()
            episode = trainer.replay.recent(len(trainer.replay) - first)
            seen = episode_figures(partial(surprise, trainer.model), trainer.learner, first, episode, successes[-1])
            yield _Told(seen, trainer.calibration.told())
    finally:
        trainer.close()
