"""Bodies by URDF: the shipped robots move as commanded in their own measures, and touch where their outline is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, load_mobile_contract, wrap_angle
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.perception.perception import Perception
from llmagent_ros.perception.scan import bearings_deg, full_circle, sector_clearances
from llmagent_ros.simulation.body import body_of
from llmagent_ros.simulation.physics import Physics
from llmagent_ros.simulation.teachers import teacher
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import LaserScan, Velocity

ROOM = config.build(WorldConfig, {"world": "room", "size": [12.0, 12.0]}, "room")
NAMES = ("turtlebot3_burger", "husky")


@pytest.fixture(scope="module", params=NAMES)
def robot(request: pytest.FixtureRequest) -> Iterator[tuple[MobileContract, Physics]]:
    contract = load_mobile_contract(request.param)
    physics = Physics(contract)
    yield contract, physics
    physics.close()


def place(physics: Physics, start: tuple[float, float, float], *obstacles: Body) -> None:
    physics.load(ROOM, World(start, obstacles, (), ""))


def test_measures_are_those_of_the_urdf() -> None:
    burger = body_of(load_mobile_contract("turtlebot3_burger"))
    assert (burger.scale, burger.wheel_radius, burger.wheel_separation) == (1.0, 0.033, pytest.approx(0.16))
    assert (burger.scan_forward, burger.scan_up, burger.torque) == (-0.032, 0.182, 1.0)
    husky = body_of(load_mobile_contract("husky"))
    assert (husky.wheel_radius, husky.wheel_separation) == (0.1651, pytest.approx(0.555))
    plain, scout = body_of(load_mobile_contract("sim_diffdrive")), body_of(load_mobile_contract("sim_scout"))
    assert (plain.wheel_radius, plain.wheel_separation, plain.torque) == (0.05, 0.26, 4.0)
    assert scout.wheel_separation == pytest.approx(0.26 * 0.22 / 0.17), "the default body grows with the footprint"


def test_the_camera_is_where_the_contract_says(robot: tuple[MobileContract, Physics]) -> None:
    contract, _ = robot
    assert contract.sensors.camera is not None
    assert contract.sensors.camera.x == body_of(contract).camera_forward


def test_each_phrase_moves_it_as_commanded(robot: tuple[MobileContract, Physics]) -> None:
    contract, physics = robot
    for phrase in contract.phrases:
        place(physics, (0.5, -0.3, 0.7))
        command, periods = contract.command(phrase), 4
        x0, y0, yaw0 = physics.pose()
        assert (x0, y0, yaw0) == pytest.approx((0.5, -0.3, 0.7), abs=0.01)
        for _ in range(periods):
            assert not physics.drive(command, contract.control_period)
        x, y, yaw = physics.pose()
        time = periods * contract.control_period
        turned, way = command.angular * time, command.linear * time
        chord = abs(way) * (math.sin(abs(turned) / 2) / (abs(turned) / 2) if turned else 1.0)
        assert math.dist((x, y), (x0, y0)) == pytest.approx(chord, abs=0.06), phrase
        assert wrap_angle(yaw - yaw0 - turned) == pytest.approx(0.0, abs=0.06), phrase
        odometry = physics.read(1.0).odometry
        assert math.dist((odometry.x, odometry.y), (x, y)) < 0.04, phrase


def test_it_touches_where_its_outline_is(robot: tuple[MobileContract, Physics]) -> None:
    contract, physics = robot
    front = contract.footprint_polygon()[:, 0].max()
    place(physics, (0.0, 0.0, 0.0), Body(2.0, 0.0, 0.2))
    hits = [physics.drive(Velocity(0.2), 0.1) for _ in range(120)]
    assert any(hits)
    assert physics.pose()[0] == pytest.approx(2.0 - 0.2 - front, abs=0.03)


def test_its_scanner_sees_as_far_and_as_wide_as_it_says(robot: tuple[MobileContract, Physics]) -> None:
    contract, physics = robot
    form = contract.simulation
    place(physics, (0.0, 0.0, 0.0), Body(1.5, 0.0, 0.2), Body(-1.5, 0.0, 0.2))
    scan = physics.read(1.0).scan
    assert len(scan.ranges) == form.rays and scan.range_max == form.range_max
    ahead = int(np.argmin(np.abs(bearings_deg(scan))))
    assert scan.ranges[ahead] == pytest.approx(1.3 - body_of(contract).scan_forward, abs=0.06)
    assert np.abs(bearings_deg(scan)).max() == pytest.approx(form.field_of_view / 2, abs=1.0)
    whole = full_circle(scan)
    assert (whole is scan) == (form.field_of_view == 360.0)


def test_what_the_scanner_cannot_see_is_unknown() -> None:
    step = math.radians(1.5)
    front = LaserScan(1.0, -math.radians(135), step, np.full(181, 2.0, np.float32), 0.1, 10.0)
    whole = full_circle(front)
    assert len(whole.ranges) == 240 and np.isnan(whole.ranges).sum() == 59
    sectors = {"ahead": (-15.0, 15.0), "left": (60.0, 120.0), "back": (110.0, -110.0)}
    assert sector_clearances(whole, sectors, 0.5, 5.0) == {"ahead": 1.5, "left": 1.5, "back": None}
    assert sector_clearances(front, sectors, 0.5, 5.0)["back"] == 1.5, "taken as it is, two edges would speak for it"
    round_one = LaserScan(1.0, 0.0, 2 * math.pi / 360, np.full(360, 2.0, np.float32), 0.1, 10.0)
    assert full_circle(round_one) is round_one
    overlapping = dataclasses.replace(round_one, ranges=np.full(370, 2.0, np.float32))
    assert full_circle(overlapping) is overlapping
    for increment in (0.0, math.nan, math.inf, 1e-12, 2.2e-309):
        odd = dataclasses.replace(front, angle_increment=increment)
        assert full_circle(odd) is odd
    backwards = dataclasses.replace(front, angle_min=-front.angle_min, angle_increment=-step)
    assert sector_clearances(full_circle(backwards), sectors, 0.5, 5.0)["back"] is None


def test_the_husky_reads_its_back_as_unknown() -> None:
    contract = load_mobile_contract("husky")
    physics, perception = Physics(contract), Perception(contract)
    place(physics, (0.0, 0.0, 0.0))
    readings = physics.read(1.0)
    perception.on_scan(readings.scan)
    perception.on_odometry(readings.odometry)
    text = perception.scene(1.0).text
    assert "back unknown" in text and "ahead 5.0" in text
    physics.close()


@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_trained_to_navigate(name: str) -> None:
    env = make_environment(EnvironmentSpec("navigate", name))
    assert env.contract_name == name and env.mirror is not None
    act, successes = teacher(env), 0
    for seed in range(5):
        env.reset(seed=seed)
        ended = False
        while not ended:
            _, _, terminated, truncated, info = env.step(act(env.observation))
            ended = terminated or truncated
        successes += info["success"]
    env.close()
    assert successes == 5


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("<robot/>", "no joint left_wheel_joint, which the simulator needs"),
        (
            "".join(
                f"<joint name='{side}_wheel_joint' type='continuous'><parent link='b'/><child link='{side}'/></joint>"
                for side in ("left", "right")
            ),
            "no link base_scan, which the simulator needs",
        ),
    ],
)
def test_a_body_that_lacks_a_part_is_refused(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "body.urdf"
    path.write_text(content if content.startswith("<robot") else f"<robot>{content}</robot>")
    plain = load_mobile_contract("sim_diffdrive")
    contract = dataclasses.replace(plain, simulation=dataclasses.replace(plain.simulation, urdf=str(path)))
    with pytest.raises(ConfigError, match=named):
        Physics(contract)
