"""Meta-learning on corridors whose goal lies at either end: exact steps, who is changed by what, and that it helps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_support import save_tiny_model, tiny_language_model

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.meta import methods
from llmagent_ros.learning.meta.meta_learner import MetaLearner
from llmagent_ros.learning.meta.methods import METHODS, MetaConfig, MethodName
from llmagent_ros.learning.meta.steps import blend, gradient
from llmagent_ros.learning.meta.turns import Turns
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import CriticConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.types import Transition

ACTIONS = ("left", "right")
NAMES = ("one", "two", "three", "four", "five", "six")
SETTINGS: dict[str, Any] = {
    "warmup": 1, "batch_size": 32, "actor_every": 4, "actor_batch": 8, "gamma": 0.9, "n_step": 2, "beta": 0.05,
    "learning_rate": 3e-3, "target_rate": 0.05, "average_rate": 0.05, "critic": CriticConfig(heads=3, width=32),
    "feature_floor": 0.01,
}  # fmt: skip
METHOD_NAMES: tuple[MethodName, ...] = ("reptile", "fomaml", "joint")


def experience(goal: str, count: int = 80, seed: int = 0) -> list[Transition]:
    """Single steps in a corridor of six cells; 1 for arriving at the end that is the goal, else -0.02."""
    rng = np.random.default_rng(seed)
    steps = []
    for episode in range(count):
        cell, action = int(rng.integers(1, 5)), str(rng.choice(ACTIONS))
        then = cell + (1 if action == "left" else -1)
        reached = then == (5 if goal == "left" else 0)
        scenes = [f"you stand in cell {NAMES[c]}." for c in (cell, then)]
        reward = -0.02 + reached
        steps.append(Transition(goal, episode, 0, "go", scenes[0], action, reward, scenes[1], True, False))
    return steps


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "llama", width=32, layers=2)


class Bench:
    """Makes meta-learners on two corridors, and learners of one."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder, self.opened = base, folder, []

    def replay(self, name: str, steps: list[Transition]) -> Replay:
        replay = Replay(self.folder / name / "replay.sqlite", ACTIONS)
        self.opened.append(replay)
        replay.append(steps)
        return replay

    def learner(self, replay: Replay, **settings: Any) -> Learner:
        model = tiny_language_model(self.base, ACTIONS, seed=0)
        return Learner(LearnerConfig(**(SETTINGS | settings)), replay, model, 0)

    def meta(self, name: str, method: MethodName, total: int = 1000, **settings: Any) -> MetaLearner:
        replays = [self.replay(f"{name}/{goal}", experience(goal)) for goal in ACTIONS]
        config = MetaConfig(method=method, **({"inner_updates": 8} | settings))
        made = MetaLearner(self.learner(replays[0]), replays, config, seed=0, ready=10, total=total)
        while made.prepare():
            pass
        return made


