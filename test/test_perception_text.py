"""Scene text from known readings, by hand; what is not measured is said to be unknown and never a number."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, contract_path, in_sector, load_contract
from llmagent_ros.perception import text as say
from llmagent_ros.perception.perception import Perception
from llmagent_ros.perception.scan import range_at, sector_clearances
from llmagent_ros.types import CameraImage, LaserScan, Odometry, Scene, SeenObject

CONTRACT = load_contract("sim_diffdrive")
SECTORS = CONTRACT.scene.sectors
RADIUS = CONTRACT.footprint_radius
NAN, INF = math.nan, math.inf


def contract(**scene: Any) -> MobileContract:
    """The simulated robot's with another scene."""
    plain = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    plain["scene"] |= scene
    return config.build(MobileContract, plain, "test")


def scan(ranges: Any = 3.0, stamp: float = 10.0, **change: float) -> LaserScan:
    """One ray per degree from -180 on; `ranges` by degree or one for all."""
    values = np.full(360, NAN, np.float32)
    values[:] = ranges
    made = LaserScan(stamp, -math.pi, math.radians(1), values, 0.05, 5.0)
    return dataclasses.replace(made, **change)  # type: ignore[arg-type]


def rays(**by_bearing: float) -> np.ndarray:
    """3 m all round except at single bearings, e.g. at_10=1.0 or at_m170=1.0."""
    values = np.full(360, 3.0, np.float32)
    for key, metres in by_bearing.items():
        values[int(key.removeprefix("at_").replace("m", "-")) + 180] = metres
    return values


def odometry(stamp: float = 10.0, **change: float) -> Odometry:
    return dataclasses.replace(Odometry(stamp, 0.0, 0.0, 0.0, 0.0, 0.0), **change)


def image(stamp: float = 10.0, **change: Any) -> CameraImage:
    return dataclasses.replace(CameraImage(stamp, np.zeros((8, 12, 3), np.uint8), 5.0, 5.0, 6.0, 4.0), **change)


def scene(*readings: LaserScan | Odometry | CameraImage, now: float = 10.0, task: str = "go to the red ball") -> Scene:
    perception = Perception(CONTRACT)
    perception.start_episode(task)
    feed(perception, *readings)
    return perception.scene(now)


def feed(perception: Perception, *readings: LaserScan | Odometry | CameraImage) -> None:
    for reading in readings:
        if isinstance(reading, LaserScan):
            perception.on_scan(reading)
        elif isinstance(reading, Odometry):
            perception.on_odometry(reading)
        else:
            perception.on_image(reading)


def test_everything_known_by_hand() -> None:
    ranges = rays(at_0=1.17, at_30=2.0, at_m20=0.5, at_m90=0.17, at_179=4.17)
    made = scene(scan(ranges), odometry(linear=0.52, angular=-0.86), image())
    assert made.text == (
        "go to the red ball. red ball not seen, maybe right 60 at 0.4. "
        "clear ahead 1.0 left front 1.8 left 2.8 back 2.8 right 0.0 right front 0.3. "
        "free forward 0.4 curve left 2.0 curve right 0.3 back 2.0. "
        "moving 0.5 turning -0.9. did nothing."
    )
    assert made.unknown == ()
    assert (made.stamp, made.task) == (10.0, "go to the red ball")


def test_nothing_known() -> None:
    made = scene()
    unknown = "red ball unknown. clear unknown. free unknown. moving unknown."
    assert made.text == f"go to the red ball. {unknown} did nothing."
    assert made.unknown == ("objects", "scan", "free", "motion")


def test_no_task() -> None:
    assert scene(task="").text.startswith("no task. objects unknown.")


def test_parts_stand_in_the_contracts_order() -> None:
    perception = Perception(contract(parts=["motion", "task"]))
    perception.start_episode("stop")
    assert perception.scene(0.0).text == "moving unknown. stop."


@pytest.mark.parametrize(("bearing", "sector"), [(-15, "ahead"), (14, "ahead"), (15, "left front"), (109, "left"),
                         (110, "back"), (179, "back"), (-180, "back"), (-111, "back"), (-110, "right"),
                         (-50, "right front"), (-16, "right front")])  # fmt: skip
