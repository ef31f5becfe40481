"""One robot in hand-made worlds: motion, scan and camera against geometry."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import yaml

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, contract_path, load_contract, wrap_angle
from llmagent_ros.simulation.body import body_of
from llmagent_ros.simulation.physics import Physics
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import CameraImage, Velocity

CONTRACT = load_contract("sim_diffdrive")
PERIOD = CONTRACT.control_period
ROOM = config.build(WorldConfig, {"world": "room", "size": [8.0, 5.0]}, "room")


@pytest.fixture(scope="module")
def physics() -> Iterator[Physics]:
    made = Physics(CONTRACT)
    yield made
    made.close()


def place(
    physics: Physics,
    start: tuple[float, float, float] = (0.0, 0.0, 0.0),
    obstacles: tuple[Body, ...] = (),
    objects: tuple[Body, ...] = (),
) -> None:
    physics.load(ROOM, World(start, obstacles, objects, objects[0].name if objects else ""))


def to_walls(x: float, y: float, angles: np.ndarray) -> np.ndarray:
    """Distance from a point in the room to its walls along directions in the world, (rays,)."""
    with np.errstate(divide="ignore"):
        along_x = (np.sign(np.cos(angles)) * ROOM.size[0] / 2 - x) / np.cos(angles)
        along_y = (np.sign(np.sin(angles)) * ROOM.size[1] / 2 - y) / np.sin(angles)
    return np.minimum(along_x, along_y)


@pytest.mark.parametrize("phrase", CONTRACT.phrases)
@pytest.mark.parametrize("yaw", [0.0, 2.0])
def test_actions_move_the_robot_as_commanded(physics: Physics, phrase: str, yaw: float) -> None:
    place(physics, (0.5, -0.3, yaw))
    command, periods = CONTRACT.command(phrase), 3
    x0, y0, yaw0 = physics.pose()
    for _ in range(periods):
        assert not physics.drive(command, PERIOD)
    x, y, yaw1 = physics.pose()
    turned, travelled = command.angular * periods * PERIOD, command.linear * periods * PERIOD
    # an arc: the chord of a turn by `turned` over `travelled` metres, at half the angle
    chord = travelled * (math.sin(turned / 2) / (turned / 2) if turned else 1.0)
    direction = yaw0 + turned / 2
    assert wrap_angle(yaw1 - yaw0 - turned) == pytest.approx(0.0, abs=0.12)
    expected = (x0 + chord * math.cos(direction), y0 + chord * math.sin(direction))
    assert math.dist((x, y), expected) < 0.05


def test_odometry_follows_the_true_pose_within_drift(physics: Physics) -> None:
    place(physics, (-1.0, 0.5, 0.7))
    rng = np.random.default_rng(0)
    path = turned = 0.0
    for _ in range(30):
        command = CONTRACT.command(str(rng.choice(["curve left", "curve right", "turn left", "turn right"])))
        before = physics.pose()
        if physics.drive(command, PERIOD):
            break
        path += math.dist(before[:2], physics.pose()[:2])
        turned += abs(command.angular) * PERIOD
    odometry, (x, y, yaw) = physics.read(1.0).odometry, physics.pose()
    assert path > 1.0 and turned > 6.0
    assert math.dist((odometry.x, odometry.y), (x, y)) < 0.03 + 0.03 * path
    assert abs(wrap_angle(odometry.yaw - yaw)) < 0.02 + 0.03 * turned
    assert -math.pi <= odometry.yaw <= math.pi


def test_odometry_velocity_is_the_commanded_one(physics: Physics) -> None:
    place(physics)
    physics.drive(Velocity(0.35, 0.8), 2 * PERIOD)
    odometry = physics.read(2.0).odometry
    assert odometry.linear == pytest.approx(0.35, abs=0.03)
    assert odometry.angular == pytest.approx(0.8, abs=0.1)
    assert odometry.stamp == 2.0


@pytest.mark.parametrize("pose", [(0.0, 0.0, 0.0), (2.5, -1.0, 0.6), (-3.0, 1.7, -2.4), (0.3, 0.2, math.pi)])
def test_scan_of_an_empty_room_is_the_distance_to_its_walls(
    physics: Physics, pose: tuple[float, float, float]
) -> None:
    place(physics, pose)
    scan, (x, y, yaw) = physics.read(1.0).scan, physics.pose()
    bearings = scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges))
    expected = to_walls(x, y, yaw + bearings)
    beyond = expected > scan.range_max + 0.02
    assert np.isposinf(scan.ranges[beyond]).all()
    within = expected < scan.range_max - 0.02
    np.testing.assert_allclose(scan.ranges[within], expected[within], atol=0.02)
    assert beyond.any() or pose[0] == 0.0


@pytest.mark.parametrize("bearing", [0.0, 1.0, -2.5])
def test_scan_sees_an_obstacle_at_its_bearing(physics: Physics, bearing: float) -> None:
    yaw, distance, radius = 0.4, 1.2, 0.2
    spot = Body(distance * math.cos(yaw + bearing), distance * math.sin(yaw + bearing), radius)
    place(physics, (0.0, 0.0, yaw), obstacles=(spot,))
    scan = physics.read(1.0).scan
    nearest = int(np.argmin(scan.ranges))
    assert scan.ranges[nearest] == pytest.approx(distance - radius, abs=0.03)
    seen_at = scan.angle_min + scan.angle_increment * nearest
    assert abs(wrap_angle(seen_at - bearing)) < 0.06


def coloured(image: CameraImage, name: str) -> np.ndarray:
    """Which pixels have the colour in an object's name."""
    red, green, blue = (image.rgb[..., k].astype(float) for k in range(3))
    dominant = {
        "red": red > 1.6 * np.maximum(green, blue),
        "yellow": np.minimum(red, green) > 1.6 * blue,
        "green": green > 1.6 * np.maximum(red, blue),
        "blue": blue > 1.6 * np.maximum(red, green),
    }
    return dominant[name.split()[0]] & (image.rgb.max(axis=-1) > 40)


