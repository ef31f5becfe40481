"""Learning on a corridor of six cells told in words, with a tiny random base: solved, repeated and resumed exactly."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_support import save_tiny_model, tiny_language_model
from safetensors.torch import load_file

from llmagent_ros.bundle import load_bundle
from llmagent_ros.errors import ConfigError, DivergenceError, LlmAgentError, ModelError, StoreError
from llmagent_ros.learning.rl import checkpoint
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import CriticConfig, build_critic
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.losses import entropy_share
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.standing import start_with, usable
from llmagent_ros.optimiser_state import part
from llmagent_ros.policy.deployment import read_deployment
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.types import Source, Transition

ACTIONS = ("left", "right")
CELLS = 6
NAMES = ("one", "two", "three", "four", "five", "six")
SETTINGS: dict[str, Any] = {
    "warmup": 20, "batch_size": 32, "actor_every": 5, "actor_batch": 8, "gamma": 0.9, "n_step": 2, "beta": 0.05,
    "learning_rate": 3e-3, "target_rate": 0.05, "actor_learning_rate": 1e-2, "critic": CriticConfig(heads=3, width=32),
    "feature_floor": None,
}  # fmt: skip


def scene(cell: int) -> str:
    return f"go left. you stand in cell {NAMES[cell]}."


def step_of(cell: int, action: str) -> tuple[int, float, bool]:
    """Next cell, reward, terminated: 1 for arriving at the left end, -0.02 a step. Cells count from the right."""
    then = cell + 1 if action == "left" else max(0, cell - 1)
    return then, -0.02 + (then == CELLS - 1), then == CELLS - 1


def transition(episode: int, step: int, cell: int, action: str, **change: Any) -> Transition:
    then, reward, terminated = step_of(cell, action)
    values = {
        "run": "r", "episode": episode, "step": step, "task": "go left", "scene": scene(cell), "action": action,
        "reward": reward, "next_scene": scene(then), "terminated": terminated, "truncated": False,
    } | change  # fmt: skip
    return Transition(**values)


def experience(count: int = 60, **change: Any) -> list[Transition]:
    """Random walks of one step each."""
    rng = np.random.default_rng(0)
    return [transition(k, 0, int(rng.integers(CELLS - 1)), str(rng.choice(ACTIONS)), **change) for k in range(count)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "llama", width=32, layers=2)


class Bench:
    """Makes learners, each with a replay of its own."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder, self.opened = base, folder, []

    def learner(
        self,
        name: str = "a",
        seed: int = 0,
        adapter_seed: int = 0,
        reflects: Any = None,
        device: str = "cpu",
        **settings: Any,
    ) -> Learner:
        replay = Replay(self.folder / name / "replay.sqlite", ACTIONS)
        self.opened.append(replay)
        model = tiny_language_model(self.base, ACTIONS, seed=adapter_seed, device=device, dtype="float32")
        return Learner(LearnerConfig(**(SETTINGS | settings)), replay, model, seed, reflects)

    def fed(self, name: str = "a", seed: int = 0, **settings: Any) -> Learner:
        made = self.learner(name, seed, **settings)
        made.observe(experience())
        prepare(made)
        return made


@pytest.fixture
def bench(base: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(base, tmp_path)
    yield made
    for replay in made.opened:
        replay.close()


def prepare(learner: Learner) -> None:
    while learner.prepare():
        pass


def everything(learner: Learner, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """All that a checkpoint holds."""
    learner.save(folder)
    return load_file(folder / checkpoint.TENSORS), json.loads((folder / checkpoint.FACTS).read_text())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- its temperature -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "worth"), [(0.5, 1.0), (0.01, 1.0), (0.05, 5.0)])
def test_the_temperature_finds_the_entropy_that_is_asked_for(bench: Bench, beta: float, worth: float) -> None:
    """From too high and too low a one, and whatever rewards are worth."""
    learner = bench.learner(beta=beta, target_entropy=0.4)
    rows = [dataclasses.replace(row, reward=worth * row.reward) for row in experience()]
    learner.observe(rows)
    prepare(learner)
    for _ in range(1500):
        learner.update()
    shares = []
    for _ in range(50):
        learner.update()
        batch = learner.replay.sample(64, 2, 0.9, np.random.default_rng(len(shares)))
        values = learner.critic(torch.from_numpy(learner.replay.features(batch.bootstrap_id))).mean(0)
        shares.append(entropy_share(values.detach(), learner.beta))
    assert np.mean(shares) == pytest.approx(0.4, abs=0.08)


