"""Scores, features and the adapter of real tiny models of three architectures."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from models_support import KINDS, PHRASES, SCENES, random_adapter, save_tiny_model, tiny_language_model, tiny_tokenizer
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from llmagent_ros.errors import ModelError
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.policy.phrase_tokens import PhraseTokens
from llmagent_ros.policy.prompt import MAX_LESSON_LENGTH, MAX_LESSONS, PromptFormat
from llmagent_ros.policy.scoring import Reading, keys_and_values

TIGHT = {"rtol": 0.0, "atol": 2e-4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save_tiny_model(root / kind, kind) for kind in KINDS}


@pytest.fixture
def model(folders: dict[str, Path]) -> LanguageModel:
    return tiny_language_model(folders["llama"])


def plain_log_probs(scorer: torch.nn.Module, tokenizer: object, prompt: str) -> Tensor:
    """Phrase by phrase, without batch, cache or padding: mean token log-probability, normalised over the phrases."""
    form, scores = PromptFormat(), []
    for phrase in PHRASES:
        head = tokenizer(prompt).input_ids  # type: ignore[operator]
        tail = tokenizer(form.phrase(phrase), add_special_tokens=False).input_ids  # type: ignore[operator]
        with torch.no_grad():
            log_probs = scorer(input_ids=torch.tensor([head + tail])).logits[0].log_softmax(-1)
        scores.append(sum(log_probs[len(head) - 1 + k, t] for k, t in enumerate(tail)) / len(tail))
    return torch.stack(scores).log_softmax(-1)


def test_phrases_are_ragged() -> None:
    lengths = {len(tiny_tokenizer()(f" {p}").input_ids) for p in PHRASES}
    assert len(lengths) > 1


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_a_plain_loop(folders: dict[str, Path], tmp_path: Path, kind: str, one_pass: bool) -> None:
    model = tiny_language_model(folders[kind])
    assert model.describe()["scoring"] == "in one pass"
    model._scorer.way = "in one pass" if one_pass else "by cache"
    base = AutoModelForCausalLM.from_pretrained(folders[kind]).eval()
    expected = torch.stack([plain_log_probs(base, model.tokenizer, model.form.prompt(s)) for s in SCENES])
    assert (expected.max(-1).values - expected.min(-1).values).min() > 0.2, "the phrases must differ to tell anything"
    torch.testing.assert_close(model.phrase_log_probs(SCENES), expected, **TIGHT)

    # with an adapter, which a fresh PEFT reads from our files
    model.load_adapter_state(random_adapter(model))
    save_file(model.adapter_state(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(model.adapter_config()))
    adapted = PeftModel.from_pretrained(base, tmp_path).eval()
    changed = torch.stack([plain_log_probs(adapted, model.tokenizer, model.form.prompt(s)) for s in SCENES])
    assert (changed - expected).abs().max() > 0.1
    torch.testing.assert_close(model.phrase_log_probs(SCENES), changed, **TIGHT)
    torch.testing.assert_close(model.phrase_log_probs(SCENES, adapter=False), expected, **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_acts_from_the_cue_on_and_leaves_the_reading_of_a_scene_alone(
    folders: dict[str, Path], kind: str
) -> None:
    model = tiny_language_model(folders[kind])
    before = model.read(SCENES)
    model.load_adapter_state(random_adapter(model))
    reading, cue = model.read(SCENES), model.tokenizer(model.form.cue, add_special_tokens=False).input_ids
    assert reading.read == reading.ids.shape[1] - len(cue)
    assert reading.ids[:, reading.read :].tolist() == [cue] * len(SCENES)
    pairs = zip(reading.past, before.past, strict=True)
    assert all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
    everywhere = model._scorer(model.for_inference(adapter=True), Reading(reading.ids, reading.mask))
    assert (everywhere.log_softmax(-1) - model.phrase_log_probs(SCENES)).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_features_of_one_reading_are_those_of_two(folders: dict[str, Path], kind: str) -> None:
    model = tiny_language_model(folders[kind])
    model.load_adapter_state(random_adapter(model))
    for scenes in (SCENES, SCENES[:1], [*SCENES, ""]):
        log_probs, features = model.log_probs_and_features(scenes)
        torch.testing.assert_close(log_probs, model.phrase_log_probs(scenes).detach(), **TIGHT)
        torch.testing.assert_close(features, model.features(scenes), rtol=0.0, atol=1e-3)
        assert log_probs.isfinite().all() and features.isfinite().all()


def test_a_reading_serves_several_adapters(model: LanguageModel) -> None:
    reading, found = model.read(SCENES), []
    for seed in (1, 2, 1):
        model.load_adapter_state(random_adapter(model, seed=seed))
        found.append(model.phrase_log_probs_of(reading).detach())
        assert torch.equal(found[-1], model.phrase_log_probs(SCENES).detach())
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_a_prompt_of_nothing_but_the_cue_can_be_answered(folders: dict[str, Path]) -> None:
    short = tiny_language_model(folders["llama"], max_tokens=2)
    short.load_adapter_state(random_adapter(short))
    reading = short.read(SCENES)
    assert reading.read == 0 and reading.ids.shape[1] == 2
    assert short.phrase_log_probs(SCENES).isfinite().all()
    torch.testing.assert_close(short.log_probs_and_features(SCENES)[0], short.phrase_log_probs(SCENES), **TIGHT)


def test_a_model_that_keeps_no_keys_and_values_is_named(model: LanguageModel) -> None:
    with pytest.raises(ModelError, match="keeps no keys and values"):
        keys_and_values(SimpleNamespace(past_key_values=None), 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_adapter_is_the_one_of_the_moment(folders: dict[str, Path], kind: str) -> None:
    """However it changed: loaded, trained, or put aside for a moment."""
    model = tiny_language_model(folders[kind])
    optimiser = torch.optim.SGD(model.adapter_parameters(), lr=50.0)
    features, plain = model.features(SCENES), model.phrase_log_probs(SCENES, adapter=False).detach()
    before = plain
    for change in ("load", "train", "load again"):
        if change == "train":
            optimiser.zero_grad()
            model.phrase_log_probs(SCENES)[:, 0].sum().backward()
            optimiser.step()
        else:
            model.load_adapter_state(random_adapter(model, seed=len(change)))
        with torch.inference_mode():
            merged = model.phrase_log_probs(SCENES)
        torch.testing.assert_close(merged, model.phrase_log_probs(SCENES).detach(), **TIGHT)
        assert (merged - before).abs().max() > 0.01, change
        before = merged
    assert torch.equal(model.features(SCENES), features)
    assert torch.equal(model.phrase_log_probs(SCENES, adapter=False).detach(), plain)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # its embeddings are the head's weights, and are not
def test_the_head_can_be_adapted(folders: dict[str, Path], kind: str) -> None:
    model = tiny_language_model(folders[kind], target_modules=("lm_head",))
    before = model.phrase_log_probs(SCENES)
    model.load_adapter_state(random_adapter(model))
    with torch.no_grad():
        merged = model.phrase_log_probs(SCENES)
    torch.testing.assert_close(merged, model.phrase_log_probs(SCENES).detach(), **TIGHT)
    torch.testing.assert_close(model.phrase_log_probs(SCENES, adapter=False), before, **TIGHT)
    assert (merged - before).abs().max() > 0.01
    with pytest.raises(ModelError, match="only linear layers"):
        tiny_language_model(folders[kind], target_modules=("embed_tokens",))


def test_copies_share_the_weights(model: LanguageModel) -> None:
    own = {p.data_ptr() for p in model.model.parameters()}
    assert {p.data_ptr() for p in model._plain.parameters()} <= own
    apart = [n for n, p in model._merged.model.named_parameters() if p.data_ptr() not in own]
    assert apart and all(".layers." in name for name in apart)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_computed_without_the_last_layer_and_are_the_same(folders: dict[str, Path], kind: str) -> None:
    model = tiny_language_model(folders[kind])
    assert model._below is not model._plain
    features = model.features(SCENES)
    model._below = model._plain
    assert torch.equal(features, model.features(SCENES))


def test_common_beginnings_are_read_once() -> None:
    tokens = PhraseTokens.of([[1], [2, 3], [2, 4], [2, 3, 5, 6], [7, 3, 5]], 0, torch.device("cpu"))
    assert tokens.tail.tolist() == [2, 3, 5, 7, 3]  # of 2, 2 3, 2 3 5, 7, 7 3
    assert tokens.depth.tolist() == [0, 1, 2, 0, 1]
    assert tokens.sees.int().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1],
    ]  # fmt: skip
    assert tokens.after.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 2, 3], [4, 5, 0]]


def test_phrases_of_one_token_have_no_tail() -> None:
    tokens = PhraseTokens.of([[1], [2]], 0, torch.device("cpu"))
    assert len(tokens.tail) == 0
    log_probs = torch.tensor([[[0.0, -1.0, -2.0]]])
    assert tokens.scores(log_probs).tolist() == [[-1.0, -2.0]]


def test_a_model_that_does_not_heed_the_mask_is_scored_by_its_cache(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny_language_model(folders["llama"]).phrase_log_probs(SCENES)

    def blind(self: PhraseTokens, ids: Tensor, mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        joined, attention, positions = whole(self, ids, mask, dtype)
        return joined, torch.full_like(attention, torch.finfo(dtype).min).triu(1), positions

    whole = PhraseTokens.joined
    monkeypatch.setattr(PhraseTokens, "joined", blind)
    model = tiny_language_model(folders["llama"])
    assert model.describe()["scoring"] == "by cache"
    torch.testing.assert_close(model.phrase_log_probs(SCENES), expected, **TIGHT)


@pytest.mark.parametrize("window", [8, 24, 4096])
def test_a_window_of_attention_is_heeded(tmp_path: Path, window: int) -> None:
    """Also one that two short prompts fit into: prompts may be longer."""
    save_tiny_model(tmp_path, "mistral", window=window)
    model = tiny_language_model(tmp_path)
    assert model.describe()["scoring"] == ("in one pass" if window == 4096 else "by cache")
    base = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert max(len(ids) for ids in model.encode([model.form.prompt(s) for s in SCENES])) > 24
    expected = torch.stack([plain_log_probs(base, model.tokenizer, model.form.prompt(s)) for s in SCENES])
    torch.testing.assert_close(model.phrase_log_probs(SCENES), expected, **TIGHT)


def test_scores_are_means_and_not_sums(model: LanguageModel) -> None:
    """Summed, the four-word phrase loses by its length alone."""
    log_probs = model.phrase_log_probs(SCENES).exp()
    assert torch.allclose(log_probs.sum(-1), torch.ones(len(SCENES)))
    assert log_probs[:, -1].min() > 0.02


@pytest.mark.parametrize("one_pass", [True, False])
def test_summed_scores_are_those_of_whole_phrases(folders: dict[str, Path], one_pass: bool) -> None:
    model, means = tiny_language_model(folders["llama"], score="sum"), tiny_language_model(folders["llama"])
    model._scorer.way = means._scorer.way = "in one pass" if one_pass else "by cache"
    lengths = torch.tensor([len(model.tokenizer(model.form.phrase(p)).input_ids) for p in PHRASES])
    scores = means._scorer(means._plain, means.read(SCENES))
    torch.testing.assert_close(model.phrase_log_probs(SCENES), (scores * lengths).log_softmax(-1), **TIGHT)


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</turn>{% endfor %}"
    "{% if add_generation_prompt %}<robot>{% endif %}"
)


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is talked to."""
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "talking", "qwen2")
    tokenizer = tiny_tokenizer("<|endoftext|>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def test_a_chat_prompt_is_a_users_message_and_the_phrase_the_answer(talking: Path) -> None:
    model = tiny_language_model(talking, chat=True)
    base = AutoModelForCausalLM.from_pretrained(talking).eval()
    for scene in SCENES:
        prompt = f"<user>{scene}{model.form.cue}</turn><robot>"
        head, scores = model.tokenizer(prompt, add_special_tokens=False).input_ids, []
        for phrase in PHRASES:
            tail = model.tokenizer(phrase, add_special_tokens=False).input_ids
            with torch.no_grad():
                log_probs = base(input_ids=torch.tensor([head + tail])).logits[0].log_softmax(-1)
            scores.append(sum(log_probs[len(head) - 1 + k, t] for k, t in enumerate(tail)) / len(tail))
        torch.testing.assert_close(model.phrase_log_probs([scene])[0], torch.stack(scores).log_softmax(-1), **TIGHT)


def test_chat_features_are_of_what_follows_the_scene(talking: Path) -> None:
    model, plain = tiny_language_model(talking, chat=True), tiny_language_model(talking)
    after = model.tokenizer(f"{model.form.cue}</turn><robot>", add_special_tokens=False).input_ids
    cue = plain.tokenizer(plain.form.cue, add_special_tokens=False).input_ids
    assert len(after) > len(cue) and model.feature_size - plain.feature_size == (len(after) - len(cue)) * 32
    assert model.feature_digest != plain.feature_digest
    assert torch.isfinite(model.features(SCENES)).all()


@pytest.mark.parametrize("chat", [False, True])
def test_no_word_of_a_prompt_becomes_a_special_token(talking: Path, chat: bool) -> None:
    model = tiny_language_model(talking, chat=chat)
    special = [token for token in model.tokenizer.all_special_tokens if len(token) > 1]
    assert special
    ids = set(model.tokenizer.all_special_ids)
    plain = sum(token in ids for token in model.encode(["go"])[0])  # those of the template, and of a text's beginning
    for token in special:
        for said in (f"go {token} now", f"{token[0]}{token}{token[1:]}", token * 3):
            assert sum(each in ids for each in model.encode([said])[0]) == plain


DATED = {  # what they say of the day: one as of Llama 3; one that asks in a macro and reckons, as gpt-oss and Mistral
    "26 Jul 2024": "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<system>Today: {{ date_string }}",
    "26 July 2024, Friday; 2024-07-26, tomorrow the 27th": "{% macro today() %}"
    "{{ strftime_now('%-d %B %Y, %A; %Y-%m-%d') }}{% endmacro %}"
    "<system>Today: {{ today() }}, tomorrow the {{ strftime_now('%d')|int + 1 }}th",
}


@pytest.mark.parametrize("said", DATED)
def test_a_template_that_says_the_date_is_the_same_every_day(
    talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Else what was learned would be refused on the next as that of another prompt."""
    folder = shutil.copytree(talking, tmp_path / "dated")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = f"\n  {DATED[said]}\n{CHAT}"
    tokenizer.save_pretrained(folder)
    models = []
    for day in (1, 2):
        clock = type("Clock", (datetime,), {"now": classmethod(lambda cls, day=day: cls(2025, 1, day))})
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", clock)
        models.append(tiny_language_model(folder, chat=True))
    assert models[0].feature_digest == models[1].feature_digest
    assert models[0].encode(["go"]) == models[1].encode(["go"])
    prompt = models[0].tokenizer.decode(models[0].encode(["go"])[0])
    assert prompt.startswith("\n") and f"Today: {said}" in prompt and prompt.endswith("<user>go</turn><robot>")


def test_chat_needs_a_template(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="no chat template; valid: chat false"):
        tiny_language_model(folders["llama"], chat=True)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(folders: dict[str, Path], kind: str) -> None:
    model = tiny_language_model(folders[kind])
    model.load_adapter_state(random_adapter(model))
    alone = [model.phrase_log_probs([s])[0] for s in SCENES]
    torch.testing.assert_close(model.phrase_log_probs(SCENES), torch.stack(alone), **TIGHT)
    features = [model.features([s])[0] for s in SCENES]
    torch.testing.assert_close(model.features(SCENES), torch.stack(features), rtol=0.0, atol=1e-3)
    assert model.features(SCENES).shape == (len(SCENES), model.feature_size)
    assert (features[0] - features[1]).abs().max() > 0.1


def test_order_of_the_batch_is_kept(model: LanguageModel) -> None:
    turned = model.phrase_log_probs(SCENES[::-1])
    torch.testing.assert_close(turned.flip(0), model.phrase_log_probs(SCENES), **TIGHT)


def test_lessons_are_read_but_leave_features_alone(model: LanguageModel) -> None:
    lessons = ["back failed 8 of 9 times"]
    prompt = "lesson: back failed 8 of 9 times. " + model.form.prompt(SCENES[0])
    expected = plain_log_probs(model.model, model.tokenizer, prompt)
    torch.testing.assert_close(model.phrase_log_probs(SCENES[:1], lessons)[0], expected, **TIGHT)


def test_the_evidence_of_a_lesson_is_for_people() -> None:
    form = PromptFormat()
    assert form.lessons(["clear ahead 0.2: not back (failed 4 of 6)"]) == "lesson: clear ahead 0.2: not back. "
    assert form.lessons(["a (b) c.", "(all of it)"]) == "lesson: a (b) c. "
    assert form.lessons(["x" * 200 + " (failed 4 of 6)"]).count("x") == MAX_LESSON_LENGTH


def test_lessons_are_bounded() -> None:
    form = PromptFormat()
    text = form.lessons(["a\nb  c.", "x" * 1000, "", "d", "e", "f", "g"])
    assert text.startswith("lesson: a b c. lesson: " + "x" * MAX_LESSON_LENGTH + ". ")
    assert "\n" not in text
    assert text.count("lesson: ") <= MAX_LESSONS


def test_a_long_scene_keeps_its_end(folders: dict[str, Path]) -> None:
    """What is nearest to the decision stays when a prompt does not fit."""
    model = tiny_language_model(folders["llama"], max_tokens=24)
    tail = "clear ahead 0.3 left 5.0 right unknown. did forward, turn left."
    long, longer = f"{'noise ' * 50}{tail}", f"{'other ' * 90}{tail}"
    torch.testing.assert_close(model.phrase_log_probs([long]), model.phrase_log_probs([longer]), **TIGHT)


# --- the adapter ------------------------------------------------------------------------------------------------


def test_new_adapter_acts_as_the_base(model: LanguageModel) -> None:
    torch.testing.assert_close(model.phrase_log_probs(SCENES), model.phrase_log_probs(SCENES, adapter=False), **TIGHT)


@pytest.mark.parametrize("train_a", [False, True])
def test_gradients_reach_exactly_what_trains_of_the_adapter(folders: dict[str, Path], train_a: bool) -> None:
    model = tiny_language_model(folders["llama"], train_a=train_a)
    model.load_adapter_state(random_adapter(model))
    trained = {id(p) for p in model.adapter_parameters()}
    assert trained
    for scenes in (SCENES[:1], SCENES):
        model.phrase_log_probs(scenes)[:, 0].sum().backward()
        for name, parameter in model.model.named_parameters():
            expected = "lora_B" in name or (train_a and "lora_A" in name)
            assert parameter.requires_grad == (id(parameter) in trained) == expected, name
            received = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
            assert received == expected, name
        model.model.zero_grad()


def test_every_adapter_of_a_base_has_the_same_a(folders: dict[str, Path]) -> None:
    torch.manual_seed(1)
    one = tiny_language_model(folders["llama"]).adapter_state()
    torch.manual_seed(2)
    other = tiny_language_model(folders["llama"]).adapter_state()
    shared = [name for name in one if "lora_A" in name]
    assert shared
    assert all(torch.equal(one[name], other[name]) for name in shared)


def test_gradient_is_that_of_finite_differences(model: LanguageModel) -> None:
    """Through the shared cache too."""
    model.model.double()
    model._merged.model.double()
    model.load_adapter_state(random_adapter(model))
    parameter = model.adapter_parameters()[0]
    model.phrase_log_probs(SCENES)[:, 3].sum().backward()
    assert parameter.grad is not None
    for index in ((0, 0), (1, 3)):
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                parameter[index] += step
                values.append(model.phrase_log_probs(SCENES)[:, 3].sum().item())
                parameter[index] -= step
        assert parameter.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-3, rel=2e-2, abs=2e-3)


def test_training_leaves_base_and_features_alone(model: LanguageModel) -> None:
    base = {n: p.detach().clone() for n, p in model.model.named_parameters() if "lora" not in n}
    features, base_scores = model.features(SCENES), model.phrase_log_probs(SCENES, adapter=False)
    before, optimiser = model.phrase_log_probs(SCENES).detach(), torch.optim.AdamW(model.adapter_parameters(), lr=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        (-model.phrase_log_probs(SCENES)[:, 1].mean()).backward()
        optimiser.step()
    assert (model.phrase_log_probs(SCENES)[:, 1] > before[:, 1] + 0.2).all()
    for name, parameter in model.model.named_parameters():
        assert "lora" in name or torch.equal(parameter, base[name]), name
    assert torch.equal(model.features(SCENES), features)
    assert torch.equal(model.phrase_log_probs(SCENES, adapter=False), base_scores)
    assert all(p.requires_grad for p in model.adapter_parameters()), "a pass without the adapter leaves it trainable"


def test_the_whole_model_can_be_trained_in_place_of_an_adapter(folders: dict[str, Path]) -> None:
    model, plain = tiny_language_model(folders["llama"], full=True), tiny_language_model(folders["llama"])
    torch.testing.assert_close(model.phrase_log_probs(SCENES), plain.phrase_log_probs(SCENES), **TIGHT)
    parameters = model.adapter_parameters()
    assert sum(p.numel() for p in parameters) == sum(p.numel() for p in model._plain.parameters())
    features, before = model.features(SCENES), model.adapter_state()
    optimiser = torch.optim.SGD(parameters, lr=0.1)
    model.phrase_log_probs(SCENES)[:, 0].sum().backward()
    assert all(p.grad is not None for p in parameters)
    optimiser.step()
    assert not torch.allclose(model.phrase_log_probs(SCENES), plain.phrase_log_probs(SCENES), atol=1e-3)
    assert torch.equal(model.features(SCENES), features), "the critic sees the frozen base"
    torch.testing.assert_close(model.phrase_log_probs(SCENES, adapter=False), plain.phrase_log_probs(SCENES), **TIGHT)
    model.load_adapter_state(before)
    torch.testing.assert_close(model.phrase_log_probs(SCENES), plain.phrase_log_probs(SCENES), **TIGHT)


def test_adapter_round_trip_in_place(folders: dict[str, Path], model: LanguageModel) -> None:
    before, parameters = model.adapter_state(), [id(p) for p in model.adapter_parameters()]
    initial = model.phrase_log_probs(SCENES).detach()
    model.load_adapter_state(random_adapter(model))
    changed, state = model.phrase_log_probs(SCENES).detach(), model.adapter_state()
    other = tiny_language_model(folders["llama"], seed=5)
    other.load_adapter_state(state)
    assert torch.equal(other.phrase_log_probs(SCENES), changed)
    model.load_adapter_state(before)
    assert torch.equal(model.phrase_log_probs(SCENES), initial)
    assert not torch.equal(initial, changed)
    assert [id(p) for p in model.adapter_parameters()] == parameters


def test_state_is_a_copy(model: LanguageModel) -> None:
    next(iter(model.adapter_state().values())).fill_(9.0)
    assert not any((p == 9.0).any() for p in model.adapter_parameters())


@pytest.mark.parametrize("damage", ["shape", "nan", "inf", "missing", "extra"])
def test_a_wrong_adapter_is_refused_and_the_old_one_stays(model: LanguageModel, damage: str) -> None:
    model.load_adapter_state(random_adapter(model, seed=1))
    kept, state = model.adapter_state(), random_adapter(model, seed=2)
    name = list(state)[-1]
    if damage == "shape":
        state[name] = state[name][:, :-1]
    elif damage in {"nan", "inf"}:
        state[name][0, 0] = float(damage)
    elif damage == "missing":
        del state[name]
    else:
        state["base_model.model.other.lora_A.weight"] = torch.zeros(2, 2)
    with pytest.raises(ModelError, match="adapter"):
        model.load_adapter_state(state)
    assert all(torch.equal(kept[n], t) for n, t in model.adapter_state().items())


def test_seed_gives_the_adapter_and_leaves_the_global_generator_alone(folders: dict[str, Path]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again = tiny_language_model(folders["llama"], seed=1), tiny_language_model(folders["llama"], seed=1)
    assert torch.equal(torch.rand(1), expected)
    other = tiny_language_model(folders["llama"], seed=2)
    states = [m.adapter_state() for m in (first, again, other)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert not all(torch.equal(states[0][n], states[2][n]) for n in states[0])


def test_digests_tell_models_and_prompts_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    first, again = tiny_language_model(folders["llama"]), tiny_language_model(folders["llama"])
    other = tiny_language_model(save_tiny_model(tmp_path / "other", seed=1))
    assert first.base_digest == again.base_digest != other.base_digest
    assert first.feature_digest == again.feature_digest != other.feature_digest
    config = LanguageModelConfig(model=str(folders["llama"]), device="cpu")
    reworded = LanguageModel(config, PHRASES, PromptFormat(cue=" then"))
    assert reworded.base_digest == first.base_digest
    assert reworded.feature_digest != first.feature_digest


# --- what cannot be loaded --------------------------------------------------------------------------------------


def refuses(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        tiny_language_model_at(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def tiny_language_model_at(folder: Path) -> LanguageModel:
    return LanguageModel(LanguageModelConfig(model=str(folder), device="cpu"), PHRASES)


def test_missing_folder(tmp_path: Path) -> None:
    refuses(tmp_path / "absent", "there is no such folder")
    with pytest.raises(ModelError, match=r"model './absent': there is no such folder"):
        LanguageModel(LanguageModelConfig(model="./absent", device="cpu"), PHRASES)


def test_folder_without_config(tmp_path: Path) -> None:
    refuses(tmp_path, r"no config\.json")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_config_that_is_none(tmp_path: Path, content: str) -> None:
    save_tiny_model(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(content)
    refuses(tmp_path / "model", "cannot be loaded")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"hidden_size": "abc"},
        {"hidden_size": None},
        {"num_attention_heads": 0},
        {"num_attention_heads": 5},
        {"num_key_value_heads": 3},
        {"num_hidden_layers": -1},
        {"vocab_size": 100},
        {"hidden_act": "no such"},
        {"max_position_embeddings": "many"},
        {"model_type": "no such"},
        {"rope_parameters": {"rope_type": "no such"}},
    ],
)
def test_config_that_holds_nonsense(tmp_path: Path, nonsense: dict[str, object]) -> None:
    folder = save_tiny_model(tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | nonsense))
    refuses(folder, "model '")


def test_vocabulary_smaller_than_the_tokenizers(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "embed_tokens" in name)
    tensors[name] = tensors[name][:100].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 100}))
    refuses(folder, "its tokenizer has tokens up to .*, its vocabulary ends at 99")


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_base_without_a_tensor(tmp_path: Path, damage: str) -> None:
    """Transformers fills the gap with random numbers and goes on; we do not."""
    folder = save_tiny_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weight = tensors.pop(name)
    if damage == "shape":
        tensors[name] = weight[:-1].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refuses(folder, "up_proj")


def test_truncated_weights(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])
    refuses(folder, "cannot be loaded")


def test_padding_token_outside_the_vocabulary(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    refuses(folder, "its tokenizer has tokens up to ")


def test_models_that_are_not_causal(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"vocab_size": len(tokenizer)}
    bert = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **sizes)
    t5 = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, **sizes)
    for name, made in (("bert", BertForMaskedLM(bert)), ("t5", T5ForConditionalGeneration(t5))):
        made.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        refuses(tmp_path / name, "causal|cannot be loaded")


def test_wrong_settings_list_the_valid_ones(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"no_such_proj.*q_proj"):
        tiny_language_model(folders["llama"], target_modules=("no_such_proj",))
    with pytest.raises(ModelError, match="bfloat16"):
        tiny_language_model(folders["llama"], dtype="int4")
    with pytest.raises(ModelError, match="cuda"):
        tiny_language_model(folders["llama"], device="abacus")


def test_bfloat16_scores_are_near(folders: dict[str, Path]) -> None:
    exact, rough = (tiny_language_model(folders["llama"], dtype=d) for d in ("float32", "bfloat16"))
    assert rough.phrase_log_probs(SCENES).dtype == torch.float32
    torch.testing.assert_close(rough.phrase_log_probs(SCENES), exact.phrase_log_probs(SCENES), rtol=0, atol=0.15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("auto", 0.1)])
def test_a_gpu_says_the_same(folders: dict[str, Path], dtype: str, tolerance: float) -> None:
    scenes = [*SCENES] * 20
    here = tiny_language_model(folders["llama"])
    there = tiny_language_model(folders["llama"], device="cuda", dtype=dtype)
    if dtype == "auto":
        assert next(there.model.parameters()).dtype == torch.bfloat16
    scores = there.phrase_log_probs(scenes)
    torch.testing.assert_close(scores.detach().cpu(), here.phrase_log_probs(scenes).detach(), rtol=0.0, atol=tolerance)
    scores[:, 0].mean().backward()
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in there.adapter_parameters())
