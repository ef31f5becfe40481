"""A scanner that repeats itself with fresh stamps: by hand, and what holds however the robot moves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from safety_support import RANGE, open_scan, scan_of

from llmagent_ros.config import build
from llmagent_ros.contract import load_contract, load_mobile_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.geometry import seen_from
from llmagent_ros.safety.guard import Guard, GuardConfig
from llmagent_ros.safety.reckoning import ORIGIN, Pose, after, joined
from llmagent_ros.types import LaserScan, Odometry, Velocity

CONTRACT = load_mobile_contract("sim_diffdrive")  # 0.6 m/s, 1.6 rad/s; time-outs of scan and odometry 0.6 s
FORWARD = Velocity(0.5, 0.0)
TICK = 0.05
TIMEOUT = CONTRACT.sensors.scan.timeout
REASON = "dropped_repeated_scan"
WALLS = np.array([[1.5, 0.3], [-2.0, 0.0], [0.2, -1.9], [0.4, 2.2]])


def scan(stamp: float, ranges: list[float] | None = None) -> LaserScan:
    """With a lost ray and a free one."""
    told = np.array(ranges or [1.0, 2.0, math.nan, math.inf, 1.5, 3.0], np.float32)
    return LaserScan(stamp, -math.pi, math.pi / 3, told, 0.05, RANGE)


def odometry(stamp: float, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> Odometry:
    return Odometry(stamp, x, y, yaw, 0.0, 0.0)


class Driver:
    """A guard and what it is told: the same scan with fresh stamps, and where the robot is."""

    def __init__(self, **config: object) -> None:
        self.guard, self.now = Guard(CONTRACT, GuardConfig(**config)), 0.0  # type: ignore[arg-type]

    def step(self, x: float = 0.0, y: float = 0.0, yaw: float = 0.0, ranges: list[float] | None = None) -> bool:
        """Whether the scan was believed, after odometry has told this pose."""
        self.now += TICK
        self.guard.on_odometry(odometry(self.now, x, y, yaw), self.now)
        return self.guard.on_scan(scan(self.now, ranges), self.now)

    def dropped(self) -> int:
        return self.guard.counts.get(REASON, 0)


# --- by hand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [(0.02, 0.0, 0.0), (0.0, 0.0, 0.02), (-0.012, 0.016, 0.0), (0.0, 0.0, -0.02)])
def test_equal_scans_are_believed_for_a_tenth_of_a_metre_or_a_radian(way: Pose) -> None:
    driver = Driver()
    believed = [driver.step(*(k * part for part in way)) for k in range(8)]
    assert believed == [True] * 6 + [False] * 2  # beyond 0.1, and not at it; the sixth is 5 steps away
    assert driver.dropped() == 2


def test_the_robot_stops_by_the_age_of_the_last_believed_scan() -> None:
    driver, reasons = Driver(), []
    for k in range(40):
        driver.step(0.02 * k)
        driver.guard.on_policy_command(FORWARD, driver.now, driver.now)
        reasons.append(driver.guard.decide(driver.now).reason)
    stopped = reasons.index("stale_scan")
    assert stopped - 5 in (12, 13) and set(reasons[stopped:]) == {"stale_scan"}  # 0.6 s after the last of 0.1 m
    assert driver.step(0.8, ranges=[1.1, 2.0, math.nan, math.inf, 1.5, 3.0]), "the first that differs is believed"
    driver.guard.on_policy_command(FORWARD, driver.now, driver.now)
    assert driver.guard.decide(driver.now).reason is None
    assert driver.step(0.82, ranges=[1.1, 2.0, math.nan, math.inf, 1.5, 3.0]), "and the way is counted from there"


def test_a_robot_that_stands_or_trembles_may_see_the_same_for_ever() -> None:
    driver = Driver()
    assert all(driver.step(0.04 * math.sin(k), 0.04 * math.cos(k), 0.05 * math.sin(2 * k)) for k in range(2000))


def test_who_came_back_to_where_the_scan_was_taken_has_moved_all_the_same() -> None:
    driver = Driver()
    for k in range(7):
        driver.step(0.02 * k)
    assert not any(driver.step(0.02 * k) for k in range(6, -1, -1)), "a live scanner has noise"


def test_one_bit_or_one_ray_is_enough_to_be_another_scan() -> None:
    driver = Driver()
    for k in range(40):
        bit = float(np.nextafter(np.float32(1.0), np.float32(2.0))) if k % 2 else 1.0
        assert driver.step(0.05 * k, ranges=[bit, 2.0, math.nan])
    for k in range(40):
        assert driver.step(0.05 * k, ranges=[1.0] * (5 + k % 2))


@pytest.mark.parametrize("ranges", [[math.inf] * 6, [RANGE] * 6, [math.inf, math.nan, RANGE, math.inf, 0.0, -math.inf]])
def test_a_scan_that_meets_nothing_is_the_same_everywhere(ranges: list[float]) -> None:
    driver = Driver()
    assert all(driver.step(0.05 * k, ranges=ranges) for k in range(40))


@pytest.mark.parametrize("jump", [(5.0, -3.0, 0.0), (0.0, 0.0, 2.0), (0.2, 0.0, 0.0)])
def test_a_reset_of_odometry_is_no_motion(jump: Pose) -> None:
    driver = Driver()
    assert all(driver.step() for _ in range(5))
    assert all(driver.step(*jump) for _ in range(5))
    assert all(driver.step() for _ in range(5))


def test_a_reset_of_odometry_takes_nothing_away() -> None:
    driver = Driver()
    assert all(driver.step(0.02 * k) for k in range(5))  # 0.08 m
    x, y = 7.0, 7.0  # and turned by a right angle: ahead is y now
    assert driver.step(x, y, math.pi / 2)
    assert driver.step(x, y + 0.015, math.pi / 2)
    assert not driver.step(x, y + 0.03, math.pi / 2)


def test_what_it_did_while_odometry_was_silent_is_not_known() -> None:
    driver = Driver()
    driver.step()
    driver.now += CONTRACT.sensors.odom.timeout
    assert driver.step(0.5), "an odometry that is started anew begins anywhere"
    assert [driver.step(0.5 + 0.06 * k) for k in (1, 2)] == [True, False]


def test_readings_that_come_late_again_or_not_finite_do_not_count() -> None:
    driver = Driver()
    driver.step()
    driver.now += 0.2
    for stamp, x in ((0.15, 0.0), (0.1, 0.09), (0.15, 0.09), (0.15, math.nan)):
        driver.guard.on_odometry(odometry(stamp, x), driver.now)
    driver.now += TICK
    driver.guard.on_odometry(odometry(driver.now, 0.08), driver.now)
    assert driver.guard.on_scan(scan(driver.now), driver.now)


def test_scans_out_of_order() -> None:
    driver = Driver()
    for k in range(8):
        driver.step(0.02 * k)
    assert driver.dropped() == 2
    now = driver.now
    assert not driver.guard.on_scan(scan(now - 0.02), now), "an old one of the same is one of them"
    assert driver.guard.on_scan(scan(0.01, [1.0, 1.0]), now), "what was seen before may come now"
    assert not driver.guard.on_scan(scan(now), now), "and does not say that the scanner lives"
    assert driver.guard.on_scan(scan(now, [1.0, 1.0]), now)


def test_a_scan_of_the_future_says_nothing() -> None:
    driver = Driver()
    for k in range(8):
        driver.step(0.02 * k)
    assert not driver.guard.on_scan(scan(driver.now + 5.0, [1.0, 1.0]), driver.now)
    assert not driver.step(0.16)


def test_a_clock_that_jumps_does_not_thaw_a_scanner() -> None:
    driver = Driver()
    for k in range(8):
        driver.step(0.02 * k)
    driver.now = 100.0
    assert not driver.step(0.16)
    driver.now = 50.0  # back: everything is forgotten, but it is still the same scan
    assert [driver.step(0.16 + 0.02 * k) for k in range(3)] == [False] * 3
    assert driver.guard.decide(driver.now).reason == "no_scan"
    assert driver.step(0.22, ranges=[1.0, 1.0])


def test_a_scanner_that_freezes_after_a_jump_of_the_clock_is_found() -> None:
    driver = Driver()
    driver.now = 100.0
    driver.step()
    driver.now = 50.0
    assert [driver.step(0.02 * k, ranges=[1.0, 1.0]) for k in range(8)] == [True] * 6 + [False] * 2


def test_turning_past_half_a_turn() -> None:
    driver = Driver()
    yaws = [math.remainder(3.1 + 0.03 * k, 2 * math.pi) for k in range(6)]
    assert [driver.step(yaw=yaw) for yaw in yaws] == [True] * 4 + [False] * 2


def test_a_clock_that_jumps_while_the_robot_stands_makes_nothing_repeated() -> None:
    driver = Driver()
    driver.now = 100.0
    for now in (99.0, 50.0, 51.0, 5.0):
        assert driver.step() and driver.step()
        driver.now = now
        assert driver.step(now), "where it is after the jump is no motion"
        assert driver.step(now)
        assert driver.step()


def test_the_distance_is_configured_or_nobody_looks() -> None:
    far = Driver(repeats={"distance": 0.5, "angle": 0.3})
    assert [far.step(0.05 * k) for k in range(12)] == [True] * 11 + [False]
    off = Driver(repeat_check=False)
    assert all(off.step(0.05 * k) for k in range(40))
    without = Driver(odom_check=False)
    assert all(without.step(0.05 * k) for k in range(40))


def test_only_where_odometry_is_watched() -> None:
    assert GuardConfig().checks_repeats
    assert not GuardConfig(lockstep=True, odom_check=True).checks_repeats
    for values in ({"odom_check": False}, {"lockstep": True}):
        with pytest.raises(ConfigError, match="repeat_check"):
            build(GuardConfig, {**values, "repeat_check": True}, "guard")
    with pytest.raises(ConfigError, match="distance"):
        build(GuardConfig, {"repeats": {"distance": 0.0}}, "guard")
    Guard(load_contract("sim_arm"))


def test_a_person_is_stopped_too_unless_they_may_drive_without_a_scan() -> None:
    for blind in (False, True):
        driver = Driver(teleop_without_scan=blind)
        for k in range(30):
            driver.step(0.02 * k)
            driver.guard.on_teleop_command(FORWARD, driver.now)
            verdict = driver.guard.decide(driver.now)
        assert (verdict.source, verdict.reason) == (("teleop", None) if blind else ("stop", "stale_scan"))


# --- properties -----------------------------------------------------------------------------------------

speeds = st.tuples(st.floats(-0.6, 0.6), st.floats(-1.6, 1.6))
drives = st.lists(speeds, min_size=1, max_size=12)
places = st.lists(st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)), min_size=1, max_size=12)


def distance(points: np.ndarray, pose: Pose) -> float:
    here = seen_from(points, *pose)
    return float(np.hypot(here[:, 0], here[:, 1]).min() - CONTRACT.footprint_radius)


def told(pose: Pose, stamp: float) -> Odometry:
    return odometry(stamp, pose[0], pose[1], math.remainder(pose[2], 2 * math.pi))


@settings(max_examples=60, deadline=None)
@given(drives, st.integers(0, 2**32 - 1), st.floats(1e-4, 0.05), st.integers(0, 60))
def test_a_live_scanner_is_never_taken_for_a_frozen_one(
    driven: list[tuple[float, float]], seed: int, noise: float, jump_at: int
) -> None:
    """Wherever the robot goes, and with an odometry that is reset in between."""
    rng, guard, pose, reset = np.random.default_rng(seed), Guard(CONTRACT), ORIGIN, ORIGIN
    for tick in range(6 * len(driven)):
        now = tick * TICK
        if tick == jump_at:
            reset = (float(rng.uniform(-9, 9)), float(rng.uniform(-9, 9)), float(rng.uniform(-3, 3)))
        guard.on_odometry(told(joined(reset, pose), now), now)
        seen = scan_of(seen_from(WALLS, *pose), now)
        noisy = (seen.ranges + rng.normal(0.0, noise, len(seen.ranges))).astype(np.float32)
        assert guard.on_scan(dataclasses.replace(seen, ranges=noisy), now)
        pose = joined(pose, after(Velocity(*driven[tick // 6]), TICK))


@settings(max_examples=60, deadline=None)
@given(drives, st.integers(0, 20))
def test_a_frozen_scanner_stops_a_robot_that_moves_in_time(driven: list[tuple[float, float]], freeze: int) -> None:
    """Whoever is farther than 0.1 m or 0.1 rad from where the scanner froze stands after the scan's time-out."""
    guard, pose, frozen, begin = Guard(CONTRACT), ORIGIN, scan_of(WALLS, 0.0), ORIGIN
    left: float | None = None  # when it was first seen to have moved that far
    for tick in range(6 * len(driven) + 40):
        now = tick * TICK
        guard.on_odometry(told(pose, now), now)
        if tick <= freeze:
            frozen, begin = scan_of(seen_from(WALLS, *pose), now), pose
        away = math.hypot(pose[0] - begin[0], pose[1] - begin[1]), abs(pose[2] - begin[2])
        if left is None and tick > freeze and (away[0] > 0.1 + 1e-9 or away[1] > 0.1 + 1e-9):
            left = now
        believed = guard.on_scan(dataclasses.replace(frozen, stamp=now), now)
        if tick > freeze and max(away) < 0.1 - 1e-9 and left is None:
            assert believed
        guard.on_policy_command(Velocity(*driven[tick // 6 % len(driven)]), now, now)
        verdict = guard.decide(now)
        if left is not None and now - left > TIMEOUT:
            assert (verdict.reason, verdict.velocity) == ("stale_scan", Velocity())
        pose = joined(pose, after(verdict.velocity, TICK))


@settings(max_examples=60, deadline=None)
@given(places, drives, st.integers(0, 40))
@example([(0.5, 0.0)], [(0.5, 5e-324)], 0)  # a curvature that rounding made an arc of its own
def test_before_it_stops_it_touches_nothing(
    at: list[tuple[float, float]], driven: list[tuple[float, float]], freeze: int
) -> None:
    """What the scanner saw when it froze is taken to where the robot is by its odometry."""
    points, pose = np.array(at), ORIGIN
    margin = GuardConfig().clearance.margin
    assume(distance(points, pose) >= margin)
    guard, frozen, nearest = Guard(CONTRACT), scan_of(points, 0.0), math.inf
    for tick in range(6 * len(driven) + 40):
        now = tick * TICK
        if tick <= freeze:
            frozen = scan_of(seen_from(points, *pose), now)
        guard.on_odometry(told(pose, now), now)
        guard.on_scan(dataclasses.replace(frozen, stamp=now), now)
        guard.on_policy_command(Velocity(*driven[tick // 6 % len(driven)]), now, now)
        velocity = guard.decide(now).velocity
        for _ in range(5):
            pose = joined(pose, after(velocity, TICK / 5))
            nearest = min(nearest, distance(points, pose))
    assert nearest >= margin - 0.015  # as with a live scanner, and the frozen scan's rays are told from elsewhere


@pytest.mark.parametrize("free", [0.02, 0.1, 0.2, 0.3, 0.4])
@pytest.mark.parametrize("turned", [0.0, 0.7])
def test_a_wall_that_was_seen_last_before_it_froze(free: float, turned: float) -> None:
    """Driving at it, the robot is nearer than the frozen scan says, all the time."""
    margin = GuardConfig().clearance.margin
    points = np.stack([np.full(401, CONTRACT.footprint_radius + margin + free), np.linspace(-1.0, 1.0, 401)], axis=1)
    guard, pose, frozen = Guard(CONTRACT), (0.0, 0.0, turned), scan_of(seen_from(points, 0.0, 0.0, turned), 0.0)
    for tick in range(60):
        now = tick * TICK
        guard.on_odometry(told(pose, now), now)
        guard.on_scan(dataclasses.replace(frozen, stamp=now), now)
        guard.on_policy_command(FORWARD, now, now)
        pose = joined(pose, after(guard.decide(now).velocity, TICK))
    assert distance(points, pose) >= margin - 0.011
    assert pose[0] > 0.5 * free * math.cos(turned), "it must have driven"


def test_an_open_field_for_good() -> None:
    guard = Guard(CONTRACT)
    for k in range(100):
        now = TICK * k
        guard.on_odometry(odometry(now, 0.02 * k), now)
        assert guard.on_scan(open_scan(now), now)
