"""What a larger base costs, and what a GPU is worth: decisions and updates of two sizes of model on each device.

The larger one has the shape and the vocabulary of Qwen2.5-0.5B and random weights, as what it says does not matter
here; its tokenizer is that of the shipped base. On a CPU all its cores are used. Use one worker.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.bench.results import Figure, Results, entries
from llmagent_ros.experiments.bench.speed import seconds
from llmagent_ros.experiments.training import Trainer
from llmagent_ros.policy.language_model import SHIPPED_BASE

ENVIRONMENT = "CartPole-v1"
STEPS = 300  # of experience that is learned from
NUMERIC: tuple[str, ...] = ()
SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
_BATCH = 64
_ROUNDS = 5
_DECISIONS = 10  # of one scene in a round
_SMALL, _LARGE = "shipped base", "0.5B"
_HARDWARE = {
    "CPU float32": ("cpu", "float32"),
    "GPU float32": ("cuda", "float32"),
    "GPU bfloat16": ("cuda", "bfloat16"),
}
TIMED = tuple(f"{size}, {hardware}" for size in (_SMALL, _LARGE) for hardware in _HARDWARE)

_RATIOS = {  # key: figure, method over method
    "gpu_over_cpu": ("decisions_per_s", f"{_LARGE}, GPU bfloat16", f"{_LARGE}, CPU float32"),
    "bfloat16_over_float32": ("batched_per_s", f"{_LARGE}, GPU bfloat16", f"{_LARGE}, GPU float32"),
    "small_gpu_over_cpu": ("decisions_per_s", f"{_SMALL}, GPU bfloat16", f"{_SMALL}, CPU float32"),
}
_BATCHED = "batched_over_single"
_MEASURED = (
    Figure("decision_ms", "ms", "p50 of one decision", lower=True),
    Figure("decisions_per_s", "1/s", "one by one"),
    Figure("batched_per_s", "1/s", f"decisions, {_BATCH} scenes at once"),
    Figure("features_per_s", "1/s", f"scenes, {_BATCH} at once"),
    Figure("updates_per_s", "1/s", "of the learner, those of the adapter among them"),
    Figure("gpu_memory_mib", "MiB", "at most", lower=True),
)
FIGURES = (
    Figure("gpu_over_cpu", "ratio", f"decisions per second one by one, {_LARGE}, GPU bfloat16 over CPU"),
    Figure("bfloat16_over_float32", "ratio", f"{_LARGE} on the GPU, {_BATCH} scenes at once"),
    Figure(_BATCHED, "ratio", f"{_LARGE}, GPU bfloat16, decisions per second: {_BATCH} scenes at once over one by one"),
    Figure("small_gpu_over_cpu", "ratio", f"decisions per second one by one, {_SMALL}, GPU bfloat16 over CPU"),
)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    return {"environment": ENVIRONMENT, "steps": steps, "batch": _BATCH, "rounds": _ROUNDS, "shape": SHAPE}


def methods() -> list[str]:
    """Those that this machine can run."""
    return [method for method in TIMED if ", CPU " in method or torch.cuda.is_available()]


def ablations() -> list[str]:
    return []


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """Of one size on one device, on the experience of one seed."""
    size, _, hardware = method.partition(", ")
    device, dtype = _HARDWARE[hardware]
    name = str(make_model(scratch / "large", SHAPE)) if size == _LARGE else ""
    settings = {
        "steps": steps,
        "seed": seed,
        "threads": os.cpu_count() or 1,
        "learner": {"warmup": steps},
        "model": {"model": name, "device": device, "dtype": dtype},
    }
    folder = scratch / f"devices-{size}-{hardware}-{seed}".replace(" ", "-")
    trainer = Trainer(runs.make_config(ENVIRONMENT, settings, "bench devices"), folder)
    try:
        say(str(trainer.model.describe()))
        while not trainer.done:
            trainer.run_episode()
        say(f"{len(trainer.replay)} transitions")
        return _times(trainer)
    finally:
        trainer.close()


def make_model(folder: Path, shape: Mapping[str, Any]) -> Path:
    """Saves a random model of a shape in bfloat16, with the tokenizer of the shipped base, unless it is there.

    Raises:
        ConfigError: the tokenizer has more tokens than the shape.
    """
    if folder.exists():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_BASE)
    if len(tokenizer) > shape["vocab_size"]:
        raise ConfigError(f"vocab_size {shape['vocab_size']}: the tokenizer has {len(tokenizer)} tokens")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**shape, max_position_embeddings=2048)).bfloat16()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        tokenizer.save_pretrained(made)
        model.save_pretrained(made)
        try:
            made.rename(folder)  # there whole or not at all
        except OSError:
            if not folder.exists():  # else another worker was faster
                raise
    return folder


def _times(trainer: Trainer) -> dict[str, Any]:
    """The median over rounds in which everything has its turn; the first round, which warms up, does not count."""
    policy, learner, rng = trainer.policy, trainer.learner, np.random.default_rng(0)
    scenes = [transition.scene for transition in trainer.replay.recent(_BATCH)]
    on_gpu = trainer.model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    calls = {
        "decision": (lambda: policy.decide(scenes[0], rng), _DECISIONS),
        "batched": (lambda: policy.distribution(scenes), 1),
        "features": (lambda: trainer.model.features(scenes).cpu(), 1),
        "update": (learner.update, trainer.config.learner.actor_every),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + _ROUNDS):
        for name, (call, count) in calls.items():
            times[name].append(seconds(call, count))
    took = {name: statistics.median(each[1:]) for name, each in times.items()}
    return {
        "decision_ms": 1e3 * took["decision"],
        "decisions_per_s": 1 / took["decision"],
        "batched_per_s": len(scenes) / took["batched"],
        "features_per_s": len(scenes) / took["features"],
        "updates_per_s": 1 / took["update"],
        "gpu_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0,
        "gpu": torch.cuda.get_device_name() if on_gpu else "",
    }


def draw(results: Results, path: Path) -> None:
    raise ConfigError("bench devices has no learning curves to draw")


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Ratios of what was measured with the same seed; below them every method."""
    by_method = {method: results.by_seed(method) for method in results.runs}
    ratios: dict[str, list[float]] = {}
    for key, (figure, over, under) in _RATIOS.items():
        one, other = by_method.get(over, {}), by_method.get(under, {})
        ratios[key] = [one[seed][figure] / other[seed][figure] for seed in sorted(one.keys() & other.keys())]
    large = by_method.get(f"{_LARGE}, GPU bfloat16", {})
    ratios[_BATCHED] = [each["batched_per_s"] / each["decisions_per_s"] for _, each in sorted(large.items())]
    peers = {}
    for method in results.runs:
        if measured := results.of(method):
            peers[method] = entries(_MEASURED, {each.key: [run[each.key] for run in measured] for each in _MEASURED})
    return entries(FIGURES, {key: values for key, values in ratios.items() if values}), peers
