"""How a learning curve is measured, for the method and its peers alike: on held-out seeds, at fixed steps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmagent_ros.durable import write_atomic
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench import peers
from llmagent_ros.experiments.bench.curves import is_over, point
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evaluation import Policy, evaluate, figures
from llmagent_ros.experiments.training import TrainConfig, Trainer
from llmagent_ros.perception.gymnasium_text import NumericObservations

Say = Callable[[str], None]
CURVE = "curve.json"  # in a run's folder


@dataclass(frozen=True)
class Goal:
    """What is to be reached, and how that is seen.

    Attributes:
        spec: the environment. key, threshold: of `evaluation.figures`: reached from there on.
        every: environment steps between two evaluations. episodes: of each.
        following: evaluations after the first that reaches it; then the run may end.
    """

    spec: EnvironmentSpec
    key: str
    threshold: float
    every: int = 1000
    episodes: int = 100
    following: int = 10


def our_curve(
    goal: Goal, config: TrainConfig, out: Path, say: Say, *, to_the_end: bool = False, minutes: float = math.inf
) -> dict[str, Any]:
    """Trains ours; ends where the goal was reached and followed, unless `to_the_end`.

    Args:
        minutes: see `train_measured`.

    Returns:
        curve: see `train_measured`. from_files: the figures of the last state once more, by a model that is built anew
        from the files.
    """
    curve = train_measured(goal, config, out, say, to_the_end=to_the_end, minutes=minutes)
    again, _ = runs.evaluate_run(out, goal.episodes)
    return {"curve": curve, "from_files": again}


def train_measured(
    goal: Goal,
    config: TrainConfig,
    out: Path,
    say: Say,
    *,
    to_the_end: bool,
    from_the_start: bool = False,
    minutes: float = math.inf,
) -> list[dict[str, Any]]:
    """Trains with evaluations; a run that was interrupted goes on, with the evaluations that it has.

    Args:
        from_the_start: an evaluation comes before anything is learned as well.
        minutes: of training, evaluations not counted, after which it ends, with an evaluation.

    Returns:
        Evaluations, each with `minutes` of training without evaluations.
    """
    curve = _Curve(goal, say, out / CURVE)
    clock = _Clock(curve.points[-1]["minutes"] if curve.points else 0.0)

    def on_step(trainer: Trainer) -> None:
        first = from_the_start and trainer.env_steps == 1  # as at step 0: nothing is learned before the warm-up
        late = clock.minutes >= minutes
        if trainer.env_steps % goal.every and not first and not late:
            return
        with clock.paused():
            results = evaluate(goal.spec, trainer.log_probabilities, goal.episodes, seen_as=trainer.seen_as)
        measured = figures(results)
        curve.add(0 if first else trainer.env_steps, {**measured, "minutes": clock.minutes})
        if late or (curve.over and not to_the_end):
            trainer.stop()

    runs.train(config, out, on_step=on_step)
    return curve.points


def peer_curve(
    goal: Goal,
    name: str,
    settings: Mapping[str, Any],
    seed: int,
    say: Say,
    until: int,
    temperatures: Sequence[float] = (0.0,),
) -> dict[str, Any]:
    """Trains a peer on the numbers that the text says, for `until` steps.

    Args:
        temperatures: each evaluation is made at each of these, and the best one counts.
    """
    curve, clock = _Curve(goal, say), _Clock()

    def on_evaluation(steps: int, policy: Policy) -> bool:
        with clock.paused():
            tries = [
                {**figures(evaluate(goal.spec, policy, goal.episodes, temperature=each, numeric=True)), "at": each}
                for each in temperatures
            ]
        best = max(tries, key=lambda measured: measured[goal.key])
        curve.add(steps, {**best, "minutes": clock.minutes})
        return steps < until

    def make() -> NumericObservations:
        return NumericObservations(make_environment(goal.spec))

    peers.train_peer(name, settings, make, seed, goal.every, on_evaluation)
    return {"curve": curve.points}


class _Curve:
    """Evaluations so far; with a path on disk too, where those of an interrupted run are found again."""

    def __init__(self, goal: Goal, say: Say, path: Path | None = None) -> None:
        self._goal, self._say, self._path = goal, say, path
        self.points: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self.points = json.loads(path.read_text(encoding="utf-8"))

    def add(self, steps: int, measured: Mapping[str, float]) -> None:
        """Takes one; those of steps that are made again after an interruption are measured again."""
        self.points = [each for each in self.points if each["env_steps"] < steps] + [point(steps, measured)]
        if self._path is not None:
            write_atomic(self._path, json.dumps(self.points).encode())
        self._say(f"{steps:,} steps: {self._goal.key} {measured[self._goal.key]:.4g}")

    @property
    def over(self) -> bool:
        return is_over(self.points, self._goal.key, self._goal.threshold, self._goal.following)


class _Clock:
    """Minutes since it was made, and those before, without the pauses."""

    def __init__(self, before: float = 0.0) -> None:
        self._began = time.monotonic() - 60 * before
        self._paused_at = 0.0

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._began) / 60

    def paused(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self._paused_at = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._began += time.monotonic() - self._paused_at
