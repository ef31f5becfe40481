"""The collision check: by hand, and that whatever it lets through keeps its distance."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safety_support import RANGE, open_scan, scan_of

from llmagent_ros.contract import MobileContract, load_mobile_contract
from llmagent_ros.contract.mobile import ScanSensor
from llmagent_ros.geometry import direction_problem, is_blind, moved, outside, seen_from
from llmagent_ros.safety.clearance import Clearance, ClearanceConfig
from llmagent_ros.safety.guard import Guard, GuardConfig
from llmagent_ros.safety.reckoning import Pose, Reckoning, after
from llmagent_ros.types import LaserScan, Velocity

ROUND = load_mobile_contract("sim_diffdrive")  # 0.17 m, 2.5 m/s^2, 8 rad/s^2
SQUARE = load_mobile_contract("turtlebot3_burger")
CONFIG = ClearanceConfig()
MARGIN = CONFIG.margin
HOLD = 0.05  # with the reaction: 0.15 s
AHEAD = Velocity(0.5, 0.0)


def wall(x: float, half: float = 1.0) -> np.ndarray:
    """Points across the way at x."""
    y = np.linspace(-half, half, 401)
    return np.stack([np.full_like(y, x), y], axis=1)


def checker(points: np.ndarray, contract: MobileContract = ROUND, config: ClearanceConfig = CONFIG) -> Clearance:
    clearance = Clearance(contract, config, HOLD)
    clearance.see(scanned(contract, points, (0.0, 0.0, 0.0), 0.0), 0.0)
    return clearance


def scanned(contract: MobileContract, points: np.ndarray, pose: Pose, stamp: float) -> LaserScan:
    """What the robot's scanner sees of points in the world."""
    sensor = contract.sensors.scan
    return scan_of(seen_from(points, *pose), stamp, mount=(sensor.x, sensor.y, math.radians(sensor.yaw)))


@pytest.mark.parametrize(
    ("free", "speed"),
    [
        (0.14, 0.5),  # 0.5 m/s * 0.15 s, then 0.05 m to brake
        (0.05, 0.25),  # 0.25 * 0.15 + 0.25^2 / 5
        (0.01, 0.0603),  # (sqrt(0.15^2 + 2 * 0.01 / 2.5) - 0.15) * 2.5
    ],
)
def test_speed_before_a_wall_by_hand(free: float, speed: float) -> None:
    allowed, reason = checker(wall(0.17 + MARGIN + free)).limit(AHEAD, 0.0)
    one_step = 0.01 / 0.15  # the way is looked at in steps
    assert speed - one_step <= allowed.linear <= speed + 1e-3
    assert reason == (None if speed == 0.5 else "obstacle")


def test_at_the_margin_it_stands_and_may_turn_and_back_off() -> None:
    clearance = checker(wall(0.17 + MARGIN))
    assert clearance.limit(AHEAD, 0.0) == (Velocity(), "obstacle")
    assert clearance.limit(Velocity(0.35, 0.8), 0.0) == (Velocity(), "obstacle")
    for away in (Velocity(-0.3), Velocity(-0.3, 0.5), Velocity(0.0, 1.3)):
        assert clearance.limit(away, 0.0) == (away, None)


def test_one_that_is_touched_by_a_wall_at_its_side_may_leave_it_only() -> None:
    beside = wall(0.17)[:, ::-1]  # at y = 0.17
    clearance = checker(beside)
    assert clearance.limit(AHEAD, 0.0)[1] == "obstacle"
    assert clearance.limit(Velocity(0.0, -1.3), 0.0) == (Velocity(0.0, -1.3), None)
    along = checker(wall(0.17 + 0.03)[:, ::-1])  # within the margin: no nearer, but along it
    assert along.limit(AHEAD, 0.0) == (AHEAD, None)
    assert along.limit(Velocity(0.3, 1.5), 0.0)[0].linear < 0.1


