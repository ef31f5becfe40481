"""Ten tasks one after another: how well all of them are done in the end, what was forgotten, what helped later ones.

The measures are those of Continual World (Wołczyk et al. 2021, section 4.2), with the success rate p_i(t) of task i at
step t and D steps for each of N tasks:

    performance       1/N sum_i p_i(N D)
    forgetting        1/N sum_i [p_i(i D) - p_i(N D)]
    forward transfer  1/N sum_i (AUC_i - AUC_i^b) / (1 - AUC_i^b),   AUC_i = 1/D int p_i(t) dt over its own D steps

where b is the same learner on that task alone, from nothing ("one network per task"). All of them meet the robots
through a calibration, which measures what each of them makes of its phrases.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmagent_ros.bundle import load_bundle
from llmagent_ros.durable import write_atomic
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench import continual_peers
from llmagent_ros.experiments.bench.learning import Goal, Say, train_measured
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.calibrated import SeenAs, can_calibrate, seen_through
from llmagent_ros.experiments.continual import ContinualLearner
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evaluation import Policy, evaluate, figures
from llmagent_ros.experiments.training import TrainConfig
from llmagent_ros.knowledge.embedding import SentenceEmbedder
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.start import StartConfig
from llmagent_ros.perception.gymnasium_text import TextEnvironment
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.recording.plot import plot_curves

ALONE = "one network per task"
TASKS = (
    EnvironmentSpec("navigate"),
    EnvironmentSpec("CartPole-v1"),
    EnvironmentSpec("navigate_hall"),
    EnvironmentSpec("leave"),
    EnvironmentSpec("navigate_worn"),
    EnvironmentSpec("FrozenLake-firm"),
    EnvironmentSpec("navigate_dense"),
    EnvironmentSpec("navigate_swapped"),
    EnvironmentSpec("navigate", "sim_scout"),
    EnvironmentSpec("navigate_delayed"),
)
STEPS = 6000  # of each task
EPISODES = 50  # of an evaluation after a task, and at the end
_EVERY, _GLANCE = 500, 20  # steps between two evaluations on the way, and their episodes

NUMERIC: tuple[str, ...] = ()
FIGURES = (
    Figure("performance", "share", "success over all tasks at the end", 0.90, 0.80),
    Figure("forgetting", "share", "success lost between the end of a task and the end of all", 0.0, 0.02, True),
    Figure("forward_transfer", "share", "area under the curve won over learning each task alone", 0.30, 0.20),
)


@dataclass(frozen=True)
class Measured:
    """What a method gives of one task.

    Attributes:
        name: of the task. curve: evaluations on the way. after: success when its steps were done.
        began: in words, with what.
    """

    name: str
    curve: list[dict[str, Any]]
    after: float
    began: str


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    tasks = [{**_named(spec), "train": runs.settings(_train_config(spec, steps, 0))} for spec in TASKS]
    peers = continual_peers.configuration()
    return {"tasks": tasks, "start": dataclasses.asdict(StartConfig()), "episodes": EPISODES, "peers": peers}


def methods() -> list[str]:
    return [OURS, ALONE, *continual_peers.NAMES]


def ablations() -> list[str]:
    return []


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """All tasks in their order, and all of them once more at the end."""
    folder = scratch / f"continual-{method.replace(' ', '-')}-{seed}"
    if method in continual_peers.NAMES:
        return continual_peers.measure(method, TASKS, seed, steps, _EVERY, _GLANCE, EPISODES, say)
    if method == ALONE:
        return _in_sequence(_Alone(), folder, seed, steps, say)
    with Knowledge(folder / "knowledge", SentenceEmbedder()) as knowledge:
        return _in_sequence(_WithSkills(ContinualLearner(knowledge)), folder, seed, steps, say)


class _Method(Protocol):
    def learn(self, config: TrainConfig, out: Path, goal: Goal) -> tuple[list[dict[str, Any]], str]:
        """The curve of a task, and what it began with in words."""
        ...

    def acting(self, config: TrainConfig, out: Path) -> tuple[Policy, SeenAs]:
        """How it acts on a task now, and what stands between it and the task."""
        ...


def _in_sequence(method: _Method, folder: Path, seed: int, steps: int, say: Say) -> dict[str, Any]:
    """Tasks that are done are on disk, so that an interrupted sequence goes on with the next."""
    progress = folder / "progress.json"
    done: list[dict[str, Any]] = json.loads(progress.read_text(encoding="utf-8")) if progress.exists() else []
    runs_of = [(_train_config(spec, steps, seed), folder / f"{n:02d}") for n, spec in enumerate(TASKS)]
    for spec, (config, out) in list(zip(TASKS, runs_of, strict=True))[len(done) :]:
        goal = Goal(spec, "success", 2.0, every=_EVERY, episodes=_GLANCE)  # never reached: each task has all its steps
        curve, began = method.learn(config, out, goal)
        after = _success(spec, *method.acting(config, out))
        say(f"task {len(done) + 1}, {_name(spec)}: {after:.2f} after {steps:,} steps; {began}")
        done.append(dataclasses.asdict(Measured(_name(spec), curve, after, began)))
        write_atomic(progress, (json.dumps(done, indent=1) + "\n").encode())
    end = [_success(spec, *method.acting(*run)) for spec, run in zip(TASKS, runs_of, strict=True)]
    say(f"at the end: {statistics.fmean(end):.2f}")
    return {"tasks": [{**task, "end": each} for task, each in zip(done, end, strict=True)]}


class _Alone:
    """Each task from nothing."""

    def learn(self, config: TrainConfig, out: Path, goal: Goal) -> tuple[list[dict[str, Any]], str]:
        curve = train_measured(goal, config, out, _quietly, to_the_end=True, from_the_start=True)
        return curve, "begins with nothing"

    def acting(self, config: TrainConfig, out: Path) -> tuple[Policy, SeenAs]:
        policy = runs.SavedPolicy(out)
        return policy.log_probabilities, policy.seen_as


class _WithSkills:
    """Each task from the skills that are like it; it acts by the skill that language finds."""

    def __init__(self, learner: ContinualLearner) -> None:
        self._learner = learner

    def learn(self, config: TrainConfig, out: Path, goal: Goal) -> tuple[list[dict[str, Any]], str]:
        begun, start = self._learner.begin(config, out)
        curve = train_measured(goal, begun, out, _quietly, to_the_end=True, from_the_start=True)
        self._learner.keep(begun, out, start)
        return curve, start.why

    def acting(self, config: TrainConfig, out: Path) -> tuple[Policy, SeenAs]:
        env = make_environment(config.spec)
        env.close()
        policy, found = self._learner.policy(config.spec, LanguageModel(config.model, env.phrases))
        measured = None
        if found is not None and found.skill.path is not None:
            measured = load_bundle(found.skill.path).meta.get("calibration")
        return policy, seen_through(measured) if config.calibrate else _as_it_is


def _as_it_is(env: TextEnvironment) -> TextEnvironment:
    return env


def _success(spec: EnvironmentSpec, policy: Policy, seen_as: SeenAs) -> float:
    return figures(evaluate(spec, policy, EPISODES, seen_as=seen_as))["success"]


def _train_config(spec: EnvironmentSpec, steps: int, seed: int) -> TrainConfig:
    env = make_environment(spec)
    env.close()
    values = {"steps": steps, "seed": seed, "robot": spec.robot, "calibrate": can_calibrate(env)}
    return runs.make_config(spec.name, values, "bench continual")


def _quietly(_: str) -> None:
    """The evaluations on the way are in the results."""


def _named(spec: EnvironmentSpec) -> dict[str, str]:
    return {"name": _name(spec), "robot": spec.robot}


def _name(spec: EnvironmentSpec) -> str:
    return spec.name if spec.robot == EnvironmentSpec(spec.name).robot else f"{spec.name} by {spec.robot}"


# --- figures -----------------------------------------------------------------------------------------------------


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures of ours and of the peers, as `Results.write` takes them."""
    theirs = {
        name: entries(FIGURES, _of(results, name)) for name in (ALONE, *continual_peers.NAMES) if results.of(name)
    }
    return entries(FIGURES, _of(results, OURS)), theirs


