"""Bundles that were made elsewhere for a run that goes on: meta-learned, evolved, or trained by `llmagent train`.

    OUT/candidates/NAME/            a bundle that waits to be tried
    OUT/candidates/decisions.jsonl  what became of each, and why
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from llmagent_ros.bundle import bundle_digest, bundle_files, bundle_meta
from llmagent_ros.durable import make_folder, write_folder
from llmagent_ros.errors import ConfigError, ModelError, StoreError
from llmagent_ros.learning.gate import Ruling
from llmagent_ros.learning.track_folders import NAME as TRACKS

FOLDER = "candidates"
DECISIONS = "decisions.jsonl"


def offer(bundle: Path, out: Path) -> Path:
    """Lets a run's learner try a bundle, which is copied; returns where it waits.

    Raises:
        ModelError: the bundle is damaged. ConfigError: `out` is no run that learns, or the bundle waits there already.
        StoreError: it cannot be written.
    """
    if not (out / TRACKS).is_file():
        raise ConfigError(f"{out}: no run of the graph that has begun to learn (it has no {TRACKS})")
    name = bundle_digest(bundle)[:16]
    folder = out / FOLDER / name
    if folder.exists():
        raise ConfigError(f"{folder}: this bundle waits there already")
    make_folder(folder.parent)
    try:
        write_folder(folder, bundle_files(bundle))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from error
    return folder


def waiting(out: Path) -> list[Path]:
    """The bundles that wait in a run, in the order in which they came."""
    if not (out / FOLDER).is_dir():
        return []
    folders = [each for each in (out / FOLDER).iterdir() if each.is_dir() and not each.name.startswith(".")]
    return sorted(folders, key=lambda each: (each.stat().st_mtime_ns, each.name))


def wording(folder: Path) -> str:
    """Which kind of task a candidate is for; empty for any, or where it cannot be read."""
    try:
        return str(bundle_meta(folder).get("wording", ""))
    except ModelError:
        return ""


def decide(folder: Path, ruling: Ruling, task: str) -> None:
    """Keeps on record what became of a candidate, and takes it away.

    Raises:
        StoreError: it cannot be written.
    """
    line = {"time": time.time(), "name": folder.name, "task": task, "says": ruling.says, "why": ruling.why}
    try:
        with (folder.parent / DECISIONS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "data": ruling.data}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(f"{folder}: the decision cannot be kept: {error.strerror}") from error
