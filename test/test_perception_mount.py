"""A scanner that stands anywhere on the base and faces anywhere tells what the geometry of the base says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llmagent_ros import config
from llmagent_ros.contract import ActionCommand, MobileContract, contract_path, in_sector, load_mobile_contract
from llmagent_ros.geometry import CENTRE, Mount, along, bearings_deg, distances, full_circle, seen_from, valid_ranges
from llmagent_ros.perception import text as say
from llmagent_ros.perception.free_path import _arc, _contact, free_paths
from llmagent_ros.perception.perception import Perception
from llmagent_ros.perception.scan import range_at, sector_clearances
from llmagent_ros.simulation.physics import Physics
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import LaserScan

PLAIN = load_mobile_contract("sim_diffdrive")
SECTORS, RADIUS, FARTHEST = PLAIN.scene.sectors, 0.17, 5.0
ROOM = config.build(WorldConfig, {"world": "room", "size": [12.0, 12.0]}, "room")
RAYS = 1440
HALF = math.pi / RAYS  # rad: of the angle between two rays
INF, NAN = math.inf, math.nan

mounts = st.builds(Mount, st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(-360.0, 360.0))
bearings = st.floats(-math.pi, math.pi)


def scan(ranges: np.ndarray, angle_min: float = -math.pi) -> LaserScan:
    return LaserScan(1.0, angle_min, 2 * math.pi / len(ranges), ranges.astype(np.float32), 0.01, FARTHEST)


def from_mount(mount: Mount, x: float, y: float) -> tuple[float, float]:
    """A point of the base frame in the scanner's."""
    ((ahead, left),) = seen_from(np.array([[x, y]]), mount.x, mount.y, math.radians(mount.yaw))
    return float(ahead), float(left)


def of_point(mount: Mount, x: float, y: float) -> tuple[LaserScan, float]:
    """What a scanner there sees of a point, and how far (m) from the point its ray ends at most; else all is free."""
    ahead, left = from_mount(mount, x, y)
    ranges = np.full(RAYS, INF)
    ranges[round((math.atan2(left, ahead) + math.pi) / (2 * HALF)) % RAYS] = math.hypot(ahead, left)
    return scan(ranges), math.hypot(ahead, left) * HALF + 1e-6


def of_disc(mount: Mount, x: float, y: float, radius: float) -> LaserScan:
    ahead, left = from_mount(mount, x, y)
    angles = -math.pi + 2 * HALF * np.arange(RAYS)
    along = ahead * np.cos(angles) + left * np.sin(angles)
    inside = radius**2 - (ahead**2 + left**2 - along**2)
    with np.errstate(invalid="ignore"):
        return scan(np.where((inside >= 0) & (along > 0), along - np.sqrt(inside), INF))


@settings(deadline=None)
@given(mounts, bearings, st.floats(0.1, 3.0))
def test_a_point_is_in_its_sector_and_as_far_as_from_the_base(mount: Mount, bearing: float, distance: float) -> None:
    x, y = distance * math.cos(bearing), distance * math.sin(bearing)
    assume(math.hypot(x - mount.x, y - mount.y) > 0.05)
    seen, off = of_point(mount, x, y)
    slack = math.degrees(math.asin(min(1.0, off / distance)))
    there = {name for name, sector in SECTORS.items() if in_sector(math.degrees(bearing), sector)}
    assume(all(in_sector(math.degrees(bearing) + turn, SECTORS[name]) for name in there for turn in (slack, -slack)))
    said = sector_clearances(seen, SECTORS, RADIUS, FARTHEST, mount)
    for name, metres in said.items():
        wanted = max(0.0, distance - RADIUS) if name in there else FARTHEST
        assert metres == pytest.approx(wanted, abs=off + 1e-6), name
    ahead = range_at(seen, bearing, math.radians(slack) + 0.01, mount)
    assert ahead == pytest.approx(distance, abs=off + 1e-6)
    assert range_at(seen, bearing + math.pi, 0.1, mount) in (INF, None)


ACTIONS = {
    "forward": ActionCommand(0.5),
    "curve left": ActionCommand(0.35, 0.8),
    "curve right": ActionCommand(0.35, -0.8),
    "back": ActionCommand(-0.3),
}


def touched(action: ActionCommand, x: float, y: float, reach: float, ahead: float) -> tuple[float, tuple[float, float]]:
    """Way until the robot's centre is within reach of a point, by integrating its motion, and where it is then."""
    px = py = yaw = 0.0
    step = math.copysign(0.001, action.linear)
    for count in range(round(ahead / 0.001)):
        if math.hypot(px - x, py - y) < reach:
            return count * 0.001, (px, py)
        if abs(yaw) > math.pi:
            break
        px, py, yaw = px + step * math.cos(yaw), py + step * math.sin(yaw), yaw + step * action.angular / action.linear
    return ahead, (px, py)


