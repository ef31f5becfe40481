"""The guard by hand-computed ramps and time-outs, one rule a test."""

from __future__ import annotations

import dataclasses
import math

import pytest
from safety_support import open_scan

from llmagent_ros.config import build
from llmagent_ros.contract import RobotContract, load_contract, load_mobile_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.recording.explanation import REASONS
from llmagent_ros.safety import reasons as rules
from llmagent_ros.safety.guard import Guard, GuardConfig
from llmagent_ros.types import Velocity, Verdict

CONTRACT = load_contract("sim_diffdrive")  # 0.6 m/s, 1.6 rad/s, 2.5 m/s^2, 8 rad/s^2, period 0.4 s, scan 0.6 s
FORWARD = Velocity(0.5, 0.0)
PLAIN = GuardConfig(odom_check=False)


def running(velocity: Velocity = FORWARD, now: float = 100.0, config: GuardConfig = PLAIN) -> Guard:
    """A guard that follows `velocity` at full speed at `now`."""
    guard = Guard(CONTRACT, config)
    for k in range(11):
        time = now - 1.0 + 0.1 * k
        guard.on_scan(open_scan(time), time)
        guard.on_policy_command(velocity, time, time)
        guard.decide(time)
    assert guard.decide(now).velocity == velocity
    return guard


def test_ramp_by_hand() -> None:
    guard = Guard(CONTRACT, PLAIN)
    guard.on_scan(open_scan(0.0), 0.0)
    guard.on_policy_command(Velocity(0.5, -1.0), 0.0, 0.0)
    verdicts = [guard.decide(0.05 * k) for k in range(6)]
    # 2.5 m/s^2 * 0.05 s = 0.125 m/s, 8 rad/s^2 * 0.05 s = 0.4 rad/s a tick; at the first one no time has passed.
    assert [v.velocity.linear for v in verdicts] == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5, 0.5])
    assert [v.velocity.angular for v in verdicts] == pytest.approx([0.0, -0.4, -0.8, -1.0, -1.0, -1.0])
    assert [v.limited for v in verdicts] == [("acceleration",)] * 4 + [(), ()]
    assert guard.counts == {"acceleration": 1}


def test_braking_for_the_policy_is_ramped_and_crosses_zero() -> None:
    guard = running()
    guard.on_policy_command(Velocity(-0.3, 0.0), 100.0, 100.0)
    speeds = [guard.decide(100.0 + 0.1 * k).velocity.linear for k in range(1, 5)]
    assert speeds == pytest.approx([0.25, 0.0, -0.25, -0.3])


def test_speed_is_clamped_on_both_axes_and_counted() -> None:
    guard = running(Velocity(0.6, 0.0))
    guard.on_policy_command(Velocity(7.0, -9.0), 100.0, 100.0)
    for k in range(5):
        verdict = guard.decide(100.0 + 0.1 * k)
    assert verdict.velocity == Velocity(0.6, -1.6)
    assert verdict.limited == ("speed",)
    assert guard.counts["speed"] == 1


def test_a_pause_buys_no_more_than_one_period_of_acceleration() -> None:
    contract = dataclasses.replace(CONTRACT, limits=dataclasses.replace(CONTRACT.limits, linear_acceleration=0.5))
    guard = Guard(contract, PLAIN)
    guard.on_scan(open_scan(0.0), 0.0)
    guard.decide(0.0)
    guard.on_scan(open_scan(50.0), 50.0)
    guard.on_policy_command(FORWARD, 50.0, 50.0)
    assert guard.decide(50.0).velocity.linear == pytest.approx(0.2)  # 0.5 m/s^2 * 0.4 s, not * 50 s


def test_e_stop_is_immediate_latched_and_not_reset_while_pressed() -> None:
    guard = running()
    guard.on_e_stop(True)
    verdict = guard.decide(100.0)
    assert (verdict.velocity, verdict.source, verdict.reason) == (Velocity(), "stop", "e_stop")
    assert not guard.reset_e_stop()
    guard.on_e_stop(False)
    guard.on_teleop_command(FORWARD, 100.0)
    assert guard.decide(100.1).reason == "e_stop"
    assert guard.reset_e_stop()
    verdict = guard.decide(100.2)
    assert verdict.velocity == Velocity()  # the reset alone starts nothing
    assert verdict.reason == "no_command"
    guard.on_policy_command(FORWARD, 100.2, 100.2)
    assert guard.decide(100.3).velocity.linear == pytest.approx(0.25)  # ramps from standstill
    assert guard.counts["e_stop"] == 1


