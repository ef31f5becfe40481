"""The robot contract: what ships loads, what is wrong is refused by name, angles wrap."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import (
    SCENE_PARTS,
    MobileContract,
    contract_path,
    in_sector,
    load_contract,
    load_mobile_contract,
    wrap_angle,
)
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.simulation.arm.table import load_table
from llmagent_ros.simulation.arm.task import load_arm_task
from llmagent_ros.simulation.task import load_task, shipped_tasks
from llmagent_ros.simulation.world import load_world
from llmagent_ros.types import Velocity

SHARE = config.share_dir()


def shipped(folder: str) -> list[str]:
    return sorted(path.stem for path in (SHARE / folder).glob("*.yaml"))


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    return content


@pytest.mark.parametrize("name", shipped("config/robots"))
def test_every_shipped_contract_loads(name: str) -> None:
    contract = load_contract(name)
    assert contract.robot == name
    assert len(contract.phrases) >= 2


BASES = [name for name in shipped("config/robots") if isinstance(load_contract(name), MobileContract)]


@pytest.mark.parametrize("name", BASES)
def test_phrases_of_every_shipped_base_are_within_its_limits(name: str) -> None:
    contract = load_mobile_contract(name)
    for phrase in contract.phrases:
        command = contract.command(phrase)
        assert abs(command.linear) <= contract.limits.linear
        assert abs(command.angular) <= contract.limits.angular


@pytest.mark.parametrize("name", BASES)
def test_shipped_sectors_cover_every_bearing_once(name: str) -> None:
    sectors = load_mobile_contract(name).scene.sectors
    for bearing in range(-179, 181):
        assert sum(in_sector(bearing, sector) for sector in sectors.values()) == 1, bearing


@pytest.mark.parametrize("name", shipped_tasks(arm=False))
def test_every_shipped_task_and_its_world_load(name: str) -> None:
    task = load_task(name)
    assert task.task == name
    assert all("{object}" in wording for wording in task.instructions)
    assert load_world(task.world).world


@pytest.mark.parametrize("name", shipped_tasks(arm=True))
def test_every_shipped_task_of_an_arm_and_its_table_load(name: str) -> None:
    task = load_arm_task(name)
    assert task.task == name
    assert all("{object}" in wording for wording in task.instructions)
    assert load_table(task.table).table == task.table


def test_a_task_of_another_kind_of_robot_names_those_of_this_one() -> None:
    with pytest.raises(ConfigError, match=r"task reach: of an arm; valid for a base: explore, .*navigate"):
        load_task("reach")
    with pytest.raises(ConfigError, match="task navigate: of a base that drives; valid for an arm: push, reach"):
        load_arm_task("navigate")
    with pytest.raises(ConfigError, match="robot sim_arm is an arm; valid here: a base that drives"):
        load_mobile_contract("sim_arm")


@pytest.mark.parametrize("name", shipped("sim/worlds"))
def test_every_shipped_world_loads(name: str) -> None:
    assert load_world(name).world == name


@pytest.mark.parametrize("load", [load_contract, load_task, load_world])
def test_unknown_name_lists_what_ships(load: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown .* 'submarine'; valid: \w+"):
        load("submarine")


def test_phrases_are_in_file_order(plain: dict[str, Any]) -> None:
    contract = config.build(MobileContract, plain, "x")
    assert list(contract.phrases) == list(plain["actions"])
    assert contract.command("forward") == Velocity(0.5, 0.0)


@pytest.mark.parametrize("phrase", ["fly", "Forward", "forward ", "", "forward\n", "__class__"])
def test_phrase_outside_the_vocabulary_is_never_a_command(phrase: str) -> None:
    contract = load_contract("sim_diffdrive")
    with pytest.raises(UnknownNameError) as caught:
        contract.command(phrase)
    assert all(valid in str(caught.value) for valid in contract.phrases)


_WRONG: list[tuple[str, Any, str]] = [
    ("footprint_radius", 0.0, "footprint_radius"),
    ("footprint_radius", math.nan, "footprint_radius"),
    ("control_period", -0.1, "control_period"),
    ("control_period", math.inf, "control_period"),
    ("robot", "Robot One", "robot"),
    ("actions", {"forward": {"linear": 0.5}}, "at least two phrases"),
    ("actions", {"forward": {"linear": 0.5}, "go; rm -rf": {}}, "actions"),
    ("actions", {"forward": {"linear": 0.5}, "race": {"linear": 9.0}}, "actions.race"),
    ("actions", {"forward": {"linear": 0.5}, "spin": {"angular": -9.0}}, "actions.spin"),
    ("actions", {"forward": {"linear": 0.5}, "slow": {"linear": math.nan}}, "actions.slow.linear"),
    ("sensors", {"camera": None}, "objects: need sensors.camera"),
    ("sensors", {"scan": {"timeout": 0}}, "sensors.scan.timeout"),
    ("sensors", {"sonar": {}}, "unknown key 'sensors.sonar'; valid: camera, odom, scan"),
    ("scene", {"sectors": {"ahead": [-15, 15]}, "parts": ["weather"]}, "scene.parts"),
    ("scene", {"sectors": {"ahead": [-15]}}, "scene.sectors.ahead"),
    ("limits", {"linear": 0.6}, "limits.angular: needed, and not given"),
    ("control_period", 1e-9, "control_period"),
    ("footprint_radius", True, "footprint_radius: a number is needed, not True"),
    ("scene", {"sectors": {"ahead": [-15, 400]}}, "scene.sectors.ahead.1"),
    ("scene", {"sectors": {}}, "scene.sectors"),
    ("scene", {"sectors": {"ahead ": [-15, 15]}}, "scene.sectors"),
    ("scene", {"sectors": {"ahead": [-15, 15]}, "parts": []}, "scene.parts"),
    ("scene", {"sectors": {"ahead": [-15, 15]}, "parts": ["scan", "scan"]}, "scene.parts: scan stands there twice"),
    ("objects", {"ball": {"hue": [0, 1500]}}, "objects.ball.hue.1"),
    ("objects", {"ball": {"hue": [0, 10], "min_value": 2}}, "objects.ball.min_value"),
    ("objects", {"": {"hue": [0, 10]}}, "objects"),
    ("objects", {"red\x1bball": {"hue": [0, 10]}}, "cannot be printed"),
    ("objects", {"red\u200bball": {"hue": [0, 10]}}, "cannot be printed"),
    ("sensors", {"scan": {"topic": ""}}, "sensors.scan.topic"),
    ("sensors", {"scan": {"topic": "my scan"}}, "sensors.scan.topic"),
    ("sensors", {"odom": {"topic": "/odom/"}}, "sensors.odom.topic"),
    ("sensors", {"scan": {"topic": "/odom"}}, "scan.topic and odom.topic are both"),
    ("sensors", {"camera": {"info_topic": "camera/image_raw"}}, "camera.topic and camera.info_topic are both"),
    ("sensors", {"scan": {"rate": 0}}, "sensors.scan.rate"),
    ("sensors", {"scan": {"rate": 1.0, "timeout": 0.5}}, "rate: 1 Hz are fewer than one reading in the timeout of 0.5"),
    ("sensors", {"scan": {"qos": {"reliability": "often"}}}, "'best_effort' or 'reliable'"),
    ("sensors", {"scan": {"qos": {"depth": 0}}}, "sensors.scan.qos.depth"),
    ("sensors", {"scan": {"qos": {"deadline": 1}}}, "'sensors.scan.qos.deadline'; valid: depth, reliability"),
    ("command", {"type": "JointTrajectory"}, "command.type: Input should be 'TwistStamped' or 'Twist'"),
    ("command", {"topic": "cmd vel"}, "command.topic"),
    ("command", {"typ": "Twist"}, "unknown key 'command.typ'; valid: qos, topic, type"),
    ("frames", {"base": "/base_link"}, "frames.base"),
    ("reward", {"outcome": "x"}, "unknown key 'reward.outcome'; valid: outcome_topic"),
    ("footprint", [[0.1, 0.1], [-0.1, 0.1]], "footprint"),
    ("footprint", [[0, 0], [0.1, 0.1], [0.05, 0.05]], "footprint: the corners enclose no area"),
    ("footprint", [[0.1, 0.1], [-0.1, -0.1], [-0.1, 0.15], [0.1, -0.1]], "footprint: edges 1 and 3 cross"),
    ("footprint", [[0.2, 0.1], [-0.1, 0.1], [-0.1, -0.1]], "does not hold corner 1 of footprint, which is 0.224 m"),
    ("simulation", {"field_of_view": 400}, "simulation.field_of_view"),
]


@pytest.mark.parametrize(("key", "value", "named"), _WRONG)
def test_wrong_value_is_refused_by_name(plain: dict[str, Any], key: str, value: Any, named: str) -> None:
    changed = copy.deepcopy(plain) | {key: value}
    with pytest.raises(ConfigError) as caught:
        config.build(MobileContract, changed, "robot.yaml")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("topic", ["scan", "/scan", "~/scan", "/a1/_b/c_2"])
def test_topics_that_ros_takes(plain: dict[str, Any], topic: str) -> None:
    changed = copy.deepcopy(plain)
    changed["sensors"]["scan"]["topic"] = topic
    assert config.build(MobileContract, changed, "robot.yaml").sensors.scan.topic == topic


def test_a_missing_key_does_not_show_the_whole_file(plain: dict[str, Any]) -> None:
    changed = copy.deepcopy(plain)
    del changed["limits"]
    with pytest.raises(ConfigError) as caught:
        config.build(MobileContract, changed, "robot.yaml")
    assert str(caught.value) == "robot.yaml: limits: needed, and not given"


def test_wrong_part_lists_the_valid_ones(plain: dict[str, Any]) -> None:
    changed = copy.deepcopy(plain)
    changed["scene"]["parts"] = ["smell"]
    with pytest.raises(ConfigError) as caught:
        config.build(MobileContract, changed, "robot.yaml")
    assert all(part in str(caught.value) for part in (*SCENE_PARTS, "smell"))


def test_own_file(tmp_path: Path, plain: dict[str, Any]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(plain | {"robot": "mine"}))
    assert load_contract(str(path)).robot == "mine"
    path.write_text(yaml.safe_dump(plain | {"wheels": 2}))
    with pytest.raises(ConfigError, match=r"mine\.yaml: unknown key 'wheels'; valid: actions, command, control_period"):
        load_contract(str(path))


@given(st.floats(-1e4, 1e4))
@example(math.pi)
@example(-math.pi)
@example(math.nextafter(math.pi, 10))
@example(math.nextafter(-math.pi, -10))
@example(3 * math.pi)
def test_wrap_angle(angle: float) -> None:
    wrapped = wrap_angle(angle)
    assert -math.pi < wrapped <= math.pi
    assert math.cos(wrapped) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.sin(wrapped) == pytest.approx(math.sin(angle), abs=1e-9)


whole = st.integers(-720, 720)


@given(whole, st.integers(-180, 180), st.integers(1, 359))
def test_in_sector_is_membership_on_the_circle(bearing: int, start: int, width: int) -> None:
    inside = {(start + k) % 360 for k in range(width)}
    end = start + width
    assert in_sector(bearing, (start, end)) == (bearing % 360 in inside)
    assert in_sector(bearing, (start, wrap_degrees(end))) == (bearing % 360 in inside)


def wrap_degrees(angle: int) -> int:
    return (angle + 180) % 360 - 180


eighths = st.integers(-8 * 720, 8 * 720).map(lambda n: n / 8)  # degrees without rounding


@given(eighths, eighths)
def test_a_sector_and_its_complement_never_agree(bearing: float, start: float) -> None:
    end = start + 90
    assert in_sector(bearing, (start, end)) != in_sector(bearing, (end, start))


@given(st.floats(-720, 720))
@example(-180.0 - 1e-20)
@example(-1e-20)
def test_a_full_circle_holds_everything(bearing: float) -> None:
    assert in_sector(bearing, (-180, 180))
    assert in_sector(bearing, (0, 360))


def test_the_nearest_phrase_goes_the_same_way() -> None:
    contract = load_contract("sim_diffdrive")
    for phrase in contract.phrases:
        assert contract.nearest_phrase(contract.command(phrase)) == phrase
    assert contract.nearest_phrase(Velocity(0.45, 0.1)) == "forward"
    assert contract.nearest_phrase(Velocity(0.05, -1.0)) == "turn right"
    assert contract.nearest_phrase(Velocity(-0.5, 0.0)) == "back"


@pytest.mark.parametrize("robot", ["sim_diffdrive", "sim_scout", "turtlebot3_burger", "husky"])
def test_a_person_who_drives_slowly_straight_on_drives_no_curve(robot: str) -> None:
    """Keys drive at half of the limits, whatever the robot's fastest phrase is."""
    contract = load_contract(robot)
    for share in (0.3, 0.5, 1.0):
        linear, angular = share * contract.limits.linear, share * contract.limits.angular
        assert contract.nearest_phrase(Velocity(linear, 0.0)) == "forward"
        assert contract.nearest_phrase(Velocity(-linear, 0.0)) == ("back" if "back" in contract.phrases else None)
        assert contract.nearest_phrase(Velocity(0.0, angular)) == "turn left"


