"""Making a base: the tokenizer loses nothing, the gist rule holds, training learns and repeats."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models_support import tiny_language_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from llmagent_ros.errors import ConfigError, ModelError
from llmagent_ros.policy import pretraining
from llmagent_ros.policy.logs import LoggedStep, read_log, write_log
from llmagent_ros.policy.pretraining import PretrainConfig, build_model, perplexity, train, train_tokenizer
from llmagent_ros.policy.prompt import PromptFormat

FORM = PromptFormat()
SMALL = PretrainConfig(layers=2, width=32, heads=2, batch_size=8, steps=40, warmup=5, learning_rate=1e-2)


def corridor(count: int) -> list[LoggedStep]:
    """A robot on a line of ten cells: the next scene follows from scene and action."""
    rng, steps = np.random.default_rng(0), []
    for _ in range(count):
        at, action = int(rng.integers(10)), str(rng.choice(["forward", "back"]))
        then = min(9, max(0, at + (1 if action == "forward" else -1)))
        steps.append(LoggedStep(f"cell {at / 10:.1f} of ten.", action, f"cell {then / 10:.1f} of ten.", "test"))
    return steps


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    steps = corridor(50)
    texts = [f"{FORM.prompt(s.scene)}{FORM.phrase(s.action)}. then {s.next_scene}" for s in steps]
    return train_tokenizer(texts, PretrainConfig().vocabulary)


@given(st.text(max_size=60))
def test_any_text_comes_back(text: str) -> None:
    tokens = tokenizer()(text, add_special_tokens=False).input_ids
    assert tokenizer().decode(tokens, clean_up_tokenization_spaces=False) == text


def test_scene_numbers_are_one_token_each() -> None:
    numbers = [f" {n / 10:.1f}" for n in range(100)] + [f" {n}" for n in range(0, 190, 10)]
    assert {len(ids) for ids in tokenizer()(numbers, add_special_tokens=False).input_ids} == {1}


def test_a_frequent_quantity_is_one_token_with_its_name() -> None:
    made = train_tokenizer(["red ball left 40 at 2.5. clear left front 1.3 left 2.9. pole -2.8. row 3."] * 50, 1024)
    told = made.convert_ids_to_tokens(made(" left 40 left front 1.3 left 2.9 pole -2.8. row 3").input_ids)
    plain = [token.replace("\u0120", " ") for token in told[1:]]
    assert plain == [" left 40", " left front 1.3", " left 2.9", " pole -2.8", ".", " row 3"]
    rare = made.convert_ids_to_tokens(made(" left 70").input_ids)
    assert [token.replace("\u0120", " ") for token in rare[1:]] == [" left", " 70"]


def test_a_prompt_begins_with_the_beginning() -> None:
    tokens = tokenizer()("cell 0.3").input_ids
    assert tokens[0] == tokenizer().bos_token_id
    assert tokenizer().bos_token_id not in tokens[1:]


# --- the gist rule ----------------------------------------------------------------------------------------------


class Recorder:
    """Passes calls on and keeps what they were."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.model, self.calls = model, []

    def eval(self) -> None:
        self.model.eval()

    def __call__(self, **inputs: Any) -> Any:
        self.calls.append(inputs)
        return self.model(**inputs)


def effect(layers: int, *, gist: bool) -> tuple[float, float, float]:
    """How much other scene tokens change the logits in the scene, at the cue, and after the prompt."""
    model = build_model(dataclasses.replace(SMALL, layers=layers), tokenizer())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # as after some training, so that influence is well above rounding
    recorder, step = Recorder(model), corridor(1)[0]
    perplexity(recorder, tokenizer(), FORM, [step], gist=gist)  # type: ignore[arg-type]
    (call,) = recorder.calls
    prompt = len(tokenizer()(FORM.prompt(step.scene)).input_ids)
    cue = len(tokenizer()(FORM.cue, add_special_tokens=False).input_ids)
    other = call["input_ids"].clone()
    other[0, 1:3] = (other[0, 1:3] + 7) % len(tokenizer())
    model.eval()
    with torch.no_grad():
        before = model(input_ids=call["input_ids"], attention_mask=call["attention_mask"]).logits
        changed = model(input_ids=other, attention_mask=call["attention_mask"]).logits
    change = (changed - before).abs()[0].amax(-1)
    return change[1 : prompt - cue].max().item(), change[prompt - 1].item(), change[prompt:].max().item()


def test_after_the_prompt_the_scene_is_seen_through_the_cue_alone() -> None:
    scene, cue, after = effect(1, gist=True)
    assert scene > 1e-3 and cue > 1e-3, "the cue itself reads the scene"
    assert after == 0.0, "with one layer the cue's keys and values do not yet hold the scene"
    assert effect(2, gist=True)[2] > 1e-4, "with two layers they do"
    assert effect(1, gist=False)[2] > 1e-3, "without the rule everything is seen"