def test_it_is_reset_only_when_every_e_stop_is_let_go() -> None:
    guard = running()
    guard.on_e_stop(True, "hardware_e_stop")
    guard.on_e_stop(True)
    guard.on_e_stop(False)  # who lets go of the one says nothing of the other
    assert guard.pressed_e_stops == ("hardware_e_stop",)
    assert not guard.reset_e_stop() and guard.e_stopped
    guard.on_e_stop(True)
    assert guard.pressed_e_stops == ("e_stop", "hardware_e_stop")
    guard.on_e_stop(False, "hardware_e_stop")
    assert not guard.reset_e_stop()
    guard.on_e_stop(False)
    assert guard.pressed_e_stops == () and guard.e_stopped
    assert guard.reset_e_stop() and not guard.e_stopped


@pytest.mark.parametrize("robot", ["sim_diffdrive", "husky"])
@pytest.mark.parametrize("who", ["policy", "teleop"])
def test_a_zero_that_is_asked_for_stops_at_once_and_the_ramp_begins_anew(robot: str, who: str) -> None:
    contract = load_mobile_contract(robot)
    limits = dataclasses.replace(contract.limits, linear_jerk=10.0)
    guard = Guard(dataclasses.replace(contract, limits=limits), PLAIN)

    def decide(now: float, velocity: Velocity) -> Verdict:
        guard.on_scan(open_scan(now), now)
        guard.on_policy_command(velocity, now, now)
        if who == "teleop":
            guard.on_teleop_command(velocity, now)
        return guard.decide(now)

    for k in range(60):
        verdict = decide(0.05 * k, Velocity(limits.linear, limits.angular))
    assert verdict.velocity == Velocity(limits.linear, limits.angular)
    verdict = decide(3.0, Velocity())
    assert (verdict.velocity, verdict.source, verdict.limited, verdict.reason) == (Velocity(), who, (), None)
    verdict = decide(3.05, Velocity(limits.linear))
    assert verdict.velocity.linear == pytest.approx(10.0 * 0.05**2), "from zero speed and zero acceleration"


def test_what_is_nearly_zero_is_ramped() -> None:
    guard = running()
    guard.on_policy_command(Velocity(0.0, 1e-6), 100.0, 100.0)
    assert guard.decide(100.1).velocity.linear == pytest.approx(0.25)


def test_reset_without_an_e_stop_keeps_driving() -> None:
    guard = running()
    assert guard.reset_e_stop()
    assert guard.decide(100.0).velocity == FORWARD


@pytest.mark.parametrize(("age", "reason"), [(0.59, None), (0.61, "stale_command")])
def test_command_timeout(age: float, reason: str | None) -> None:
    guard = running()
    guard.on_scan(open_scan(100.0 + age), 100.0 + age)
    verdict = guard.decide(100.0 + age)
    assert verdict.reason == reason
    assert verdict.velocity == (FORWARD if reason is None else Velocity())


@pytest.mark.parametrize(("age", "reason"), [(0.59, None), (0.61, "stale_scan")])
def test_scan_timeout(age: float, reason: str | None) -> None:
    guard = running()
    guard.on_policy_command(FORWARD, 100.0 + age, 100.0 + age)
    assert guard.decide(100.0 + age).reason == reason


def test_a_command_from_old_data_is_old_when_it_comes() -> None:
    guard = running()
    guard.forget()
    guard.on_scan(open_scan(100.0), 100.0)
    assert guard.on_policy_command(FORWARD, 99.0, 100.0)
    verdict = guard.decide(100.0)
    assert (verdict.reason, verdict.stamp) == ("stale_command", 99.0)