@pytest.mark.parametrize("name", CONTRACT.objects)
@pytest.mark.parametrize("bearing_deg", [-35.0, 0.0, 20.0])
def test_camera_shows_an_object_where_geometry_says(physics: Physics, name: str, bearing_deg: float) -> None:
    yaw, distance = -0.8, 1.5
    angle, look = yaw + math.radians(bearing_deg), CONTRACT.objects[name]
    body = Body(distance * math.cos(angle), distance * math.sin(angle), look.radius, name)
    place(physics, (0.0, 0.0, yaw), objects=(body,))
    image = physics.read(1.0).image
    mask = coloured(image, name)
    columns = np.flatnonzero(mask.any(axis=0))
    assert len(columns) > 3
    # from the camera: left is smaller columns
    left = distance * math.sin(math.radians(bearing_deg))
    ahead = distance * math.cos(math.radians(bearing_deg)) - body_of(CONTRACT).camera_forward
    expected = image.cx - image.fx * left / ahead
    assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(expected, abs=2.5)
    angular_width = 2 * math.asin(look.radius / math.hypot(left, ahead))
    spanned = math.atan((columns[-1] + 1 - image.cx) / image.fx) - math.atan((columns[0] - image.cx) / image.fx)
    corner = math.sqrt(2) if "box" in name else 1.0
    assert 0.8 * angular_width < spanned < 1.25 * corner * angular_width


def test_a_turned_camera_looks_where_the_contract_says() -> None:
    plain = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    plain["sensors"]["camera"]["yaw"] = 40.0
    contract = config.build(MobileContract, plain, "turned")
    made = Physics(contract)
    look, angle = CONTRACT.objects["red ball"], math.radians(40.0)
    ahead = Body(1.5 * math.cos(angle), 1.5 * math.sin(angle), look.radius, "red ball")
    place(made, objects=(ahead,))
    image = made.read(1.0).image
    columns = np.flatnonzero(coloured(image, "red ball").any(axis=0))
    made.close()
    assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(image.cx, abs=6.0), "in the middle, but for the mount"


def test_intrinsics_are_those_of_the_field_of_view(physics: Physics) -> None:
    place(physics)
    image, sensors = physics.read(1.0).image, CONTRACT.simulation
    assert image.rgb.shape == (sensors.image_height, sensors.image_width, 3)
    assert 2 * math.degrees(math.atan(image.cx / image.fx)) == pytest.approx(sensors.horizontal_fov)
    assert (image.fy, image.cy) == (image.fx, sensors.image_height / 2)


