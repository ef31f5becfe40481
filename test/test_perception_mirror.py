"""Scenes in a mirror: as the sensors of a mirrored world would have been told, and as the dynamics have it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.perception.description import EnvironmentDescription, load_description
from llmagent_ros.perception.mirror import Mirror, description_mirror, robot_mirror
from llmagent_ros.perception.numbers import SceneNumbers
from llmagent_ros.perception.perception import Perception
from llmagent_ros.types import CameraImage, LaserScan, Odometry

CONTRACT = load_contract("sim_diffdrive")


def mirror() -> Mirror:
    made = robot_mirror(CONTRACT)
    assert made is not None
    return made


def changed(contract: MobileContract, **changes: Any) -> MobileContract:
    return dataclasses.replace(contract, **changes)


# --- the robot ----------------------------------------------------------------------------------------------------


def test_a_scene_by_hand() -> None:
    scene = (
        "turn left at the red ball. red ball right 30 at 4.5. blue pillar ahead at 1.0 before. clear ahead 0.5 "
        "left front 5.0 left unknown back 1.0 right 2.0 right front 2.5. "
        "free forward 1.0 curve left 0.2 curve right unknown back 0.5. moving -0.3 turning 1.3. "
        "did turn left, back, curve right."
    )
    assert mirror().scene(scene) == (
        "turn right at the red ball. red ball left 30 at 4.5. blue pillar ahead at 1.0 before. clear ahead 0.5 "
        "left front 2.5 left 2.0 back 1.0 right unknown right front 5.0. "
        "free forward 1.0 curve left unknown curve right 0.2 back 0.5. moving -0.3 turning -1.3. "
        "did turn right, back, curve left."
    )
    assert mirror().scene("red ball not seen, maybe left 50 at 1.2.") == "red ball not seen, maybe right 50 at 1.2."
    phrases = CONTRACT.phrases
    assert [phrases[image] for image in mirror().actions] == [
        "forward", "curve right", "curve left", "turn right", "turn left", "back"
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_as_the_sensors_of_the_mirrored_world_would_be_told(seed: int) -> None:
    """Scan and image are turned round, odometry is reflected, and `Perception` is left to say it."""
    env = make_environment(EnvironmentSpec("navigate"))
    inner: Any = env.unwrapped
    other = Perception(CONTRACT)
    rng = np.random.default_rng(seed)
    scene, _ = env.reset(seed=seed)
    other.start_episode(env.task)
    numbers, differences, effect = SceneNumbers(CONTRACT), [], []
    for _ in range(25):
        readings = inner.readings
        other.on_scan(_reflected_scan(readings.scan))
        other.on_odometry(_reflected_odometry(readings.odometry))
        other.on_image(_reflected_image(readings.image))
        expected, image = numbers(other.scene(readings.scan.stamp).text), numbers(str(mirror().scene(scene)))
        # a ray or pixel on the border of two sectors, or of two rounding steps, may fall on its other side
        differences.append(np.abs(expected - image))
        effect.append(np.abs(image - numbers(scene)))
        action = int(rng.integers(len(env.phrases)))
        other.note_action(env.phrases[mirror().actions[action]])
        scene, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    env.close()
    assert np.mean(differences) < 0.02 and np.quantile(differences, 0.9) < 0.05
    assert np.mean(effect) > 0.1, "the mirror does something to these scenes"


def _reflected_scan(scan: LaserScan) -> LaserScan:
    last = scan.angle_min + (len(scan.ranges) - 1) * scan.angle_increment
    return dataclasses.replace(scan, ranges=scan.ranges[::-1].copy(), angle_min=-last)


def _reflected_odometry(odometry: Odometry) -> Odometry:
    return dataclasses.replace(odometry, y=-odometry.y, yaw=-odometry.yaw, angular=-odometry.angular)


def _reflected_image(image: CameraImage) -> CameraImage:
    return dataclasses.replace(image, rgb=image.rgb[:, ::-1].copy(), cx=image.rgb.shape[1] - 1 - image.cx)


WORDS = st.sampled_from(
    ["left", "right", "ahead", "turning 0.3.", "did turn left, x.", "red ball", "-1.0", "clear", "free"]
    + ["free forward 1.0 curve left 0.2 curve right unknown back 0.3.", "free unknown."]
)


@given(st.lists(WORDS, max_size=12))
def test_twice_gives_it_back(words: list[str]) -> None:
    text = " ".join(words)
    assert mirror().scene(str(mirror().scene(text))) == text


def test_what_came_of_actions_is_turned_round() -> None:
    scene = "go left. moving 0.5 turning -0.1. did curve left 0.3 turning 0.8, back -0.3 turning 0.0, turn right."
    reflected = "go right. moving 0.5 turning 0.1. did curve right 0.3 turning -0.8, back -0.3 turning 0.0, turn left."
    assert mirror().scene(scene) == reflected and mirror().scene(reflected) == scene


def test_names_of_objects_keep_their_sides() -> None:
    named = changed(CONTRACT, objects={**CONTRACT.objects, "left door": CONTRACT.objects["red ball"]})
    made = robot_mirror(named)
    assert made is not None
    assert made.scene("to the left door. left door left 20 at 1.0.") == "to the left door. left door right 20 at 1.0."
    assert made.rule != mirror().rule


def test_a_rule_is_the_same_in_every_process() -> None:
    """Mirror images of another rule are made anew."""
    code = (
        "from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment\n"
        "for name in ('CartPole-v1', 'navigate'):\n"
        "    print(make_environment(EnvironmentSpec(name)).mirror.rule)\n"
    )
    said = set()
    for seed in "012":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        said.add(ended.stdout)
    assert len(said) == 1


@pytest.mark.parametrize("part", ["actions", "sectors", "camera"])
def test_a_robot_that_is_not_the_same_on_both_sides_has_none(part: str) -> None:
    if part == "actions":
        lopsided = changed(CONTRACT, actions={p: a for p, a in CONTRACT.actions.items() if p != "turn left"})
    elif part == "sectors":
        sectors = {**CONTRACT.scene.sectors, "left": (50.0, 100.0)}
        lopsided = changed(CONTRACT, scene=dataclasses.replace(CONTRACT.scene, sectors=sectors))
    else:
        assert CONTRACT.sensors.camera is not None
        camera = dataclasses.replace(CONTRACT.sensors.camera, yaw=10.0)
        lopsided = changed(CONTRACT, sensors=dataclasses.replace(CONTRACT.sensors, camera=camera))
    assert robot_mirror(lopsided) is None


# --- described environments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1"])
def test_a_mirrored_state_goes_where_the_mirror_says(name: str) -> None:
    """The simulation itself: from the negated state, the partner of each action leads to the mirrored scene."""
    env, other = (make_environment(EnvironmentSpec(name)) for _ in range(2))
    assert env.mirror is not None
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    other.reset(seed=0)
    for _ in range(100):
        state = rng.uniform(-0.15, 0.15, 4)
        action = int(rng.integers(len(env.phrases)))
        for each, start in ((env, state), (other, -state)):
            each.reset(seed=0)
            each.unwrapped.state = start  # type: ignore[attr-defined]
        scene, reward, terminated, *_ = env.step(action)
        image, same_reward, same_end, *_ = other.step(env.mirror.actions[action])
        assert (env.mirror.scene(scene), reward, terminated) == (image, same_reward, same_end)
    env.close()
    other.close()


def test_the_lander_changes_its_legs() -> None:
    made = description_mirror(load_description("LunarLander-v3"))
    assert made is not None
    scene = (
        "land softly between the flags. right of the pad 0.3. above it 7.3. drifting -0.6. climbing 2.1. tilted 0.1. "
        "turning 0.0. left leg in the air. right leg on the ground."
    )
    assert made.scene(scene) == (
        "land softly between the flags. right of the pad -0.3. above it 7.3. drifting 0.6. climbing 2.1. tilted -0.1. "
        "turning 0.0. left leg on the ground. right leg in the air."
    )
    assert made.scene(str(made.scene(scene))) == scene
    assert made.actions == (0, 3, 2, 1)


def test_a_text_of_another_form_has_no_image() -> None:
    made = description_mirror(load_description("CartPole-v1"))
    assert made is not None
    assert made.scene("keep the pole upright. cart 0.1.") is None
    scene = "keep the pole upright. cart unknown. moving 0.1. pole -0.2. falling 0.0."
    assert made.scene(scene) == "keep the pole upright. cart unknown. moving -0.1. pole 0.2. falling 0.0."


def test_units_and_history_are_kept() -> None:
    values = {
        "environment": "x", "task": "go", "parts": [{"name": "lean", "unit": "degrees"}, {"name": "far"}],
        "actions": ["west", "east", "wait"], "history": 2,
        "mirror": {"negated": ["lean"], "actions": [["west", "east"]]},
    }  # fmt: skip
    made = description_mirror(config.build(EnvironmentDescription, values, "it"))
    assert made is not None and made.actions == (1, 0, 2)
    scene, image = "go. lean 1.5 degrees. far 0.2. did west, wait.", "go. lean -1.5 degrees. far 0.2. did east, wait."
    assert (made.scene(scene), made.scene(image)) == (image, scene)
    assert made.scene("go. lean 0.0 degrees. far 0.2. did nothing.") == "go. lean 0.0 degrees. far 0.2. did nothing."


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"negated": ["nose"]}, "valid: lean, far, far"),
        ({"exchanged": [["lean", "nose"]]}, "mirror.exchanged: 'nose' is none"),
        ({"exchanged": [["lean", "far"]]}, "a name that several parts have"),
        ({"actions": [["west", "up"]]}, "valid: west, east"),
        ({"actions": [["west", "west"]]}, "stands there twice"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule: dict[str, Any], said: str) -> None:
    values = {
        "environment": "x", "task": "go", "parts": [{"name": "lean"}, {"name": "far"}, {"name": "far"}],
        "actions": ["west", "east"], "mirror": rule,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=said):
        config.build(EnvironmentDescription, values, "it")


def test_environments_without_sides_have_none() -> None:
    for name in ("FrozenLake-v1", "Taxi-v4"):
        assert description_mirror(load_description(name)) is None