def test_a_ray_belongs_to_one_sector(bearing: int, sector: str) -> None:
    # half a degree on, so that no ray lies on a border
    turned = scan(rays(**{f"at_{bearing}".replace("-", "m"): 1.0}), angle_min=-math.pi + math.radians(0.5))
    near = {name for name, metres in sector_clearances(turned, SECTORS, 0.0, 5.0).items() if metres == 1.0}
    assert near == {sector}


def test_clearance_is_from_the_robots_edge_and_bounded() -> None:
    for measured, expected in ((2.0, 2.0 - RADIUS), (RADIUS / 2, 0.0), (INF, 2.5), (4.0, 2.5)):
        clearances = sector_clearances(scan(measured), SECTORS, RADIUS, 2.5)
        assert clearances == pytest.approx(dict.fromkeys(SECTORS, expected))


def test_infinite_is_free_and_minus_infinite_is_too_close() -> None:
    assert "clear ahead 5.0 " in scene(scan(INF)).text
    assert "clear ahead 0.0 " in scene(scan(rays(at_0=-INF))).text


@pytest.mark.parametrize("lost", [NAN, 0.01, 5.5, -1.0])
def test_a_ray_outside_the_limits_is_no_measurement(lost: float) -> None:
    assert "clear ahead 2.8 " in scene(scan(rays(at_0=lost))).text
    assert "clear unknown." in scene(scan(lost)).text


def test_a_blind_sector_is_unknown_and_never_a_number() -> None:
    ranges = np.full(360, 3.0, np.float32)
    ranges[180 - 15 : 180 + 15] = NAN
    made = scene(scan(ranges), odometry(), image())
    assert "clear ahead unknown left front 2.8" in made.text
    assert made.unknown == ("scan",)
    ranges[180:184] = 1.0  # four of thirty rays see something: still mostly blind
    assert "clear ahead unknown" in scene(scan(ranges)).text
    ranges[180 - 15 : 180 + 5] = 1.0
    assert "clear ahead 0.8" in scene(scan(ranges)).text


def test_a_sector_outside_the_scanners_view_is_unknown() -> None:
    front = LaserScan(10.0, math.radians(-90), math.radians(1), np.full(181, 3.0, np.float32), 0.05, 5.0)
    assert "left 2.8 back unknown right 2.8" in scene(front).text


def test_an_empty_scan_is_unknown() -> None:
    assert "clear unknown." in scene(dataclasses.replace(scan(), ranges=np.zeros(0, np.float32))).text


TIMEOUT = CONTRACT.sensors.scan.timeout


@pytest.mark.parametrize("age", [TIMEOUT + 0.01, 1e6, -0.5, NAN, INF, -INF])
def test_stale_and_future_readings_are_unknown(age: float) -> None:
    fresh = (scan(stamp=10.0), odometry(stamp=10.0), image(stamp=10.0))
    for k, part in enumerate(("scan", "motion", "objects")):
        readings = [dataclasses.replace(r, stamp=10.0 - age) if i == k else r for i, r in enumerate(fresh)]
        made = scene(*readings)
        assert part in made.unknown, (part, made.text)
        assert made.stamp == 10.0
    assert scene(*fresh, now=10.0 + TIMEOUT - 0.01).unknown == ()


def test_readings_go_stale_while_time_goes_on() -> None:
    perception = Perception(CONTRACT)
    feed(perception, scan(), odometry(), image())
    assert perception.scene(10.0).unknown == ()
    assert perception.scene(11.0).unknown == ("objects", "scan", "free", "motion")


