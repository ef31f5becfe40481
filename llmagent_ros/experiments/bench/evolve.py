"""What evolution is worth: with RL and meta-learning against RL alone, and against each part left out, at equal steps.

All methods meet the held-out tasks of a family, of which nothing was learned before. With T steps (`--steps`) for each
of N tasks, all steps of all members and of meta-learning counted, and those of the episodes by which members are
selected:

    RL alone              N T on the tasks, from nothing, with the default settings
    no evolution          a share in meta-learning, the rest on the tasks, from what was learned
    no meta-learning      a share in evolution, the rest on the tasks, from the best member and with its settings
    all of it             both shares; evolution begins with what meta-learning gave

What is learned before is learned on the family's tasks to learn from. Besides: settings alone, evolved without
inheriting anything, against the defaults, each from nothing and with T steps on a task; and how much faster two workers
are than one.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmagent_ros.bundle import latest_bundle
from llmagent_ros.config import read_yaml
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench.aggregate import Interval, difference, iqm, mean
from llmagent_ros.experiments.bench.beside import missed_ticks
from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.evaluation import evaluate, figures
from llmagent_ros.experiments.evolution.best import BEST, SETTINGS
from llmagent_ros.experiments.evolution.config import EvolutionConfig, plain
from llmagent_ros.experiments.evolution.evolution import Evolution
from llmagent_ros.experiments.evolution.jobs import run_job
from llmagent_ros.experiments.evolution.planning import Planner
from llmagent_ros.experiments.evolution.workers import FAILED, Job, ProcessWorkers, WorkersConfig
from llmagent_ros.experiments.families import SEPARATOR, load_family
from llmagent_ros.experiments.meta_training import MetaTrainConfig, meta_train
from llmagent_ros.experiments.training import BUNDLES
from llmagent_ros.learning.evolution.genes import Genome
from llmagent_ros.learning.evolution.lineage import Lineage
from llmagent_ros.learning.evolution.population import BreedingConfig, Member
from llmagent_ros.learning.evolution.selection import RaceConfig

FAMILY = "changes"
STEPS = 8000  # T
META_SHARE, EVOLUTION_SHARE = 0.2, 0.3  # of N T
POPULATION, GENERATIONS = 6, 4
LEARNING_SHARE = 0.6  # of the steps of evolution; the rest is for its evaluations, as far as they need it
EPISODES = 50  # of an evaluation
ALONE, NO_META, NO_EVOLUTION = "RL alone", "no meta-learning", "no evolution"
TUNED, THROUGHPUT = "evolved settings", "throughput"
BESIDE, GRAPH_ALONE = "beside the graph", "the graph alone"
_JOBS, _JOB_STEPS = 8, 200  # of the measurement of throughput

NUMERIC: tuple[str, ...] = ()
TIMED = (THROUGHPUT, BESIDE, GRAPH_ALONE)
FIGURES = (
    Figure("iqm_gain_ci_low", "share", "success won over RL alone at equal steps, lower end of the 95 % interval"),
    Figure("iqm_gain", "share", "the same, interquartile mean"),
    Figure("tuned_gain", "points", "success won by evolved settings over the defaults on held-out tasks"),
    Figure("tuned_gain_ci_low", "points", "lower end of its 95 % interval"),
    Figure("tuned_gain_ci_high", "points", "upper end of it"),
    Figure("two_workers_over_one", "ratio", "members made and evaluated in an hour by two workers over one"),
    Figure("missed_tick_share", "share", "of the graph, with meta-learning and evolution beside it", lower=True),
)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    task = _tasks()[0]
    return {
        "train": runs.settings(runs.make_config(task, {"steps": steps}, "bench evolve")),
        "family": dataclasses.asdict(load_family(FAMILY)),
        "evolution": plain(_evolution(0, _budget(steps), "", inherit=True)),
        "shares": [META_SHARE, EVOLUTION_SHARE],
        "episodes": EPISODES,
    }


def methods() -> list[str]:
    return [OURS, ALONE, NO_META, NO_EVOLUTION, TUNED, THROUGHPUT, BESIDE, GRAPH_ALONE]


def ablations() -> list[str]:
    return []


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """Success on each held-out task, and how many steps all of it took; what was interrupted goes on in `scratch`."""
    if method == THROUGHPUT:
        return _throughput(seed, scratch / f"evolve-throughput-{seed}", say)
    if method in (BESIDE, GRAPH_ALONE):
        out = scratch / f"evolve-{method.replace(' ', '-')}-{seed}"
        ticks = missed_ticks(out, seed, FAMILY, beside=method == BESIDE)
        say(f"missed {ticks['missed_tick_share']:.4%} of {ticks['ticks']:,} ticks")
        return ticks
    folder = scratch / f"evolve-{method.replace(' ', '-')}-{seed}"
    before, start, settings = 0, "", dict[str, Any]()
    if method in (OURS, NO_EVOLUTION):
        start, taken = _meta_learned(seed, steps, scratch, say)
        before += taken
    if method in (OURS, NO_META, TUNED):
        evolved = folder / "evolution"
        config = _evolution(seed, _budget(steps), start, inherit=method != TUNED)
        summary = Evolution(config, evolved, WorkersConfig(workers=1), say=say).run()
        before += summary["env_steps"] + summary["evaluation_steps"]
        settings = read_yaml(evolved / SETTINGS)
        if method != TUNED:
            best = latest_bundle(evolved / BEST / BUNDLES)
            start = str(best) if best is not None else start
    tasks = _tasks()
    each = steps if method == TUNED else (steps * len(tasks) - before) // len(tasks)
    if each < 1:
        raise ConfigError(f"--steps {steps}: {method} took {before:,} steps before the tasks, and none are left")
    success = {}
    for number, task in enumerate(tasks):
        success[task] = _learned(task, each, seed, start, settings, folder / f"{number:02d}")
        say(f"{task}: {success[task]:.2f} after {each:,} steps")
    return {"success": success, "steps_before": before, "steps_each": each, "settings": settings}


# --- parts ------------------------------------------------------------------------------------------------


def _tasks() -> list[str]:
    return [f"{FAMILY}{SEPARATOR}{name}" for name in load_family(FAMILY).members("held_out")]


def _budget(steps: int) -> int:
    """Steps of evolution."""
    return int(EVOLUTION_SHARE * steps * len(_tasks()))


def _evolution(seed: int, budget: int, start: str, *, inherit: bool) -> EvolutionConfig:
    return EvolutionConfig(
        environment=FAMILY,
        population=POPULATION,
        generations=GENERATIONS,
        slice=max(1, int(LEARNING_SHARE * budget) // (POPULATION * GENERATIONS)),
        seed=seed,
        start=start,
        breeding=BreedingConfig(inherit=inherit),
        race=RaceConfig(block=4, rounds=3),
    )


def _meta_learned(seed: int, steps: int, scratch: Path, say: Say) -> tuple[str, int]:
    """The bundle, and how many steps it took; of one seed it is made once for all methods, and counted for each."""
    budget = int(META_SHARE * steps * len(_tasks()))
    out = scratch / f"evolve-meta-{seed}"
    meta_train(MetaTrainConfig(FAMILY, steps=budget, seed=seed), out)
    bundle = latest_bundle(out / BUNDLES)
    assert bundle is not None
    say(f"meta-learned in {budget:,} steps")
    return str(bundle), budget


def _learned(task: str, steps: int, seed: int, start: str, settings: Mapping[str, Any], out: Path) -> float:
    """Success on a task after so many steps of RL; kept on disk."""
    known = out / "success.json"
    if not known.exists():
        values = {**settings, "steps": steps, "seed": seed} | ({"start": start} if start else {})
        runs.train(runs.make_config(task, values, "bench evolve"), out / "run")
        policy = runs.SavedPolicy(out / "run")
        measured = figures(evaluate(policy.config.spec, policy.log_probabilities, EPISODES))
        write_atomic(known, json.dumps(measured["success"]).encode())
    return float(json.loads(known.read_text(encoding="utf-8")))


def _throughput(seed: int, out: Path, say: Say) -> dict[str, Any]:
    """The same members, made and evaluated by one worker and by two that have begun before; taken in turns."""
    config = EvolutionConfig(FAMILY, slice=_JOB_STEPS, seed=seed)
    seconds: dict[str, list[float]] = {"1": [], "2": []}
    backends = {str(count): ProcessWorkers(WorkersConfig(workers=count), run_job) for count in (1, 2)}
    try:
        for turn in range(3):  # the first one starts them
            for name, backend in backends.items():
                planner = Planner(config, out / f"{turn}-{name}")
                jobs = [_throughput_job(planner, number) for number in range(_JOBS)]
                began = time.monotonic()
                failed = [result[FAILED] for _, result in backend.run(jobs) if FAILED in result]
                if failed:
                    raise ConfigError(f"throughput: {failed[0]}")
                if turn:
                    seconds[name].append(time.monotonic() - began)
    finally:
        for backend in backends.values():
            backend.close()
    ratio = float(np.median(seconds["1"]) / np.median(seconds["2"]))
    say(f"two workers over one: {ratio:.2f}")
    return {"two_workers_over_one": ratio, "seconds": seconds}


def _throughput_job(planner: Planner, number: int) -> Job:
    return planner.train(Member(Genome({}), Lineage(f"m{number:02d}", 0, "first")))


# --- figures ----------------------------------------------------------------------------------------------


def draw(results: Results, path: Path) -> None:
    raise ConfigError("bench evolve has no learning curves to draw")


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures as `Results.write` takes them; below peers what is won over each part left out."""
    values: dict[str, list[float | None]] = {}
    if results.of(OURS) and results.of(ALONE):
        values |= _gain(difference(_scores(results, OURS), _scores(results, ALONE), iqm))
    if results.of(TUNED) and results.of(ALONE):
        tuned = difference(100 * _scores(results, TUNED), 100 * _scores(results, ALONE), mean)
        values |= {"tuned_gain": [tuned.value], "tuned_gain_ci_low": [tuned.low], "tuned_gain_ci_high": [tuned.high]}
    for method, key in ((THROUGHPUT, "two_workers_over_one"), (BESIDE, "missed_tick_share")):
        if results.of(method):
            values[key] = [each[key] for each in results.of(method)]
    peers = {
        name: entries(FIGURES, {"missed_tick_share": [each["missed_tick_share"] for each in results.of(name)]})
        for name in (GRAPH_ALONE,)
        if results.of(name)
    }
    peers |= {
        f"over {method}": entries(FIGURES, _gain(difference(_scores(results, OURS), _scores(results, method), iqm)))
        for method in (NO_META, NO_EVOLUTION)
        if results.of(OURS) and results.of(method)
    }
    return entries(FIGURES, values), peers


def _gain(interval: Interval) -> dict[str, list[float | None]]:
    return {"iqm_gain_ci_low": [interval.low], "iqm_gain": [interval.value]}


def _scores(results: Results, method: str) -> Any:
    """(seeds, tasks)."""
    return np.array([list(each["success"].values()) for each in results.of(method)], np.float64)
