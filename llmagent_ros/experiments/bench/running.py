"""Runs what a benchmark has to measure: (method, seed) one by one, in worker processes, kept as each one ends."""

from __future__ import annotations

import importlib
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmagent_ros.errors import UnknownNameError
from llmagent_ros.experiments.bench.results import BASE, Figure, Results
from llmagent_ros.experiments.end_with_parent import end_with_parent
from llmagent_ros.locking import lock_beside
from llmagent_ros.policy.language_model import shipped_base_digest

NAMES = (
    *("cartpole", "navigate", "transfer", "demos", "speed", "devices", "knowledge", "continual", "adapt", "evolve"),
    "faults",
)


class Bench(Protocol):
    """What a benchmark's module has."""

    FIGURES: Sequence[Figure]
    STEPS: int
    NUMERIC: Sequence[str]
    """Methods that do not read: the base that ships does not matter to them."""
    # SEEDS: int, where it is not 5
    # TIMED: Sequence[str], methods that measure time, where there are some: one at a time, and after all others

    def configuration(self, steps: int) -> dict[str, Any]: ...
    def methods(self) -> list[str]: ...
    def ablations(self) -> list[str]: ...
    def measure(
        self, method: str, seed: int, steps: int, scratch: Path, say: Callable[[str], None]
    ) -> dict[str, Any]: ...
    def draw(self, results: Results, path: Path) -> None: ...
    def read(self, results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]: ...


@dataclass(frozen=True)
class Job:
    """One thing to measure."""

    bench: str
    method: str
    seed: int
    steps: int
    scratch: Path


def bench_named(name: str) -> Bench:
    """The module of a benchmark.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in NAMES:
        raise UnknownNameError("benchmark", name, NAMES)
    module: Any = importlib.import_module(f"llmagent_ros.experiments.bench.{name}")
    return module


def run(
    name: str, results: Results, methods: Sequence[str], seeds: int, steps: int, workers: int, scratch: Path | None
) -> None:
    """Measures what is missing; prints a line for each step of it.

    Args:
        scratch: folder for the runs; those that were interrupted go on there. None: a temporary one.

    Raises:
        StoreError: another process measures into the same file.
    """
    results.path.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_beside(results.path)
    try:
        _run(name, results, methods, seeds, steps, workers, scratch)
        results.write()  # of what was there already, the figures may have been told otherwise then
    finally:
        lock.release()


def _run(
    name: str, results: Results, methods: Sequence[str], seeds: int, steps: int, workers: int, scratch: Path | None
) -> None:
    with tempfile.TemporaryDirectory(prefix="llmagent_bench_") as temporary:
        folder = scratch or Path(temporary)
        jobs = [
            Job(name, method, seed, steps, folder)
            for seed in range(seeds)
            for method in methods
            if not results.has(method, seed)
        ]
        timed = getattr(bench_named(name), "TIMED", ())
        alone = [job for job in jobs if workers == 1 or job.method in timed]
        _measure_together([job for job in jobs if job not in alone], results, workers)
        for job in alone:
            results.add(job.method, job.seed, _measure(job))


def _measure_together(jobs: Sequence[Job], results: Results, workers: int) -> None:
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        waiting = {pool.submit(_measure, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                job = waiting[future]
                results.add(job.method, job.seed, future.result())
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _measure(job: Job) -> dict[str, Any]:
    def say(text: str) -> None:
        print(f"[{job.bench} {job.method}, seed {job.seed}] {text}", flush=True)

    bench = bench_named(job.bench)
    measured = bench.measure(job.method, job.seed, job.steps, job.scratch, say)
    return measured if job.method in bench.NUMERIC else {**measured, BASE: shipped_base_digest()}
