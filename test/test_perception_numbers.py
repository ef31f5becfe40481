"""Scenes as numbers: what the text says and nothing else."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from llmagent_ros.contract import load_contract
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.perception.gymnasium_text import NumericObservations
from llmagent_ros.perception.numbers import SceneNumbers, where_to_look

CONTRACT = load_contract("sim_diffdrive")
PLAIN = dataclasses.replace(CONTRACT, scene=dataclasses.replace(CONTRACT.scene, effects=False))
NUMBERS = SceneNumbers(PLAIN)
PHRASES = list(CONTRACT.phrases)


def one_hot(phrase: str) -> list[float]:
    return [float(phrase == other) for other in PHRASES]


def test_a_scene_by_hand() -> None:
    scene = (
        "go to the red ball. red ball right 30 at 4.5. blue pillar ahead at 1.0 before. clear ahead 0.5 left front 5.0 "
        "left unknown back 1.0 right 2.0 right front 2.5. "
        "free forward 0.5 curve left unknown curve right 2.0 back 0.0. moving -0.3 turning 1.3. did turn left, back."
    )
    numbers = NUMBERS(scene)
    assert len(numbers) == NUMBERS.size == 40
    right = math.radians(-30)
    assert numbers[:5] == pytest.approx([1, 0, math.cos(right), math.sin(right), 0.9], abs=1e-6)
    assert numbers[5:10] == pytest.approx([0, 1, 1, 0, 0.2], abs=1e-6)
    assert numbers[10:16] == pytest.approx([0.1, 1.0, -1.0, 0.2, 0.4, 0.5])
    assert numbers[16:20] == pytest.approx([0.25, -1.0, 1.0, 0.0])
    assert numbers[20:22] == pytest.approx([-0.3, 1.3])
    assert numbers[22:].tolist() == [0.0] * 6 + one_hot("turn left") + one_hot("back")


def test_what_is_unknown_or_absent() -> None:
    scene = "go to the red ball. red ball not seen. clear unknown. free unknown. moving unknown. did nothing."
    assert NUMBERS(scene).tolist() == [0.0] * 10 + [-1.0] * 10 + [0.0] * 20
    assert NUMBERS("go to the red ball. red ball unknown. no object.")[:10].tolist() == [0.0] * 10


def test_where_one_that_is_not_seen_may_be() -> None:
    numbers = NUMBERS("go to it. red ball not seen, maybe left 90 at 2.0. blue pillar right 90 at 1.0 before.")
    assert numbers[:5] == pytest.approx([0, 0, 0, 1, 0.4], abs=1e-6)
    assert numbers[5:10] == pytest.approx([0, 1, 0, -1, 0.2], abs=1e-6)


@pytest.mark.parametrize(
    ("said", "degrees", "distance"),
    [
        ("not seen, maybe left 90 at 2.0", 90, 2.0),
        ("not seen, maybe right 30 at 0.4", -30, 0.4),
        ("not seen, maybe ahead at 6.1", 0, 6.1),
    ],
)
def test_where_to_look(said: str, degrees: float, distance: float) -> None:
    place = where_to_look(NUMBERS(f"go to it. red ball {said}."), CONTRACT.scene.max_clearance)
    assert place is not None
    assert (math.degrees(place.bearing), place.distance) == pytest.approx((degrees, distance), abs=1e-4)


@pytest.mark.parametrize("said", ["not seen", "unknown", "left 40 at 1.0", "left 40 at 1.0 before"])
def test_nowhere_to_look(said: str) -> None:
    assert where_to_look(NUMBERS(f"go to it. red ball {said}."), CONTRACT.scene.max_clearance) is None


def test_the_instruction_is_not_taken_for_an_object() -> None:
    first = NUMBERS("the red ball, left of the blue pillar. red ball not seen. blue pillar left 90 at 2.0.")
    assert first[:5].tolist() == [0.0] * 5 and first[9] == pytest.approx(0.4)


def test_different_scenes_of_a_drive_have_different_numbers() -> None:
    env = make_environment(EnvironmentSpec("navigate"))
    numeric = NumericObservations(env)
    seen: dict[bytes, str] = {}
    for seed in range(2):
        scene, _ = env.reset(seed=seed)
        for step in range(25):
            numbers = env.observation
            assert numbers in numeric.observation_space and np.abs(numbers).max() <= 2.0
            rest = re.sub("|".join(CONTRACT.objects), "it", scene.partition(". ")[2])  # not which one it is
            assert seen.setdefault(numbers.tobytes(), rest) == rest
            scene, _, terminated, truncated, _ = env.step(step % len(env.phrases))
            if terminated or truncated:
                break
    assert len(seen) > 20
    env.close()


def test_what_came_of_each_action() -> None:
    numbers = SceneNumbers(CONTRACT)
    scene = "go. moving 0.5 turning 0.0. did turn left 0.0 turning 1.3, forward, back -0.3 turning -0.1."
    read = numbers(scene)
    assert len(read) == numbers.size == 46
    expected = [*one_hot("turn left"), 0.0, 1.3, *one_hot("forward"), 0.0, 0.0, *one_hot("back"), -0.3, -0.1]
    assert read[22:] == pytest.approx(expected)