def test_a_frozen_scanner_that_repeats_its_stamp_is_stale() -> None:
    guard = running()
    for k in range(8):
        now = 100.0 + 0.1 * k
        guard.on_scan(open_scan(100.0), now)
        guard.on_policy_command(FORWARD, now, now)
        verdict = guard.decide(now)
    assert verdict.reason == "stale_scan"


def test_an_old_scan_that_comes_late_takes_nothing_away() -> None:
    guard = running()
    guard.on_scan(open_scan(99.0), 100.0)
    assert guard.decide(100.0).velocity == FORWARD


def test_never_a_scan_stops_policy_and_teleop() -> None:
    guard = Guard(CONTRACT, PLAIN)
    guard.on_policy_command(FORWARD, 1.0, 1.0)
    guard.on_teleop_command(FORWARD, 1.0)
    assert guard.decide(1.0).reason == "no_scan"


def test_teleop_without_scan_only_where_configured() -> None:
    guard = Guard(CONTRACT, GuardConfig(teleop_without_scan=True, odom_check=False))
    guard.on_policy_command(FORWARD, 1.0, 1.0)
    assert guard.decide(1.0).reason == "no_scan"
    guard.on_teleop_command(FORWARD, 1.0)
    assert guard.decide(1.1).source == "teleop"
    assert guard.decide(1.6).reason == "no_scan"


def test_teleop_takes_over_and_hands_back() -> None:
    guard = running()
    guard.on_teleop_command(Velocity(0.0, 0.4), 100.0)
    verdict = guard.decide(100.2)
    assert (verdict.source, verdict.velocity) == ("teleop", Velocity(0.0, 0.4))
    guard.on_scan(open_scan(100.4), 100.4)
    guard.on_policy_command(FORWARD, 100.4, 100.4)
    verdict = guard.decide(100.4)
    assert (verdict.source, verdict.stamp) == ("teleop", 100.4)  # the policy's command is answered, by the person's
    verdict = guard.decide(100.51)
    assert (verdict.source, verdict.velocity.linear) == ("policy", pytest.approx(0.275))
    assert guard.counts["teleop"] == 1


def test_teleop_commands_that_a_link_held_back_are_dropped_and_counted() -> None:
    guard = running()
    for age in (5.0, 1.0, 0.51):
        assert not guard.on_teleop_command(Velocity(-0.3), 100.0, 100.0 - age)
    assert not guard.on_teleop_command(Velocity(-0.3), 100.0, 100.3)
    assert guard.counts["dropped_old_teleop_command"] == 3
    assert guard.counts["dropped_future_teleop_command"] == 1
    assert guard.decide(100.0).source == "policy"


@pytest.mark.parametrize(("age", "until"), [(0.4, 100.1), (0.0, 100.5), (-0.15, 100.5)])
def test_a_teleop_command_counts_from_its_stamp_but_not_from_the_future(age: float, until: float) -> None:
    guard = running()
    assert guard.on_teleop_command(FORWARD, 100.0, 100.0 - age)
    guard.on_scan(open_scan(until), until)
    assert guard.decide(until - 0.01).source == "teleop"
    assert guard.decide(until + 0.01).source != "teleop"


def test_lockstep_takes_teleop_by_arrival() -> None:
    guard = lockstep()
    guard.on_scan(open_scan(0.4), 0.4)
    guard.on_policy_command(FORWARD, 0.4, 0.4)
    assert guard.on_teleop_command(Velocity(-0.3), 0.4, 1.7e9)
    assert guard.decide(0.4).source == "teleop"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_dropped_and_counted(bad: float) -> None:
    guard = running()
    assert not guard.on_policy_command(Velocity(bad, 0.0), 100.0, 100.0)
    assert not guard.on_policy_command(Velocity(0.0, bad), 100.0, 100.0)
    assert not guard.on_policy_command(FORWARD, bad, 100.0)
    assert not guard.on_teleop_command(Velocity(bad, 0.0), 100.0)
    assert not guard.on_teleop_command(FORWARD, 100.0, bad)
    assert not guard.on_scan(open_scan(bad), 100.0)
    assert guard.counts["dropped_not_finite"] == 6
    assert guard.decide(100.0).velocity == FORWARD


