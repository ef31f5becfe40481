"""The robot contract: what ships loads, what is wrong is refused by name, angles wrap."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import (
    SCENE_PARTS,
    RobotContract,
    contract_path,
    in_sector,
    load_contract,
    wrap_angle,
)
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.simulation.task import load_task
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
    for phrase in contract.phrases:
        command = contract.command(phrase)
        assert abs(command.linear) <= contract.limits.linear
        assert abs(command.angular) <= contract.limits.angular


@pytest.mark.parametrize("name", shipped("config/robots"))
def test_shipped_sectors_cover_every_bearing_once(name: str) -> None:
    sectors = load_contract(name).scene.sectors
    for bearing in range(-179, 181):
        assert sum(in_sector(bearing, sector) for sector in sectors.values()) == 1, bearing


@pytest.mark.parametrize("name", shipped("config/tasks"))
def test_every_shipped_task_and_its_world_load(name: str) -> None:
    task = load_task(name)
    assert task.task == name
    assert all("{object}" in wording for wording in task.instructions)
    assert load_world(task.world).world


@pytest.mark.parametrize("name", shipped("sim/worlds"))
def test_every_shipped_world_loads(name: str) -> None:
    assert load_world(name).world == name


@pytest.mark.parametrize("load", [load_contract, load_task, load_world])
def test_unknown_name_lists_what_ships(load: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown .* 'submarine'; valid: \w+"):
        load("submarine")


def test_phrases_are_in_file_order(plain: dict[str, Any]) -> None:
    contract = config.build(RobotContract, plain, "x")
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
    ("sensors", {"scan": {"topic": ""}}, "sensors.scan.topic"),
    ("sensors", {"scan": {"topic": "my scan"}}, "sensors.scan.topic"),
    ("sensors", {"odom": {"topic": "/odom/"}}, "sensors.odom.topic"),
    ("sensors", {"scan": {"topic": "/odom"}}, "scan.topic and odom.topic are both"),
    ("sensors", {"camera": {"info_topic": "camera/image_raw"}}, "camera.topic and camera.info_topic are both"),
]


@pytest.mark.parametrize(("key", "value", "named"), _WRONG)
def test_wrong_value_is_refused_by_name(plain: dict[str, Any], key: str, value: Any, named: str) -> None:
    changed = copy.deepcopy(plain) | {key: value}
    with pytest.raises(ConfigError) as caught:
        config.build(RobotContract, changed, "robot.yaml")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("topic", ["scan", "/scan", "~/scan", "/a1/_b/c_2"])
def test_topics_that_ros_takes(plain: dict[str, Any], topic: str) -> None:
    changed = copy.deepcopy(plain)
    changed["sensors"]["scan"]["topic"] = topic
    assert config.build(RobotContract, changed, "robot.yaml").sensors.scan.topic == topic


def test_a_missing_key_does_not_show_the_whole_file(plain: dict[str, Any]) -> None:
    changed = copy.deepcopy(plain)
    del changed["limits"]
    with pytest.raises(ConfigError) as caught:
        config.build(RobotContract, changed, "robot.yaml")
    assert str(caught.value) == "robot.yaml: limits: needed, and not given"


def test_wrong_part_lists_the_valid_ones(plain: dict[str, Any]) -> None:
    changed = copy.deepcopy(plain)
    changed["scene"]["parts"] = ["smell"]
    with pytest.raises(ConfigError) as caught:
        config.build(RobotContract, changed, "robot.yaml")
    assert all(part in str(caught.value) for part in (*SCENE_PARTS, "smell"))


def test_own_file(tmp_path: Path, plain: dict[str, Any]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(plain | {"robot": "mine"}))
    assert load_contract(str(path)).robot == "mine"
    path.write_text(yaml.safe_dump(plain | {"wheels": 2}))
    with pytest.raises(ConfigError, match=r"mine\.yaml: unknown key 'wheels'; valid: actions, control_period"):
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


def test_the_nearest_phrase_measures_each_axis_by_its_limit() -> None:
    contract = load_contract("sim_diffdrive")
    for phrase in contract.phrases:
        assert contract.nearest_phrase(contract.command(phrase)) == phrase
    assert contract.nearest_phrase(Velocity(0.45, 0.1)) == "forward"
    assert contract.nearest_phrase(Velocity(0.05, -1.0)) == "turn right"
    assert contract.nearest_phrase(Velocity(-0.5, 0.0)) == "back"


@pytest.mark.parametrize("velocity", [Velocity(), Velocity(0.1, 0.0), Velocity(-0.1, 0.2), Velocity(math.nan, 0.5)])
def test_no_phrase_says_that_the_robot_stands_or_what_is_no_number(velocity: Velocity) -> None:
    assert load_contract("sim_diffdrive").nearest_phrase(velocity) is None
