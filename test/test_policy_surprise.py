"""The base's prediction error of the next scene: against a plain loop, whatever the padding, with the adapter off."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from models_support import save_tiny_model, tiny_language_model

from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.surprise import surprise
from llmagent_ros.types import Transition

ACTIONS = ("forward", "turn left")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    base = save_tiny_model(tmp_path_factory.mktemp("base") / "llama", width=32, layers=2)
    return tiny_language_model(base, ACTIONS)


def steps() -> list[Transition]:
    scenes = ["go. clear ahead 1.0.", "go. red ball left 40 at 1.7. clear ahead 0.3 left 2.0. did forward.", "go. x."]
    return [
        Transition("r", 0, n, "go", scene, action, 0.0, following, False, False)
        for n, (scene, action, following) in enumerate(
            zip(scenes, ("forward", "turn left", "forward"), (*scenes[1:], scenes[0]), strict=True)
        )
    ]


def by_hand(model: LanguageModel, step: Transition) -> float:
    """One sequence, one token after the other."""
    tokenizer = model.tokenizer
    before = [
        *tokenizer(model.form.prompt(step.scene)).input_ids,
        *tokenizer(f" {step.action}", add_special_tokens=False).input_ids,
    ]
    after = tokenizer(f". then {step.next_scene.removeprefix('go. ')}", add_special_tokens=False).input_ids
    total, tokens = 0.0, list(before)
    for token in after:
        with torch.no_grad():
            logits = model.for_inference(adapter=False)(input_ids=torch.tensor([tokens])).logits[0, -1]
        total -= float(logits.float().log_softmax(-1)[token])
        tokens.append(token)
    return total / len(after)


def test_it_is_the_mean_loss_of_the_tokens_of_the_next_scene(model: LanguageModel) -> None:
    expected = [by_hand(model, step) for step in steps()]
    np.testing.assert_allclose(surprise(model, steps()), expected, rtol=1e-4)
    assert len(surprise(model, [])) == 0


def test_it_is_the_base_that_is_surprised(model: LanguageModel) -> None:
    before = surprise(model, steps())
    learned = {name: torch.randn_like(tensor) for name, tensor in model.adapter_state().items()}
    model.load_adapter_state(learned)
    np.testing.assert_array_equal(surprise(model, steps()), before)


def test_a_prompt_that_is_too_long_loses_its_beginning(tmp_path: pathlib.Path) -> None:
    base = save_tiny_model(tmp_path / "llama", width=32, layers=2)
    model = tiny_language_model(base, ACTIONS, max_tokens=48)
    long = "go. " + "clear ahead 1.0. " * 40
    step = Transition("r", 0, 0, "go", long, "forward", 0.0, "go. x.", False, False)
    assert np.isfinite(surprise(model, [step])).all()
