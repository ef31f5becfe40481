"""Adapters and critics made of several are what they claim to be: weighted means, to the last digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models_support import PHRASES, SCENES, random_adapter, save_tiny_model, tiny_language_model

from llmagent_ros.errors import ConfigError, ModelError
from llmagent_ros.learning.merging import _apportion, merge_adapters, merge_critics
from llmagent_ros.learning.rl.critic import Critic, CriticConfig, build_critic
from llmagent_ros.policy.language_model import LanguageModel

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_language_model(save_tiny_model(tmp_path_factory.mktemp("base") / "llama"))


def adapter(model: LanguageModel, seed: int) -> State:
    """One whose A is the model's, as learning leaves it."""
    shared = tiny_language_model(Path(model.config.model)).adapter_state()
    return {n: shared[n] if "lora_A" in n else t for n, t in random_adapter(model, seed).items()}


def changes(model: LanguageModel, state: State) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight."""
    model.load_adapter_state(state)
    adapted = dict(model.for_inference(adapter=True).named_parameters())
    plain = dict(model.for_inference(adapter=False).named_parameters())
    return {name: (adapted[name] - plain[name]).double() for name in plain}


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.2, 3.0, 0.0), (1e-3, 2e-3, 5e-4)])
def test_a_merged_adapter_changes_the_weights_by_the_mean(model: LanguageModel, weights: tuple[float, ...]) -> None:
    states = [adapter(model, seed) for seed in range(3)]
    merged = changes(model, merge_adapters(states, weights))
    single = [changes(model, state) for state in states]
    moved = 0
    for name, change in merged.items():
        expected = sum(w * s[name] for w, s in zip(weights, single, strict=True)) / sum(weights)
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-6)
        moved += bool(change.abs().max() > 1e-3)
    assert moved > 3


def test_an_adapter_merged_with_itself_or_alone_is_itself(model: LanguageModel) -> None:
    state = adapter(model, 1)
    for merged in (merge_adapters([state, state], [0.3, 0.9]), merge_adapters([state], [2.0])):
        for name, tensor in state.items():
            torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-7)
            assert merged[name].data_ptr() != tensor.data_ptr()


def test_adapters_that_have_no_mean_are_refused(model: LanguageModel) -> None:
    state = adapter(model, 0)
    with pytest.raises(ModelError, match="A differ"):
        merge_adapters([state, random_adapter(model, 1)], [1, 1])
    with pytest.raises(ModelError, match="differ in shape, first 'base_model"):
        merge_adapters([state, dict(list(state.items())[1:])], [1, 1])
    for weights in ([1.0], [0.0, 0.0], [1.0, -0.1], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(ConfigError, match="weights"):
            merge_adapters([state, state], weights)


# --- critics ----------------------------------------------------------------------------------------------------


def critic(seed: int, heads: int = 4, depth: int = 2) -> Critic:
    """With a scale of its own, and large enough values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Critic(7, 3, CriticConfig(heads=heads, width=16, depth=depth))
        made.standardise(torch.randn(50, 7) * torch.rand(7) * (seed + 1) + seed, 0.05)
        with torch.no_grad():
            made.net[-1].weight.mul_(10)  # type: ignore[operator]
    return made


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any), st.integers(2, 6), st.integers(1, 2))
def test_each_head_of_a_merged_critic_says_what_it_said(weights: list[int], heads: int, depth: int) -> None:
    critics = [critic(seed, heads, depth) for seed in range(len(weights))]
    merged = build_critic(merge_critics([each.state() for each in critics], [float(w) for w in weights]))
    counts = _apportion([w / sum(weights) for w in weights], heads)
    features = torch.randn(20, 7, generator=torch.Generator().manual_seed(3)) * 2
    expected, start = [], 0
    for each, count in zip(critics, counts, strict=True):
        expected.append(each(features)[start : start + count])
        start += count
    with torch.no_grad():
        torch.testing.assert_close(merged(features), torch.cat(expected), rtol=2e-4, atol=2e-4)


def test_equal_halves_are_the_mean() -> None:
    one, other = critic(0), critic(1)
    merged = build_critic(merge_critics([one.state(), other.state()], [1, 1]))
    features = torch.randn(9, 7)
    expected = torch.cat([one(features)[:2], other(features)[2:]]).mean(0)
    torch.testing.assert_close(merged.values(features), expected, rtol=1e-4, atol=1e-4)


def test_critics_of_other_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match="shapes differ"):
        merge_critics([critic(0, heads=3).state(), critic(1, heads=4).state()], [1, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 0), st.integers(1, 20))
def test_heads_are_shared_out_in_proportion(weights: list[float], seats: int) -> None:
    shares = [w / sum(weights) for w in weights]
    counts = _apportion(shares, seats)
    assert sum(counts) == seats
    assert all(abs(count - share * seats) < 1 + 1e-9 for count, share in zip(counts, shares, strict=True))


def test_vocabulary_and_scenes_are_those_of_the_model(model: LanguageModel) -> None:
    """A merged adapter still scores the whole vocabulary."""
    model.load_adapter_state(merge_adapters([adapter(model, 0), adapter(model, 1)], [1, 1]))
    assert model.phrase_log_probs(SCENES).shape == (len(SCENES), len(PHRASES))
