"""Environments as text: every number is said once, in order, rounded as described; what does not fit is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.errors import ConfigError
from llmagent_ros.perception.description import (
    EnvironmentDescription,
    NumberPart,
    action_of,
    count_actions,
    count_numbers,
    derive_description,
    flat_numbers,
    load_description,
)
from llmagent_ros.perception.gymnasium_text import DescribedText

SHIPPED = sorted((config.share_dir() / "config" / "environments").glob("*.yaml"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Told(gym.Env[Any, Any]):
    """An environment of given spaces; its episodes last `length` steps with reward 1 each."""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any], length: int = 5) -> None:
        self.observation_space, self.action_space = observations, actions
        self._length, self._step = length, 0
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._step = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(action)
        self._step += 1
        return self.observation_space.sample(), 1.0, self._step >= self._length, False, {}


def described(env: gym.Env[Any, Any], **changes: Any) -> EnvironmentDescription:
    values: dict[str, Any] = {
        "environment": "Told-v0",
        "task": "do well",
        "parts": [{"name": f"n{i}"} for i in range(count_numbers(env.observation_space))],
        "actions": [f"do {i}" for i in range(count_actions(env.action_space))],
    }
    return config.build(EnvironmentDescription, values | changes, "test")


# --- numbers as words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "number", "words"),
    [
        (NumberPart("pole", unit="degrees", scale=57.3, step=0.2), -0.0367, "pole -2.2 degrees"),
        (NumberPart("cart"), 0.04, "cart 0.0"),
        (NumberPart("cart"), -0.04, "cart 0.0"),  # never "-0.0"
        (NumberPart("cart"), 1234.0, "cart 9.9"),
        (NumberPart("cart"), -math.inf, "cart unknown"),
        (NumberPart("cart"), math.nan, "cart unknown"),
        (NumberPart("row", step=1), 3.0, "row 3"),
        (NumberPart("far", step=0.25, limit=100), 20.3, "far 20.25"),
        (NumberPart("leg", words=("up", "down")), 1.0, "leg down"),
        (NumberPart("leg", words=("up", "down")), 7.0, "leg down"),
    ],
)
def test_a_number_reads(part: NumberPart, number: float, words: str) -> None:
    assert part.say(number) == words


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(1e-3, 1e3), st.sampled_from([0.01, 0.1, 0.2, 0.5, 1]))
def test_what_is_said_is_within_half_a_step(number: float, scale: float, step: float) -> None:
    words = NumberPart("x", scale=scale, step=step).say(number)
    if not math.isfinite(number):
        assert words == "x unknown"
        return
    said = float(words.removeprefix("x "))
    assert abs(said - min(max(number * scale, -9.9), 9.9)) <= step / 2 + 1e-9
    assert not words.startswith("x -0") or said < 0


def test_factors_split_a_number() -> None:
    env = gym.make("Taxi-v4")
    taxi = load_description("Taxi-v4")
    row, column, passenger, destination = 3, 1, 4, 2
    state = env.unwrapped.encode(row, column, passenger, destination)  # type: ignore[attr-defined]
    assert taxi.say(state, env.observation_space).endswith(
        "row 3. column 1. passenger in the taxi. destination yellow."
    )


def test_nested_observations_are_said_in_the_order_of_their_keys() -> None:
    space = spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(2)])})
    observation = {"b": np.array([0.1, 0.2]), "a": (2, np.array([1, 0]))}
    in_order = [number for key in space.spaces for number in {"b": [0.1, 0.2], "a": [2.0, 1.0, 0.0]}[key]]
    assert flat_numbers(observation, space).tolist() == pytest.approx(in_order)


# --- the shipped descriptions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_description_tells_all_states_apart_that_differ_by_more_than_rounding(path: Path) -> None:
    description = load_description(path.stem)
    env = DescribedText(gym.make(description.environment, **description.arguments), description)
    scene, _ = env.reset(seed=0)
    rng, scenes = np.random.default_rng(0), {scene}
    for _ in range(300):
        scene, _, terminated, truncated, info = env.step(int(rng.integers(len(env.phrases))))
        assert scene in env.observation_space
        assert scene.startswith(description.task)
        scenes.add(scene)
        if terminated or truncated:
            assert isinstance(info["success"], bool)
            scene, _ = env.reset()
    discrete = isinstance(env.env.observation_space, spaces.Discrete)
    assert len(scenes) > (5 if discrete else 200)
    env.close()


def test_a_cart_pole_scene_holds_its_four_numbers() -> None:
    description = load_description("CartPole-v1")
    space = gym.make("CartPole-v1").observation_space
    said = description.say(np.array([0.31, -1.52, 0.05, 2.0], np.float32), space)
    assert [float(number) for number in NUMBER.findall(said)] == pytest.approx([0.3, -1.5, 2.8, 2.0])


# --- the wrapper ----------------------------------------------------------------------------------------------------


def test_every_action_of_a_product_space_is_reached_once() -> None:
    space = spaces.MultiDiscrete([2, 3], start=[1, -1])
    actions = [action_of(index, space) for index in range(count_actions(space))]
    assert {tuple(action) for action in actions} == {(a, b) for a in (1, 2) for b in (-1, 0, 1)}
    assert all(action in space for action in actions)
    assert action_of(1, spaces.Discrete(3, start=5)) == 6


def test_history_success_and_reward_pass_through() -> None:
    inner = Told(spaces.Discrete(4), spaces.Discrete(2), length=2)
    env = DescribedText(inner, described(inner, history=2, success_return=2))
    scene, _ = env.reset(seed=0)
    assert scene.endswith("did nothing.")
    scene, reward, terminated, truncated, info = env.step(1)
    assert scene.endswith("did do 1.") and reward == 1.0 and not terminated and "success" not in info
    scene, _, terminated, truncated, info = env.step(np.int64(0))
    assert scene.endswith("did do 1, do 0.") and terminated and not truncated and info["success"] is True
    assert inner.taken == [1, 0]
    env.reset()
    env.step(0)
    env = DescribedText(inner, described(inner, success_return=3))
    env.reset()
    env.step(0)
    assert env.step(0)[-1]["success"] is False


def test_a_phrase_that_is_held_is_said_once_and_ends_with_the_episode() -> None:
    inner = Told(spaces.Discrete(4), spaces.Discrete(2), length=5)
    env = DescribedText(inner, described(inner, history=2, success_return=5, hold=3))
    env.reset(seed=0)
    scene, reward, terminated, _, _ = env.step(1)
    assert scene.endswith("did do 1.") and reward == 3.0 and not terminated
    scene, reward, terminated, _, info = env.step(0)
    assert scene.endswith("did do 1, do 0.") and reward == 2.0 and terminated and info["success"] is True
    assert inner.taken == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"parts": [{"name": "a"}, {"name": "b"}]}, "2 parts, the observation .* has 1 numbers"),
        ({"actions": ["a", "b", "c"]}, "3 actions"),
        ({"factors": [2, 3], "parts": [{"name": "a"}, {"name": "b"}]}, "factors stand for 6 values"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(changes: dict[str, Any], problem: str) -> None:
    inner = Told(spaces.Discrete(4), spaces.Discrete(2))
    with pytest.raises(ConfigError, match=problem):
        DescribedText(inner, described(inner, **changes), "mine.yaml")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"actions": ["a", "a"]}, "a stands there twice"),
        ({"actions": ["a"]}, "actions"),
        ({"task": "two\nlines"}, "words on one line"),
        ({"parts": [{"name": "x", "step": 0}]}, "step"),
        ({"factors": [1, 2]}, "2 factors, 1 parts"),
        ({"colour": "red"}, "unknown key 'colour'; valid: actions"),
    ],
)
def test_a_wrong_description_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        described(Told(spaces.Discrete(4), spaces.Discrete(2)), **changes)


# --- derived --------------------------------------------------------------------------------------------------------


def test_a_derived_description_uses_the_range() -> None:
    env = gym.make("MountainCar-v0")
    derived = derive_description(env, "MountainCar-v0")
    assert len(derived.parts) == 2 and len(derived.actions) == 3
    texts = [derived.say(env.observation_space.sample(), env.observation_space) for _ in range(200)]
    numbers = np.array([[float(n) for n in re.findall(r"-?\d+\.\d", t)] for t in texts])
    assert (np.abs(numbers).max(0) > 1.0).all() and (np.abs(numbers) <= 5.0).all()
    assert len(set(texts)) > 100


def test_a_derived_description_is_repeatable_and_makes_returns_small() -> None:
    first = derive_description(gym.make("CartPole-v1"), "CartPole-v1")
    assert first == derive_description(gym.make("CartPole-v1"), "CartPole-v1")
    assert 0.005 <= first.reward_scale <= 0.05


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (spaces.Text(5), spaces.Discrete(2)),
        (spaces.Box(0, 255, (20, 20)), spaces.Discrete(2)),
        (spaces.Discrete(3), spaces.Box(-1, 1, (2,))),
        (spaces.Discrete(3), spaces.Discrete(100)),
    ],
)
def test_spaces_that_cannot_be_said_are_refused(observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
    with pytest.raises(ConfigError, match="valid: "):
        derive_description(Told(observations, actions), "Told-v0")
