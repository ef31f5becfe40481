"""A small evolution in a corridor, and workers in the test's own process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from models_support import save_tiny_model

from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.experiments.evolution.config import EvolutionConfig, merged
from llmagent_ros.experiments.evolution.evolution import Evolution
from llmagent_ros.experiments.evolution.jobs import run_job
from llmagent_ros.experiments.evolution.workers import Job, Result, failure

CORRIDOR = """
environment: toy_support:Corridor-v0
task: go to the end
parts: [{name: cell, step: 1}]
actions: [go left, go right, stay]
success_return: 0.5
"""
MEMBER = {
    "learner": {
        "n_step": 3, "warmup": 20, "batch_size": 8, "updates_per_step": 0.5, "actor_every": 10, "actor_batch": 4,
        "gamma": 0.95, "critic": {"heads": 3, "width": 8, "depth": 1},
    },
    "model": {"rank": 4},
}  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
GENES = ("learner.beta", "learner.learning_rate", "learner.updates_per_step", "model.rank", "scene.history")
ALL: dict[str, Any] = {"race": {"block": 2, "rounds": 2}, "mixture": 1, "seed": 4}  # with all that there is


def make_base(folder: Path) -> Path:
    """A folder with the environment and a model."""
    (folder / "corridor.yaml").write_text(CORRIDOR)
    save_tiny_model(folder / "tiny", width=16, layers=1)
    return folder


def asked(base: Path, **values: Any) -> EvolutionConfig:
    settings = merged(MEMBER, {"model": {"model": str(base / "tiny")}})
    usual: dict[str, Any] = {
        "environment": str(base / "corridor.yaml"), "population": 4, "keep": 2, "generations": 2, "slice": 30,
        "genes": GENES, "settings": settings, "race": {"block": 2, "rounds": 1}, "mixture": 0,
    }  # fmt: skip
    return EvolutionConfig(**(usual | values))


def evolve(base: Path, out: Path, backend: Inline | None = None, **values: Any) -> dict[str, Any]:
    said: list[str] = []
    return Evolution(asked(base, **values), out, say=said.append, backend=backend or Inline()).run() | {"said": said}


def outcome(out: Path) -> dict[str, Any]:
    """All that came of it, without how long it took."""
    summary = json.loads((out / "summary.json").read_text())
    best = load_bundle(latest_bundle(out / "best" / "bundles") or out)
    archive = json.loads((out / "archive" / "archive.json").read_text())
    tensors = {**(best.adapter or {}), **best.critic}
    return {
        "summary": {key: value for key, value in summary.items() if key not in ("wall_s",)},
        "lineage": json.loads((out / "lineage.json").read_text()),
        "archive": [(each["name"], each["fitness"], each["genes"]) for each in archive["elites"]],
        "tensors": {name: tensor.double().sum().item() for name, tensor in tensors.items()},
        "settings": (out / "settings.yaml").read_text().replace(str(out), "OUT"),
    }


def train_job(base: Path, tmp_path: Path, name: str, inherited: str, parents: list[Any], **settings: Any) -> Job:
    own = merged(MEMBER, {"model": {"model": str(base / "tiny")}})
    return {
        "kind": "train", "key": name, "folder": str(tmp_path / name), "scenes": str(tmp_path / "scenes"),
        "environment": str(base / "corridor.yaml"), "robot": "sim_diffdrive", "fitness": "return", "generation": 0,
        "first": 0, "count": 2, "steps": 40, "seed": 5, "settings": merged(own, settings), "parents": parents,
        "inherited": inherited, "lineage": {"name": name},
    }  # fmt: skip


class Inline:
    """Workers in this process, one job after another, from the last to the first.

    Args:
        spoil: called with each job before it is done; what it raises is what the job gives.
    """

    def __init__(self, spoil: Callable[[Job], Any] = lambda job: None, backwards: bool = True) -> None:
        self._spoil, self._step = spoil, -1 if backwards else 1
        self.done: list[str] = []

    def run(self, jobs: Sequence[Job], more: Callable[[], bool] = lambda: True) -> Iterator[tuple[int, Result]]:
        for number in list(range(len(jobs)))[:: self._step]:
            if not more():
                return
            self.done.append(f"{jobs[number]['generation']}/{jobs[number]['key']}")
            try:
                self._spoil(jobs[number])
                result = run_job(jobs[number])
            except Exception as error:
                result = failure(error)
            yield number, result

    def close(self) -> None:
        pass
