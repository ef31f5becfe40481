"""What a larger base costs on which device: the same measurement on models of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.bench import devices
from llmagent_ros.experiments.bench.results import Results
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig

TINY = devices.SHAPE | {"vocab_size": 4096, "hidden_size": 28, "intermediate_size": 32, "num_hidden_layers": 2}
LARGE = "0.5B, CPU float32"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "SHAPE", TINY)
    monkeypatch.setattr(devices, "_ROUNDS", 1)


def test_the_larger_base_is_made_once_and_is_read_as_any_other(tmp_path: Path) -> None:
    folder = devices.make_model(tmp_path / "large", TINY)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert devices.make_model(folder, TINY) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    model = LanguageModel(LanguageModelConfig(model=str(folder), device="cpu"), ("push left", "push right"))
    assert model.phrase_log_probs(["the pole leans left."]).shape == (1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["large"], "nothing half made is left"
    with pytest.raises(ConfigError, match="the tokenizer has"):
        devices.make_model(tmp_path / "small", TINY | {"vocab_size": 10})


def test_methods_are_those_that_can_be_run_here() -> None:
    on_gpu = [method for method in devices.methods() if "GPU" in method]
    assert bool(on_gpu) == torch.cuda.is_available()
    assert LARGE in devices.methods()


def test_a_method_is_measured_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = devices.measure(LARGE, 0, 40, tmp_path, print)
    for key in ("decision_ms", "decisions_per_s", "batched_per_s", "features_per_s", "updates_per_s"):
        assert measured[key] > 0, key
    assert measured["decisions_per_s"] == pytest.approx(1e3 / measured["decision_ms"])
    assert "40 transitions" in capsys.readouterr().out


def test_ratios_are_those_of_the_same_seed(tmp_path: Path) -> None:
    def one(**changes: float) -> dict[str, Any]:
        keys = ("decision_ms", "decisions_per_s", "batched_per_s", "features_per_s", "updates_per_s", "gpu_memory_mib")
        return dict.fromkeys(keys, 1.0) | changes

    results = Results(tmp_path / "devices.json", "devices", devices.configuration(40), read=devices.read)
    results.add(LARGE, 0, one(decisions_per_s=2.0))
    assert results.summary()[0] == {}, "there is nothing to compare with"
    results.add("0.5B, GPU bfloat16", 1, one(decisions_per_s=50.0))
    results.add("0.5B, GPU bfloat16", 0, one(decisions_per_s=30.0, batched_per_s=600.0))
    figures, methods = results.summary()
    assert figures["gpu_over_cpu"]["seeds"] == [15.0]
    assert figures["batched_over_single"]["seeds"] == [20.0, 1.0 / 50.0]
    assert "bfloat16_over_float32" not in figures
    assert methods["0.5B, GPU bfloat16"]["decisions_per_s"]["seeds"] == [30.0, 50.0]
