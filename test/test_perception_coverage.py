"""Where a thing that is not seen may be: what the camera has looked at, and what lies open to the scanner besides."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import CameraSensor, load_contract
from llmagent_ros.geometry import Mount
from llmagent_ros.perception.coverage import CameraCoverage
from llmagent_ros.perception.perception import Perception
from llmagent_ros.simulation.physics import Physics
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import CameraImage, LaserScan, Odometry, Place

CONTRACT = load_contract("sim_diffdrive")
ROOM = config.build(WorldConfig, {"world": "room", "size": [6.0, 6.0]}, "room")
HALF_VIEW = math.radians(50)
REACH, MEMORY = 5.0, 30.0


def coverage(memory: float = MEMORY, camera: CameraSensor | None = None, mount: Mount | None = None) -> CameraCoverage:
    return CameraCoverage(camera or CameraSensor(), REACH, memory, mount or Mount())


def image(stamp: float = 0.0, half_view: float = HALF_VIEW) -> CameraImage:
    focal = 48 / math.tan(half_view)
    return CameraImage(stamp, np.zeros((64, 96, 3), np.uint8), focal, focal, 48.0, 32.0)


def scan(ranges: float | list[float] = 3.0, rays: int = 180) -> LaserScan:
    told = np.array(ranges if isinstance(ranges, list) else [ranges] * rays, np.float32)
    return LaserScan(0.0, -math.pi, math.tau / len(told), told, 0.05, 20.0)


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> Odometry:
    return Odometry(0.0, x, y, yaw, 0.0, 0.0)


def place(covered: CameraCoverage, at: Odometry | None = None) -> Place:
    found = covered.unseen(at or pose())
    assert found is not None
    return found


def test_before_the_first_look_nothing_is_known() -> None:
    assert coverage().unseen(pose()) is None


def test_it_is_beside_what_is_in_view_and_never_within() -> None:
    covered = coverage()
    covered.look(image(), scan(), pose())
    assert HALF_VIEW * 0.9 < abs(place(covered).bearing) < HALF_VIEW + math.radians(20)


def test_turning_towards_it_again_and_again_looks_all_around_and_then_there_is_nowhere() -> None:
    covered, yaw, turns = coverage(), 0.0, []
    for _ in range(40):
        covered.look(image(), scan(), pose(yaw=yaw))
        found = covered.unseen(pose(yaw=yaw))
        if found is None:
            break
        turns.append(math.copysign(math.radians(30), found.bearing))
        yaw += turns[-1]
    else:
        pytest.fail("it is never done")
    assert len(set(turns)) == 1, "it does not turn back"
    assert 7 <= len(turns) <= 12


def test_it_stays_where_it_is_until_it_was_in_view() -> None:
    covered = coverage()
    covered.look(image(), scan(), pose())
    first = place(covered)
    away = math.copysign(math.radians(20), -first.bearing)  # on the other side there is as much to see now
    covered.look(image(), scan(), pose(yaw=away))
    second = place(covered, pose(yaw=away))
    assert second.bearing == pytest.approx(first.bearing - away) and second.distance == pytest.approx(first.distance)
    covered.look(image(), scan(), pose(yaw=first.bearing))
    third = place(covered, pose(yaw=first.bearing))
    assert abs(third.bearing) > HALF_VIEW * 0.9, "it was in view"


def test_it_is_told_from_where_the_base_is_now() -> None:
    covered = coverage()
    covered.look(image(), scan(), pose(1.0, 2.0, 0.5))
    first = place(covered, pose(1.0, 2.0, 0.5))
    there = 1.0 + first.distance * math.cos(0.5 + first.bearing), 2.0 + first.distance * math.sin(0.5 + first.bearing)
    found = place(covered, pose(there[0] - 1.0, there[1], 0.0))
    assert np.array(found) == pytest.approx(np.array([0.0, 1.0]), abs=1e-6)


def test_floor_behind_something_was_not_looked_at() -> None:
    """A wall at 1 m to all sides; then the one ahead is gone."""
    covered = coverage()
    for yaw in np.radians(range(0, 360, 30)):
        covered.look(image(), scan(1.0), pose(yaw=float(yaw)))
    assert covered.unseen(pose()) is None
    ahead = [4.0 if abs(bearing) < 30 else 1.0 for bearing in range(-180, 180, 2)]
    covered.look(image(half_view=math.radians(5)), scan(ahead), pose())
    found = place(covered)
    assert 1.0 < found.distance < 1.5 and math.radians(4) < abs(found.bearing) < math.radians(30)


def test_a_look_counts_as_long_as_things_are_remembered() -> None:
    covered = coverage(memory=10.0)
    for yaw in np.radians(range(0, 360, 30)):
        covered.look(image(0.0), scan(), pose(yaw=float(yaw)))
    assert covered.unseen(pose()) is None
    covered.look(image(10.0), scan(), pose())
    assert covered.unseen(pose()) is None
    covered.look(image(10.1), scan(), pose())
    assert abs(place(covered).bearing) > HALF_VIEW * 0.9


def test_a_place_that_never_comes_into_view_is_given_up_after_as_long() -> None:
    covered = coverage(memory=10.0)
    for yaw in np.radians(range(0, 360, 30)):
        covered.look(image(-1.0), scan(1.5), pose(yaw=float(yaw)))
    covered.look(image(0.0), scan(), pose())
    first = place(covered)
    assert first.distance > 1.0
    toward = pose(yaw=first.bearing)
    for stamp, expected in ((9.9, first.distance), (10.1, None)):
        covered.look(image(stamp), scan(0.8), toward)  # somebody stands in front of it
        found = covered.unseen(toward)
        assert (found and found.distance) == (expected and pytest.approx(expected))


def test_a_ray_without_a_measurement_stands_for_a_little_floor() -> None:
    """Of a scanner that looks ahead only, what is behind was not looked at either."""
    covered = coverage()
    ranges = [3.0 if abs(bearing) < 60 else math.nan for bearing in range(-180, 180, 2)]
    covered.look(image(), scan(ranges), pose())
    assert abs(place(covered).bearing) > HALF_VIEW * 0.9 and place(covered).distance < 1.0


def test_a_few_rays_are_enough() -> None:
    """However far apart they are at a distance: what is in view is done with."""
    covered, yaw = coverage(), 0.0
    for _ in range(40):
        covered.look(image(), scan(8.0, rays=16), pose(yaw=yaw))
        found = covered.unseen(pose(yaw=yaw))
        if found is None:
            return
        yaw += math.copysign(math.radians(30), found.bearing)
    pytest.fail("it is never done")


def test_very_many_rays_tell_the_same_as_a_few() -> None:
    """Compared each with each, so many would not fit into memory."""
    few, many = coverage(), coverage()
    few.look(image(), scan(), pose())
    many.look(image(), scan(rays=36_000), pose())
    assert place(many).distance == pytest.approx(place(few).distance, abs=0.15)
    assert abs(place(many).bearing) == pytest.approx(abs(place(few).bearing), abs=math.radians(5))


def test_a_camera_that_looks_to_the_left_looks_there() -> None:
    covered = coverage(camera=CameraSensor(yaw=90.0))
    covered.look(image(), scan(), pose())
    assert not 45 < math.degrees(place(covered).bearing) < 135


def test_a_scanner_that_is_turned_tells_the_same() -> None:
    ranges = [4.0 if bearing < -90 else 1.0 for bearing in range(-180, 180, 2)]
    straight, turned = coverage(), coverage(mount=Mount(yaw=90.0))
    straight.look(image(), scan(ranges), pose())
    turned.look(image(), scan(ranges[45:] + ranges[:45]), pose())
    assert np.array(place(turned)) == pytest.approx(np.array(place(straight)), abs=1e-6)


def test_forgotten() -> None:
    covered = coverage()
    covered.look(image(), scan(), pose())
    covered.forget()
    assert covered.unseen(pose()) is None


@settings(max_examples=60)
@given(
    readings=st.lists(
        st.tuples(
            st.floats(-1e5, 1e5),
            st.floats(-1e5, 1e5),
            st.floats(-10, 10),
            st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=40),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_the_readings_the_place_is_one(readings: list[tuple[float, float, float, list[float]]]) -> None:
    covered = coverage()
    for stamp, (x, y, yaw, ranges) in enumerate(readings):
        at = pose(x, y, yaw)
        covered.look(image(float(stamp)), scan(ranges), at)
        found = covered.unseen(at)
        if found is not None:
            assert -math.pi <= found.bearing <= math.pi and 0 <= found.distance < math.inf


# --- in the scene --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def physics() -> Iterator[Physics]:
    made = Physics(CONTRACT)
    yield made
    made.close()


def says(perception: Perception, physics: Physics, world: World, stamp: float) -> str:
    physics.load(ROOM, world)
    readings = physics.read(stamp)
    perception.on_scan(readings.scan)
    perception.on_odometry(readings.odometry)
    perception.on_image(readings.image)
    return perception.said(stamp)["objects"]


def standing(yaw: float, *bodies: Body) -> World:
    return World((0.0, 0.0, yaw), (), bodies, "")


def test_the_scene_says_it_of_what_the_task_names(physics: Physics) -> None:
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    box = Body(2.0, 0.0, 0.15, "yellow box")
    said = says(perception, physics, standing(0.0, box), 1.0)
    assert re.fullmatch(r"red ball not seen, maybe (left|right) [5-7]0 at \d\.\d\. yellow box ahead at 1\.\d\.", said)


def test_following_it_finds_the_thing(physics: Physics) -> None:
    perception, yaw = Perception(CONTRACT), 0.0
    perception.start_episode("go to the red ball")
    ball = Body(-1.5, 0.0, 0.25, "red ball")
    for stamp in range(12):
        said = says(perception, physics, standing(yaw, ball), 1.0 + 0.4 * stamp)
        found = re.match(r"red ball not seen, maybe (left|right) ", said)
        if found is None:
            assert re.match(r"red ball (ahead|left \d+|right \d+) at 1\.[1-3]\.", said)
            return
        yaw += math.radians(30) * (1 if found[1] == "left" else -1)
    pytest.fail(f"still {said!r}")


def test_where_all_was_looked_at_it_is_not_seen(physics: Physics) -> None:
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    said = [says(perception, physics, standing(math.radians(30 * k)), 1.0 + 0.4 * k) for k in range(13)]
    assert said[-1] == "red ball not seen."
    perception.start_episode("go to the blue pillar")
    assert says(perception, physics, standing(0.0), 7.0).startswith("blue pillar not seen, maybe ")
