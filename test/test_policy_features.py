"""What the critic sees: pooled hidden states and their projection."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models_support import save_tiny_model

from llmagent_ros.errors import ModelError
from llmagent_ros.policy.features import PROJECTION, Pooling, fit_projection, load_projection, pooling_of, shared_ending
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig

PHRASES = ("forward", "turn left")
SCENES = [f"clear ahead {n / 10:.1f}. did nothing." for n in range(1, 40)]


def test_padding_and_its_states_change_nothing() -> None:
    torch.manual_seed(0)
    hidden = [torch.randn(1, 5, 8) for _ in range(3)]
    mask = torch.ones(1, 5, dtype=torch.long)
    padded = [torch.cat([torch.full((1, 3, 8), 100.0), states], dim=1) for states in hidden]
    padded_mask = torch.cat([torch.zeros(1, 3, dtype=torch.long), mask], dim=1)
    pooling = Pooling((0, 2), True, 2)
    plain = pooling(hidden, mask)
    assert plain.shape == (1, pooling.parts * 8) == (1, 6 * 8)
    assert torch.allclose(pooling(padded, padded_mask), plain, atol=1e-6)


def test_features_hold_the_means_and_the_last_tokens_in_order() -> None:
    states = torch.tensor([[[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]]])  # standardised already
    mask = torch.ones(1, 3, dtype=torch.long)
    features = Pooling((1,), False, 2)([torch.zeros(1, 3, 2), states], mask)
    assert features[0, 2:].tolist() == pytest.approx([-1.0, 1.0, 1.0, -1.0], abs=1e-4)
    assert features[0, :2].tolist() == pytest.approx([1.0, -1.0], abs=1e-3)  # the mean, standardised
    wide = torch.tensor([[[3.0, -1.0, -2.0], [-3.0, 1.0, 2.0]]])
    squares = Pooling((0,), True, 1)([wide], mask[:, :2])[0, 3:6]
    assert int(squares.argmax()) == 0 and int(squares.argmin()) == 1, "the mean of these is 0, of their squares not"


def test_a_narrow_model_gives_statistics_of_its_layers_and_a_wide_one_what_there_is_room_for() -> None:
    cue = shared_ending(([1, 2, 7, 8, 9], [3, 7, 8, 9]))
    assert cue == 3
    assert pooling_of(cue, 128, 3) == Pooling((0, 1, 2), True, 3)
    assert pooling_of(cue, 256, 1) == Pooling((0,), True, 3)
    assert pooling_of(cue, 256, 24) == Pooling((0, 11, 23), True, 2)
    assert pooling_of(cue, 1024, 24) == Pooling((23,), False, 1)
    assert pooling_of(cue, 4096, 32) == Pooling((31,), False, 1)


def test_a_projection_centres_and_keeps_proportions() -> None:
    torch.manual_seed(0)
    spread = torch.tensor([4.0, 2.0, 0.1])
    data = torch.randn(2000, 3) * spread + torch.tensor([10.0, -3.0, 7.0])
    projected = fit_projection([data], 2)(data)
    assert projected.mean(0).abs().max() < 1e-4
    deviation = projected.std(0)
    assert float(deviation[0] / deviation[1]) == pytest.approx(2.0, rel=0.1)
    assert float(projected.var(0).mean()) == pytest.approx(1.0, rel=0.01)


def test_a_projection_leaves_out_what_only_tells_environments_apart() -> None:
    torch.manual_seed(0)
    first = torch.randn(500, 3) * torch.tensor([1.0, 0.5, 0.0])
    second = torch.randn(100, 3) * torch.tensor([1.0, 0.5, 0.0]) + torch.tensor([0.0, 0.0, 50.0])
    projection = fit_projection([first, second], 2)
    assert projection.basis[2].abs().max() < 1e-4
    few, many = (projection(group).var(0).mean() for group in (second, first))
    assert float(few / many) == pytest.approx(1.0, rel=0.3)


def test_a_model_uses_the_projection_that_lies_beside_it(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "base")
    config = LanguageModelConfig(model=str(folder), rank=2)
    plain = LanguageModel(config, PHRASES)
    projection = fit_projection([plain.features(SCENES)], 5)
    projection.save(folder)
    projected = LanguageModel(config, PHRASES)
    assert projected.feature_size == 5
    assert projected.feature_digest != plain.feature_digest
    assert torch.allclose(projected.features(SCENES), projection(plain.features(SCENES)), atol=1e-5)


def test_a_projection_of_other_features_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "base")
    fit_projection([torch.randn(50, 7)], 5).save(folder)
    with pytest.raises(ModelError, match=f"{PROJECTION} is for 7 numbers, not"):
        LanguageModel(LanguageModelConfig(model=str(folder), rank=2), PHRASES)


def test_a_damaged_projection_is_refused(tmp_path: Path) -> None:
    (tmp_path / PROJECTION).write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match=PROJECTION):
        load_projection(tmp_path, torch.device("cpu"))
    assert load_projection(tmp_path / "elsewhere", torch.device("cpu")) is None
