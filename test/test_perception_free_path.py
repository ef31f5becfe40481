"""How far a phrase may be kept up, against worlds whose geometry is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmagent_ros.contract import ActionCommand, load_contract
from llmagent_ros.perception import text as say
from llmagent_ros.perception.free_path import free_paths
from llmagent_ros.types import LaserScan

RADIUS, AHEAD = 0.17, 2.0
NAN, INF = math.nan, math.inf
ACTIONS = {
    "forward": ActionCommand(0.5),
    "curve left": ActionCommand(0.35, 0.8),
    "curve right": ActionCommand(0.35, -0.8),
    "turn left": ActionCommand(0.0, 1.3),
    "back": ActionCommand(-0.3),
    "swing": ActionCommand(-0.3, 0.6),
}


def scan(ranges: np.ndarray) -> LaserScan:
    """Rays all around, the first to the back."""
    count = len(ranges)
    return LaserScan(1.0, -math.pi, 2 * math.pi / count, ranges.astype(np.float32), 0.05, 5.0)


def disc(x: float, y: float, radius: float, rays: int = 1440) -> LaserScan:
    """What a scanner sees of one disc."""
    angles = -math.pi + 2 * math.pi / rays * np.arange(rays)
    along = x * np.cos(angles) + y * np.sin(angles)
    inside = radius**2 - (x**2 + y**2 - along**2)
    with np.errstate(invalid="ignore"):
        ranges = np.where((inside >= 0) & (along > 0), along - np.sqrt(inside), INF)
    return scan(ranges)


def free(seen: LaserScan) -> dict[str, float | None]:
    return free_paths(seen, ACTIONS, RADIUS, AHEAD)


def touched(action: ActionCommand, x: float, y: float, reach: float) -> float:
    """Way until the robot's centre is within reach of a point, by integrating its motion in steps of 1 mm."""
    px = py = yaw = 0.0
    step = math.copysign(0.001, action.linear)
    for count in range(round(AHEAD / 0.001)):
        if math.hypot(px - x, py - y) < reach:
            return count * 0.001
        if abs(yaw) > math.pi:
            break
        px, py, yaw = px + step * math.cos(yaw), py + step * math.sin(yaw), yaw + step * action.angular / action.linear
    return AHEAD


def meets_what_is_seen(action: ActionCommand, x: float, y: float, radius: float) -> bool:
    """Whether a disc is touched, if it is, where the scanner has seen it: on a curve the robot may get behind it."""
    way = touched(action, x, y, radius + RADIUS)
    yaw = way * action.angular / abs(action.linear)
    if yaw == 0.0:
        return True
    turn = action.linear / action.angular
    px, py = turn * math.sin(yaw), turn * (1.0 - math.cos(yaw))
    return (px - x) * -x + (py - y) * -y > 0.0


def test_nothing_around_leaves_every_driving_phrase_its_whole_way() -> None:
    assert free(scan(np.full(360, INF))) == {p: AHEAD for p, action in ACTIONS.items() if action.linear}


def test_a_disc_ahead_by_hand() -> None:
    ways = free(disc(1.0, 0.0, 0.2))
    assert ways["forward"] == pytest.approx(1.0 - 0.2 - RADIUS, abs=0.05)
    assert ways["curve left"] == ways["curve right"] == ways["back"] == AHEAD


def test_what_stands_beside_the_way_is_no_obstacle_though_its_sector_is_narrow() -> None:
    ways = free(disc(0.4, 0.4, 0.2))
    assert ways["forward"] == AHEAD and ways["curve left"] is not None and ways["curve left"] < 0.3


def test_a_robot_may_leave_what_it_touches() -> None:
    ways = free(disc(0.2 + RADIUS, 0.0, 0.2))
    assert ways["forward"] == 0.0 and ways["back"] == AHEAD and ways["swing"] == AHEAD
    assert free(disc(0.0, 0.22 + RADIUS, 0.2))["forward"] == AHEAD


@given(
    angle=st.floats(-math.pi, math.pi),
    distance=st.floats(0.45, 2.2),
    radius=st.floats(0.05, 0.25),
    phrase=st.sampled_from(["forward", "curve left", "curve right", "back", "swing"]),
)
def test_it_is_where_integrated_motion_touches(angle: float, distance: float, radius: float, phrase: str) -> None:
    x, y = distance * math.cos(angle), distance * math.sin(angle)
    way = free(disc(x, y, radius))[phrase]
    assert way is not None
    # a little larger or smaller, for what just passes by
    assume(meets_what_is_seen(ACTIONS[phrase], x, y, radius))
    first = touched(ACTIONS[phrase], x, y, radius + RADIUS + 0.025)
    last = touched(ACTIONS[phrase], x, y, radius + RADIUS - 0.01)
    assert first - 0.06 <= way <= last + 0.001


def test_left_and_right_are_mirror_images() -> None:
    left, right = free(disc(0.7, 0.35, 0.2)), free(disc(0.7, -0.35, 0.2))
    assert left["curve left"] == right["curve right"] < AHEAD  # type: ignore[operator]


def test_a_way_that_is_mostly_not_measured_is_unknown() -> None:
    ranges = np.full(360, INF)
    ranges[130:231] = NAN  # 50 degrees to both sides of the front
    ways = free(scan(ranges))
    assert ways["forward"] is None and ways["back"] == AHEAD
    ranges[130:231:2] = ranges[131:231:3] = 3.0
    assert free(scan(ranges))["forward"] == AHEAD


def test_how_it_reads() -> None:
    assert say.say_free({"forward": 0.55, "back": None}) == "free forward 0.6 back unknown."
    assert say.say_free(None) == "free unknown."
    assert say.say_free({}) == "free nowhere."


@pytest.mark.parametrize("robot", ["sim_diffdrive", "sim_scout"])
def test_the_shipped_robots_tell_it(robot: str) -> None:
    contract = load_contract(robot)
    assert "free" in contract.scene.parts
    ways = free_paths(scan(np.full(90, 3.0)), contract.actions, contract.footprint_radius, contract.scene.lookahead)
    assert list(ways) == ["forward", "curve left", "curve right", "back"]