@pytest.mark.parametrize("field", ["x", "y", "yaw", "linear", "angular"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_odometry_that_is_not_finite_is_unknown(field: str, value: float) -> None:
    made = scene(scan(), odometry(), odometry(**{field: value}), image())
    assert made.unknown == ("objects", "motion")
    assert "moving unknown." in made.text


@pytest.mark.parametrize("change", [{"fx": NAN}, {"fy": 0.0}, {"cx": NAN}, {"cy": INF}, {"rgb": np.zeros((0, 0, 3))},
                         {"rgb": np.zeros((4, 4))}, {"rgb": np.zeros((4, 4, 1), np.uint8)}])  # fmt: skip
def test_a_useless_image_leaves_objects_unknown(change: dict[str, Any]) -> None:
    assert scene(scan(), odometry(), image(**change)).unknown == ("objects",)


def test_history_says_the_last_actions_newest_last() -> None:
    perception = Perception(CONTRACT)
    for phrase in ("back", "forward", "turn left", "forward"):
        perception.note_action(phrase)
    assert perception.scene(0.0).text.endswith("did forward, turn left, forward.")
    perception.start_episode("go to the red ball")
    assert perception.scene(0.0).text.endswith("did nothing.")


def test_history_of_none() -> None:
    perception = Perception(contract(history=0))
    perception.note_action("forward")
    assert perception.scene(0.0).text.endswith("did nothing.")


# --- instructions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", ["go\nto\x00the\x1b[31m red\r\n\tball\u2028now", "x" * 10_000, "word " * 2_000])
def test_hostile_instruction_is_cut_to_one_line(hostile: str) -> None:
    made = scene(scan(), odometry(), image(), task=hostile)
    assert made.text.isprintable()
    assert len(made.task) <= say.MAX_INSTRUCTION
    assert made.text.endswith("did nothing."), "the sensors are still said"
    assert len(made.text) < say.MAX_INSTRUCTION + 250


@given(st.text(max_size=400))
def test_any_instruction_becomes_one_clean_line(text: str) -> None:
    cleaned = say.clean_instruction(text)
    assert cleaned.isprintable() and len(cleaned) <= say.MAX_INSTRUCTION
    assert cleaned == " ".join(cleaned.split())
    assert say.clean_instruction(cleaned) == cleaned


# --- words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "said"),
    [(0, "ahead"), (4, "ahead"), (-4, "ahead"), (6, "left 10"), (-44, "right 40"), (180, "left 180")],
)
def test_bearing_in_words(degrees: float, said: str) -> None:
    assert say.say_bearing(math.radians(degrees), 10.0) == said


def test_objects_in_words() -> None:
    seen = [SeenObject("blue pillar", 0.0, 0.5), SeenObject("red ball", 0.7, 7.0, age=2.0), SeenObject("box", 1, 1)]
    options = {"names": ("red ball", "blue pillar", "box"), "bearing_step": 10.0, "limit": 5.0}
    said = say.say_objects(seen, task="go to the red ball", most=2, **options)  # type: ignore[arg-type]
    assert said == "red ball left 40 at 5.0 before. blue pillar ahead at 0.5."
    assert say.say_objects([], task="", most=2, **options) == "no object."  # type: ignore[arg-type]


def test_motion_has_no_negative_zero() -> None:
    assert say.say_motion(-0.04, 0.04) == "moving 0.0 turning 0.0."
    assert say.say_motion(-0.25, 1.96) == "moving -0.2 turning 2.0."


# --- any numbers ----------------------------------------------------------------------------------------------

single = st.floats(width=32)
ranges_by_degree = hnp.arrays(np.float32, 360, elements=single | st.sampled_from([NAN, INF, -INF, 1.0, 2.0]))


@settings(deadline=None)
@given(ranges_by_degree)
def test_sectors_agree_with_a_plain_loop(ranges: np.ndarray) -> None:
    turned = scan(ranges, angle_min=-math.pi + math.radians(0.5))
    said = sector_clearances(turned, SECTORS, RADIUS, 5.0)
    for name, sector in SECTORS.items():
        rays = [float(r) for degree, r in enumerate(ranges) if in_sector(degree - 179.5, sector)]
        known = [0.05 if r == -INF else r for r in rays if r in (INF, -INF) or 0.05 <= r <= 5.0]
        if not known or len(known) < len(rays) / 2:
            assert said[name] is None
        else:
            assert said[name] == pytest.approx(min(max(min(known) - RADIUS, 0.0), 5.0), abs=1e-5)


any_scan = st.builds(
    LaserScan,
    stamp=st.sampled_from([10.0, 9.8, NAN]) | st.floats(),
    angle_min=st.floats(),
    angle_increment=st.floats(),
    ranges=hnp.arrays(np.float32, st.integers(0, 40), elements=single),
    range_min=st.floats(),
    range_max=st.floats(),
)
wide = st.floats(-1e6, 1e6) | st.floats()
any_odometry = st.builds(Odometry, st.sampled_from([10.0]) | st.floats(), wide, wide, wide, wide, wide)
any_image = st.builds(
    CameraImage,
    stamp=st.sampled_from([10.0, 9.9]) | st.floats(),
    rgb=hnp.arrays(np.uint8, st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 4))),
    fx=wide, fy=wide, cx=wide, cy=wide,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own about infinite angles
