"""Where a base comes from: this machine before the network, and never from a format that can run code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models_support import save_tiny_model

from llmagent_ros.errors import ModelError
from llmagent_ros.policy.base_model import load_base

LOAD = """
import sys, torch
from llmagent_ros.policy.base_model import load_base
model, _ = load_base(sys.argv[1], torch.device("cpu"), "float32")
print(type(model).__name__)
"""


def in_the_cache(cache: Path, name: str) -> None:
    """A model as the hub's library keeps one that it has downloaded."""
    folder = cache / f"models--{name.replace('/', '--')}"
    save_tiny_model(folder / "snapshots" / "0123abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")


def load(name: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Loads it in a process of its own, as the library reads these variables once; nobody listens at that address."""
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", LOAD, name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_model_that_was_downloaded_once_needs_no_network(tmp_path: Path) -> None:
    in_the_cache(tmp_path, "someone/tiny")
    done = load("someone/tiny", tmp_path)
    assert done.stdout.strip() == "LlamaForCausalLM", done.stderr
    assert "127.0.0.1" not in done.stderr, "the network was tried"


def test_weights_that_can_run_code_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_base(str(folder), torch.device("cpu"), "float32")