def test_future_stamps_are_dropped_and_prolong_nothing() -> None:
    guard = running()
    assert not guard.on_policy_command(Velocity(0.1), 100.3, 100.0)
    assert not guard.on_scan(open_scan(107.0), 100.0)
    assert guard.on_policy_command(FORWARD, 100.15, 100.0)  # within the tolerance
    guard.on_scan(open_scan(100.61), 100.61)
    assert guard.decide(100.61).reason == "stale_command"  # its age counts from when it came
    assert guard.counts["dropped_future_command"] == guard.counts["dropped_future_scan"] == 1


def test_commands_out_of_order_are_dropped() -> None:
    guard = running()
    assert not guard.on_policy_command(Velocity(-0.3), 99.9, 100.0)
    assert guard.counts["dropped_out_of_order_command"] == 1
    assert guard.decide(100.0).velocity == FORWARD


def test_clock_jump_back_stops_until_new_data_come() -> None:
    guard = running()
    verdict = guard.decide(3.0)
    assert (verdict.velocity, verdict.reason) == (Velocity(), "no_scan")
    assert guard.counts["clock_jumped_back"] == 1
    guard.on_scan(open_scan(3.0), 3.0)
    assert guard.decide(3.0).reason == "no_command"
    assert guard.on_policy_command(FORWARD, 3.0, 3.0)
    assert guard.decide(3.1).velocity.linear == pytest.approx(0.25)


def test_a_small_step_back_of_the_clock_holds_time_still() -> None:
    guard = running()
    assert guard.decide(99.97).velocity == FORWARD
    assert "clock_jumped_back" not in guard.counts


def test_clock_jump_forward_is_stale() -> None:
    assert running().decide(1e9).reason == "stale_scan"


def test_a_clock_that_stands_stops_policy_and_person() -> None:
    guard = running()
    assert guard.decide(100.0, 7.0).velocity == FORWARD
    assert guard.decide(100.0, 7.59).velocity == FORWARD
    verdict = guard.decide(100.0, 7.61)
    assert (verdict.velocity, verdict.reason) == (Velocity(), "clock_stopped")
    guard.on_scan(open_scan(100.0), 100.0)
    guard.on_teleop_command(FORWARD, 100.0)
    guard.on_policy_command(FORWARD, 100.0, 100.0)
    verdict = guard.decide(100.0, 7.65)
    assert (verdict.velocity, verdict.reason, verdict.stamp) == (Velocity(), "clock_stopped", 100.0)
    assert guard.counts["clock_stopped"] == 1


def test_when_the_clock_runs_on_only_new_data_move_the_robot() -> None:
    guard = running()
    guard.decide(100.0, 7.0)
    guard.decide(100.0, 8.0)
    assert guard.decide(100.4, 8.1).reason == "no_scan", "a command of before is young again by the clock"
    guard.on_scan(open_scan(100.4), 100.4)
    assert guard.decide(100.4, 8.2).reason == "no_command"
    guard.on_policy_command(FORWARD, 100.4, 100.4)
    assert guard.decide(100.5, 8.3).velocity.linear == pytest.approx(0.25)


@pytest.mark.parametrize("speed", [0.2, 1.0, 100.0])
def test_a_clock_may_run_at_any_speed_that_lets_it_move_often(speed: float) -> None:
    guard = Guard(CONTRACT, PLAIN)
    for tick in range(40):  # sim's: four times a control period
        now = 0.1 * tick
        guard.on_scan(open_scan(now), now)
        guard.on_policy_command(FORWARD, now, now)
        for part in range(5):
            verdict = guard.decide(now, (0.1 * tick + 0.02 * part) / speed)
            assert verdict.reason is None
    assert verdict.velocity == FORWARD


def test_clock_timeout_is_configurable_and_counts_from_the_first_look() -> None:
    guard = Guard(CONTRACT, GuardConfig(clock_timeout=2.0, odom_check=False))
    assert guard.decide(0.0, 50.0).reason == "no_scan"
    assert guard.decide(0.0, 51.9).reason == "no_scan"
    assert guard.decide(0.0, 52.1).reason == "clock_stopped"
    guard.on_e_stop(True)
    assert guard.decide(0.0, 52.1).reason == "e_stop"


