"""Whatever comes, in whatever order and at whatever time, the guard's promises hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st
from safety_support import open_scan

from llmagent_ros.contract import load_contract
from llmagent_ros.safety.guard import Guard, GuardConfig, Verdict
from llmagent_ros.types import Velocity

CONTRACT = load_contract("sim_diffdrive")
LIMITS = CONTRACT.limits
PERIOD = CONTRACT.control_period
COMMAND_TIMEOUT = 1.5 * PERIOD
SCAN_TIMEOUT = CONTRACT.sensors.scan.timeout
EPS = 1e-9

numbers = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 0.5, -1.3, 1e300, -1e300, math.nan, math.inf, -math.inf]))
velocities = st.one_of(st.builds(Velocity, numbers, numbers), st.just(Velocity()))
offsets = st.one_of(st.floats(-1.0, 0.1), st.sampled_from([0.0, 0.0, 0.0, 0.19, 0.3, 1e6, -1e6, math.nan, math.inf]))
waits = st.one_of(st.floats(0, 0.2), st.sampled_from([0.0, 0.05, 0.05, 0.4, 0.7, 5.0, -0.01, -2.0, 1e7]))
kinds = st.sampled_from(["policy", "policy", "scan", "scan", "teleop", "press", "release", "reset", "decide", "decide"])
events = st.lists(st.tuples(waits, kinds, velocities, offsets), max_size=60)


ZERO_WHILE_IT_DRIVES = [
    *((0.0, "scan", Velocity()), (0.0, "policy", Velocity(0.5)), (0.2, "decide", Velocity())),
    (0.05, "policy", Velocity()),
]


@dataclass
class Reference:
    """What must hold, kept apart from how the guard does it."""

    clock: float | None = None
    pressed: bool = False
    latched: bool = False
    policy: list[tuple[float, float]] = field(default_factory=list)  # (valid from, stamp) of finite, not future ones
    teleop: float | None = None
    scan: float | None = None
    last: Velocity = field(default_factory=Velocity)
    last_time: float | None = None

    def at(self, now: float, tolerance: float) -> float:
        if self.clock is not None and self.clock - now > tolerance:  # a jump back: nothing from before counts
            self.policy, self.teleop, self.scan, self.last, self.last_time = [], None, None, Velocity(), None
            self.clock = now
        self.clock = now if self.clock is None else max(now, self.clock)
        return self.clock


def finite(velocity: Velocity) -> bool:
    return math.isfinite(velocity.linear) and math.isfinite(velocity.angular)


def feed(guard: Guard, ref: Reference, kind: str, velocity: Velocity, now: float, stamp: float) -> None:
    tolerance = guard.config.future_tolerance
    time = ref.at(now, guard.config.clock_tolerance) if kind in {"policy", "scan", "teleop"} else now
    if kind == "policy":
        guard.on_policy_command(velocity, stamp, now)
        newest = max((s for _, s in ref.policy), default=-math.inf)
        if finite(velocity) and math.isfinite(stamp) and newest <= stamp <= time + tolerance:
            ref.policy.append((min(stamp, time), stamp))
    elif kind == "scan":
        guard.on_scan(open_scan(stamp), now)
        if math.isfinite(stamp) and stamp <= time + tolerance:
            ref.scan = max(-math.inf if ref.scan is None else ref.scan, min(stamp, time))
    elif kind == "teleop":
        taken = guard.on_teleop_command(velocity, now, stamp)
        believed = stamp <= time + tolerance and time - stamp <= guard.config.teleop_timeout
        assert taken == (finite(velocity) and believed)
        if taken:
            ref.teleop = min(stamp, time)
    elif kind in {"press", "release"}:
        guard.on_e_stop(kind == "press")
        ref.pressed = kind == "press"
        ref.latched |= ref.pressed
    elif kind == "reset":
        assert guard.reset_e_stop() == (not ref.pressed)
        if ref.latched and not ref.pressed:
            ref.latched, ref.teleop = False, None
            ref.policy = [(-math.inf, stamp) for _, stamp in ref.policy]


def check(verdict: Verdict, guard: Guard, ref: Reference, time: float) -> None:
    velocity = verdict.velocity
    assert finite(velocity)
    assert abs(velocity.linear) <= LIMITS.linear
    assert abs(velocity.angular) <= LIMITS.angular
    assert (verdict.source == "stop") == (verdict.reason is not None)
    seeing = ref.scan is not None and time - ref.scan <= SCAN_TIMEOUT
    driven = ref.teleop is not None and time - ref.teleop <= guard.config.teleop_timeout
    commanded = bool(ref.policy) and time - ref.policy[-1][0] <= COMMAND_TIMEOUT
    driven = driven and (seeing or guard.config.teleop_without_scan)
    expected = "stop" if ref.latched else "teleop" if driven else "policy" if seeing and commanded else "stop"
    assert verdict.source == expected
    if verdict.source == "stop" or verdict.asked == Velocity():
        assert velocity == Velocity()  # at once, whatever the speed was
    else:
        elapsed = 0.0 if ref.last_time is None else min(time - ref.last_time, PERIOD)
        assert abs(velocity.linear - ref.last.linear) <= LIMITS.linear_acceleration * elapsed + EPS
        assert abs(velocity.angular - ref.last.angular) <= LIMITS.angular_acceleration * elapsed + EPS
    ref.last, ref.last_time = velocity, time


@settings(max_examples=400, deadline=None)
@given(events, st.booleans())
@example([(wait, kind, velocity, 0.0) for wait, kind, velocity in ZERO_WHILE_IT_DRIVES], False)
def test_promises_hold_for_any_history(history: list[tuple[float, str, Velocity, float]], blind_ok: bool) -> None:
    guard, ref = Guard(CONTRACT, GuardConfig(teleop_without_scan=blind_ok, odom_check=False)), Reference()
    now, counted = 0.0, 0
    for wait, kind, velocity, offset in history:
        now += wait
        feed(guard, ref, kind, velocity, now, now + offset)
        if kind in {"decide", "policy"}:
            check(guard.decide(now), guard, ref, ref.at(now, guard.config.clock_tolerance))
        assert guard.e_stopped == ref.latched
        assert sum(guard.counts.values()) >= counted
        counted = sum(guard.counts.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(velocities, st.floats(-5, 5), st.booleans()), min_size=1, max_size=40))
def test_lockstep_gives_one_output_a_command(steps: list[tuple[Velocity, float, bool]]) -> None:
    guard = Guard(CONTRACT, GuardConfig(lockstep=True))
    last = Velocity()
    for k, (velocity, clock_error, has_scan) in enumerate(steps):
        stamp = PERIOD * k
        if has_scan:
            guard.on_scan(open_scan(stamp), stamp + clock_error)
        accepted = guard.on_policy_command(velocity, stamp, stamp + clock_error)
        assert accepted == finite(velocity)
        if not accepted:
            continue
        verdict = guard.decide(stamp + clock_error)
        assert verdict.stamp == stamp
        assert abs(verdict.velocity.linear) <= LIMITS.linear
        if has_scan:
            assert verdict.source == "policy"
            assert abs(verdict.velocity.linear - last.linear) <= LIMITS.linear_acceleration * PERIOD + EPS
        last = verdict.velocity
