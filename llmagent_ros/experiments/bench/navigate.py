"""Navigation against numeric peers: steps to 90 % success on 100 held-out worlds, and how good it gets.

Two smaller questions beside it: what LunarLander learns through LoRA and critic alone, and what that costs the language
model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench import peers
from llmagent_ros.experiments.bench.curves import first_step
from llmagent_ros.experiments.bench.learning import Goal, Say, our_curve, peer_curve
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.environments import BASE_ENVIRONMENTS, EnvironmentSpec, make_environment
from llmagent_ros.experiments.exploration import explore
from llmagent_ros.experiments.training import BUNDLES
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.text_losses import SCENES, perplexities
from llmagent_ros.recording.plot import plot_curves

ENVIRONMENT, LANDER = "navigate", "LunarLander-v3"
GOAL = Goal(EnvironmentSpec(ENVIRONMENT), "success", 0.90, every=2000)
LANDER_GOAL = Goal(EnvironmentSpec(LANDER), "return_mean", 200.0, every=2500, following=2)
LANDS = f"{OURS} LunarLander"
STEPS = 20_000  # the floor of steps_to_90
LANDER_STEPS = 30_000  # phrases, of which each is held for three steps of the environment
PEER_EVERY = 4000
PEER_STEPS = 24_000  # a peer that has not reached the goal by then counts as never reaching it
PEER_TEMPERATURES = (0.0, 1.0)  # greedy, and as it explores; the better one counts
HOUR = 60.0  # minutes of training
_UNSEEN_SHARD, _UNSEEN_STEPS = 90_000, 300  # of logs that no base was trained on

FIGURES = (
    Figure("steps_to_90", "env steps", "to 90 % success on 100 held-out worlds", 5000, 20_000, True),
    Figure("success", "share", "after 60 minutes", 0.97, 0.90),
    Figure("spl", "share", "success weighted by path length, after 60 minutes", 0.80, 0.70),
    Figure("collisions_per_episode", "1/episode", "after 60 minutes", 0.02, 0.05, True),
    Figure("lunarlander_return", "return", "of LunarLander-v3, learned through LoRA and critic alone", 200),
    Figure("perplexity_rise", "share", "of unseen text of all environments, by its adapter", 0.05, None, True),
    Figure("perplexity_rise_scenes", "share", "the same of all text but the phrases", lower=True),
    Figure("perplexity_rise_onwards", "share", "the same where it acts on what follows the phrase as well"),
)
# Nobody has published settings for this environment. DQN and QR-DQN take those of LunarLander, which like it has shaped
# rewards and ends in a crash; PPO takes CartPole's, as LunarLander's are for a million steps.
_SETTINGS = {
    "dqn": peers.PUBLISHED[LANDER]["dqn"],
    "qrdqn": peers.PUBLISHED[LANDER]["qrdqn"],
    "ppo": peers.PUBLISHED["CartPole-v1"]["ppo"],
}
NUMERIC = tuple(_SETTINGS)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    config = runs.make_config(ENVIRONMENT, {"steps": steps}, "bench navigate")
    lander = runs.make_config(LANDER, {"steps": LANDER_STEPS}, "bench navigate")
    return {
        "goal": dataclasses.asdict(GOAL),
        "train": runs.settings(config),
        "lunarlander": runs.settings(lander),
        "peers": {"steps": PEER_STEPS, "every": PEER_EVERY, "temperatures": PEER_TEMPERATURES},
    }


def methods() -> list[str]:
    return [OURS, *_SETTINGS, LANDS]


def ablations() -> list[str]:
    return []


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """The learning curve of one method and seed."""
    if method in _SETTINGS:
        goal = dataclasses.replace(GOAL, every=PEER_EVERY)
        return peer_curve(goal, method, _SETTINGS[method], seed, say, PEER_STEPS, PEER_TEMPERATURES)
    if method == LANDS:
        return _land(seed, scratch / f"lunarlander-{seed}", say)
    config = runs.make_config(ENVIRONMENT, {"steps": steps, "seed": seed}, "bench navigate")
    return our_curve(GOAL, config, scratch / run_folder(seed), say, to_the_end=True)


def run_folder(seed: int) -> str:
    """Of one of our runs in the scratch folder."""
    return f"navigate-{seed}"


def _land(seed: int, out: Path, say: Say) -> dict[str, Any]:
    config = runs.make_config(LANDER, {"steps": LANDER_STEPS, "seed": seed}, "bench navigate")
    measured = our_curve(LANDER_GOAL, config, out, say)
    return {**measured, "perplexity": _perplexities(out)}


def _perplexities(out: Path) -> dict[str, dict[str, float]]:
    """Of unseen logs of every shipped environment, without and with the adapter of a run."""
    config = runs.read_config(out)
    newest = latest_bundle(out / BUNDLES)
    assert newest is not None
    env = make_environment(config.spec)
    model = LanguageModel(config.model, env.phrases)
    env.close()
    model.load_adapter_state(load_bundle(newest).adapter or {})
    told: dict[str, dict[str, float]] = {}
    for name in BASE_ENVIRONMENTS:
        steps = list(islice(explore(EnvironmentSpec(name), _UNSEEN_SHARD, _UNSEEN_STEPS), _UNSEEN_STEPS))
        told[name] = perplexities(model, steps)
    return told


def draw(results: Results, path: Path) -> None:
    """Every seed's learning curve."""
    curves = {
        method: [[(p["env_steps"], p[GOAL.key]) for p in run["curve"]] for run in results.of(method)]
        for method in (OURS, *_SETTINGS)
        if results.of(method)
    }
    plot_curves(curves, path, title="Navigation", y="success in 100 held-out worlds", threshold=GOAL.threshold)


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures of ours and of the peers, as `Results.write` takes them."""
    landed = results.of(LANDS)
    ours = _of(results.of(OURS)) | {
        "lunarlander_return": [max(p["return_mean"] for p in run["curve"]) for run in landed],
        "perplexity_rise": [_rise(run["perplexity"], "adapted") for run in landed],
        "perplexity_rise_scenes": [_rise(run["perplexity"], "adapted", SCENES) for run in landed],
        "perplexity_rise_onwards": [_rise(run["perplexity"], "onwards") for run in landed],
    }
    theirs = {name: entries(FIGURES, _of(results.of(name))) for name in _SETTINGS if results.of(name)}
    return entries(FIGURES, ours), theirs


def _of(measured: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    curves = [each["curve"] for each in measured]
    last = [_within_the_hour(curve) for curve in curves]
    return {
        "steps_to_90": [first_step(curve, GOAL.key, GOAL.threshold) for curve in curves],
        **{key: [each and each[key] for each in last] for key in ("success", "spl", "collisions_per_episode")},
    }


def _within_the_hour(curve: Sequence[Mapping[str, float]]) -> Any:
    return next((point for point in reversed(curve) if point["minutes"] <= HOUR), None)


def _rise(perplexities: Mapping[str, Mapping[str, float]], way: str, part: str = "") -> float:
    """Of the geometric mean over environments."""
    ratios = [each[f"{way}{part}"] / each[f"base{part}"] for each in perplexities.values()]
    return math.prod(ratios) ** (1 / len(ratios)) - 1
