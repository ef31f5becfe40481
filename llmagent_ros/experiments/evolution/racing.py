"""Races of members, and the search for a mixture of them: selection's questions as jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llmagent_ros.experiments.evolution.journal import Journal
from llmagent_ros.experiments.evolution.planning import Planner
from llmagent_ros.experiments.evolution.workers import FAILED, Result
from llmagent_ros.learning.evolution.lineage import Lineage
from llmagent_ros.learning.evolution.mixtures import search_mixture
from llmagent_ros.learning.evolution.population import Member
from llmagent_ros.learning.evolution.selection import Race

MIXTURE = "mixture"
_PER_REPETITION = ("fitness", "successes", "steps", "ends")


def race_members(
    journal: Journal,
    planner: Planner,
    generation: int,
    results: Mapping[str, Result],
    keep: int,
    task: int | None = None,
) -> tuple[Race, dict[str, Result], list[dict[str, str]]]:
    """Gives further repetitions to members whose place is not decided.

    Args:
        results: what each gave in its first repetitions, which may be none.

    Returns:
        The race, what each member gave in all of its repetitions, and who failed in them and why.
    """
    race = Race(list(results), min(keep, len(results)), planner.config.race)
    told, failures = {name: joined(result) for name, result in results.items()}, []
    for name, result in told.items():
        race.tell(name, result["fitness"])
    while wanted := race.wanted():
        jobs = {name: planner.evaluate(generation, name, which, task) for name, which in wanted.items()}
        done = journal.do(generation, list(jobs.values()))
        for name, job in jobs.items():
            result = done[job["key"]]
            if FAILED in result:
                race.drop(name)
                failures.append({"member": name, "why": result[FAILED]})
            else:
                race.tell(name, result["fitness"])
                told[name] = joined(told[name], result)
    return race, told, failures


def mix_members(
    journal: Journal, planner: Planner, generation: int, parents: Sequence[Member], task: int
) -> Member | None:
    """The best mixture of members of one structure, kept as a member; None where one of them alone is as good.

    Args:
        generation: whose seeds they are judged on; not one that they were selected by. task: what is done there.
    """
    names = tuple(parent.name for parent in parents)
    asked = 0

    def judge(mixtures: Sequence[tuple[float, ...]]) -> list[float | None]:
        nonlocal asked
        lineages = [_lineage(f"{MIXTURE}-{asked + n:03d}", generation, names, w) for n, w in enumerate(mixtures)]
        asked += len(lineages)
        repetitions = 2 * planner.config.race.block
        jobs = [planner.mixture(generation, each, repetitions, task=task) for each in lineages]
        done = journal.do(generation, jobs)
        return [None if FAILED in each else float(np.mean(each["fitness"])) for each in done.values()]

    best = search_mixture(len(parents), judge, seed=planner.config.seed, rounds=planner.config.mixture)[0]
    if best.fitness is None or max(best.weights) == 1.0:
        return None
    made = _lineage(MIXTURE, generation, names, best.weights)
    job = planner.mixture(generation, made, 0, task=task, keep=True)
    return Member(parents[0].genome, made) if FAILED not in journal.do(generation, [job])[job["key"]] else None


def joined(*results: Result) -> Result:
    """Repetitions of one member, one block after another; the rest is the first one's."""
    lists = {key: [value for each in results for value in each.get(key, ())] for key in _PER_REPETITION}
    return {**results[0], **lists}


def success(result: Result) -> float:
    """Share of the repetitions that succeeded."""
    return float(np.mean(result["successes"])) if result["successes"] else 0.0


def _lineage(name: str, generation: int, parents: tuple[str, ...], weights: Sequence[float]) -> Lineage:
    return Lineage(name, generation, "mixture", parents, tuple(weights), "bundle")
