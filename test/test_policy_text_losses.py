"""How well logs are foretold while an adapter acts on the cue and the phrase, against PEFT and a plain loop."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from models_support import KINDS, random_adapter, save_tiny_model, tiny_language_model
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from llmagent_ros.policy.logs import LoggedStep
from llmagent_ros.policy.pretraining import perplexity
from llmagent_ros.policy.text_losses import SCENES, _tokens, perplexities

TASK = "go to the red ball"
STEPS = (
    LoggedStep(f"{TASK}. red ball left 40 at 1.2.", "turn left", f"{TASK}. red ball ahead at 1.1.", "a", TASK),
    LoggedStep("stop.", "curve far to the left", "clear ahead 0.3 left 5.0 right unknown.", "b"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_measured_as_in_its_training(tmp_path: Path, kind: str) -> None:
    model = tiny_language_model(save_tiny_model(tmp_path / kind, kind))
    expected = perplexity(model.for_inference(adapter=False), model.tokenizer, model.form, STEPS)
    measured = perplexities(model, STEPS)
    ways = ("base", "adapted", "onwards")
    assert {way: measured[way] for way in ways} == pytest.approx(dict.fromkeys(ways, expected), rel=1e-5)
    model.load_adapter_state(random_adapter(model))
    changed = perplexities(model, STEPS)
    assert changed["base"] == pytest.approx(expected, rel=1e-5)
    assert len({round(changed[way], 4) for way in ways}) == 3
    assert len({round(changed[f"{way}{SCENES}"], 4) for way in ways}) == 3


def test_the_adapter_acts_on_cue_and_phrase_and_on_nothing_else(tmp_path: Path) -> None:
    model = tiny_language_model(save_tiny_model(tmp_path / "llama"))
    for step in STEPS:
        tokens, (begin, end, last) = _tokens(model, step)
        assert model.tokenizer.decode(tokens[begin:end]) == f"{model.form.cue} {step.action}"
        assert model.tokenizer.decode(tokens[:begin]) == step.scene and last == len(tokens)


def test_scenes_are_all_tokens_but_the_phrase(tmp_path: Path) -> None:
    model = tiny_language_model(save_tiny_model(tmp_path / "llama"))
    total, count = 0.0, 0
    for step in STEPS:
        tokens, (begin, end, _) = _tokens(model, step)
        phrase = range(begin + model.cue_tokens, end)
        assert model.tokenizer.decode([tokens[index] for index in phrase]) == f" {step.action}"
        with torch.no_grad():
            log_probs = model.for_inference(adapter=False)(torch.tensor([tokens])).logits[0].log_softmax(-1)
        for index in set(range(1, len(tokens))) - set(phrase):
            total -= float(log_probs[index - 1, tokens[index]])
            count += 1
    assert perplexities(model, STEPS)[f"base{SCENES}"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_onwards_is_what_peft_makes_of_our_files(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "llama")
    model = tiny_language_model(folder)
    model.load_adapter_state(random_adapter(model))
    save_file(model.adapter_state(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(model.adapter_config()))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path).eval()
    total, count = 0.0, 0
    for step in STEPS:
        told = step.next_scene.removeprefix(f"{TASK}. ")
        text = f"{model.form.prompt(step.scene)} {step.action}. then {told}{model.tokenizer.eos_token}"
        ids = torch.tensor([model.tokenizer(text).input_ids])
        with torch.no_grad():
            log_probs = adapted(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total -= float(log_probs.gather(-1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    assert perplexities(model, STEPS)["onwards"] == pytest.approx(math.exp(total / count), rel=1e-4)