@pytest.fixture
def bench(base: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(base, tmp_path)
    yield made
    for replay in made.opened:
        replay.close()


def weights(learner: Learner) -> list[torch.Tensor]:
    return [each.detach().clone() for each in learner.weights()]


def test_reptile_goes_the_step_towards_what_the_task_made_of_it(bench: Bench) -> None:
    whole, half = (bench.meta(str(step), "reptile", step=step, last_step=step) for step in (1.0, 0.25))
    began = weights(whole.learner)
    for meta in (whole, half):
        meta.update()
    moved = 0
    for start, there, here in zip(began, weights(whole.learner), weights(half.learner), strict=True):
        torch.testing.assert_close(here, start + 0.25 * (there - start), rtol=1e-4, atol=1e-6)
        moved += int(not torch.equal(start, there))
    assert moved > len(began) // 2


def test_reptile_between_adapters_is_exact_in_what_they_do_to_the_model(bench: Bench) -> None:
    """With A the same for all, half a step in B is half the change of every weight of the model."""
    meta = bench.meta("a", "reptile", step=0.5, last_step=0.5)
    lora = meta.learner.model.adapter_state()
    meta.update()
    after = meta.learner.model.adapter_state()
    assert any(not torch.equal(lora[n], after[n]) for n in lora if "lora_B" in n)
    assert all(torch.equal(lora[n], after[n]) for n in lora if "lora_A" in n)


def test_the_step_becomes_smaller_to_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []
    meta = bench.meta("a", "reptile", total=24, step=1.0, last_step=0.4)

    def watched(learner: Learner, before: Any, share: float, updates: int) -> None:
        steps.append(share)
        blend(learner, before, share, updates)

    monkeypatch.setattr(methods, "blend", watched)
    for _ in range(4):
        meta.update()
    assert steps == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_fomaml_steps_by_the_gradient_where_the_inner_updates_lead(bench: Bench) -> None:
    meta, by_hand = bench.meta("a", "fomaml", learning_rate=1e-3), bench.meta("b", "fomaml")
    began = weights(meta.learner)
    meta.update()
    learner = by_hand.learner  # the same task and the same draws
    learner.standardise(by_hand._some_features(by_hand.tasks()))
    learner.turn_to(by_hand.replays[int(by_hand._rng.choice(by_hand.tasks()))])
    for _ in range(8):
        learner.update()
    slopes = gradient(learner, adapter=True)
    ratio = learner.config.actor_learning_rate / learner.config.learning_rate
    critic = len(list(learner.critic.parameters()))
    for number, (start, here, slope) in enumerate(zip(began, weights(meta.learner), slopes, strict=True)):
        assert slope is not None
        rate = 1e-3 if number < critic else 1e-3 * ratio
        expected = start - rate * slope / (slope.abs() + 1e-8)  # Adam's first step
        torch.testing.assert_close(here, expected, rtol=1e-3, atol=2e-6)


def test_a_gradient_changes_nothing(bench: Bench) -> None:
    learner = bench.meta("a", "joint").learner
    learner.standardise(torch.from_numpy(learner.replay.features(np.arange(4))))
    before = weights(learner)
    found = gradient(learner, adapter=False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))
    critic = len(list(learner.critic.parameters()))
    assert all(each is not None for each in found[:critic]) and found[critic:] == [None] * (len(found) - critic)


