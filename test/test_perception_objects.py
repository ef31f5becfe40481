"""Named objects against the truth of the simulation; remembered out of view, forgotten when they are gone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest

from llmagent_ros import config
from llmagent_ros.contract import load_contract, wrap_angle
from llmagent_ros.perception.objects import ObjectFinder, hue_saturation_value
from llmagent_ros.perception.perception import Perception
from llmagent_ros.simulation.physics import Physics, Readings
from llmagent_ros.simulation.world import Body, World, WorldConfig, draw_world, load_world

CONTRACT = load_contract("sim_diffdrive")
ROOM = config.build(WorldConfig, {"world": "room", "size": [8.0, 8.0]}, "room")
HALF_VIEW = math.radians(45)
BALL = Body(1.5, 0.3, 0.25, "red ball")


@pytest.fixture(scope="module")
def physics() -> Iterator[Physics]:
    made = Physics(CONTRACT)
    yield made
    made.close()


def finder() -> ObjectFinder:
    return ObjectFinder(CONTRACT.objects, CONTRACT.sensors.camera, CONTRACT.scene.memory)


def see(found: ObjectFinder, readings: Readings) -> None:
    found.see(readings.image, readings.scan, readings.odometry)


def look(perception: Perception, readings: Readings) -> None:
    perception.on_scan(readings.scan)
    perception.on_odometry(readings.odometry)
    perception.on_image(readings.image)


def truth(body: Body, pose: tuple[float, float, float]) -> tuple[float, float]:
    """Bearing and distance to the surface."""
    x, y, yaw = pose
    return wrap_angle(math.atan2(body.y - y, body.x - x) - yaw), math.hypot(body.x - x, body.y - y) - body.radius


def hidden(body: Body, world: World, pose: tuple[float, float, float]) -> bool:
    """Whether another body stands in front of any part of it, roughly."""
    bearing, distance = truth(body, pose)
    for other in (*world.obstacles, *world.objects):
        if other is body:
            continue
        other_bearing, other_distance = truth(other, pose)
        apart = abs(wrap_angle(other_bearing - bearing))
        widths = math.asin(min(1.0, other.radius / (other_distance + other.radius))) + math.asin(
            min(1.0, body.radius / (distance + body.radius))
        )
        if other_distance < distance and apart < widths + 0.1:
            return True
    return False


def test_bearing_and_distance_over_many_worlds(physics: Physics) -> None:
    clutter, rng = load_world("clutter"), np.random.default_rng(0)
    bearing_errors, distance_errors, in_view, found_of_those = [], [], 0, 0
    for _ in range(80):
        world = draw_world(clutter, CONTRACT, rng)
        physics.load(clutter, world)
        found, readings, pose = finder(), physics.read(1.0), physics.pose()
        see(found, readings)
        seen = {item.name: item for item in found.objects(readings.odometry, 1.0)}
        assert set(seen) <= {body.name for body in world.objects}, "an object that is not there was seen"
        for body in world.objects:
            bearing, distance = truth(body, pose)
            if abs(bearing) < HALF_VIEW - 0.2 and not hidden(body, world, pose):
                in_view += 1
                found_of_those += body.name in seen
            if body.name in seen:
                bearing_errors.append(abs(wrap_angle(seen[body.name].bearing - bearing)))
                distance_errors.append(abs(seen[body.name].distance - distance))
    assert in_view > 20
    assert found_of_those / in_view > 0.95
    assert np.median(bearing_errors) < math.radians(2)
    assert np.median(distance_errors) < 0.08
    assert np.quantile(bearing_errors, 0.9) < math.radians(8)
    assert np.quantile(distance_errors, 0.9) < 0.35


def test_distance_without_a_scan_comes_from_the_size_in_the_image(physics: Physics) -> None:
    body = Body(2.0, 0.0, 0.15, "green cylinder")
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (body,), body.name))
    found, readings = finder(), physics.read(1.0)
    found.see(readings.image, None, readings.odometry)
    (item,) = found.objects(readings.odometry, 1.0)
    assert item.distance == pytest.approx(1.85, rel=0.2)
    assert item.bearing == pytest.approx(0.0, abs=0.05)


def test_bearing_is_from_the_base_and_not_from_the_camera(physics: Physics) -> None:
    angle = math.radians(35)
    body = Body(0.9 * math.cos(angle), 0.9 * math.sin(angle), 0.12, "blue pillar")
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (body,), body.name))
    found, readings = finder(), physics.read(1.0)
    see(found, readings)
    (item,) = found.objects(readings.odometry, 1.0)
    assert item.bearing == pytest.approx(angle, abs=math.radians(2))  # from the camera it is 40 degrees


def test_an_image_counts_once_with_the_odometry_of_its_time(physics: Physics) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    readings = physics.read(1.0)
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    perception.on_odometry(readings.odometry)
    perception.on_image(readings.image)
    assert "red ball left 10 at" in perception.scene(1.0).text
    perception.on_odometry(dataclasses.replace(readings.odometry, stamp=1.2, yaw=math.radians(41)))
    assert "red ball right 30 at" in perception.scene(1.2).text


def test_an_image_that_comes_late_is_placed_from_where_it_was_taken(physics: Physics) -> None:
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    taken = physics.read(1.0)
    for stamp, yaw in ((1.0, 0.0), (1.1, 20.0), (1.2, 41.0)):
        physics.load(ROOM, World((0.0, 0.0, math.radians(yaw)), (), (BALL,), BALL.name))
        readings = physics.read(stamp)
        perception.on_scan(readings.scan)
        perception.on_odometry(dataclasses.replace(readings.odometry, yaw=math.radians(yaw)))
    perception.on_image(taken.image)
    assert "red ball right 30 at 1.3. " in perception.scene(1.2).text


def test_memory_after_turning_away(physics: Physics) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    found = finder()
    see(found, physics.read(1.0))
    time = 1.0
    while abs(truth(BALL, physics.pose())[0]) < 2.6:
        physics.drive(CONTRACT.command("turn left"), CONTRACT.control_period)
        time += CONTRACT.control_period
        see(found, physics.read(time))
    (item,) = found.objects(physics.read(time).odometry, time)
    bearing, distance = truth(BALL, physics.pose())
    assert abs(wrap_angle(item.bearing - bearing)) < 0.15
    assert item.distance == pytest.approx(distance, abs=0.15)
    assert item.age > CONTRACT.control_period


def test_memory_ends(physics: Physics) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    found = finder()
    see(found, physics.read(1.0))
    physics.load(ROOM, World((0.0, 0.0, math.pi), (), (BALL,), BALL.name))
    readings = physics.read(1.4)
    see(found, readings)
    memory = CONTRACT.scene.memory
    assert len(found.objects(readings.odometry, 1.0 + memory - 0.1)) == 1
    assert found.objects(readings.odometry, 1.0 + memory + 0.1) == []


def test_forgotten_when_it_should_be_in_view_and_is_not(physics: Physics) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    found = finder()
    see(found, physics.read(1.0))
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (), ""))  # someone took it away
    readings = physics.read(2.0)
    see(found, readings)
    assert found.objects(readings.odometry, 2.0) == []


def test_kept_while_something_stands_in_front_of_it(physics: Physics) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    found = finder()
    see(found, physics.read(1.0))
    physics.load(ROOM, World((0.0, 0.0, 0.0), (Body(0.7, 0.14, 0.25),), (BALL,), BALL.name))
    readings = physics.read(2.0)
    see(found, readings)
    (item,) = found.objects(readings.odometry, 2.0)
    assert (item.name, item.age) == ("red ball", 1.0)


@pytest.mark.parametrize("event", ["new episode", "odometry jumps"])
def test_perception_forgets_when_places_are_void(physics: Physics, event: str) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    readings = physics.read(1.0)
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    look(perception, readings)
    assert "red ball left 10 at 1.3. " in perception.scene(1.0).text
    physics.load(ROOM, World((0.0, 0.0, 2.0), (), (BALL,), BALL.name))
    later = physics.read(1.4)
    if event == "new episode":
        perception.start_episode("go to the red ball")
        perception.on_odometry(later.odometry)
    else:
        perception.on_odometry(dataclasses.replace(later.odometry, x=later.odometry.x + 5.0))
    perception.on_image(later.image)
    assert "red ball not seen, maybe left 60 at 0.5." in perception.scene(1.4).text, "only what is ahead was looked at"


def test_an_object_out_of_view_reads_as_before(physics: Physics) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    for stamp, yaw in ((1.0, 0.0), (1.4, math.pi)):
        physics.load(ROOM, World((0.0, 0.0, yaw), (), (BALL,), BALL.name))
        look(perception, physics.read(stamp))
        said = perception.scene(stamp).text
    assert "red ball right 170 at 1.3 before." in said


def test_between_two_images_an_object_in_view_does_not_read_as_before(physics: Physics) -> None:
    """In real time every image is a little older than the scene."""
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    look(perception, physics.read(1.0))
    assert "red ball left 10 at 1.3. " in perception.scene(1.0).text
    assert "red ball left 10 at 1.3. " in perception.scene(1.3).text
    physics.load(ROOM, World((0.0, 0.0, math.pi), (), (BALL,), BALL.name))
    look(perception, physics.read(1.4))
    assert "red ball right 170 at 1.3 before. " in perception.scene(1.45).text


@pytest.mark.parametrize("step", [60.0, 1.1])
def test_when_time_steps_back_what_was_seen_before_is_forgotten(physics: Physics, step: float) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    look(perception, physics.read(100.0))
    assert "red ball left 10 at 1.3. " in perception.scene(100.0).text
    physics.load(ROOM, World((0.0, 0.0, 2.0), (), (BALL,), BALL.name))
    now = 100.0 - step
    look(perception, physics.read(now))
    said = perception.scene(now)
    assert "red ball not seen, maybe right 70 at 0.4." in said.text and (said.stamp, said.unknown) == (now, ())


def test_a_reading_that_is_overtaken_is_dropped(physics: Physics) -> None:
    physics.load(ROOM, World((0.0, 0.0, 0.0), (), (BALL,), BALL.name))
    early, late = physics.read(9.9), physics.read(10.0)
    perception = Perception(CONTRACT)
    perception.start_episode("go to the red ball")
    look(perception, late)
    assert not perception.on_scan(early.scan)
    assert not perception.on_odometry(dataclasses.replace(early.odometry, linear=0.5))
    assert not perception.on_image(dataclasses.replace(early.image, rgb=np.zeros_like(early.image.rgb)))
    said = perception.scene(10.0)
    assert "red ball left 10 at 1.3. " in said.text and "moving 0.0" in said.text and said.stamp == 10.0
    assert perception.on_scan(late.scan), "the same once more is not older"


def test_hue_saturation_value_by_hand() -> None:
    primary = [[255, 0, 0], [255, 255, 0], [0, 128, 0], [0, 0, 255]]
    rgb = np.array([*primary, [255, 0, 128], [90, 90, 90], [0, 0, 0]], np.uint8)
    hue, saturation, value = hue_saturation_value(rgb)
    np.testing.assert_allclose(hue, [0, 60, 120, 240, 329.88, 0, 0], atol=0.01)
    np.testing.assert_allclose(saturation, [1, 1, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(value, [1, 1, 128 / 255, 1, 1, 90 / 255, 0], rtol=1e-6)