@settings(deadline=None)
@given(mounts, bearings, st.floats(0.6, 2.2), st.floats(0.05, 0.2), st.sampled_from(list(ACTIONS)))
def test_a_way_ends_where_integrated_motion_touches(
    mount: Mount, bearing: float, distance: float, radius: float, phrase: str
) -> None:
    x, y = distance * math.cos(bearing), distance * math.sin(bearing)
    assume(math.hypot(x - mount.x, y - mount.y) > radius + 0.1)
    way = free_paths(of_disc(mount, x, y, radius), ACTIONS, RADIUS, 2.0, mount)[phrase]
    assert way is not None
    first, _ = touched(ACTIONS[phrase], x, y, radius + RADIUS + 0.025, 2.0)
    last, place = touched(ACTIONS[phrase], x, y, radius + RADIUS - 0.01, 2.0)
    assert first - 0.06 <= way
    # where the side that is touched is one that the scanner sees
    side = np.array(place) - (x, y)
    visible = side / np.hypot(*side) @ (mount.x - x, mount.y - y)
    if visible > radius + 0.05:
        assert way <= last + 0.001


any_ranges = hnp.arrays(np.float32, 360, elements=st.floats(0.0, 6.0, width=32) | st.sampled_from([NAN, INF, -INF]))


@settings(deadline=None)
@given(any_ranges, st.integers(-360, 360))
def test_turning_the_scanner_changes_nothing(ranges: np.ndarray, turned: int) -> None:
    """Also where it does not look all around: the blind sector is where it is from the base."""
    half = math.radians(0.5)
    straight, mount = scan(ranges, -math.pi + half), Mount(0.0, 0.0, float(turned))
    askew = scan(np.roll(ranges, -turned), -math.pi + half)
    said = sector_clearances(askew, SECTORS, RADIUS, FARTHEST, mount)
    assert said == sector_clearances(straight, SECTORS, RADIUS, FARTHEST)
    ways = free_paths(askew, PLAIN.actions, RADIUS, 2.0, mount)
    # a point at the very edge of a step may fall on either side of it
    assert ways == pytest.approx(free_paths(straight, PLAIN.actions, RADIUS, 2.0), abs=0.051)


@settings(deadline=None)
@given(any_ranges, st.floats(-math.pi, math.pi))
def test_a_scanner_in_the_middle_reads_as_ever(ranges: np.ndarray, angle_min: float) -> None:
    """To the byte: nothing that was learned or recorded may change."""
    seen = scan(ranges, angle_min)
    plain = sectors_as_before(seen)
    assert sector_clearances(seen, SECTORS, RADIUS, FARTHEST, CENTRE) == plain
    ways = free_paths(seen, PLAIN.actions, RADIUS, 2.0)
    assert ways == {phrase: way_as_before(seen, action) for phrase, action in PLAIN.actions.items() if action.linear}
    perception = Perception(PLAIN)
    perception.on_scan(seen)
    words = perception.said(1.0)
    blind = bool(np.isnan(valid_ranges(seen)).all())
    assert words["scan"] == say.say_scan(None if blind else plain)
    assert words["free"] == say.say_free(None if blind else ways)


def sectors_as_before(seen: LaserScan) -> dict[str, float | None]:
    """The clearances as they were told before there were mounts."""
    angles, ranges = bearings_deg(seen), valid_ranges(seen)
    said: dict[str, float | None] = {}
    for name, (start, end) in SECTORS.items():
        inside = ranges[(angles - start) % 360.0 < ((end - start) % 360.0 or 360.0)]
        known = inside[~np.isnan(inside)]
        lost = len(known) == 0 or len(known) * 2 < len(inside)
        said[name] = None if lost else float(np.clip(known.min() - RADIUS, 0.0, FARTHEST))
    return said


def way_as_before(seen: LaserScan, action: ActionCommand) -> float | None:
    """The same of a way."""
    rays, ranges = np.radians(bearings_deg(seen)), valid_ranges(seen)
    path, lost = _arc(action, 2.0), np.isnan(ranges)
    crossing = np.zeros(len(rays), bool)
    for probe in (0.1, 0.5, 1.0):
        crossing |= (distances(path, along(rays, np.full(len(rays), RADIUS + probe))) < RADIUS).any(axis=0)
    if lost.any() and 2 * lost[crossing].sum() > crossing.sum():
        return None
    hits = np.isfinite(ranges)
    return float(min(2.0, _contact(path, along(rays[hits], ranges[hits]), RADIUS + 0.01) * 0.05))