def test_both_axes_are_scaled_so_that_the_arc_stays_the_same() -> None:
    wanted = Velocity(0.4, 0.8)
    allowed, reason = checker(wall(0.17 + MARGIN + 0.05)).limit(wanted, 0.0)
    assert reason == "obstacle" and 0.0 < allowed.linear < 0.4
    assert allowed.angular / allowed.linear == pytest.approx(2.0)


def test_the_outline_counts_and_not_its_circle() -> None:
    beside = np.array([[0.0, 0.089 + MARGIN + 0.01]])  # 0.149: within the circle of 0.136 and the margin
    assert checker(beside, SQUARE).limit(Velocity(0.2), 0.0) == (Velocity(0.2), None)
    turning, reason = checker(beside, SQUARE).limit(Velocity(0.0, -2.0), 0.0)  # the rear corner swings by
    assert reason == "obstacle" and abs(turning.angular) < 2.0


def test_what_is_deep_inside_of_the_outline_is_the_robot_itself() -> None:
    mast = np.array([[0.05, 0.0], [0.0, -0.05]])
    assert checker(mast).limit(AHEAD, 0.0) == (AHEAD, None)
    assert checker(mast + (0.14, 0.0)).limit(AHEAD, 0.0)[1] == "obstacle"


def test_a_scanner_that_is_mounted_elsewhere_and_askew() -> None:
    sensor = ScanSensor(x=0.1, y=-0.05, yaw=90.0)
    contract = dataclasses.replace(ROUND, sensors=dataclasses.replace(ROUND.sensors, scan=sensor))
    clearance = Clearance(contract, CONFIG, HOLD)
    points = wall(0.17 + MARGIN + 0.05, 0.3)
    clearance.see(scan_of(points, 0.0, mount=(0.1, -0.05, math.pi / 2)), 0.0)
    assert clearance.limit(AHEAD, 0.0)[0].linear == pytest.approx(0.25, abs=0.07)
    assert clearance.limit(Velocity(-0.3), 0.0)[1] is None


def test_an_old_scan_is_taken_to_where_the_robot_is_now() -> None:
    clearance = checker(wall(0.17 + MARGIN + 0.25))
    clearance.drive(AHEAD, 0.0)
    assert clearance.limit(AHEAD, 0.2) == (AHEAD, None)  # 0.15 m are left
    assert clearance.limit(AHEAD, 0.4)[0].linear == pytest.approx(0.25, abs=0.07)  # 0.05 m
    assert clearance.limit(AHEAD, 0.5)[0] == Velocity()
    clearance.see(scan_of(wall(0.17 + MARGIN + 0.25), 0.5), 0.5)  # the wall has gone away as well
    assert clearance.limit(AHEAD, 0.5) == (AHEAD, None)


def test_where_the_scanner_does_not_look_it_creeps() -> None:
    front = LaserScan(0.0, -math.pi / 2, math.pi / 180, np.full(181, math.inf, np.float32), 0.05, RANGE)
    for config, speed in ((CONFIG, 0.1), (ClearanceConfig(blind_speed=0.0), 0.0)):
        clearance = Clearance(ROUND, config, HOLD)
        clearance.see(front, 0.0)
        assert clearance.limit(AHEAD, 0.0) == (AHEAD, None)
        assert clearance.limit(Velocity(-0.3), 0.0) == (Velocity(-speed), "blind")
        assert clearance.limit(Velocity(0.0, 1.0), 0.0) == (Velocity(0.0, 1.0), None)


@pytest.mark.parametrize(("y", "hidden", "blind"), [(0.3, (-90, -30), True), (-0.3, (-45, 0), False)])
def test_where_the_scanner_stands_says_what_it_cannot_see(y: float, hidden: tuple[int, int], blind: bool) -> None:
    """From the centre, the hidden rays of the one at the left would miss the way, and those of the other cross it."""
    sensor = ScanSensor(x=0.0, y=y)
    contract = dataclasses.replace(ROUND, sensors=dataclasses.replace(ROUND.sensors, scan=sensor))
    bearings = np.arange(-180, 180)
    ranges = np.where((bearings >= hidden[0]) & (bearings <= hidden[1]), np.nan, np.inf).astype(np.float32)
    clearance = Clearance(contract, CONFIG, HOLD)
    clearance.see(LaserScan(0.0, -math.pi, math.radians(1), ranges, 0.05, RANGE), 0.0)
    assert clearance.limit(AHEAD, 0.0) == ((Velocity(0.1), "blind") if blind else (AHEAD, None))


