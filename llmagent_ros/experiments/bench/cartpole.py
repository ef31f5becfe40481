"""CartPole-v1 as text against numeric peers: steps to a greedy mean return of 475 over 100 episodes, and whether it
holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench import peers
from llmagent_ros.experiments.bench.curves import first_step, held_share, is_over, point
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, median
from llmagent_ros.experiments.environments import EnvironmentSpec
from llmagent_ros.experiments.evaluation import evaluate, figures
from llmagent_ros.experiments.training import Trainer
from llmagent_ros.recording.plot import plot_curves

ENVIRONMENT = "CartPole-v1"
SOLVED = 475.0
EVERY = 1000  # environment steps between two evaluations
EPISODES = 100  # of each
FOLLOWING = 10  # evaluations after the first that solves it
DEMONSTRATIONS = 5
WITH_DEMONSTRATIONS = f"{OURS} demos"
STEPS = 22_000  # at most: the floor, and ten evaluations more

FIGURES = (
    Figure("steps_to_475", "env steps", "to a greedy 100-episode mean >= 475, no demonstrations", 5000, 12_000, True),
    Figure("evals_held", "share", "of the next ten evaluations, one per 1,000 steps, >= 475", 1.0, 0.9),
    Figure("steps_to_475_demos", "env steps", "the same with 5 demonstration episodes", 1000, 3000, True),
)
Say = Callable[[str], None]


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    config = runs.make_config(ENVIRONMENT, {"steps": steps}, "bench cartpole")
    return {"every": EVERY, "episodes": EPISODES, "train": dataclasses.asdict(config)}


def methods() -> list[str]:
    return [OURS, WITH_DEMONSTRATIONS, *peers.NAMES]


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """The learning curve of one method and seed. Also called in worker processes."""
    if method in peers.NAMES:
        return {"curve": _peer_curve(method, seed, say)}
    demonstrations = DEMONSTRATIONS if method == WITH_DEMONSTRATIONS else 0
    out = scratch / f"{method.replace(' ', '-')}-{seed}"
    settings = {"steps": steps, "seed": seed, "demonstrations": demonstrations}
    curve: list[dict[str, Any]] = []
    config = runs.make_config(ENVIRONMENT, settings, "bench cartpole")
    runs.train(config, out, on_step=lambda trainer: _evaluate_when_due(trainer, curve, say))
    again, _ = runs.evaluate_run(out, EPISODES)  # a fresh model, from the files
    return {"curve": curve, "from_files": again}


def _evaluate_when_due(trainer: Trainer, curve: list[dict[str, Any]], say: Say) -> None:
    if trainer.env_steps % EVERY:
        return
    measured = figures(evaluate(trainer.config.spec, trainer.choose, EPISODES))
    curve.append(point(trainer.env_steps, measured))
    say(f"{trainer.env_steps:,} steps: mean return {measured['return_mean']:.0f}")
    if is_over(curve, "return_mean", SOLVED, FOLLOWING):
        trainer.stop()


def _peer_curve(name: str, seed: int, say: Say) -> list[dict[str, Any]]:
    curve: list[dict[str, Any]] = []

    def on_evaluation(steps: int, choose: Callable[[Any], list[int]]) -> bool:
        measured = figures(evaluate(EnvironmentSpec(ENVIRONMENT), choose, EPISODES, numeric=True))
        curve.append(point(steps, measured))
        say(f"{steps:,} steps: mean return {measured['return_mean']:.0f}")
        return True

    settings = peers.PUBLISHED[ENVIRONMENT][name]
    peers.train_peer(name, settings, lambda: gym.make(ENVIRONMENT), seed, EVERY, on_evaluation)
    return curve


def draw(results: Results, path: Path) -> None:
    """Every seed's learning curve."""
    curves = {
        method: [[(p["env_steps"], p["return_mean"]) for p in run["curve"]] for run in results.of(method)]
        for method in methods()
        if results.of(method)
    }
    plot_curves(curves, path, title="CartPole-v1", y="greedy return, mean of 100 episodes", threshold=SOLVED)


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures of ours and of the peers, as `Results.write` takes them."""
    ours, shown = _of(results.of(OURS)), _of(results.of(WITH_DEMONSTRATIONS))
    values = {
        "steps_to_475": ours["steps_to_475"],
        "evals_held": ours["evals_held"],
        "steps_to_475_demos": shown["steps_to_475"],
    }
    told = {
        figure.key: {"value": median(values[figure.key]), "unit": figure.unit, "seeds": values[figure.key]}
        for figure in FIGURES
    }
    theirs = {
        name: {key: {"value": median(each), "seeds": each} for key, each in _of(results.of(name)).items()}
        for name in peers.NAMES
        if results.of(name)
    }
    return told, theirs


def _of(runs_of_method: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    curves = [run["curve"] for run in runs_of_method]
    return {
        "steps_to_475": [first_step(curve, "return_mean", SOLVED) for curve in curves],
        "evals_held": [held_share(curve, "return_mean", SOLVED, FOLLOWING) for curve in curves],
    }