def mounted(**mount: float) -> MobileContract:
    """The simulated robot's contract with its scanner elsewhere."""
    plain: dict[str, Any] = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    plain["sensors"]["scan"] |= mount
    return config.build(MobileContract, plain, "test")


def test_a_scanner_that_looks_270_degrees_and_stands_turned_is_blind_where_it_does_not_look() -> None:
    front = scan(np.full(270, 2.0), -math.radians(135))
    seen = dataclasses.replace(front, angle_increment=math.radians(1))
    whole = full_circle(seen)

    def unknown(**mount: float) -> set[str]:
        perception = Perception(mounted(**mount))
        perception.on_scan(seen)
        said = sector_clearances(whole, SECTORS, RADIUS, FARTHEST, Mount(**mount))
        words = perception.said(1.0)["scan"]
        blind = {name for name, metres in said.items() if metres is None}
        assert all((f" {name} unknown" in words) == (name in blind) for name in ("ahead", "back"))
        return blind

    assert unknown() == unknown(x=0.3) == {"back"}
    assert unknown(yaw=180.0) == unknown(x=-0.3, yaw=-180.0) == {"ahead", "left front", "right front"}
    assert unknown(yaw=90.0) == {"right"}
    assert unknown(yaw=-90.0) == {"left"}


def test_ways_through_blind_directions_are_unknown() -> None:
    seen = full_circle(dataclasses.replace(scan(np.full(270, 2.0), -2.36), angle_increment=math.radians(1)))
    for mount in (Mount(), Mount(0.3), Mount(0.1, -0.1)):
        ways = free_paths(seen, PLAIN.actions, RADIUS, 2.0, mount)
        assert ways["back"] is None and ways["forward"] is not None
    ways = free_paths(seen, PLAIN.actions, RADIUS, 2.0, Mount(-0.3, 0.0, 180.0))
    assert ways["forward"] is None and ways["back"] is not None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own about infinite angles
@settings(deadline=None)
@given(
    st.builds(
        LaserScan,
        stamp=st.just(1.0),
        angle_min=st.floats(),
        angle_increment=st.floats(),
        ranges=hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)),
        range_min=st.floats(),
        range_max=st.floats(),
    )
)
def test_any_scan_makes_words_without_invented_numbers(seen: LaserScan) -> None:
    perception = Perception(mounted(x=0.1, y=-0.2, yaw=30.0))
    perception.on_scan(seen)
    words = perception.said(1.0)
    assert not any(word in f"{words['scan']} {words['free']}" for word in (" nan", " inf", "none"))


@pytest.mark.parametrize("mount", [{}, {"yaw": 180.0}, {"x": 0.1, "y": -0.05, "yaw": 90.0}])
def test_the_simulated_scanner_stands_where_the_contract_says(mount: dict[str, float]) -> None:
    """That of the body which stands for any robot; what the scene says is then the same wherever it stands."""
    contract = mounted(**mount)
    physics, perception = Physics(contract), Perception(contract)
    ahead = Body(0.3 + 1.4 * math.cos(0.5), 0.2 + 1.4 * math.sin(0.5), 0.2)
    physics.load(ROOM, World((0.3, 0.2, 0.5), (ahead,), (), ""))
    readings = physics.read(1.0)
    perception.on_scan(readings.scan)
    said = perception.said(1.0)
    physics.close()
    assert said["scan"].startswith("clear ahead 1.0 left front 5.0 left 5.0 back 5.0 ")
    assert said["free"] == "free forward 1.0 curve left 2.0 curve right 2.0 back 2.0."


def test_the_burger_tells_distances_from_between_its_wheels() -> None:
    contract = load_mobile_contract("turtlebot3_burger")
    physics = Physics(contract)
    physics.load(ROOM, World((0.0, 0.0, 0.0), (Body(1.0, 0.0, 0.2), Body(-1.0, 0.0, 0.2)), (), ""))
    scans = [physics.read(1.0).scan for _ in range(9)]
    physics.close()
    sectors, radius = {"ahead": (-3.0, 3.0), "back": (177.0, -177.0)}, contract.footprint_radius
    told = [sector_clearances(seen, sectors, radius, 5.0, contract.sensors.scan.mount) for seen in scans]
    for name in sectors:
        clearances = [metres for each in told if (metres := each[name]) is not None]
        assert np.mean(clearances) == pytest.approx(0.8 - radius, abs=0.015), name