def test_of_phrases_that_go_the_same_way_the_nearest_speed_is_meant(plain: dict[str, Any]) -> None:
    actions = plain["actions"] | {"creep": {"linear": 0.2}, "stand": {}}
    contract = config.build(MobileContract, plain | {"actions": actions}, "x")
    assert contract.nearest_phrase(Velocity(0.25, 0.01)) == "creep"
    assert contract.nearest_phrase(Velocity(0.4, 0.0)) == "forward"
    assert contract.nearest_phrase(Velocity(0.01, 0.0)) == "stand" == contract.nearest_phrase(Velocity())


@pytest.mark.parametrize("velocity", [Velocity(), Velocity(0.1, 0.0), Velocity(-0.05, 0.1), Velocity(math.nan, 0.5)])
def test_no_phrase_says_that_the_robot_stands_or_what_is_no_number(velocity: Velocity) -> None:
    assert load_contract("sim_diffdrive").nearest_phrase(velocity) is None


def test_the_command_has_a_type_and_a_topic(plain: dict[str, Any]) -> None:
    command = {"type": "Twist", "topic": "/base/cmd_vel", "qos": {"reliability": "best_effort"}}
    contract = config.build(MobileContract, plain | {"command": command}, "x")
    spec = next(spec for spec in contract.topics if spec.key == "command")
    assert (spec.topic, spec.type, spec.direction) == ("/base/cmd_vel", "geometry_msgs/msg/Twist", "command")
    assert spec.qos.reliability == "best_effort" and spec.qos.depth == 10
    standard = next(spec for spec in load_contract("sim_diffdrive").topics if spec.key == "command")
    assert (standard.topic, standard.type) == ("cmd_vel", "geometry_msgs/msg/TwistStamped")
    assert standard.qos.reliability == "reliable"
    changed = dataclasses.replace(contract, control_period=1.0)
    assert changed.command_interface == contract.command_interface


