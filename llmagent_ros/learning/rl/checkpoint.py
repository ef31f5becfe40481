"""A learner's state as safetensors and JSON, written atomically."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmagent_ros.durable import sync
from llmagent_ros.errors import ModelError, StoreError

TENSORS, FACTS = "learner.safetensors", "learner.json"


def save(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replaces `folder` in one step: after a crash it holds the old state or the new one, whole.

    Raises:
        StoreError: it cannot be written; the old state is still there.
    """
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: t.contiguous() for name, t in tensors.items()}, partial / TENSORS)
        (partial / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            sync(path)
        if folder.exists():  # else `old` is the only whole one
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{folder}: checkpoint cannot be written: {error.strerror or error}") from error


def load(folder: Path, feature_digest: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote.

    Raises:
        ModelError: missing, damaged, or made with other features.
    """
    if not folder.exists():  # killed between the two renames of `save`
        folder = folder.with_name(folder.name + ".old")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: checkpoint cannot be read: {error}") from error
    if facts.get("feature_digest") != feature_digest:
        raise ModelError(f"{folder}: checkpoint was made with another base model or prompt")
    return tensors, facts


def exists(folder: Path) -> bool:
    return (folder / FACTS).is_file() or (folder.with_name(folder.name + ".old") / FACTS).is_file()