def test_a_gradient_is_that_of_the_loss(bench: Bench) -> None:
    """Against finite differences along the gradient itself, on batches that are the same by the same generator."""
    learner = bench.meta("a", "joint").learner
    learner.standardise(torch.from_numpy(learner.replay.features(np.arange(6))))
    state = learner._rng.bit_generator.state
    slopes_of = gradient(learner, adapter=False)
    critic = list(learner.critic.parameters())
    slopes = [each for each in slopes_of[: len(critic)] if each is not None]
    size = float(sum(each.square().sum() for each in slopes)) ** 0.5

    def loss_at(step: float) -> float:
        with torch.no_grad():
            for parameter, slope in zip(critic, slopes, strict=True):
                parameter.add_(step / size * slope)
        learner._rng.bit_generator.state = state
        value = learner.critic_loss()[0].item()
        with torch.no_grad():
            for parameter, slope in zip(critic, slopes, strict=True):
                parameter.sub_(step / size * slope)
        return value

    assert (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2 == pytest.approx(size, rel=0.05)


def test_joint_learning_is_the_learner_on_tasks_in_turn(bench: Bench) -> None:
    meta = bench.meta("a", "joint")
    drawn = set()
    for _ in range(20):
        meta.update()
        drawn.add(meta.learner.replay.path.parent.name)
    assert drawn == set(ACTIONS) and (meta.updates, meta.learner.updates) == (20, 20)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_it_goes_on_exactly(bench: Bench, tmp_path: Path, method: MethodName) -> None:
    whole, half = bench.meta("whole", method), bench.meta("half", method)
    for meta in (whole, half):
        for _ in range(6):
            meta.update()
    tensors, facts = half.state()
    half.learner.turn_to(half.replays[0])
    half.learner.save(tmp_path / "saved", facts)
    again = MetaLearner(
        bench.learner(half.replays[0]), half.replays, MetaConfig(method=method, inner_updates=8),
        seed=5, ready=10, total=1000,
    )  # fmt: skip
    again.load_state(tensors, again.learner.load(tmp_path / "saved"))
    while again.prepare():
        pass
    for meta in (whole, again):
        for _ in range(6):
            meta.update()
    pairs = zip(weights(whole.learner), weights(again.learner), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_what_is_learned_of_both_ends_helps_at_either(bench: Bench, method: MethodName) -> None:
    """After a few updates on one corridor it knows more of it than a learner that began with nothing."""
    meta = bench.meta("meta", method, total=1200, inner_updates=12)
    while meta.updates < 1200:
        meta.update()
    meta.learner.deploy()
    critic, adapter = meta.learner.average.state(), meta.learner.model.adapter_state()
    errors = []
    for begins in (True, False):
        replay = bench.replay(f"new-{method}-{begins}", experience("left", 16, seed=9))
        learner = bench.learner(replay, actor_every=0)
        if begins:
            learner.start_from(critic, adapter)
        while learner.prepare():
            pass
        for _ in range(5):
            learner.update()
        scenes = [f"you stand in cell {NAMES[cell]}." for cell in (4, 3)]
        values = learner.critic.values(learner.model.features(scenes))
        truth = torch.tensor([[0.98, -0.02], [-0.02, -0.02]])  # it matters in which cell, and which way
        errors.append(float((values - truth).abs().mean()))
    assert errors[0] < 0.8 * errors[1], errors


def test_a_task_with_too_little_is_not_drawn(bench: Bench) -> None:
    meta = bench.meta("a", "joint")
    few = bench.replay("few", experience("left", 5))
    meta = MetaLearner(meta.learner, [*meta.replays, few], MetaConfig(method="joint"), seed=0, ready=10, total=10)
    assert meta.tasks() == [0, 1]
    alone = MetaLearner(meta.learner, [few], MetaConfig(), seed=0, ready=10, total=10)
    with pytest.raises(ConfigError, match="no task has 10 transitions"):
        alone.update()
    with pytest.raises(ConfigError, match="no task to learn from"):
        MetaLearner(meta.learner, [], MetaConfig(), seed=0, ready=10, total=10)


def test_every_method_has_its_name() -> None:
    assert set(METHODS) == set(METHOD_NAMES)


# --- whose turn it is -------------------------------------------------------------------------------------------------


def test_in_rounds_everybody_is_met_once_in_each() -> None:
    turns = Turns(5, "rounds", seed=1)
    met = [turns.next(episode) for episode in range(20)]
    assert all(sorted(met[start : start + 5]) == list(range(5)) for start in range(0, 20, 5))
    assert met[:5] != met[5:10]


def test_by_need_what_fails_is_met_most_and_nothing_is_forgotten() -> None:
    turns = Turns(4, "need", seed=1)
    met = []
    for episode in range(1004):
        met.append(turns.next(episode))
        turns.tell(met[-1], met[-1] != 2)
    assert sorted(met[:4]) == [0, 1, 2, 3], "first everybody once"
    counts = np.bincount(met[104:])
    assert counts[2] / 900 == pytest.approx(1.0 / 1.3, abs=0.05)  # weights 1 and three times 0.1
    assert counts.min() > 40


def test_turns_go_on_exactly() -> None:
    whole, half = Turns(3, "need", seed=4), Turns(3, "need", seed=4)

    def act(turns: Turns, episode: int) -> int:
        task = turns.next(episode)
        turns.tell(task, (episode + task) % 3 == 0)
        return task

    expected = [act(whole, episode) for episode in range(40)]
    for episode in range(20):
        act(half, episode)
    again = Turns(3, "need", seed=4)
    again.load_state(half.state())
    assert [act(again, episode) for episode in range(20, 40)] == expected[20:]
