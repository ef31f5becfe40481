"""CartPole-v1 as text against numeric peers: steps to a greedy mean return of 475 over 100 episodes, and whether it
holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bases import save_untrained
from llmagent_ros.experiments.bench import peers
from llmagent_ros.experiments.bench.curves import first_step, held_share
from llmagent_ros.experiments.bench.learning import Goal, Say, our_curve, peer_curve
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.environments import EnvironmentSpec
from llmagent_ros.recording.plot import plot_curves

ENVIRONMENT = "CartPole-v1"
GOAL = Goal(EnvironmentSpec(ENVIRONMENT), "return_mean", 475.0)
DEMONSTRATIONS = 5
WITH_DEMONSTRATIONS = f"{OURS} demos"
STEPS = 22_000  # at most: the floor, and ten evaluations more
UNCACHED = "no feature cache"
ABLATED_GOAL = dataclasses.replace(GOAL, following=2)  # of an ablation only how soon it learns is told,
ABLATED_STEPS = 12_000  # as far as the floor
UNCACHED_MINUTES = 30.0  # of training: to its end it would take days, to learn the same

ABLATIONS: dict[str, dict[str, Any]] = {
    "no critic in the choice": {"critic_acts": False},
    "no pre-training": {},  # a base of its own, see `measure`
    UNCACHED: {"learner": {"cache_features": False}},
    "summed scores": {"model": {"score": "sum"}},
    # an adapter's best learning rate is about ten times that of the whole model (Schulman et al. 2025)
    "full fine-tuning": {"model": {"full": True}, "learner": {"actor_learning_rate": 2e-4}},
    "trained A": {"model": {"train_a": True}},
}

NUMERIC = tuple(peers.NAMES)
FIGURES = (
    Figure("steps_to_475", "env steps", "to a greedy 100-episode mean >= 475, no demonstrations", 5000, 12_000, True),
    Figure("evals_held", "share", "of the next ten evaluations, one per 1,000 steps, >= 475", 1.0, 0.9),
    Figure("steps_to_475_demos", "env steps", "the same with 5 demonstration episodes", 1000, 3000, True),
)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    config = runs.make_config(ENVIRONMENT, {"steps": steps}, "bench cartpole")
    return {"goal": dataclasses.asdict(GOAL), "train": runs.settings(config)}


def methods() -> list[str]:
    return [OURS, WITH_DEMONSTRATIONS, *peers.NAMES]


def ablations() -> list[str]:
    return list(ABLATIONS)


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """The learning curve of one method and seed."""
    if method in peers.NAMES:
        settings = peers.PUBLISHED[ENVIRONMENT][method]
        return peer_curve(GOAL, method, settings, seed, say, until=settings["steps"])
    goal = GOAL
    if method in ABLATIONS:
        goal, steps = ABLATED_GOAL, min(steps, ABLATED_STEPS)
    demonstrations = DEMONSTRATIONS if method == WITH_DEMONSTRATIONS else 0
    settings = {"steps": steps, "seed": seed, "demonstrations": demonstrations, **ABLATIONS.get(method, {})}
    out = scratch / f"cartpole-{method.replace(' ', '-')}-{seed}"
    if method == "no pre-training":
        untrained = save_untrained(out.with_name(f"{out.name}-base"), GOAL.spec, seed)
        settings["model"] = {"model": str(untrained)}
    config = runs.make_config(ENVIRONMENT, settings, "bench cartpole")
    minutes = UNCACHED_MINUTES if method == UNCACHED else math.inf
    return our_curve(goal, config, out, say, minutes=minutes)


def draw(results: Results, path: Path) -> None:
    """Every seed's learning curve."""
    curves = {
        method: [[(p["env_steps"], p[GOAL.key]) for p in run["curve"]] for run in results.of(method)]
        for method in (*methods(), *ablations())
        if results.of(method)
    }
    plot_curves(curves, path, title=ENVIRONMENT, y="greedy return, mean of 100 episodes", threshold=GOAL.threshold)


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures of ours and of the peers, as `Results.write` takes them."""
    ours, shown = _of(results.of(OURS)), _of(results.of(WITH_DEMONSTRATIONS))
    values = {
        "steps_to_475": ours["steps_to_475"],
        "evals_held": ours["evals_held"],
        "steps_to_475_demos": shown["steps_to_475"],
    }
    theirs = {name: entries(FIGURES, _of(results.of(name))) for name in peers.NAMES if results.of(name)}
    for name in ablations():
        if results.of(name):
            theirs[name] = entries(FIGURES, {"steps_to_475": _of(results.of(name))["steps_to_475"]})
    return entries(FIGURES, values), theirs


def _of(measured: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    curves = [each["curve"] for each in measured]
    return {
        "steps_to_475": [first_step(curve, GOAL.key, GOAL.threshold) for curve in curves],
        "evals_held": [held_share(curve, GOAL.key, GOAL.threshold, GOAL.following) for curve in curves],
    }
