"""A body that is not what its contract says: what it does differently, and that nothing else changes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import load_contract, wrap_angle
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.simulation.physics import Physics, Readings
from llmagent_ros.simulation.sensor_faults import SensorFaults
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task, shipped_tasks
from llmagent_ros.simulation.variation import Variation
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import LaserScan, Velocity

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


def test_a_longer_body_turns_less_than_it_reckons(physics: Physics) -> None:
    ahead, turned = driven(physics, Variation(length=1.6), Velocity(0.35, 0.8))
    reckoned = physics.read(0.0).odometry
    normal_ahead, normal = driven(physics, None, Velocity(0.35, 0.8))
    assert turned == pytest.approx(normal / 1.6, rel=0.1)
    assert reckoned.yaw == pytest.approx(normal, rel=0.1) and reckoned.angular == pytest.approx(0.8, rel=0.1)
    assert ahead > normal_ahead, "less of a curve"


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


@pytest.mark.parametrize("name", [name for name in shipped_tasks(arm=False) if name != "explore"])
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


# --- sensors --------------------------------------------------------------------------------------------------------


def readings(physics: Physics, variation: Variation, stamp: float = 1.0) -> Readings:
    world = World((0.0, 0.0, 0.0), (), (Body(2.0, 0.0, 0.25, "red ball"),), "red ball")
    physics.load(ROOM, world, variation)
    return physics.read(stamp)


def told(read: Readings, variation: Variation, seed: int = 0) -> LaserScan:
    return SensorFaults(variation, PERIOD, seed).worsen(read.scan, read.image)[0]


def nearest(scan: LaserScan) -> float:
    """Bearing of the nearest thing within 60 degrees of straight ahead, degrees."""
    bearings = np.degrees(scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges)))
    ranges = np.where(np.abs(bearings) < 60, scan.ranges, np.inf)
    return float(bearings[ranges == ranges.min()].mean())


def test_good_sensors_tell_what_they_read(physics: Physics) -> None:
    read = readings(physics, Variation())
    scan, image = SensorFaults(Variation(), PERIOD, 0).worsen(read.scan, read.image)
    assert np.array_equal(scan.ranges, read.scan.ranges) and image is read.image


@pytest.mark.parametrize("turned", [-15.0, 20.0])
def test_a_scanner_that_is_askew_tells_bearings_that_are_off(physics: Physics, turned: float) -> None:
    variation = Variation(scan_turned=turned)
    read = readings(physics, variation)
    assert nearest(read.scan) == pytest.approx(0.0, abs=3.0)
    assert nearest(told(read, variation)) == pytest.approx(-turned, abs=4.0)


def test_a_camera_that_is_askew_sees_things_elsewhere(physics: Physics) -> None:
    def column(read: Readings) -> float:
        red = (read.image.rgb[..., 0] > 120) & (read.image.rgb[..., 1] < 90)
        return float(np.flatnonzero(red.any(0)).mean())

    straight, askew = (column(readings(physics, Variation(camera_turned=turned))) for turned in (0.0, 15.0))
    focal = readings(physics, Variation()).image.fx
    assert askew - straight == pytest.approx(focal * math.tan(math.radians(15.0)), abs=3.0)


def test_a_blind_sector_measures_nothing(physics: Physics) -> None:
    read = readings(physics, Variation())
    for blind in ((-20.0, 40.0), (150.0, -150.0)):
        scan = told(read, Variation(blind=blind))
        bearings = np.degrees(scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges)))
        inside = (bearings - blind[0]) % 360 <= (blind[1] - blind[0]) % 360
        assert np.isinf(scan.ranges[inside]).all() and inside.sum() == pytest.approx(len(bearings) / 6, abs=2)
        assert np.array_equal(scan.ranges[~inside], read.scan.ranges[~inside])


def test_noise_is_of_its_size_and_of_its_seed(physics: Physics) -> None:
    read = readings(physics, Variation())
    variation = Variation(scan_noise=0.05)
    finite = np.isfinite(read.scan.ranges)
    off = told(read, variation).ranges[finite] - read.scan.ranges[finite]
    assert np.std(off) == pytest.approx(0.05, rel=0.25) and abs(np.mean(off)) < 0.02
    assert np.array_equal(told(read, variation).ranges, told(read, variation).ranges)
    assert not np.array_equal(told(read, variation, 1).ranges, told(read, variation).ranges)


def test_a_slow_sensor_tells_the_same_again_with_a_new_stamp(physics: Physics) -> None:
    faults = SensorFaults(Variation(refreshed=2, scan_noise=0.05), PERIOD, 0)
    read = [readings(physics, Variation(), 1.0 + n * PERIOD) for n in range(4)]
    scans = [faults.worsen(each.scan, each.image)[0] for each in read]
    assert [scan.stamp for scan in scans] == pytest.approx([1.0 + n * PERIOD for n in range(4)])
    same = [np.array_equal(a.ranges, b.ranges) for a, b in itertools.pairwise(scans)]
    assert same == [True, False, True]


def test_what_is_worse_on_one_side_has_no_mirror() -> None:
    for variation in (Variation(blind=(0, 60)), Variation(scan_turned=5.0), Variation(camera_turned=-5.0)):
        assert not variation.symmetric
    assert Variation(scan_noise=0.1, refreshed=2, length=1.5).symmetric