@pytest.mark.parametrize("mount", [(0.0, 0.0, 0.0), (0.15, 0.0, 40.0)])
@pytest.mark.parametrize("turned", [-70.0, -30.0, 20.0, 55.0, 120.0])
def test_what_was_hidden_stays_where_it_was_while_the_robot_turns(
    mount: tuple[float, float, float], turned: float
) -> None:
    """As if a scanner that stands where it stood then had seen it now."""
    x, y = seen_from(np.array([mount[:2]]), 0.0, 0.0, math.radians(turned))[0]
    scan = LaserScan(0.0, -math.pi / 2, math.radians(1), np.full(181, np.inf, np.float32), 0.05, RANGE)
    ways = [Velocity(linear, angular) for linear in (0.5, -0.5) for angular in (-1.0, 0.0, 1.0)]
    said, hidden = [], []
    for place, now in ((mount, 1.0), ((float(x), float(y), mount[2] - turned), 0.0)):
        sensor = ScanSensor(x=place[0], y=place[1], yaw=place[2])
        contract = dataclasses.replace(ROUND, sensors=dataclasses.replace(ROUND.sensors, scan=sensor))
        clearance = Clearance(contract, CONFIG, HOLD)
        clearance.see(scan, 0.0)
        clearance.drive(Velocity(0.0, math.radians(turned)), 0.0)
        around = clearance.around(now)
        assert around is not None
        said.append([clearance.limit(way, now)[1] for way in ways])
        hidden.append([np.cos(around[1]), np.sin(around[1])])
    assert said[0] == said[1] and "blind" in said[0]
    np.testing.assert_allclose(hidden[0], hidden[1], atol=1e-9)


def test_without_a_scan_it_says_nothing() -> None:
    assert Clearance(ROUND, CONFIG, HOLD).limit(AHEAD, 0.0) == (AHEAD, None)


# --- in the guard ---------------------------------------------------------------------------------------


def seeing(config: GuardConfig, points: np.ndarray) -> Guard:
    """A guard whose robot drives at full speed, and now sees these points."""
    guard = Guard(ROUND, config)
    for k in range(8):
        now = 0.4 * k if config.lockstep else 0.1 * k
        guard.on_scan(open_scan(now), now)
        guard.on_policy_command(AHEAD, now, now)
        assert guard.decide(now).reason is None
    guard.on_scan(scan_of(points, now), now)
    guard.on_policy_command(AHEAD, now, now)
    return guard


def test_the_guard_slows_down_then_stops_at_once_and_says_why() -> None:
    guard = seeing(GuardConfig(odom_check=False), wall(0.17 + MARGIN + 0.05))
    verdict = guard.decide(0.7)
    assert (verdict.word, verdict.why, verdict.source) == ("limited", "obstacle", "policy")
    assert 0.0 < verdict.velocity.linear < 0.3  # at once: by the limit of acceleration it would be 0.5
    guard = seeing(GuardConfig(odom_check=False), wall(0.17 + MARGIN))
    verdict = guard.decide(0.7)
    assert (verdict.word, verdict.why, verdict.source) == ("stopped", "obstacle", "policy")
    assert (verdict.velocity, verdict.asked) == (Velocity(), AHEAD)
    guard.decide(0.75)
    assert guard.counts["obstacle"] == 1


def test_it_holds_for_a_person_unless_they_may_override_it() -> None:
    for override in (False, True):
        guard = seeing(GuardConfig(teleop_override=override, odom_check=False), wall(0.17 + MARGIN))
        guard.on_teleop_command(AHEAD, 0.7)
        verdict = guard.decide(0.7)
        assert verdict.source == "teleop"
        assert verdict.velocity == (AHEAD if override else Velocity())
        guard.on_e_stop(True)
        assert guard.decide(0.7).reason == "e_stop"