def test_padding_does_not_count() -> None:
    model, steps = build_model(SMALL, tokenizer()), corridor(3)
    longer = dataclasses.replace(steps[0], next_scene=steps[0].next_scene * 4)
    single = [perplexity(model, tokenizer(), FORM, [s]) for s in (*steps, longer)]
    lengths = [len(tokenizer()(f"{FORM.prompt(s.scene)}{FORM.phrase(s.action)}. then {s.next_scene}").input_ids)
               for s in (*steps, longer)]  # fmt: skip
    mean = np.exp(np.average(np.log(single), weights=lengths))  # of as many predictions: the end is one more token
    assert perplexity(model, tokenizer(), FORM, [*steps, longer]) == pytest.approx(mean, rel=1e-3)


# --- training ---------------------------------------------------------------------------------------------------


def trained(config: PretrainConfig = SMALL) -> tuple[LlamaForCausalLM, list[float]]:
    model, losses = build_model(config, tokenizer()), []
    train(model, tokenizer(), FORM, corridor(60), config, progress=lambda step, loss, seconds: losses.append(loss))
    return model, losses


def test_training_learns_and_repeats_by_its_seed() -> None:
    fresh = build_model(SMALL, tokenizer())
    first, losses = trained()
    assert len(losses) == SMALL.steps
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    held_out = corridor(80)[60:]
    assert perplexity(first, tokenizer(), FORM, held_out) < 0.2 * perplexity(fresh, tokenizer(), FORM, held_out)
    short = dataclasses.replace(SMALL, steps=6)
    runs = [trained(short), trained(short), trained(dataclasses.replace(short, seed=1))]
    assert runs[0][1] == runs[1][1] != runs[2][1]
    states = [model.state_dict() for model, _ in runs]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


class Interrupted(Exception):
    pass


def test_goes_on_as_if_never_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "CHECKPOINT_STEPS", 4)
    config, checkpoint = dataclasses.replace(SMALL, steps=10), tmp_path / "training"
    whole, losses = trained(config)

    def interrupt(step: int, loss: float, seconds: float) -> None:
        if step == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(build_model(config, tokenizer()), tokenizer(), FORM, corridor(60), config,
              checkpoint=checkpoint, progress=interrupt)  # fmt: skip
    again, resumed = build_model(config, tokenizer()), []
    train(again, tokenizer(), FORM, corridor(60), config, checkpoint=checkpoint,
          progress=lambda step, loss, seconds: resumed.append(loss))  # fmt: skip
    assert resumed == losses[4:], "from the step that was saved last"
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize("damage", ["other settings", "not a checkpoint"])
def test_a_foreign_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(pretraining, "CHECKPOINT_STEPS", 2)
    config, checkpoint = dataclasses.replace(SMALL, steps=3), tmp_path / "training"
    train(build_model(config, tokenizer()), tokenizer(), FORM, corridor(60), config, checkpoint=checkpoint)
    if damage == "other settings":
        config = dataclasses.replace(config, seed=1)
    else:
        checkpoint.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match=r"training: .*remove it to start anew"):
        train(build_model(config, tokenizer()), tokenizer(), FORM, corridor(60), config, checkpoint=checkpoint)


def test_saved_base_is_a_model_for_the_policy(tmp_path: Path) -> None:
    model, _ = trained(dataclasses.replace(SMALL, steps=3))
    pretraining.save(model, tokenizer(), tmp_path)
    loaded = tiny_language_model(tmp_path)
    scene = "cell 0.3 of ten."
    ids = tokenizer()(FORM.prompt(scene) + " forward").input_ids
    assert loaded.tokenizer(FORM.prompt(scene) + " forward").input_ids == ids
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits
        torch.testing.assert_close(loaded.model(input_ids=torch.tensor([ids])).logits, expected)


# --- logs -------------------------------------------------------------------------------------------------------


@given(st.lists(st.builds(LoggedStep, st.text(), st.text(), st.text(), st.text()), max_size=5))
def test_logs_come_back(steps: list[LoggedStep]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        assert write_log(steps, path) == len(steps)
        assert list(read_log(path)) == steps
        assert [p.name for p in Path(folder).iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"scene": "a"}', '{"scene":"","action":"","next_scene":"","x":1}'])
def test_a_damaged_log_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    write_log(corridor(2), path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigError, match=r"log\.jsonl:3: "):
        list(read_log(path))


def test_an_interrupted_log_leaves_none(tmp_path: Path) -> None:
    def broken() -> Any:
        yield corridor(1)[0]
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_log(broken(), tmp_path / "log.jsonl")
    assert not (tmp_path / "log.jsonl").exists()
