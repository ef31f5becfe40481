"""What an evolution is for: the best member as a run that others go on with, and its settings as a file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llmagent_ros.bundle import bundle_files, latest_bundle
from llmagent_ros.durable import make_folder, write_atomic, write_folder
from llmagent_ros.errors import ModelError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.environments import DEFAULT_ROBOT
from llmagent_ros.experiments.evolution.config import EvolutionConfig, merged
from llmagent_ros.experiments.training import BUNDLES
from llmagent_ros.learning.evolution.genes import Genome, show
from llmagent_ros.learning.evolution.population import Member

BEST, SETTINGS = "best", "settings.yaml"


def newest_bundle(run: Path) -> Path:
    """Of a run's folder.

    Raises:
        ModelError: there is none.
    """
    newest = latest_bundle(run / BUNDLES)
    if newest is None:
        raise ModelError(f"{run}: has no bundle")
    return newest


def save(out: Path, run: Path, member: Member, config: EvolutionConfig) -> None:
    """OUT/best and OUT/settings.yaml. A moment without the former is possible, half of it is not."""
    files = bundle_files(newest_bundle(run))
    train = runs.read_config(run)
    folder = out / BEST
    fresh = out / f".{BEST}.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    make_folder(fresh / BUNDLES)
    write_folder(fresh / BUNDLES / "v000000", files)
    write_atomic(fresh / runs.CONFIG, (json.dumps(dataclasses.asdict(train), indent=2) + "\n").encode())
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    settings = merged(config.settings, member.genome.settings())
    settings.pop("scene", None)  # said by the robot or environment that the member has
    if train.robot != DEFAULT_ROBOT:
        settings["robot"] = train.robot
    head = f"# Of {member.name}: llmagent train {train.environment} --config {SETTINGS}\n"
    write_atomic(out / SETTINGS, (head + yaml.safe_dump(settings, sort_keys=True)).encode())


def rows(kept: Sequence[Mapping[str, Any]], default: Genome) -> list[list[str]]:
    """For a table: member, fitness with its 95 % interval, episodes, success, genes that differ, where it came from."""
    table = []
    for each in kept:
        standing, member = each["standing"], Member.of(each["member"])
        mean, error = standing["mean"], standing["error"]
        spread = "" if error is None else f" ± {1.96 * error:.2g}"
        genes = ", ".join(f"{name} {show(value)}" for name, value in member.genome.difference(default).items())
        lineage = member.lineage
        parents = " + ".join(
            f"{weight:.2f} {parent}" for parent, weight in zip(lineage.parents, lineage.weights, strict=True)
        ) if lineage.weights else ", ".join(lineage.parents)  # fmt: skip
        table.append(
            [
                member.name,
                "-" if mean is None else f"{mean:.3g}{spread}",
                str(standing["repetitions"]),
                f"{100 * each['success']:.0f} %",
                genes or "none",
                f"{lineage.operator} of {parents}" if parents else lineage.operator,
            ]
        )
    return table


HEADER = ("member", "fitness", "episodes", "success", "genes that differ from the defaults", "made by")