@settings(max_examples=150, deadline=None)
@given(st.lists(any_scan | any_odometry | any_image, max_size=6), st.sampled_from([10.0]) | st.floats(0, 1e9))
def test_any_readings_make_one_line_without_invented_numbers(readings: list[Any], now: float) -> None:
    made = scene(*readings, now=now)
    assert made.text.isprintable()
    assert not re.search(r"\b(nan|inf|none)\b", made.text, re.IGNORECASE)
    assert not math.isnan(made.stamp)
    if not any(isinstance(r, LaserScan) for r in readings):
        assert "clear unknown." in made.text


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(any_scan)
def test_a_scan_of_nothing_is_clear_unknown_whatever_its_geometry(any_one: LaserScan) -> None:
    blind = dataclasses.replace(any_one, stamp=10.0, ranges=np.full_like(any_one.ranges, NAN))
    assert "clear unknown." in scene(blind).text
    assert range_at(blind, 0.0, 0.1) is None


def test_an_action_is_said_with_the_motion_that_came_of_it() -> None:
    """That of the first scene after it, whatever comes later."""
    perception = Perception(contract(effects=True))
    perception.start_episode("go")
    assert perception.scene(10.0).text.endswith("did nothing.")
    perception.note_action("curve left")
    feed(perception, odometry(10.4, linear=0.3, angular=-0.82))
    assert perception.scene(10.4).text.endswith("did curve left 0.3 turning -0.8.")
    feed(perception, odometry(10.6, linear=0.0, angular=0.0))
    perception.note_action("back")
    assert perception.scene(10.6).text.endswith("did curve left 0.3 turning -0.8, back 0.0 turning 0.0.")
    perception.note_action("back")
    assert perception.scene(99.0).text.endswith("0.0 turning 0.0, back."), "stale odometry tells of no motion"


def test_speeds_are_said_on_the_scale_of_the_fastest_phrase() -> None:
    """A robot half as fast says of its half the same words; with `full_speed: null` it says metres per second."""
    plain = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    plain["actions"] = {p: {k: v / 2 for k, v in a.items()} for p, a in plain["actions"].items()}
    told = []
    for scene in ({}, {"full_speed": None}, {"full_speed": {"linear": 1.0, "angular": 2.6}}):
        slow = config.build(MobileContract, {**plain, "scene": plain["scene"] | scene}, "test")
        builder = Perception(slow)
        builder.note_action("curve right")
        builder.on_odometry(odometry(linear=0.25, angular=-0.65))
        said = builder.said(10.0)
        told.append((said["motion"], said["history"]))
    assert told == [
        ("moving 0.5 turning -1.3.", "did curve right 0.5 turning -1.3."),
        ("moving 0.2 turning -0.7.", "did curve right 0.2 turning -0.7."),
        ("moving 1.0 turning -2.6.", "did curve right 1.0 turning -2.6."),
    ]
    fast = Perception(CONTRACT)
    fast.on_odometry(odometry(linear=0.5, angular=-1.3))
    assert fast.said(10.0)["motion"] == told[0][0]


def test_a_robot_that_does_not_turn_says_turns_by_its_limit() -> None:
    plain = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    plain["actions"] = {"forward": {"linear": 0.25}, "back": {"linear": -0.1}}
    straight = config.build(MobileContract, plain, "test")
    assert straight.as_said(0.25, 1.6) == (0.5, pytest.approx(1.3))
