"""A body that is not what its contract says: what it does differently, and that nothing else changes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import load_contract, wrap_angle
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment, shipped
from llmagent_ros.simulation.physics import Physics
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task
from llmagent_ros.simulation.variation import Variation
from llmagent_ros.simulation.world import World, WorldConfig
from llmagent_ros.types import Velocity

CONTRACT = load_contract("sim_diffdrive")
PERIOD = CONTRACT.control_period
ROOM = config.build(WorldConfig, {"world": "room", "size": [8.0, 5.0]}, "room")


@pytest.fixture(scope="module")
def physics() -> Iterator[Physics]:
    made = Physics(CONTRACT)
    yield made
    made.close()


def driven(physics: Physics, variation: Variation | None, command: Velocity, periods: int = 3) -> tuple[float, float]:
    """m along the first heading and rad turned under a command that is held."""
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (), ""), variation)
    before = physics.pose()
    for _ in range(periods):
        physics.drive(command, PERIOD)
    after = physics.pose()
    return after[0] - before[0], wrap_angle(after[2] - before[2])


def test_no_variation_is_the_same_to_the_bit(physics: Physics) -> None:
    command = CONTRACT.command("curve left")
    assert driven(physics, None, command) == driven(physics, Variation(), command)
    driven(physics, Variation(swapped=True, load=3.0, friction=0.2), command)
    assert driven(physics, None, command) == driven(physics, Variation(), command), "a variation outlives its episode"


def test_a_worn_wheel_pulls_to_its_side(physics: Physics) -> None:
    forward, turned = driven(physics, Variation(left_wheel=0.6), Velocity(0.4))
    straight, _ = driven(physics, None, Velocity(0.4))
    # wheels at v and 0.6 v: the body turns left by (v - 0.6 v) / separation in a second
    assert turned == pytest.approx(0.4 * 0.4 / 0.26 * 3 * PERIOD, rel=0.15)
    assert 0.5 * straight < forward < 0.85 * straight


def test_swapped_wheels_turn_the_other_way_and_drive_on(physics: Physics) -> None:
    ahead, turned = driven(physics, Variation(swapped=True), Velocity(0.35, 0.8))
    normal_ahead, normal = driven(physics, None, Velocity(0.35, 0.8))
    assert turned == pytest.approx(-normal, abs=0.1) and normal > 0.5
    assert ahead == pytest.approx(normal_ahead, abs=0.05)


def test_reversed_wheels_undo_both(physics: Physics) -> None:
    ahead, turned = driven(physics, Variation(reversed=True), Velocity(0.3, 0.5))
    normal_ahead, normal = driven(physics, None, Velocity(0.3, 0.5))
    assert ahead == pytest.approx(-normal_ahead, abs=0.08) and turned == pytest.approx(-normal, abs=0.1)


def test_a_slippery_floor_and_a_load_take_way(physics: Physics) -> None:
    normal, _ = driven(physics, None, Velocity(0.5), periods=1)
    slippery, _ = driven(physics, Variation(friction=0.03), Velocity(0.5), periods=1)
    laden, _ = driven(physics, Variation(load=10.0, friction=0.2), Velocity(0.5), periods=1)
    light, _ = driven(physics, Variation(friction=0.2), Velocity(0.5), periods=1)
    assert slippery < 0.8 * normal
    assert laden != light and abs(laden) < 1.05 * normal


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.2, 1.5), st.booleans(), st.booleans())
def test_a_symmetric_body_does_in_the_mirror_what_it_does(
    left: float, right: float, share: float, swapped: bool, reverse: bool
) -> None:
    variation = Variation(left_wheel=share, right_wheel=share, swapped=swapped, reversed=reverse)
    assert variation.symmetric
    assert variation.wheels(right, left) == variation.wheels(left, right)[::-1]


@pytest.fixture
def simulators() -> Iterator[list[Simulator]]:
    made: list[Simulator] = []
    yield made
    for simulator in made:
        simulator.close()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_delayed_body_does_each_command_one_period_late(simulators: list[Simulator], parts: int) -> None:
    """Also where a control period is advanced in parts, as in real time."""
    phrases = ["forward", "turn left", "back", "turn right", "curve left"]
    late, prompt = (Simulator(CONTRACT, load_task(name)) for name in ("navigate_delayed", "navigate"))
    simulators += [late, prompt]
    late.reset(3)
    prompt.reset(3)
    start = late.pose()
    poses: dict[str, list[tuple[float, ...]]] = {"late": [], "prompt": []}
    for name, simulator in (("late", late), ("prompt", prompt)):
        for phrase in phrases:
            for _ in range(parts):
                simulator.advance(CONTRACT.command(phrase), PERIOD / parts)
            poses[name].append(simulator.pose())
    np.testing.assert_allclose(poses["late"][0], start, atol=0.01)
    np.testing.assert_allclose(poses["late"][1:], poses["prompt"][:-1], atol=0.03)


def test_the_delay_starts_anew_with_the_episode(simulators: list[Simulator]) -> None:
    simulator = Simulator(CONTRACT, load_task("navigate_delayed"))
    simulators.append(simulator)
    simulator.reset(0)
    simulator.step(CONTRACT.command("forward"))
    simulator.reset(0)
    before = simulator.pose()
    simulator.step(CONTRACT.command("forward"))
    assert math.dist(before[:2], simulator.pose()[:2]) < 0.01


@pytest.mark.parametrize("name", [name for name in shipped("tasks") if name != "explore"])
def test_every_shipped_task_can_be_acted_in_and_says_its_instruction(name: str) -> None:
    env = make_environment(EnvironmentSpec(name))
    try:
        scene, _ = env.reset(seed=1)
        assert scene.startswith(f"{env.task}. ")
        assert (env.mirror is not None) == (name != "navigate_worn"), "a body that pulls to one side has no mirror"
        rng, ended = np.random.default_rng(0), False
        while not ended:
            _, _, terminated, truncated, info = env.step(int(rng.integers(len(env.phrases))))
            ended = terminated or truncated
        assert ("spl" in info) == load_task(name).goal.startswith("reach")
    finally:
        env.close()


def test_a_variation_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match="left_wheel"):
        config.build(Variation, {"left_wheel": 0.0}, "x")