def test_an_obstacle_hides_what_is_behind_it(physics: Physics) -> None:
    target = Body(2.0, 0.0, 0.12, "blue pillar")
    place(physics, objects=(target,))
    before = coloured(physics.read(1.0).image, "blue pillar").sum()
    place(physics, obstacles=(Body(1.0, 0.0, 0.3),), objects=(target,))
    after = coloured(physics.read(1.0).image, "blue pillar").sum()
    assert before > 20
    assert after == 0


def test_gap_is_from_edge_to_surface(physics: Physics) -> None:
    place(physics, objects=(Body(2.0, 0.0, 0.25, "red ball"),))
    assert physics.gap("red ball") == pytest.approx(2.0 - 0.25 - CONTRACT.footprint_radius, abs=0.01)
    assert physics.gap("green cylinder") is None


@pytest.mark.parametrize("what", ["wall", "obstacle", "object"])
def test_driving_into_anything_touches_it(physics: Physics, what: str) -> None:
    close = 1.0
    obstacles = (Body(close, 0.0, 0.2),) if what == "obstacle" else ()
    objects = (Body(close, 0.0, 0.12, "blue pillar"),) if what == "object" else ()
    start = (3.3, 0.0, 0.0) if what == "wall" else (0.0, 0.0, 0.0)
    place(physics, start, obstacles, objects)
    assert not physics.touching()
    free = {"wall": 0.7, "obstacle": 0.8, "object": 0.88}[what] - CONTRACT.footprint_radius
    hits = [physics.drive(Velocity(0.5), 0.1) for _ in range(40)]
    assert any(hits)
    assert 0.1 * hits.index(True) * 0.5 == pytest.approx(free, abs=0.1)


SCOUT = load_contract("sim_scout")


@pytest.fixture(scope="module")
def scout() -> Iterator[Physics]:
    made = Physics(SCOUT)
    yield made
    made.close()


@pytest.mark.parametrize("phrase", ["forward", "turn left", "curve right", "back"])
def test_a_scaled_robot_moves_as_commanded(scout: Physics, phrase: str) -> None:
    place(scout)
    command = SCOUT.command(phrase)
    for _ in range(3):
        assert not scout.drive(command, SCOUT.control_period)
    x, y, yaw = scout.pose()
    odometry = scout.read(1.0).odometry
    assert yaw == pytest.approx(wrap_angle(command.angular * 3 * SCOUT.control_period), abs=0.15)
    if not command.angular:
        assert x == pytest.approx(command.linear * 3 * SCOUT.control_period, abs=0.05)
    assert (odometry.x, odometry.y) == (pytest.approx(x, abs=0.05), pytest.approx(y, abs=0.05))
    assert odometry.linear == pytest.approx(command.linear, abs=0.05)


def test_a_scaled_robot_touches_at_its_own_radius(scout: Physics) -> None:
    place(scout, (3.0, 0.0, 0.0))
    hits = [scout.drive(Velocity(0.3), 0.1) for _ in range(60)]
    assert any(hits)
    assert 0.03 * hits.index(True) == pytest.approx(4.0 - 3.0 - SCOUT.footprint_radius, abs=0.08)
    assert SCOUT.sensors.camera is not None
    assert SCOUT.sensors.camera.x == pytest.approx(body_of(SCOUT).camera_forward, abs=0.005)


def test_its_scanner_is_its_own(scout: Physics) -> None:
    place(scout, (0.5, -0.2, 0.3))
    scan, again = scout.read(1.0).scan, scout.read(1.1).scan
    angles = 0.3 + scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges))
    true = to_walls(0.5, -0.2, angles)
    near = true < scan.range_max - 0.2
    assert len(scan.ranges) == 90 and scan.range_max == 4.0
    assert np.isinf(scan.ranges[true > scan.range_max + 0.2]).all()
    errors = scan.ranges[near] - true[near]
    assert 0.01 < errors.std() < 0.03 and abs(errors.mean()) < 0.01
    assert not np.array_equal(scan.ranges[near], again.ranges[near])
    place(scout, (0.5, -0.2, 0.3))
    assert np.array_equal(scout.read(1.0).scan.ranges, scan.ranges), "the same in the same world"


def test_close_twice() -> None:
    made = Physics(CONTRACT)
    made.close()
    made.close()
