"""Ten changes of robot and sensors that were held out: episodes until it can again, and whether it notices.

Each seed learns to navigate with the unchanged robot, then from the family `changes` what may become different
(meta-learning), and meets the changes that nothing was learned of, calibrating the robot's phrases meanwhile. The
references are the same learner that goes on with the skill of the unchanged robot, with and without calibration, and
PPO that goes on with its own policy.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmagent_ros.bundle import latest_bundle
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.adaptation import FEW_EPISODES, adapt, adaptation_config, watch
from llmagent_ros.experiments.bench import navigate
from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.bench.ppo_tuning import fine_tune_ppo
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.environments import EnvironmentSpec
from llmagent_ros.experiments.evaluation import evaluate, figures
from llmagent_ros.experiments.families import SEPARATOR, load_family
from llmagent_ros.experiments.meta_training import MetaTrainConfig, meta_train
from llmagent_ros.experiments.training import BUNDLES
from llmagent_ros.learning.meta.methods import MetaConfig

FAMILY = "changes"
STEPS = navigate.STEPS  # of the skill, and again of meta-learning
EPISODES = 50  # of an evaluation
AFTER = (0, 1, 2, 3, 5, 10)  # episodes of a change after which success is measured
LONG = (*AFTER, 20, 30)  # the same of what it is compared with, which may need more
FEW = 5  # of them, after which success is a figure
SHARE = 0.9  # of the unchanged success, which counts as being able again
WITHOUT, PLAIN = f"{OURS} without meta-learning", f"{OURS} without meta-learning and calibration"
PPO = "ppo, fine-tuned"
METHODS: Mapping[str, str] = {OURS: "reptile", f"{OURS} by FOMAML": "fomaml", f"{OURS} by joint learning": "joint"}
NUMERIC = (PPO,)

FIGURES = (
    Figure("episodes_to_90", "episodes", "of a held-out change to 90 % of the unchanged success", 3, 10, True),
    Figure("success_after_5", "share", "after 5 episodes of a held-out change", 0.90, 0.80),
    Figure("detection_delay", "episodes", "from a change until it is noticed", 1, 3, True),
    Figure("false_alarms_per_100", "alarms", "in 100 episodes without a change", 0, 2, True),
)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    skill = runs.make_config(navigate.ENVIRONMENT, {"steps": steps}, "bench adapt")
    family = dataclasses.asdict(load_family(FAMILY))
    meta = {"steps": steps, **dataclasses.asdict(MetaConfig())}
    measured = {"after": [AFTER, LONG], "episodes": EPISODES}
    return {"skill": runs.settings(skill), "family": family, "meta": meta, "adaptation": dict(FEW_EPISODES)} | measured


def methods() -> list[str]:
    return [OURS, WITHOUT, PLAIN, PPO]


def ablations() -> list[str]:
    return [name for name in METHODS if name != OURS]


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """Success after episodes of each change; of ours also when it notices them."""
    if method == PPO:
        return _ppo(seed, steps, say)
    navigate.measure(OURS, seed, steps, scratch, say)
    skill = latest_bundle(scratch / navigate.run_folder(seed) / BUNDLES)
    assert skill is not None
    start = skill if method not in METHODS else _meta_learned(method, seed, steps, scratch, str(skill), say)
    folder = scratch / f"adapt-{method.replace(' ', '-')}-{seed}"
    measured: dict[str, Any] = {"unchanged": _unchanged(scratch / navigate.run_folder(seed)), "changes": {}}
    for number, name in enumerate(load_family(FAMILY).members("held_out")):
        out = folder / f"{number:02d}"
        known = out / "adapted.json"
        if not known.exists():
            config = adaptation_config(f"{FAMILY}{SEPARATOR}{name}", str(start), seed, calibrate=method != PLAIN)
            after = AFTER if method in METHODS else LONG
            ends = partial(known_all, goal=SHARE * measured["unchanged"])
            points = adapt(config, out / "run", after, EPISODES, say, ends)
            known.write_text(json.dumps(points), encoding="utf-8")
        measured["changes"][name] = json.loads(known.read_text(encoding="utf-8"))
    if method == OURS:
        measured["noticed"] = watch(str(skill), FAMILY, seed, folder / "watch", say)
    return measured


def known_all(points: Sequence[Mapping[str, float]], goal: float) -> bool:
    """It could again, and success after a few episodes is known: what comes later is in no figure."""
    return points[-1]["episodes"] >= FEW and any(point["success"] >= goal for point in points)


def _meta_learned(method: str, seed: int, steps: int, scratch: Path, skill: str, say: Say) -> Path:
    name = METHODS[method]
    out = scratch / f"meta-{name}-{seed}"
    values: dict[str, Any] = {"method": name}
    experience = str(scratch / navigate.run_folder(seed))
    meta = MetaConfig(**values)
    config = MetaTrainConfig(
        FAMILY, steps=steps, seed=seed, start=skill, experience=experience, calibrate=True, meta=meta
    )
    meta_train(config, out)
    say(f"meta-learned by {name}")
    bundle = latest_bundle(out / BUNDLES)
    assert bundle is not None
    return bundle


def _unchanged(run: Path) -> float:
    spec = EnvironmentSpec(navigate.ENVIRONMENT)
    return figures(evaluate(spec, runs.SavedPolicy(run).log_probabilities, EPISODES))["success"]


def _ppo(seed: int, steps: int, say: Say) -> dict[str, Any]:
    names = list(load_family(FAMILY).members("held_out"))
    changed = {name: EnvironmentSpec(f"{FAMILY}{SEPARATOR}{name}") for name in names}
    return fine_tune_ppo(EnvironmentSpec(navigate.ENVIRONMENT), changed, 2 * steps, LONG, EPISODES, seed, say)


def draw(results: Results, path: Path) -> None:
    raise ConfigError("bench adapt has no learning curves to draw")


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures as `Results.write` takes them."""
    ours = results.of(OURS)
    values = _of(ours)
    values["detection_delay"] = [statistics.median(run["noticed"]["delays"]) for run in ours]
    values["false_alarms_per_100"] = [run["noticed"]["false_alarms_per_100"] for run in ours]
    others = [name for name in (WITHOUT, PLAIN, PPO, *ablations()) if results.of(name)]
    return entries(FIGURES, values), {name: entries(FIGURES, _of(results.of(name))) for name in others}


def _of(measured: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    return {
        "episodes_to_90": [_episodes_to(run) for run in measured],
        "success_after_5": [
            statistics.fmean(_after(points, FEW) for points in run["changes"].values()) for run in measured
        ],
    }


def _episodes_to(run: Mapping[str, Any]) -> float | None:
    """The median over the changes; None where that is one that never got there."""
    goal = SHARE * run["unchanged"]
    found = [next((p["episodes"] for p in points if p["success"] >= goal), None) for points in run["changes"].values()]
    ordered = sorted(found, key=lambda count: (count is None, count or 0))
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return None if low is None or high is None else (low + high) / 2


def _after(points: Sequence[Mapping[str, float]], episodes: int) -> float:
    return next(point["success"] for point in points if point["episodes"] == episodes)