def test_an_intervention_that_lasts_counts_once_and_again_when_it_returns() -> None:
    guard = running()
    for k in range(20):
        guard.decide(101.0 + 0.05 * k)
    assert guard.counts["stale_scan"] == 1
    guard.on_scan(open_scan(102.0), 102.0)
    guard.on_policy_command(FORWARD, 102.0, 102.0)
    guard.decide(102.0)
    guard.decide(110.0)
    assert guard.counts["stale_scan"] == 2


def lockstep() -> Guard:
    return Guard(CONTRACT, GuardConfig(lockstep=True))


def test_lockstep_answers_each_command_once_whatever_the_clock_says() -> None:
    stamps, answered = [0.4 * k for k in range(6)], []
    guard = lockstep()
    clocks = [0.0, 0.0, 0.4, 1.2, 0.8, 2.0]  # /clock comes late, early, out of order
    for stamp, clock in zip(stamps, clocks, strict=True):
        assert guard.on_scan(open_scan(stamp), clock)
        assert guard.on_policy_command(FORWARD, stamp, clock)
        verdict = guard.decide(clock)
        assert (verdict.velocity, verdict.source) == (FORWARD, "policy")  # 2.5 m/s^2 * 0.4 s reaches it at once
        answered.append(verdict.stamp)
    assert answered == stamps
    assert guard.counts == {}


def test_lockstep_does_not_mind_a_world_that_waits() -> None:
    guard = lockstep()
    for k in range(3):
        guard.on_scan(open_scan(0.4 * k), 0.0)
        guard.on_policy_command(FORWARD, 0.4 * k, 0.0)
        assert guard.decide(0.0, 100.0 * k).velocity == FORWARD


def test_lockstep_ramp_over_control_periods() -> None:
    limits = dataclasses.replace(CONTRACT.limits, linear_acceleration=0.5)
    guard = Guard(dataclasses.replace(CONTRACT, limits=limits), GuardConfig(lockstep=True))
    speeds = []
    for k in range(4):
        guard.on_scan(open_scan(0.4 * k), 0.0)
        guard.on_policy_command(FORWARD, 0.4 * k, 0.0)
        speeds.append(guard.decide(0.0).velocity.linear)
        assert guard.decide(0.0).velocity.linear == speeds[-1]  # no time has passed
    assert speeds == pytest.approx([0.2, 0.4, 0.5, 0.5])


def test_lockstep_waits_for_the_scan_of_the_command() -> None:
    guard = lockstep()
    assert not guard.awaits_scan
    guard.on_policy_command(FORWARD, 0.0, 0.0)
    assert guard.awaits_scan
    guard.on_scan(open_scan(0.0), 0.0)
    assert not guard.awaits_scan
    assert guard.decide(0.0).velocity == FORWARD
    guard.on_policy_command(FORWARD, 0.4, 0.4)
    assert guard.awaits_scan
    guard.decide(0.4)  # the node waited long enough
    assert not guard.awaits_scan


@pytest.mark.parametrize("scan_first", [True, False])
def test_lockstep_world_that_begins_anew_at_zero(scan_first: bool) -> None:
    guard = lockstep()
    guard.on_scan(open_scan(8.0), 8.0)
    guard.on_policy_command(Velocity(-0.3), 8.0, 8.0)
    guard.decide(8.0)
    if scan_first:
        guard.on_scan(open_scan(0.0), 8.0)
    assert guard.on_policy_command(FORWARD, 0.0, 8.0)
    if not scan_first:
        assert guard.awaits_scan
        guard.on_scan(open_scan(0.0), 0.0)
    assert guard.decide(0.0).velocity == FORWARD
    assert guard.counts == {"clock_jumped_back": 1}


def test_lockstep_stop_when_the_scan_stays_out() -> None:
    guard = lockstep()
    guard.on_scan(open_scan(0.0), 0.0)
    guard.on_policy_command(FORWARD, 0.0, 0.0)
    guard.decide(0.0)
    guard.on_policy_command(FORWARD, 0.8, 0.8)
    verdict = guard.decide(0.8)
    assert (verdict.reason, verdict.velocity, verdict.stamp) == ("stale_scan", Velocity(), 0.8)