def test_topics_say_what_each_must_be(plain: dict[str, Any]) -> None:
    changed = copy.deepcopy(plain)
    changed["sensors"]["scan"] |= {"topic": "/lidar", "timeout": 0.5, "rate": 8.0, "qos": {"reliability": "reliable"}}
    changed["sensors"]["camera"] |= {"required": False}
    changed["frames"] = {"base": "base_footprint", "scan": "laser"}
    changed["reward"] = {"outcome_topic": "judge/outcome"}
    topics = {spec.key: spec for spec in config.build(MobileContract, changed, "x").topics}
    scan, odom = topics["sensors.scan"], topics["sensors.odom"]
    assert (scan.topic, scan.type, scan.frame) == ("/lidar", "sensor_msgs/msg/LaserScan", "laser")
    assert (scan.rate, scan.timeout, scan.qos.reliability, scan.required) == (8.0, 0.5, "reliable", True)
    assert (odom.frame, odom.child_frame) == ("odom", "base_footprint")
    assert odom.rate == pytest.approx(1 / 0.6), "without a rate of its own, it must come before it is stale"
    assert not topics["sensors.camera"].required and not topics["sensors.camera.info_topic"].required
    assert topics["reward.outcome_topic"].topic == "judge/outcome"
    assert [spec.type.split("/")[-1] for spec in load_contract("sim_arm").topics] == [
        *("JointState", "Image", "CameraInfo", "JointTrajectory", "Outcome"),
    ]