@pytest.mark.parametrize(
    ("config", "checked"),
    [
        (GuardConfig(odom_check=False), True),
        (GuardConfig(collision_check=False, odom_check=False), False),
        (GuardConfig(lockstep=True), False),
        (GuardConfig(lockstep=True, collision_check=True), True),
    ],
)
def test_by_default_in_real_time_only(config: GuardConfig, checked: bool) -> None:
    verdict = seeing(config, wall(0.17 + MARGIN)).decide(0.7)
    assert (verdict.reason == "obstacle") is checked
    assert (verdict.velocity == Velocity()) is checked


@pytest.mark.parametrize(
    ("bearings", "problem"),
    [
        ({"angle_min": math.nan}, "angle_min is nan"),
        ({"angle_min": -math.inf}, "angle_min is -inf"),
        ({"angle_min": -180.0}, "angle_min is -180.0"),  # degrees
        ({"angle_min": 1e300}, "angle_min is 1e+300"),
        ({"angle_increment": math.nan}, "angle_increment is nan"),
        ({"angle_increment": 0.0}, "angle_increment is 0.0"),
        ({"angle_increment": -1e-6}, "angle_increment is -1e-06"),
        ({"angle_increment": 10.0}, "angle_increment is 10.0: 36 rays would turn 55.7 times around"),
    ],
)
def test_a_scan_whose_rays_lead_nowhere_is_none(bearings: dict[str, float], problem: str) -> None:
    """It would pass for a fresh one without obstacles."""
    guard = seeing(GuardConfig(odom_check=False), wall(0.17 + MARGIN))
    for k in range(1, 8):
        now = 0.7 + 0.1 * k
        scan = dataclasses.replace(open_scan(now), ranges=np.full(36, 0.25, np.float32), **bearings)
        assert direction_problem(scan) == problem and is_blind(scan)
        assert not guard.on_scan(scan, now)
        guard.on_policy_command(AHEAD, now, now)
        verdict = guard.decide(now)
    assert (verdict.reason, verdict.velocity) == ("stale_scan", Velocity())
    assert guard.counts["dropped_malformed_scan"] == 7


@pytest.mark.parametrize(("rays", "step"), [(1, 1.0), (1, -0.1), (2, 0.1), (361, 1.0), (400, 1.0), (720, -0.5)])
def test_a_scan_of_few_rays_or_of_a_little_more_than_a_turn_is_one(rays: int, step: float) -> None:
    guard = Guard(ROUND, GuardConfig(odom_check=False))
    scan = LaserScan(0.0, 0.0, math.radians(step), np.full(rays, 2.0, np.float32), 0.05, RANGE)
    assert guard.on_scan(scan, 0.0)
    guard.on_policy_command(Velocity(-0.5), 0.0, 0.0)
    guard.decide(0.0)
    seen = ("blind",) if rays < 300 else ()  # where it does not look nothing is known
    assert guard.decide(0.1).limited == ("acceleration", *seen)


@pytest.mark.parametrize("ranges", [[], [math.nan] * 36, [0.01] * 36, [9.0] * 36])
def test_a_scan_that_measures_nothing_is_none(ranges: list[float]) -> None:
    guard = seeing(GuardConfig(odom_check=False), np.zeros((0, 2)))
    for k in range(1, 8):
        now = 0.7 + 0.1 * k
        scan = dataclasses.replace(open_scan(now), ranges=np.array(ranges, np.float32))
        assert not guard.on_scan(scan, now)
        guard.on_policy_command(AHEAD, now, now)
        verdict = guard.decide(now)
    assert verdict.reason == "stale_scan"
    assert guard.counts["dropped_empty_scan"] == 7


# --- properties -----------------------------------------------------------------------------------------

speeds = st.tuples(st.floats(-0.6, 0.6), st.floats(-1.6, 1.6))
places = st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2))


