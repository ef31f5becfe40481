"""What a run without ROS leaves on disk, to compare two of them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from llmagent_ros.bundle import latest_bundle


def tensors(out: Path) -> dict[str, torch.Tensor]:
    """All that was learned."""
    newest = latest_bundle(out / "bundles")
    assert newest is not None
    files = [*sorted(newest.glob("*.safetensors")), out / "checkpoint" / "learner.safetensors"]
    return {f"{path.name}/{n}": t for path in files for n, t in load_file(path).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and len(a) > 10 and all(torch.equal(a[name], b[name]) for name in a)
