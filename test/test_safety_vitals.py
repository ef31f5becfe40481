"""Jerk, odometry, heartbeats and the dead-man: one rule a test, and what holds for any ramp."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safety_support import open_scan

from llmagent_ros.contract import load_contract, load_mobile_contract
from llmagent_ros.safety.guard import Guard, GuardConfig
from llmagent_ros.safety.limits import Moving, limit, ramp
from llmagent_ros.types import Odometry, Velocity

CONTRACT = load_mobile_contract("sim_diffdrive")  # 0.6 m/s, 2.5 m/s^2; time-outs of scan and odometry 0.6 s
LIMITS = dataclasses.replace(CONTRACT.limits, linear_jerk=10.0, angular_jerk=20.0)
FORWARD = Velocity(0.5, 0.0)
TICK = 0.05


def reading(stamp: float, **values: float) -> Odometry:
    return dataclasses.replace(Odometry(stamp, 0.0, 0.0, 0.0, 0.0, 0.0), **values)


def step(guard: Guard, now: float, *, odom: bool = True, beat: bool = True) -> str | None:
    """Scan and command of now, with or without the rest; why it stops."""
    guard.on_scan(open_scan(now), now)
    guard.on_policy_command(FORWARD, now, now)
    if odom:
        guard.on_odometry(reading(now), now)
    if beat:
        guard.on_heartbeat("policy", 1000.0 + now)
    return guard.decide(now, 1000.0 + now).reason


# --- jerk ---------------------------------------------------------------------------------------------


def test_jerk_by_hand() -> None:
    last, speeds = Moving(), []
    for _ in range(14):
        last, _changed = limit(last, FORWARD, TICK, LIMITS)
        speeds.append(last.velocity.linear)
    # 10 m/s^3 * 0.05 s = 0.5 m/s^2 more each tick: 0.025, 0.05, 0.075, 0.1 m/s; then less again, to end without a jolt
    assert speeds[:4] == pytest.approx([0.025, 0.075, 0.15, 0.25])
    assert speeds[4:8] == pytest.approx([0.35, 0.425, 0.475, 0.5], abs=0.001)
    assert speeds[-1] == 0.5 and last.gaining == (0.0, 0.0)


def test_it_is_said_and_counted_by_its_name() -> None:
    guard = Guard(dataclasses.replace(CONTRACT, limits=LIMITS), GuardConfig(odom_check=False))
    step(guard, 0.0)
    step(guard, TICK)
    assert guard.counts == {"acceleration": 1, "jerk": 1}


def rounded(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: round(value, 3))


velocities = st.builds(Velocity, rounded(-0.6, 0.6), rounded(-1.6, 1.6))


@given(st.lists(st.tuples(velocities, rounded(0.0, 0.4)), min_size=1, max_size=20))
def test_jerk_bounds_what_grows_and_delays_nothing_that_shrinks(steps: list[tuple[Velocity, float]]) -> None:
    last = Moving()
    for target, elapsed in steps:
        now = ramp(last, target, elapsed, LIMITS)
        without = ramp(last, target, elapsed, CONTRACT.limits).velocity
        for axis, jerk, most in (("linear", 10.0, 2.5), ("angular", 20.0, 8.0)):
            before, after = getattr(last.velocity, axis), getattr(now.velocity, axis)
            aim, free = getattr(target, axis), getattr(without, axis)
            gained = last.gaining[axis == "angular"]
            assert abs(after - before) <= most * elapsed + 1e-9
            if abs(after) > abs(before):
                assert (abs(after) - abs(before)) <= (gained + jerk * elapsed) * elapsed + 1e-9
                assert abs(after) <= abs(aim) + 1e-9 and after * aim > 0
            elif before * aim >= 0.0 and abs(aim) < abs(before):
                assert after == free
            elif before * aim < 0.0:
                assert abs(after) <= abs(free) + 1e-9 or abs(after) < abs(before)
        last = now


def test_a_stop_of_the_guard_is_immediate_and_the_ramp_begins_anew() -> None:
    guard = Guard(dataclasses.replace(CONTRACT, limits=LIMITS), GuardConfig(odom_check=False))
    for k in range(20):
        step(guard, TICK * k)
    guard.on_e_stop(True)
    assert guard.decide(1.0).velocity == Velocity()
    guard.on_e_stop(False)
    guard.reset_e_stop()
    assert step(guard, 1.05) is None
    assert guard.decide(1.05 + TICK).velocity.linear == pytest.approx(0.075)


# --- odometry -----------------------------------------------------------------------------------------


def test_odometry_must_come_and_keep_coming() -> None:
    guard = Guard(CONTRACT)
    assert step(guard, 0.0, odom=False) == "no_odom"
    assert step(guard, 0.1) is None
    assert [step(guard, 0.1 + age, odom=False) for age in (0.2, 0.4, 0.59, 0.61)] == [None] * 3 + ["stale_odom"]
    assert step(guard, 0.8) is None


def test_odometry_that_repeats_its_stamp_is_not_finite_or_of_the_future_does_not_count() -> None:
    guard = Guard(CONTRACT)
    assert not guard.on_odometry(reading(0.0, yaw=math.nan), 0.0)
    assert not guard.on_odometry(reading(5.0), 0.0)
    assert step(guard, 0.0, odom=False) == "no_odom"
    assert guard.counts["dropped_not_finite"] == guard.counts["dropped_future_odom"] == 1
    for k in range(8):
        guard.on_odometry(reading(0.0), 0.1 * k)
        reason = step(guard, 0.1 * k, odom=False)
    assert reason == "stale_odom"


def test_a_person_drives_without_odometry_and_arms_have_none() -> None:
    guard = Guard(CONTRACT)
    step(guard, 0.0, odom=False)
    guard.on_teleop_command(FORWARD, 0.0)
    assert guard.decide(0.0).source == "teleop"
    assert Guard(CONTRACT, GuardConfig(lockstep=True)).config.watches_odometry is False
    assert Guard(load_contract("sim_arm")).decide(0.0).reason == "no_joint_states"


def test_a_clock_that_jumps_back_forgets_odometry() -> None:
    guard = Guard(CONTRACT)
    assert step(guard, 100.0) is None
    assert step(guard, 50.0, odom=False) == "no_odom"


@pytest.mark.parametrize("first", ["odometry", "command"])
def test_in_lockstep_a_new_world_needs_odometry_of_its_own(first: str) -> None:
    """Its stamps begin anew: one of the old world would count as fresh for ever."""
    guard = Guard(CONTRACT, GuardConfig(lockstep=True, odom_check=True))

    def command(stamp: float) -> None:
        guard.on_scan(open_scan(stamp), 0.0)
        guard.on_policy_command(FORWARD, stamp, 0.0)

    command(100.0)
    assert guard.awaits_scan, "their race must not decide"
    guard.on_odometry(reading(100.0), 0.0)
    assert not guard.awaits_scan
    assert guard.decide(0.0).reason is None
    command(1.0)  # the world began anew, and odometry is dead
    assert guard.awaits_scan
    assert guard.decide(0.0).reason == "no_odom"
    if first == "odometry":
        guard.on_odometry(reading(0.0), 0.0)
    command(0.0)
    if first == "command":
        assert guard.awaits_scan
        guard.on_odometry(reading(0.0), 0.0)
    assert not guard.awaits_scan
    assert guard.decide(0.0).reason is None
    command(0.8)
    assert not guard.awaits_scan, "what has come once is only waited for by its time-out"
    assert guard.decide(0.0).reason == "stale_odom"


def test_in_lockstep_odometry_of_a_new_world_that_comes_before_its_command_counts() -> None:
    guard = Guard(CONTRACT, GuardConfig(lockstep=True, odom_check=True))
    for stamp in (8.0, 0.0):
        guard.on_odometry(reading(stamp), 0.0)
        guard.on_scan(open_scan(stamp), 0.0)
        guard.on_policy_command(FORWARD, stamp, 0.0)
        assert not guard.awaits_scan
        assert guard.decide(0.0).reason is None


# --- heartbeats ---------------------------------------------------------------------------------------


def test_a_heartbeat_must_come_and_keep_coming() -> None:
    guard = Guard(CONTRACT, GuardConfig(heartbeats=("policy",)))
    guard.on_heartbeat("teleop", 1000.0)
    assert step(guard, 0.0, beat=False) == "no_heartbeat"
    assert step(guard, 0.1) is None
    assert [step(guard, 0.1 + age, beat=False) for age in (0.2, 0.49, 0.51)] == [None] * 2 + ["stale_heartbeat"]
    assert step(guard, 0.8) is None


def test_every_one_of_them_must_live() -> None:
    guard = Guard(CONTRACT, GuardConfig(heartbeats=("policy", "teleop")))
    assert step(guard, 0.0) == "no_heartbeat"
    guard.on_heartbeat("teleop", 1000.0)
    assert step(guard, 0.1) is None


def test_a_person_drives_whoever_is_silent() -> None:
    guard = Guard(CONTRACT, GuardConfig(heartbeats=("policy",)))
    step(guard, 0.0, beat=False)
    guard.on_teleop_command(FORWARD, 0.0)
    assert guard.decide(0.0, 1000.0).source == "teleop"


# --- dead-man -----------------------------------------------------------------------------------------


def driven_by_hand() -> Guard:
    """A guard whose policy is fresh, and whose robot a person drives backwards since 0.1 s."""
    guard = Guard(CONTRACT, GuardConfig(dead_man=True))
    step(guard, 0.0)
    guard.on_dead_man(True, 1000.1)
    guard.on_teleop_command(Velocity(-0.2), 0.1)
    assert guard.decide(0.1, 1000.1).source == "teleop"
    return guard


def test_a_person_counts_only_while_the_dead_man_is_held() -> None:
    guard = Guard(CONTRACT, GuardConfig(dead_man=True))
    step(guard, 0.0)
    guard.on_teleop_command(Velocity(-0.2), 0.0)
    assert guard.decide(0.0, 1000.0).source == "policy", "it was never held"
    guard.on_dead_man(True, 1000.0)
    assert guard.decide(0.05, 1000.05).source == "policy", "what was asked for before must not come back"
    guard.on_teleop_command(Velocity(-0.2), 0.1)
    assert guard.decide(0.1, 1000.1).source == "teleop"
    assert guard.counts["dropped_without_dead_man"] == 1 and "dead_man_released" not in guard.counts


def test_letting_go_stops_the_robot_and_does_not_hand_it_over() -> None:
    guard = driven_by_hand()
    guard.on_dead_man(False, 1000.2)
    for now in (0.2, 0.4, 0.6, 0.69):
        step(guard, now)
        guard.on_teleop_command(Velocity(-0.2), now)  # what is refused does not prolong it
        verdict = guard.decide(now, 1000.0 + now)
        assert (verdict.source, verdict.reason, verdict.velocity) == ("stop", "dead_man_released", Velocity())
    assert step(guard, 0.71) is None
    assert guard.decide(0.71, 1000.71).source == "policy"
    assert guard.counts["dead_man_released"] == 1 and guard.counts["dropped_without_dead_man"] == 5


def test_a_dead_man_that_falls_silent_is_let_go() -> None:
    guard = driven_by_hand()
    for now in (0.4, 0.59):
        step(guard, now)
        guard.on_teleop_command(Velocity(-0.2), now)
        assert guard.decide(now, 1000.0 + now).source == "teleop"
    for now in (0.61, 1.1):
        assert step(guard, now) == "dead_man_released", "nothing was heard of it for 0.5 s"
    assert step(guard, 1.12) is None


def test_who_holds_it_again_drives_at_once() -> None:
    guard = driven_by_hand()
    guard.on_dead_man(False, 1000.2)
    assert guard.decide(0.2, 1000.2).reason == "dead_man_released"
    guard.on_dead_man(True, 1000.25)
    assert guard.decide(0.25, 1000.25).reason == "dead_man_released", "what was asked for before must not come back"
    guard.on_teleop_command(Velocity(-0.2), 0.3)
    assert guard.decide(0.3, 1000.3).source == "teleop"


def test_letting_go_outlasts_a_clock_that_jumps() -> None:
    guard = driven_by_hand()
    guard.on_dead_man(False, 1000.2)
    guard.decide(0.2, 1000.2)
    for steady, reason in ((1000.3, "dead_man_released"), (1000.69, "dead_man_released"), (1000.71, None)):
        now = steady - 1050.0
        guard.on_scan(open_scan(now), now)
        guard.on_odometry(reading(now), now)
        guard.on_policy_command(FORWARD, now, now)
        assert guard.decide(now, steady).reason == reason
    assert guard.counts["clock_jumped_back"] == 1


def test_without_a_dead_man_letting_go_is_a_zero_that_lasts() -> None:
    guard = Guard(CONTRACT)
    step(guard, 0.0)
    guard.on_teleop_command(Velocity(-0.2), 0.1)
    guard.decide(0.1, 1000.1)
    guard.on_teleop_command(Velocity(), 0.2)
    guard.on_dead_man(False, 1000.2)
    for now in (0.2, 0.69):
        step(guard, now)
        verdict = guard.decide(now, 1000.0 + now)
        assert (verdict.source, verdict.velocity) == ("teleop", Velocity())
    step(guard, 0.71)
    assert guard.decide(0.71, 1000.71).source == "policy"