def test_the_footprint_is_a_polygon_that_holds_the_robot(plain: dict[str, Any]) -> None:
    round_one = load_mobile_contract("sim_diffdrive").footprint_polygon()
    following = np.roll(round_one, -1, axis=0)
    middles = (round_one + following) / 2
    assert round_one.shape == (16, 2)
    assert np.hypot(*middles.T) == pytest.approx(np.full(16, 0.17)), "no edge cuts the circle"
    assert np.hypot(*round_one.T).max() < 0.175
    corners = [[0.1, 0.1], [0.1, -0.1], [-0.12, -0.1], [-0.12, 0.1]]  # clockwise
    polygon = config.build(MobileContract, plain | {"footprint": corners}, "x").footprint_polygon()
    assert polygon.tolist() == corners[::-1], "counter-clockwise"
    for name in BASES:
        contract = load_mobile_contract(name)
        farthest = np.hypot(*contract.footprint_polygon().T).max()
        assert farthest <= contract.footprint_radius / math.cos(math.pi / 16) + 1e-3


bearings = st.lists(st.integers(0, 17).map(lambda n: math.radians(20 * n)), min_size=3, max_size=12, unique=True)


@given(bearings, st.floats(0.05, 0.17))
def test_corners_around_a_circle_are_a_footprint_whichever_way_round(turns: list[float], radius: float) -> None:
    content: dict[str, Any] = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    corners = [(radius * math.cos(angle), radius * math.sin(angle)) for angle in sorted(turns)]
    for given_ones in (corners, corners[::-1]):
        polygon = config.build(MobileContract, content | {"footprint": given_ones}, "x").footprint_polygon()
        assert [tuple(corner) for corner in polygon] == corners, "counter-clockwise"