def test_a_verdict_says_what_was_asked_and_what_became_of_it() -> None:
    guard = running()
    passed = guard.decide(100.0)
    assert (passed.word, passed.why, passed.asked, passed.velocity) == ("passed", "", FORWARD, FORWARD)
    back = Velocity(-0.3, 0.0)
    guard.on_policy_command(back, 100.0, 100.0)
    ramped = guard.decide(100.1)
    assert (ramped.word, ramped.why, ramped.asked) == ("limited", "acceleration", back)
    assert ramped.velocity.linear == pytest.approx(0.25)
    guard.on_policy_command(Velocity(7.0, 0.0), 100.1, 100.1)
    both = guard.decide(100.11)
    assert (both.word, both.why, both.asked) == ("limited", "speed,acceleration", Velocity(7.0, 0.0))
    guard.on_teleop_command(Velocity(0.1, 0.0), 100.11)
    guard.on_policy_command(FORWARD, 100.2, 100.2)
    person = guard.decide(100.3)
    assert (person.source, person.asked, person.velocity) == ("teleop", Velocity(0.1, 0.0), Velocity(0.1, 0.0))


STOPS = {
    "e_stop": lambda guard: guard.on_e_stop(True),
    "no_scan": lambda guard: setattr(guard, "_seen", None),
    "stale_scan": lambda guard: setattr(guard, "_seen", 90.0),
    "stale_command": lambda guard: guard.forget() or guard.on_scan(open_scan(100.0), 100.0),
    "clock_stopped": lambda guard: guard.decide(100.0, 0.0),
}


@pytest.mark.parametrize("reason", STOPS)
def test_a_verdict_of_each_stop_says_what_it_kept_back(reason: str) -> None:
    guard = running()
    STOPS[reason](guard)
    asked = Velocity(0.4, 0.2)
    assert guard.on_policy_command(asked, 99.0 if reason == "stale_command" else 100.0, 100.0)
    verdict = guard.decide(100.0, 10.0)
    assert (verdict.word, verdict.why, verdict.source) == ("stopped", reason, "stop")
    assert (verdict.asked, verdict.velocity) == (asked, Velocity())
    assert guard.decide(100.0, 10.0).asked == Velocity(), "one that answers nothing"


def test_without_a_command_a_stop_answers_none() -> None:
    guard = Guard(CONTRACT, PLAIN)
    guard.on_scan(open_scan(0.0), 0.0)
    verdict = guard.decide(0.0)
    assert (verdict.word, verdict.why, verdict.asked) == ("stopped", "no_command", Velocity())


def test_every_stop_has_words_for_people() -> None:
    old = {rules.NO_SCAN, rules.STALE_SCAN, rules.NO_COMMAND, rules.STALE_COMMAND}
    of_arms = {rules.NO_JOINTS, rules.STALE_JOINTS}
    elsewhere = {rules.OBSTACLE, rules.BLIND}  # test_safety_clearance.py
    elsewhere |= {rules.NO_ODOM, rules.STALE_ODOM, rules.NO_HEARTBEAT, rules.STALE_HEARTBEAT}  # test_safety_vitals.py
    elsewhere |= {rules.DEAD_MAN}  # test_safety_vitals.py
    elsewhere |= {rules.UNSURE}  # test_safety_fallback.py
    assert set(REASONS) - of_arms - elsewhere == {rules.E_STOP, rules.CLOCK_STOPPED, *old} == {*STOPS, "no_command"}
    assert of_arms <= set(REASONS)


@pytest.mark.parametrize(
    "values",
    [
        *({"command_timeout": 0}, {"teleop_timeout": -1}, {"rate": 1}, {"future_tolerance": math.nan}),
        *({"colour": "red"}, {"e_stops": []}, {"e_stops": ["red"]}, {"e_stops": ["e_stop", "e_stop"]}),
        {"e_stops": ["e_stop", "no topic"]},
    ],
)
def test_config_refuses(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        build(GuardConfig, values, "guard")


def test_guard_needs_only_the_contract() -> None:
    assert isinstance(CONTRACT, RobotContract)
    assert Guard(CONTRACT).decide(0.0).reason == "no_scan"
