"""The guard of an arm: joint limits by hand, and what holds whatever comes."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagent_ros.contract import ArmContract, JointLimits, load_contract
from llmagent_ros.safety.guard import Guard, GuardConfig
from llmagent_ros.safety.joints import clamp_target, ramp_joint
from llmagent_ros.types import JointState, JointTarget, Velocity, Verdict

ARM = load_contract("sim_arm")  # period 0.2 s, joint states 0.4 s, waist +-2.6 rad, 2 rad/s, 15 rad/s^2
assert isinstance(ARM, ArmContract)
HOME = dict(ARM.arm.home)
PERIOD, EPS = ARM.control_period, 1e-9
SLOW = JointLimits(lower=-1.0, upper=1.0, velocity=0.5, acceleration=1.0)


def target(**positions: float) -> JointTarget:
    return JointTarget(tuple(positions), tuple(positions.values()), PERIOD)


def told(verdict: Verdict) -> dict[str, float]:
    assert isinstance(verdict.command, JointTarget)
    return dict(zip(verdict.command.joints, verdict.command.positions, strict=True))


class Arm:
    """A guard with an arm that is where it is put, at a time that goes on."""

    def __init__(self, config: GuardConfig | None = None, contract: ArmContract = ARM) -> None:
        self.guard, self.time = Guard(contract, config), 100.0
        self.at = dict(HOME)

    def see(self, age: float = 0.0) -> bool:
        return self.guard.on_joints(JointState(self.time - age, dict(self.at)), self.time)

    def ask(self, command: JointTarget, age: float = 0.0) -> bool:
        return self.guard.on_policy_command(command, self.time - age, self.time)

    def decide(self, after: float = 0.0) -> Verdict:
        self.time += after
        return self.guard.decide(self.time)

    def follow(self, seconds: float, tick: float = 0.05) -> list[dict[str, float]]:
        """The arm goes where it is told, and the last command is kept up."""
        commanded = []
        for _ in range(round(seconds / tick)):
            self.see()
            commanded.append(told(self.decide(tick)))
            self.at.update(commanded[-1])
        return commanded


def test_nothing_is_commanded_before_the_joints_are_known() -> None:
    arm = Arm()
    arm.ask(target(waist=0.1))
    verdict = arm.decide()
    assert (verdict.reason, verdict.command) == ("no_joint_states", JointTarget((), (), 0.05))
    assert verdict.asked == target(waist=0.1)


def test_a_joint_ramps_up_and_brakes_ahead_of_its_target() -> None:
    position, speed, path = 0.0, 0.0, []
    for _ in range(40):
        position, speed, _ = ramp_joint(position, speed, 0.4, 0.1, SLOW)
        path.append(position)
    # 1 rad/s^2 in steps of 0.1 s: 0.1, 0.2, 0.3 … rad/s, at most 0.5
    assert path[:5] == pytest.approx([0.01, 0.03, 0.06, 0.10, 0.15])
    assert path == sorted(path) and path[-1] == 0.4
    speeds = [(b - a) / 0.1 for a, b in itertools.pairwise(path)]
    assert max(before - after for before, after in itertools.pairwise(speeds)) <= 0.1 + EPS, "it slows down in time"


def test_a_joint_turns_round_at_once_and_says_what_kept_it() -> None:
    assert ramp_joint(0.0, 0.5, -0.5, 0.1, SLOW)[:2] == pytest.approx((-0.01, -0.1))
    assert ramp_joint(0.0, 0.5, 0.9, 0.1, SLOW) == (pytest.approx(0.05), 0.5, {"speed"})
    assert ramp_joint(0.0, 0.0, 0.02, 0.1, SLOW)[2] == {"acceleration"}
    assert ramp_joint(0.0, 0.0, 0.9, 0.1, SLOW)[2] == {"speed", "acceleration"}
    assert ramp_joint(0.3, 0.2, 0.3, 0.1, SLOW) == (0.3, 0.0, set())
    assert ramp_joint(0.3, 0.2, 0.5, 0.0, SLOW) == (0.3, 0.2, set())


def test_a_target_keeps_to_the_limits_and_near_to_where_the_joint_is() -> None:
    assert clamp_target(0.2, 0.1, 0.3, SLOW) == (0.2, set())
    assert clamp_target(5.0, None, 0.3, SLOW) == (1.0, {"position"})
    assert clamp_target(0.9, 0.1, 0.3, SLOW) == (pytest.approx(0.4), {"step"})
    assert clamp_target(-5.0, -0.9, 0.3, SLOW) == (-1.0, {"position"})
    assert clamp_target(-5.0, 0.9, 0.3, SLOW) == (pytest.approx(0.6), {"position", "step"})
    # a joint that is outside may come in, step by step, and goes no farther out
    assert clamp_target(0.0, 1.5, 0.3, SLOW) == (pytest.approx(1.2), {"step"})
    assert clamp_target(2.0, 1.5, 0.1, SLOW)[0] == pytest.approx(1.4)


def test_in_lockstep_every_shipped_phrase_passes_as_it_is() -> None:
    for phrase in ARM.phrases:
        guard = Guard(ARM, GuardConfig(lockstep=True))
        asked = ARM.target(phrase, HOME)
        assert guard.on_policy_command(asked, 0.2, 0.0) and guard.awaits_scan
        assert guard.on_joints(JointState(0.2, HOME), 0.0) and not guard.awaits_scan
        verdict = guard.decide(0.0)
        assert (verdict.word, verdict.stamp, verdict.source) == ("passed", 0.2, "policy")
        assert told(verdict) == pytest.approx(dict(zip(asked.joints, asked.positions, strict=True)))
        assert verdict.command.duration == PERIOD


def test_in_lockstep_a_wild_target_becomes_one_step_and_a_new_world_begins_where_its_arm_is() -> None:
    guard = Guard(ARM, GuardConfig(lockstep=True))
    guard.on_joints(JointState(0.2, HOME), 0.0)
    guard.on_policy_command(target(waist=50.0), 0.2, 0.0)
    verdict = guard.decide(0.0)
    assert verdict.limited == ("position", "step") and told(verdict)["waist"] == pytest.approx(2.0 * PERIOD)
    assert told(verdict)["elbow"] == HOME["elbow"], "what was not asked of is held"
    far = {name: position + 0.9 for name, position in HOME.items()}
    guard.on_joints(JointState(0.4, far), 0.0)
    guard.on_policy_command(target(waist=far["waist"] + 0.1), 0.4, 0.0)
    assert told(guard.decide(0.0)) == pytest.approx(far | {"waist": far["waist"] + 0.1})


def test_speed_and_acceleration_shape_a_long_move() -> None:
    contract = dataclasses.replace(
        ARM, limits=ARM.limits | {"waist": dataclasses.replace(ARM.limits["waist"], step=2.0)}
    )
    arm = Arm(GuardConfig(command_timeout=10.0), contract)
    arm.see()
    arm.ask(target(waist=1.0))
    arm.decide()
    path = [commanded["waist"] for commanded in arm.follow(1.0)]
    steps = [b - a for a, b in itertools.pairwise([0.0, *path])]
    assert steps[0] == pytest.approx(15.0 * 0.05 * 0.05)
    assert max(steps) == pytest.approx(2.0 * 0.05) and path[-1] == 1.0


@pytest.mark.parametrize("how", ["e_stop", "stale_joint_states", "stale_command", "clock_stopped"])
def test_a_stop_holds_the_arm_where_it_is(how: str) -> None:
    arm = Arm(GuardConfig(command_timeout=0.3, clock_timeout=0.3))
    arm.see()
    arm.guard.decide(arm.time, 0.0)
    arm.ask(target(waist=0.38))
    arm.follow(0.15)
    arm.at["waist"] = 0.0  # it does not keep up: 0.1 rad and more behind what it was told
    setpoint = told(arm.decide())["waist"]
    assert setpoint > 0.1
    steady = 0.0
    if how == "e_stop":
        arm.guard.on_e_stop(True)
        arm.see()
    elif how == "stale_command":
        arm.time += 0.35
        arm.see()
    elif how == "stale_joint_states":
        arm.time += 0.45
    else:
        arm.see()
        arm.guard.decide(arm.time, steady)
        steady = 1.0
    verdict = arm.guard.decide(arm.time, steady)
    assert (verdict.word, verdict.reason) == ("stopped", how)
    blind = how in {"stale_joint_states", "clock_stopped"}
    # what is measured is out of date where nothing was seen lately: then it holds what it was told last
    assert told(verdict)["waist"] == (setpoint if blind else 0.0)
    assert told(arm.decide(0.05))["waist"] == told(verdict)["waist"], "and goes on holding it"


def test_holding_does_not_let_a_load_sink_and_does_not_jump_back() -> None:
    arm = Arm()
    arm.see()
    arm.decide()
    for _ in range(20):
        arm.at["shoulder"] += 0.04 - (arm.at["shoulder"] - HOME["shoulder"])  # sags by 0.04 rad below what is held
        arm.see()
        assert told(arm.decide(0.05)) == HOME
    arm.at["shoulder"] += 0.5  # moved by hand, while it is stopped
    arm.see()
    assert told(arm.decide(0.05))["shoulder"] == pytest.approx(arm.at["shoulder"])


def test_after_an_e_stop_only_a_new_command_moves() -> None:
    arm = Arm()
    arm.see()
    arm.decide()
    arm.ask(target(waist=0.3))
    arm.guard.on_e_stop(True)
    assert arm.decide(0.05).reason == "e_stop"
    assert not arm.guard.reset_e_stop(), "the button is pressed"
    arm.guard.on_e_stop(False)
    assert arm.guard.reset_e_stop()
    arm.see()
    assert (arm.decide(0.05).reason, told(arm.decide(0.05))["waist"]) == ("no_command", 0.0)
    arm.ask(target(waist=0.3))
    assert told(arm.decide(0.05))["waist"] > 0.0


def test_a_person_goes_before_the_policy_while_their_commands_are_fresh() -> None:
    arm = Arm(GuardConfig(command_timeout=5.0))
    arm.see()
    arm.decide()
    arm.ask(target(waist=0.3))
    assert arm.guard.on_teleop_command(target(waist=-0.3), arm.time, arm.time)
    verdict = arm.decide(0.05)
    assert verdict.source == "teleop" and told(verdict)["waist"] < 0.0
    arm.time += 0.5
    arm.see()
    assert arm.decide().source == "policy"
    arm.time += 1.0
    arm.guard.on_teleop_command(target(waist=-0.3), arm.time)
    assert arm.decide().reason == "stale_joint_states", "nor may a person move it blind"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Velocity(0.1, 0.0), "dropped_for_another_body"),
        (target(knee=0.1), "dropped_for_another_body"),
        (JointTarget(("waist", "waist"), (0.1, 0.1), 0.2), "dropped_repeated_joint"),
        (target(waist=math.nan), "dropped_not_finite"),
        (target(waist=0.1, elbow=math.inf), "dropped_not_finite"),
    ],
)
def test_what_is_no_command_of_this_arm_is_dropped_and_counted(command: JointTarget, reason: str) -> None:
    arm = Arm()
    arm.see()
    assert not arm.ask(command)
    assert arm.guard.counts == {reason: 1}
    assert not Guard(load_contract("sim_diffdrive")).on_policy_command(target(waist=0.1), 0.0, 0.0)


def test_joint_states_of_others_and_damaged_ones_do_not_count_as_sight() -> None:
    arm = Arm()
    assert not arm.guard.on_joints(JointState(arm.time, {"finger": 0.0}), arm.time)
    assert not arm.guard.on_joints(JointState(arm.time, HOME | {"waist": math.nan}), arm.time)
    assert not arm.guard.on_joints(JointState(arm.time + 5.0, HOME), arm.time)
    assert not arm.guard.on_joints(JointState(math.nan, HOME), arm.time)
    assert arm.decide().reason == "no_joint_states"
    assert arm.guard.counts == {"dropped_not_finite": 2, "dropped_future_joint_states": 1, "no_joint_states": 1}
    assert arm.see()
    arm.ask(target(waist=0.1))
    assert not arm.guard.on_joints(JointState(arm.time, {"waist": 0.0}), arm.time), "not all joints of the contract"
    assert arm.decide().source == "policy"


def test_an_empty_target_holds() -> None:
    arm = Arm(GuardConfig(command_timeout=5.0))
    arm.see()
    arm.decide()
    arm.ask(target(waist=0.3))
    arm.follow(0.1)
    arm.ask(JointTarget())
    arm.see()
    before = told(arm.decide(0.0))
    assert told(arm.decide(0.05)) == before
    assert arm.decide(0.05).word == "passed"


numbers = st.one_of(st.floats(-4, 4), st.sampled_from([0.0, 1e300, -1e300, math.nan, math.inf]))
names = st.sampled_from([*ARM.joints, "knee"])
commands = st.dictionaries(names, numbers, max_size=4).map(lambda each: target(**each))
measured = st.fixed_dictionaries({name: st.floats(limit.lower, limit.upper) for name, limit in ARM.limits.items()})
waits = st.one_of(st.floats(0, 0.2), st.sampled_from([0.0, 0.05, 0.05, 0.3, 5.0, -0.01, -2.0]))
kinds = st.sampled_from(["policy", "policy", "see", "see", "see", "teleop", "press", "release", "reset", "decide"])
events = st.lists(st.tuples(waits, kinds, commands, measured, st.sampled_from([0.0, 0.0, 0.0, -0.3, 1.0])), max_size=50)


@settings(max_examples=300, deadline=None)
@given(events)
def test_promises_hold_for_any_history(history: list[tuple[float, str, JointTarget, dict[str, float], float]]) -> None:
    guard, now = Guard(ARM), 0.0
    last: dict[str, float] = {}
    seen: tuple[float, dict[str, float]] | None = None
    decided: float | None = None
    for wait, kind, command, at, offset in history:
        if wait < -guard.config.clock_tolerance:  # everything from before is forgotten
            last, seen, decided = {}, None, None
        now += wait
        if kind == "policy":
            guard.on_policy_command(command, now + offset, now)
        elif kind == "teleop":
            guard.on_teleop_command(command, now)
        elif kind == "see":
            if guard.on_joints(JointState(now + offset, at), now) and (seen is None or now + offset >= seen[0]):
                seen = now + offset, at
        elif kind in {"press", "release"}:
            guard.on_e_stop(kind == "press")
        elif kind == "reset":
            guard.reset_e_stop()
        verdict = guard.decide(now)
        check(verdict, last, seen, 0.0 if decided is None else max(0.0, now - decided))
        last, decided = told(verdict), now if decided is None else max(now, decided)


def check(
    verdict: Verdict, last: dict[str, float], seen: tuple[float, dict[str, float]] | None, elapsed: float
) -> None:
    positions = told(verdict)
    assert (verdict.source == "stop") == (verdict.reason is not None)
    if verdict.source != "stop":
        assert seen is not None, "nothing moves before the joints are known"
    for name, position in positions.items():
        limits, step = ARM.limits[name], ARM.longest_step(name)
        assert limits.lower <= position <= limits.upper
        assert seen is not None
        where = seen[1][name]
        if verdict.source == "stop":
            assert position in (last.get(name), where), "it holds, where it was told to be or where it is"
            continue
        known = name in last and abs(last[name] - where) <= step
        start = last[name] if known else where  # else something else has moved it
        assert abs(position - start) <= limits.velocity * min(elapsed, PERIOD) + EPS
        assert abs(position - where) <= step + abs(start - where) + EPS