def test_the_temperature_is_kept_with_what_was_learned(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed("a", target_entropy=0.4)
    for _ in range(50):
        learner.update()
    assert learner.beta != learner.config.beta
    learner.export(tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").meta["beta"] == learner.beta
    for target, expected in ((0.4, learner.beta), (0.0, SETTINGS["beta"])):
        other = bench.learner(f"begun {target}", target_entropy=target)
        start_with(other, tmp_path / "bundle")
        assert other.beta == expected, "of its own where it is looked for"
    learner.save(tmp_path / "checkpoint")
    before = learner.beta
    learner.update()
    learner.load(tmp_path / "checkpoint")
    assert learner.beta == before
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.adapter is not None and bundle.beta is not None
    for _ in range(20):
        learner.update()
    assert learner.beta != bundle.beta
    learner.go_back_to(bundle.critic, bundle.adapter, bundle.beta)
    assert learner.beta == bundle.beta, "what is exported again acts as it did"


def test_a_vocabulary_of_one_phrase_has_no_entropy(bench: Bench) -> None:
    learner = bench.fed(target_entropy=0.4)
    learner._temper(torch.zeros(3, 4, 1))
    assert learner.beta == SETTINGS["beta"]


def test_a_temperature_that_is_given_stays(bench: Bench) -> None:
    learner = bench.fed()
    for _ in range(20):
        learner.update()
    assert learner.beta == learner.config.beta == SETTINGS["beta"]


# --- where it starts ------------------------------------------------------------------------------------------------


def test_starting_from_others_keeps_what_they_know_and_their_scale(bench: Bench) -> None:
    teacher = bench.fed("a", feature_floor=0.05)
    for _ in range(40):
        teacher.update()
    teacher.deploy()
    critic, adapter = teacher.average.state(), teacher.model.adapter_state()
    learner = bench.learner("b", seed=5, adapter_seed=1, feature_floor=0.05)
    learner.start_from(critic, adapter)
    for made in (learner.critic, learner.average, learner._target):
        assert same(made.state(), critic)
    assert same(learner.model.adapter_state(), adapter)
    learner.observe(experience())
    prepare(learner)
    learner.update()
    assert torch.equal(learner.critic.shift, teacher.critic.shift), "its scale is what its heads were learned with"
    assert torch.equal(learner.critic.scale, teacher.critic.scale)
    assert not same(learner.critic.state(), critic), "and it learns on"


def test_a_learner_that_diverges_at_once_goes_back_to_its_start(bench: Bench) -> None:
    teacher = bench.fed("a")
    for _ in range(10):
        teacher.update()
    critic, adapter = teacher.average.state(), teacher.model.adapter_state()
    learner = bench.learner("b", max_loss=1e-9)
    learner.start_from(critic, adapter)
    learner.observe(experience())
    prepare(learner)
    with pytest.raises(DivergenceError):
        learner.update()
    assert same(learner.average.state(), critic) and same(learner.model.adapter_state(), adapter)


def test_a_start_that_does_not_fit_changes_nothing(bench: Bench) -> None:
    teacher, learner = bench.fed("a"), bench.learner("b")
    before = learner.critic.state(), learner.model.adapter_state()
    smaller = bench.learner("c", critic=CriticConfig(heads=2, width=8)).critic.state()
    with pytest.raises(ModelError, match="critic does not fit"):
        learner.start_from(smaller, {n: t + 1 for n, t in teacher.model.adapter_state().items()})
    with pytest.raises(ModelError, match="adapter does not fit"):
        learner.start_from(None, {"x": torch.zeros(1)})
    assert same(learner.critic.state(), before[0]) and same(learner.model.adapter_state(), before[1])
    teacher.update()
    with pytest.raises(ConfigError, match="only a new one"):
        teacher.start_from(None, before[1])


def test_a_start_without_a_critic_scales_by_its_own_data(bench: Bench) -> None:
    teacher = bench.fed("a")
    learner = bench.learner("b", feature_floor=0.05)
    learner.start_from(None, teacher.model.adapter_state())
    learner.observe(experience())
    prepare(learner)
    learner.update()
    assert not torch.equal(learner.critic.scale, torch.ones_like(learner.critic.scale))


def test_a_started_learner_resumes_before_its_first_update(bench: Bench, tmp_path: Path) -> None:
    teacher = bench.fed("a", feature_floor=0.05)
    teacher.update()
    learner = bench.learner("b", feature_floor=0.05)
    learner.start_from(teacher.average.state(), None)
    learner.observe(experience())
    learner.save(tmp_path / "saved")
    learner.replay.close()
    again = bench.learner("b", feature_floor=0.05)
    again.load(tmp_path / "saved")
    prepare(again)
    again.update()
    assert torch.equal(again.critic.scale, teacher.critic.scale)


# --- what an update touches ---------------------------------------------------------------------------------------


def test_updates_change_critic_and_adapter_and_nothing_else(bench: Bench) -> None:
    learner = bench.fed()
    model = learner.model
    base = {n: p.detach().clone() for n, p in model.model.named_parameters() if "lora" not in n}  # type: ignore[attr-defined]
    critic, adapter = learner.critic.state(), model.adapter_state()
    for _ in range(SETTINGS["actor_every"] - 1):
        stats = learner.update()
        assert set(stats) == {"critic_loss", "value"}
    assert same(model.adapter_state(), adapter), "no update of the adapter was due"
    heads = {n: t for n, t in learner.critic.state().items() if n.startswith("net.")}
    assert not any(torch.equal(critic[n], t) for n, t in heads.items())
    stats = learner.update()
    assert {"actor_loss", "agreement", "kl"} <= set(stats)
    assert all(math.isfinite(value) for value in stats.values())
    assert not same(model.adapter_state(), adapter)
    named = model.model.named_parameters()  # type: ignore[attr-defined]
    assert all(torch.equal(p, base[n]) for n, p in named if n in base)
    assert (learner.updates, learner.actor_updates) == (5, 1)


def test_the_adapter_can_be_left_alone(bench: Bench) -> None:
    learner = bench.fed(actor_every=0)
    before = learner.model.adapter_state()
    for _ in range(10):
        learner.update()
    assert same(learner.model.adapter_state(), before)


def test_backlog_counts_the_updates_that_are_allowed(bench: Bench) -> None:
    learner = bench.learner(warmup=20, updates_per_step=2.0)
    learner.observe(experience(19))
    assert learner.backlog == 0
    assert learner.observe(experience(20)) == 1, "what is known already is not stored again"
    assert learner.backlog == 40
    prepare(learner)
    learner.update()
    assert learner.backlog == 39


def test_stored_features_are_those_of_the_model(bench: Bench) -> None:
    learner = bench.fed()
    batch = learner.replay.sample(10, 1, 0.9, np.random.default_rng(0))
    expected = learner.model.features(learner.replay.texts(batch.scene_id))
    stored = torch.from_numpy(learner.replay.features(batch.scene_id))
    torch.testing.assert_close(stored, expected, rtol=1e-2, atol=1e-2)  # kept in half precision
    assert learner.prepare() == 0


def test_cached_features_and_computed_ones_learn_alike(bench: Bench) -> None:
    cached, computed = bench.fed("cached"), bench.fed("computed", cache_features=False)
    for _ in range(10):
        kept, anew = cached.update(), computed.update()
        assert anew["critic_loss"] == pytest.approx(kept["critic_loss"], rel=0.05)
    assert computed.prepare() == 0
    for name, tensor in cached.critic.state().items():
        # float16 may turn the sign of a gradient that is next to nothing, and Adam makes a whole step of it
        assert (computed.critic.state()[name] - tensor).abs().mean() < 1e-4, name


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_every_device_learns_acts_and_resumes_alike(bench: Bench, device: str, cache: bool, tmp_path: Path) -> None:
    here, there = bench.fed("here"), bench.fed("there", device=device, cache_features=cache)
    for learner in (here, there):
        for _ in range(10):
            learner.update()
    assert next(there.critic.parameters()).device.type == device
    choices = []
    for learner in (here, there):
        policy = TextPolicy(learner.model)  # type: ignore[arg-type]
        policy.swap(None, learner.average.values, beta=0.05, name="learning", disagreement=1.0)
        choices.append(policy.distribution([scene(cell) for cell in range(CELLS - 1)], head=1))
    for ours, theirs in zip(*choices, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0.0, atol=0.02)
    there.save(tmp_path / "checkpoint")
    expected = there.update()
    there.replay.close()
    again = bench.learner("there", device=device, cache_features=cache)
    again.load(tmp_path / "checkpoint")
    assert again.update() == pytest.approx(expected, rel=1e-3)


def test_the_loss_is_that_of_the_target_heads_lower_bound(bench: Bench) -> None:
    """One transition, so that every batch is known; online and target critic differ."""
    learner = bench.learner(actor_every=0, n_step=1, pessimism=0.7)
    learner.observe([transition(0, 0, 2, "left")])
    prepare(learner)
    with torch.no_grad():
        for number, critic in enumerate((learner.critic, learner._target)):
            generator = torch.Generator().manual_seed(number)
            for parameter in critic.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        batch = learner.replay.at([0], 1, 0.9)
        now, then = (learner._features(ids) for ids in (batch.scene_id, batch.bootstrap_id))
        values, after, target = learner.critic(now)[:, 0], learner.critic(then)[:, 0], learner._target(then)[:, 0]
    chances = (after.mean(0) / SETTINGS["beta"]).softmax(-1)
    bound = target.mean(0) - 0.7 * target.std(0)
    expected = -0.02 + 0.9 * float((chances * bound).sum())
    errors = [abs(float(head[0]) - expected) for head in values]  # "left" is the first phrase
    by_hand = sum(e - 0.5 if e > 1 else e * e / 2 for e in errors)
    assert learner.update()["critic_loss"] == pytest.approx(by_hand, rel=1e-4)


# --- the mirror -------------------------------------------------------------------------------------------------


class Reflects:
    """Scenes of the corridor that is walked the other way; those of cell four have no image."""

    rule, actions = "sides", (1, 0)

    def scene(self, text: str) -> str | None:
        if "four" in text:
            return None
        return text.replace("left", "right") if "left" in text else text.replace("right", "left")


def test_half_of_what_is_learned_from_is_seen_in_the_mirror(bench: Bench) -> None:
    learner = bench.learner(reflects=Reflects(), margin_weight=0.0)
    learner.observe([transition(0, step, step, "left") for step in range(3)])  # cells one to four
    prepare(learner)
    batch = learner._sample(2000, 1)
    texts, after = learner.replay.texts(batch.scene_id), learner.replay.texts(batch.bootstrap_id)
    of_cell = {cell: [i for i, text in enumerate(texts) if f"cell {NAMES[cell]}." in text] for cell in range(3)}
    for cell in range(2):
        seen = [i for i in of_cell[cell] if texts[i].startswith("go right")]
        assert 0.4 < len(seen) / len(of_cell[cell]) < 0.6
        assert all(after[i] == f"go right. you stand in cell {NAMES[cell + 1]}." for i in seen)
        assert all(batch.action[i] == (1 if i in seen else 0) for i in of_cell[cell])
    assert {texts[i] for i in of_cell[2]} == {scene(2)}, "its next scene has no image"


def test_what_was_never_met_is_known_by_its_image(bench: Bench) -> None:
    """Only ever walked to the left; the other way is known with a mirror, and not without."""

    def told(learner: Learner) -> list[float]:
        for _ in range(300):
            learner.update()
        features = learner.model.features([scene(c).replace("left", "right") for c in (0, 1, 4)])
        values = learner.critic.values(features)
        return (values[:, 1] - values[:, 0]).tolist()

    with_mirror = bench.learner("with", reflects=Reflects(), feature_floor=0.01)
    without = bench.learner("without", reflects=Reflects(), feature_floor=0.01, mirror=False)
    for learner in (with_mirror, without):
        learner.observe(experience(200))
        prepare(learner)
    assert min(told(with_mirror)) > 0.0
    assert max(told(without)) < -0.05, "it takes them for the scenes that it met"
    assert with_mirror.backlog == without.backlog, "an image counts as no step"


def test_the_mirror_resumes_exactly(bench: Bench, tmp_path: Path) -> None:
    whole, half = (bench.learner(name, reflects=Reflects()) for name in ("whole", "half"))
    for learner in (whole, half):
        learner.observe(experience())
        prepare(learner)
        for _ in range(5):
            learner.update()
    half.save(tmp_path / "checkpoint")
    half.replay.close()
    again = bench.learner("half", seed=9, reflects=Reflects())
    again.load(tmp_path / "checkpoint")
    assert not again.replay.missing_images(1)
    for learner in (whole, again):
        for _ in range(5):
            learner.update()
    assert same(everything(whole, tmp_path / "a")[0], everything(again, tmp_path / "b")[0])


# --- what the losses are for ----------------------------------------------------------------------------------------


def kl(target: torch.Tensor, log_probs: torch.Tensor) -> float:
    return float((target * (target.log() - log_probs)).sum(-1).mean())


def test_the_target_is_a_moving_average_of_the_critic(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed(target_rate=0.25)
    expected = learner.critic.state()  # they start equal
    for _ in range(3):
        learner.update()
        expected = {n: t + 0.25 * (learner.critic.state()[n] - t) for n, t in expected.items()}
    target = part(everything(learner, tmp_path / "checkpoint")[0], "target")
    for name, tensor in expected.items():
        torch.testing.assert_close(target[name], tensor)


def test_features_are_standardised_once_when_learning_begins(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed(feature_floor=0.1, warmup=60)
    learner.update()
    batch = learner.replay.at(range(60), 1, 0.9)
    features = torch.from_numpy(learner.replay.features(batch.scene_id))
    variance = features.var(0, unbiased=False)
    shift, scale = (features.mean(0), (variance + 0.1 * variance.mean()).rsqrt())
    learner.observe(experience(40, run="later"))
    prepare(learner)
    learner.update()
    learner.save(tmp_path / "checkpoint")
    tensors = load_file(tmp_path / "checkpoint" / checkpoint.TENSORS)
    for critic in ("critic", "target", "average"):
        torch.testing.assert_close(tensors[f"{critic}/shift"], shift)
        torch.testing.assert_close(tensors[f"{critic}/scale"], scale)
    learner.export(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.critic is not None
    values = build_critic(bundle.critic).values(features)
    torch.testing.assert_close(values, learner.average.values(features))


def test_after_demonstrations_the_scale_is_set_once_more(bench: Bench, tmp_path: Path) -> None:
    """When the learner has own experience; what the critic says is the same before and after."""
    shown = [transition(k, 0, k % 2, "left", source=Source.HUMAN) for k in range(40)]
    learner = bench.learner("a", feature_floor=0.1)
    learner.observe(shown)
    prepare(learner)
    learner.update()
    first = learner.average.state()
    learner.observe(experience(19, run="own"))
    prepare(learner)
    learner.update()
    assert torch.equal(learner.average.state()["scale"], first["scale"]), "19 of its own are too few"
    learner.observe(experience(20, run="own")[19:])
    prepare(learner)
    learner.save(tmp_path / "checkpoint")
    features = torch.from_numpy(learner.replay.features(learner.replay.at(range(60), 1, 0.9).scene_id))
    said, blown_up = learner.average.values(features), learner.critic.scale.clone()
    moments = learner._critic_optimiser.state[learner.critic.first.weight]
    before = {name: moments[name].clone() for name in ("exp_avg", "exp_avg_sq")}
    learner._see_to_the_scale()
    more = (blown_up / learner.critic.scale)[:, None]
    torch.testing.assert_close(moments["exp_avg"] * more, before["exp_avg"])
    torch.testing.assert_close(moments["exp_avg_sq"] * more**2, before["exp_avg_sq"])
    torch.testing.assert_close(learner.average.values(features), said, rtol=1e-3, atol=1e-4)
    variance = features.var(0, unbiased=False)
    scale = (variance + 0.1 * variance.mean()).rsqrt()
    learner.update()
    for name, critic in (("critic", learner.critic), ("target", learner._target), ("average", learner.average)):
        torch.testing.assert_close(critic.scale, scale, msg=name)
    learner.observe(experience(40, run="later"))
    prepare(learner)
    learner.update()
    torch.testing.assert_close(learner.critic.scale, scale)
    learner.load(tmp_path / "checkpoint")
    assert torch.equal(learner.critic.scale, first["scale"])
    learner.update()
    assert not torch.equal(learner.critic.scale, first["scale"]), "one that was interrupted before does it too"


def test_a_state_that_is_taken_up_before_the_first_update_keeps_its_scale(bench: Bench, tmp_path: Path) -> None:
    learned = bench.fed(feature_floor=0.1)
    learned.update()
    learned.export(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.critic is not None and bundle.adapter is not None
    critic = {name: tensor + 1 if name == "shift" else tensor for name, tensor in bundle.critic.items()}
    fresh = bench.fed("b", feature_floor=0.1)
    fresh.go_back_to(critic, bundle.adapter)
    fresh.update()
    for name in ("shift", "scale"):
        torch.testing.assert_close(fresh.average.state()[name], critic[name])


def test_the_average_begins_as_the_mean_and_then_forgets(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed(average_rate=0.4)
    seen = []
    for _ in range(4):
        learner.update()
        seen.append(learner.critic.state())
        if len(seen) == 2:
            half = {n: (t + seen[1][n]) / 2 for n, t in seen[0].items()}
            for name, tensor in learner.average.state().items():
                torch.testing.assert_close(tensor, half[name])
    expected = {n: 0.6 * (0.6 * t + 0.4 * seen[2][n]) + 0.4 * seen[3][n] for n, t in half.items()}
    saved = part(everything(learner, tmp_path / "checkpoint")[0], "average")
    for name, tensor in expected.items():
        torch.testing.assert_close(saved[name], tensor)


def test_what_is_exported_is_the_average(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed()
    for _ in range(10):
        learner.update()
    learner.export(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.critic is not None
    assert same(bundle.critic, learner.average.state()) and not same(bundle.critic, learner.critic.state())


def test_values_are_those_of_the_corridor(bench: Bench) -> None:
    """From single random steps: the value of the goal must travel over all cells by bootstrapping."""
    learner = bench.fed(actor_every=0)
    for _ in range(500):
        learner.update()
    exact = np.zeros((CELLS, 2))  # Q of the soft policy by value iteration, zero in the last cell
    for _ in range(100):
        soft = np.exp((exact - exact.max(1, keepdims=True)) / learner.config.beta)
        values = (soft / soft.sum(1, keepdims=True) * exact).sum(1)
        for cell in range(CELLS - 1):
            for k, action in enumerate(ACTIONS):
                then, reward, terminated = step_of(cell, action)
                exact[cell, k] = reward + 0.9 * values[then] * (not terminated)
    learned = learner.critic.values(learner.model.features([scene(cell) for cell in range(CELLS - 1)]))
    assert exact[0].max() > 0.5
    np.testing.assert_allclose(learned.numpy(), exact[:-1], atol=0.12)


def test_the_adapter_follows_the_critic(bench: Bench) -> None:
    """With a critic that stands still, pi_LM goes to softmax(Q / beta)."""
    learner = bench.fed(learning_rate=1e-12, actor_every=1, kl_weight=0.0, beta=0.004)
    scenes = [scene(cell) for cell in range(CELLS - 1)]
    target = (learner.critic.values(learner.model.features(scenes)) / 0.004).softmax(-1)
    start = kl(target, learner.model.phrase_log_probs(scenes).detach())
    assert start > 0.05
    for _ in range(60):
        learner.update()
    assert kl(target, learner.model.phrase_log_probs(scenes).detach()) < 0.1 * start


def test_the_adapter_reads_scenes_with_lessons_before_them_too(bench: Bench) -> None:
    lessons, after = ("right in cell three failed 9 of 9 times",), {}
    scenes = [scene(cell) for cell in range(CELLS - 1)]
    for share in (0.0, 0.5, 1.0):
        settings = {"learning_rate": 1e-12, "actor_every": 1, "kl_weight": 0.0, "beta": 0.0005}
        learner = bench.fed(str(share), lesson_share=share, **settings)
        learner.lessons = lessons
        features = learner.model.features(scenes)
        for critic in (learner.critic, learner.average):  # what it says of all scenes alike can be learned without them
            critic.net[-1].bias.data -= critic(features).mean(1, keepdim=True)
        target = (learner.critic.values(features) / 0.0005).softmax(-1)
        for _ in range(60):
            learner.update()
        with torch.no_grad():
            after[share] = [kl(target, learner.model.phrase_log_probs(scenes, words)) for words in ((), lessons)]
    assert after[1.0][1] < 0.5 * after[0.0][1], "with lessons it is another reader"
    assert after[0.5][0] < 0.5 * after[1.0][0] and after[0.5][1] < 0.5 * after[0.0][1], "half of the updates each"


def test_kl_keeps_the_adapter_near_the_deployed_one(bench: Bench) -> None:
    moved = {}
    scenes = [scene(cell) for cell in range(CELLS - 1)]
    for weight in (0.0, 100.0):
        learner = bench.fed(name=str(weight), learning_rate=1e-12, actor_every=1, kl_weight=weight, beta=0.01)
        deployed = learner.model.phrase_log_probs(scenes).detach()
        for _ in range(20):
            learner.update()
        moved[weight] = kl(deployed.exp(), learner.model.phrase_log_probs(scenes).detach())
    assert moved[100.0] < 0.1 * moved[0.0]


def test_export_moves_what_the_adapter_is_kept_near_to(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed(actor_every=1, kl_weight=1.0)
    assert learner.update()["kl"] == pytest.approx(0.0, abs=1e-6)
    for _ in range(10):
        later = learner.update()["kl"]
    assert later > 1e-4
    learner.export(tmp_path / "bundle")
    assert learner.update()["kl"] == pytest.approx(0.0, abs=1e-6)


def test_demonstrations_are_imitated(bench: Bench) -> None:
    scenes, chance = [scene(cell) for cell in range(CELLS - 1)], {}
    for weight in (0.0, 5.0):
        settings = {"learning_rate": 1e-12, "actor_every": 1, "clone_weight": weight, "kl_weight": 0.0}
        learner = bench.learner(f"demos {weight}", **settings)
        learner.observe([transition(k, 0, k % 5, "left", source=Source.HUMAN) for k in range(30)])
        learner.observe([transition(100 + k, 0, k % 5, "right") for k in range(30)])
        prepare(learner)
        for _ in range(20):
            learner.update()
        chance[weight] = learner.model.phrase_log_probs(scenes)[:, 0].exp().mean().item()
    assert chance[5.0] > 0.85 > chance[0.0]


def test_the_critic_prefers_what_was_demonstrated(bench: Bench) -> None:
    """The same experience with the same rewards, but for who chose to go left."""
    gaps = {}
    for weight in (0.0, 1.0):
        learner = bench.learner(f"margin {weight}", actor_every=0, margin_weight=weight, feature_floor=0.01)
        shown = [transition(k, 0, k % 5, "right", source=Source.HUMAN) for k in range(30)]  # a worse way
        learner.observe(shown + [transition(100 + k, 0, k % 5, "left") for k in range(30)])
        prepare(learner)
        for _ in range(300):
            learner.update()
        values = learner.critic.values(learner.model.features([scene(cell) for cell in range(CELLS - 1)]))
        gaps[weight] = (values[:, 1] - values[:, 0]).mean().item()
    assert gaps[0.0] < 0.0 < SETTINGS["beta"] < gaps[1.0]


# --- never silently wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["critic", "adapter"])
def test_nothing_that_is_not_finite_is_written(bench: Bench, tmp_path: Path, what: str) -> None:
    """Whatever the losses said: here nothing was updated since it was spoiled."""
    learner = bench.fed()
    for _ in range(5):
        learner.update()
    learner.export(tmp_path / "good")
    for number, write in enumerate((learner.export, learner.save)):
        spoiled = next(iter(learner.critic.parameters() if what == "critic" else learner.model.adapter_parameters()))
        with torch.no_grad():
            spoiled.view(-1)[0] = math.nan
        with pytest.raises(DivergenceError, match=f"{what} holds values"):
            write(tmp_path / f"bad {number}")
        assert not (tmp_path / f"bad {number}").exists()
        assert same(learner.critic.state(), load_bundle(tmp_path / "good").critic), "the last good state acts on"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_cannot_enter(bench: Bench, bad: float) -> None:
    learner = bench.fed()
    with pytest.raises(LlmAgentError, match="reward"):
        learner.observe([transition(900, 0, 0, "left", reward=bad)])
    assert len(learner.replay) == 60


def test_an_exploding_loss_goes_back_to_the_last_good_state(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed()
    for _ in range(10):
        learner.update()
    learner.export(tmp_path / "good")
    bundle = load_bundle(tmp_path / "good")
    for _ in range(7):
        learner.update()
    assert not same(learner.critic.state(), bundle.critic)
    learner.observe(experience(400, run="wild", reward=1e7))
    prepare(learner)
    with pytest.raises(DivergenceError, match="critic loss"):
        learner.update()
    assert same(learner.critic.state(), bundle.critic)
    assert bundle.adapter is not None and same(learner.model.adapter_state(), bundle.adapter)


def test_a_divergence_before_the_first_bundle_leaves_the_scale_of_features(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed("a", feature_floor=0.05, max_loss=1e3)
    learner.update()
    shift, scale = learner.critic.shift.clone(), learner.critic.scale.clone()
    assert shift.any() and (scale != 1).any()
    learner.observe(experience(400, run="wild", reward=1e7))
    prepare(learner)
    with pytest.raises(DivergenceError):
        while True:
            learner.update()
    learner.save(tmp_path / "checkpoint")
    resumed = Learner(learner.config, learner.replay, tiny_language_model(bench.base, ACTIONS))
    resumed.load(tmp_path / "checkpoint")
    for each in (learner, resumed):
        assert each.standardised
        for critic in (each.critic, each.average):
            assert torch.equal(critic.shift, shift) and torch.equal(critic.scale, scale)


def test_a_resumed_learner_goes_back_to_what_was_deployed(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed("a")
    for _ in range(5):
        learner.update()
    learner.export(tmp_path / "bundle")
    for _ in range(20):
        learner.update()
    learner.save(tmp_path / "checkpoint")
    resumed, deployed = Learner(learner.config, learner.replay, learner.model), load_bundle(tmp_path / "bundle")
    resumed.load(tmp_path / "checkpoint")
    assert not same(resumed.average.state(), deployed.critic)
    resumed._go_back()
    assert deployed.adapter is not None
    assert same(resumed.average.state(), deployed.critic) and same(resumed.model.adapter_state(), deployed.adapter)


def test_an_adapter_that_would_act_otherwise_is_not_begun_with(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed()
    learner.update()
    learner.export(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert usable(bundle, learner.model)[1] is not None
    stronger = tiny_language_model(bench.base, ACTIONS, alpha=16)
    assert bundle.acts_otherwise(stronger.adapter_config()) == ["lora_alpha 8, not 16"]
    began = Learner(learner.config, learner.replay, stronger)
    for begin in (
        lambda: read_deployment(tmp_path / "bundle", stronger, build_critic),
        lambda: start_with(began, tmp_path / "bundle"),
    ):
        with pytest.raises(ModelError, match=r"bundle: its adapter acts otherwise .*: lora_alpha 8, not 16"):
            begin()


def test_a_broken_adapter_goes_back_to_the_last_good_state(bench: Bench) -> None:
    learner = bench.fed(actor_every=1, kl_weight=0.0)
    before = learner.model.adapter_state()
    with torch.no_grad():
        learner.model.adapter_parameters()[0].fill_(math.nan)
    with pytest.raises(DivergenceError, match="actor loss nan"):
        learner.update()
    assert same(learner.model.adapter_state(), before)
    assert all(math.isfinite(v) for v in learner.update().values()), "learning goes on from there"


# --- repeatable and resumable ---------------------------------------------------------------------------------------


def test_same_seed_twice_is_identical(bench: Bench, tmp_path: Path) -> None:
    results = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        learner = bench.fed(name, seed)
        torch.manual_seed(len(results))  # the global generator must not matter
        for _ in range(15):
            learner.update()
        results.append(everything(learner, tmp_path / "saved" / name))
    assert same(results[0][0], results[1][0])
    assert results[0][1]["random"] == results[1][1]["random"]
    assert not same(results[0][0], results[2][0])


def test_resume_is_exact(bench: Bench, tmp_path: Path) -> None:
    first = bench.fed()
    first.lessons = ("right in cell three failed 9 of 9 times",)
    for k in range(30):
        first.update()
        if k == 11:
            first.export(tmp_path / "bundle")  # deployed and learning adapter differ
    first.save(tmp_path / "checkpoint")
    for _ in range(20):
        first.update()
    expected = everything(first, tmp_path / "expected")
    first.replay.close()

    second = bench.learner(seed=77, adapter_seed=5)
    second.load(tmp_path / "checkpoint")
    assert (second.updates, second.actor_updates) == (30, 6)
    for _ in range(20):
        second.update()
    resumed = everything(second, tmp_path / "resumed")
    assert same(expected[0], resumed[0])
    assert expected[1] == resumed[1]
    parts = {name.split("/")[0] for name in expected[0]}
    states = {"critic", "target", "average", "adapter", "deployed", "good"}
    assert parts == states | {"critic_optimiser", "actor_optimiser"}


def test_a_checkpoint_of_another_base_or_replay_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.fed().save(tmp_path / "checkpoint")
    with pytest.raises(ModelError, match="cannot be read"):
        bench.learner("b").load(tmp_path / "absent")
    with pytest.raises(StoreError):
        bench.learner("c").load(tmp_path / "checkpoint")
    bench.base = save_tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(ModelError, match="another base"):
        bench.learner("d").load(tmp_path / "checkpoint")


def test_a_damaged_checkpoint_is_refused(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed()
    learner.save(tmp_path / "checkpoint")
    tensors = tmp_path / "checkpoint" / checkpoint.TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cannot be read"):
        learner.load(tmp_path / "checkpoint")


def test_a_save_that_was_killed_between_its_renames_is_found(bench: Bench, tmp_path: Path) -> None:
    learner = bench.fed()
    learner.update()
    learner.save(tmp_path / "checkpoint")
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    assert checkpoint.exists(tmp_path / "checkpoint")
    learner.load(tmp_path / "checkpoint")
    assert learner.updates == 1


# --- it must learn --------------------------------------------------------------------------------------------------


def greedy_return(policy: TextPolicy) -> float:
    cell, total = 0, 0.0
    for _ in range(3 * CELLS):
        action = policy.decide(scene(cell), np.random.default_rng(0), temperature=0.0).action
        cell, reward, terminated = step_of(cell, action)
        total += reward
        if terminated:
            break
    return total


OPTIMUM = 1.0 - 0.02 * (CELLS - 1)
DECIDE = """
import json, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from models_support import tiny_language_model
from llmagent_ros.bundle import load_bundle
from llmagent_ros.learning.rl.critic import CriticConfig, build_critic
from llmagent_ros.policy.text_policy import TextPolicy
bundle = load_bundle(Path(sys.argv[3]))
model = tiny_language_model(Path(sys.argv[2]), tuple(bundle.meta["phrases"]), seed=123)
assert model.feature_digest == bundle.meta["feature_digest"]
policy = TextPolicy(model)
policy.swap(bundle.adapter, build_critic(bundle.critic).values, beta=bundle.meta["beta"], name="loaded")
rng = np.random.default_rng(0)
made = [policy.decide(scene, rng) for scene in json.loads(sys.argv[4])]
print(json.dumps([[d.action, d.log_probability, d.probabilities.tolist(), d.values.tolist()] for d in made]))
"""


def test_must_solve_corridor_and_a_fresh_process_decides_the_same(bench: Bench, tmp_path: Path) -> None:
    learner = bench.learner()
    policy = TextPolicy(learner.model)  # type: ignore[arg-type]
    assert greedy_return(policy) < 0, "an untrained base must not know it"
    policy.swap(None, learner.average.values, beta=learner.config.beta, name="learning")
    rng, steps = np.random.default_rng(0), 0
    for episode in range(60):
        cell, step, terminated = 0, 0, False
        while not terminated and step < 20:
            action = policy.decide(scene(cell), rng).action
            learner.observe([transition(episode, step, cell, action, truncated=step == 19)])
            cell, _, terminated = step_of(cell, action)
            step, steps = step + 1, steps + 1
            prepare(learner)
            while learner.backlog:
                learner.update()
        if greedy_return(policy) == pytest.approx(OPTIMUM) and episode > 10 and learner.actor_updates > 60:
            break
    assert greedy_return(policy) == pytest.approx(OPTIMUM)
    assert steps < 700
    alone = learner.model.phrase_log_probs([scene(cell) for cell in range(CELLS - 1)])
    assert (alone.argmax(-1) == 0).all(), "the adapter alone has learned it too"

    learner.export(tmp_path / "bundle")
    scenes = [scene(cell) for cell in range(CELLS)] * 2
    fresh = np.random.default_rng(0)
    here = [policy.decide(text, fresh) for text in scenes]
    arguments = [str(Path(__file__).parent), str(bench.base), str(tmp_path / "bundle"), json.dumps(scenes)]
    output = subprocess.run(
        [sys.executable, "-c", DECIDE, *arguments], check=True, capture_output=True, text=True, timeout=120,
        cwd=Path(__file__).parent.parent,
    ).stdout  # fmt: skip
    there = json.loads(output.splitlines()[-1])
    assert there == [[d.action, d.log_probability, d.probabilities.tolist(), d.values.tolist()] for d in here]