def joined(pose: Pose, step: Pose) -> Pose:
    x, y = moved(np.array([step[:2]]), *pose)[0]
    return float(x), float(y), pose[2] + step[2]


def distance(contract: MobileContract, points: np.ndarray, pose: Pose) -> float:
    """Of the footprint from the nearest point."""
    here = seen_from(points, *pose)
    if contract.footprint is None:
        return float(np.hypot(here[:, 0], here[:, 1]).min() - contract.footprint_radius)
    return float(outside(here, contract.footprint_polygon()).min())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([ROUND, SQUARE]),
    st.lists(places, min_size=1, max_size=12),
    st.lists(speeds, min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_it_never_comes_nearer_than_the_margin(
    contract: MobileContract, at: list[tuple[float, float]], asked: list[tuple[float, float]], every: int
) -> None:
    """A robot that follows at once, a scanner that sees only now and then, and any commands in any order."""
    points, pose = np.array(at), (0.0, 0.0, 0.0)
    assume(distance(contract, points, pose) >= MARGIN)
    guard, nearest = Guard(contract, GuardConfig(odom_check=False)), math.inf
    for tick in range(6 * len(asked)):
        now = tick * HOLD
        if tick % every == 0:
            guard.on_scan(scanned(contract, points, pose, now), now)
        guard.on_policy_command(Velocity(*asked[tick // 6]), now, now)
        velocity = guard.decide(now).velocity
        for _ in range(5):
            pose = joined(pose, after(velocity, HOLD / 5))
            nearest = min(nearest, distance(contract, points, pose))
    assert nearest >= MARGIN - 0.011  # the step in which the way is looked at, and the width of a ray


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([ROUND, SQUARE]),
    st.lists(places, min_size=1, max_size=12),
    st.lists(speeds, min_size=1, max_size=12),
)
def test_one_that_brakes_as_its_limits_say_touches_nothing(
    contract: MobileContract, at: list[tuple[float, float]], asked: list[tuple[float, float]]
) -> None:
    """Both axes follow by the contract's accelerations only, 0.05 s late."""
    points, pose, limits = np.array(at), (0.0, 0.0, 0.0), contract.limits
    assume(distance(contract, points, pose) >= MARGIN)
    guard, going, waiting = Guard(contract, GuardConfig(odom_check=False)), Velocity(), Velocity()
    for tick in range(6 * len(asked) + 10):
        now = tick * HOLD
        guard.on_scan(scanned(contract, points, pose, now), now)
        guard.on_policy_command(Velocity(*asked[min(tick // 6, len(asked) - 1)]), now, now)
        told, waiting = waiting, guard.decide(now).velocity
        for _ in range(5):
            going = Velocity(
                going.linear + _clip(told.linear - going.linear, limits.linear_acceleration * HOLD / 5),
                going.angular + _clip(told.angular - going.angular, limits.angular_acceleration * HOLD / 5),
            )
            pose = joined(pose, after(going, HOLD / 5))
            assert distance(contract, points, pose) > 0.0


def _clip(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)


@given(st.lists(st.tuples(speeds, st.floats(0.01, 0.5)), min_size=1, max_size=8), st.floats(0, 1))
def test_reckoning_is_the_integral_of_what_was_driven(
    driven: list[tuple[tuple[float, float], float]], share: float
) -> None:
    reckoning, now, pose = Reckoning(), 0.0, (0.0, 0.0, 0.0)
    total = sum(seconds for _, seconds in driven)
    then, began = share * total, None
    for velocity, seconds in driven:
        reckoning.drive(Velocity(*velocity), now)
        if began is None and now + seconds >= then:
            began = joined(pose, after(Velocity(*velocity), then - now))
        pose, now = joined(pose, after(Velocity(*velocity), seconds)), now + seconds
    assert began is not None
    x, y = seen_from(np.array([pose[:2]]), *began)[0]
    assert reckoning.since(then, now) == pytest.approx((x, y, pose[2] - began[2]), abs=1e-6)