def _of(results: Results, method: str) -> dict[str, list[float | None]]:
    measured, alone, by_seed = results.of(method), results.by_seed(ALONE), results.by_seed(method)
    values: dict[str, list[float | None]] = {
        "performance": [statistics.fmean(task["end"] for task in run["tasks"]) for run in measured],
        "forgetting": [statistics.fmean(task["after"] - task["end"] for task in run["tasks"]) for run in measured],
    }
    both = sorted(alone.keys() & by_seed.keys())
    if both:
        values["forward_transfer"] = [forward_transfer(by_seed[n]["tasks"], alone[n]["tasks"]) for n in both]
    return values


def forward_transfer(tasks: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]]) -> float:
    """See the module."""
    gains = []
    for task, reference in zip(tasks, alone, strict=True):
        area, base = area_under(task["curve"]), area_under(reference["curve"])
        gains.append((area - base) / (1 - base))
    return statistics.fmean(gains)


def area_under(curve: Sequence[Mapping[str, float]]) -> float:
    """Mean success over the steps of a curve, by trapezoids."""
    area = sum(
        (after["env_steps"] - before["env_steps"]) * (after["success"] + before["success"]) / 2
        for before, after in itertools.pairwise(curve)
    )
    return area / (curve[-1]["env_steps"] - curve[0]["env_steps"])


def draw(results: Results, path: Path) -> None:
    """Success on the present task over all steps, one line for each seed."""
    curves = {
        method: [_joined(run["tasks"]) for run in results.of(method)] for method in methods() if results.of(method)
    }
    goal = FIGURES[0].floor
    plot_curves(curves, path, title="Ten tasks in sequence", y="success on the present task", threshold=goal)


def _joined(tasks: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for task in tasks:
        start = points[-1][0] if points else 0.0
        points += [(start + point["env_steps"], point["success"]) for point in task["curve"]]
    return points
