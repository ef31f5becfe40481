"""What the guard does in place of a policy that is silent or unsure."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safety_support import open_scan
from test_safety_clearance import MARGIN, distance, joined, places, scanned, wall

from llmagent_ros.config import build
from llmagent_ros.contract import load_contract, load_mobile_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.safety.fallback import ClearanceFollower, FollowConfig, uncertainty
from llmagent_ros.safety.guard import Guard, GuardConfig
from llmagent_ros.safety.reckoning import Pose, after
from llmagent_ros.types import Velocity

CONTRACT = load_mobile_contract("sim_diffdrive")
FORWARD = Velocity(0.5, 0.0)
FOLLOWS = GuardConfig(fallback="follow_clearances", odom_check=False)
NO_RAYS = np.zeros(0)


def follow(points: np.ndarray, blind: np.ndarray = NO_RAYS) -> Velocity:
    return ClearanceFollower(CONTRACT, FollowConfig(), MARGIN).command(points.reshape(-1, 2), blind)


def silent(config: GuardConfig, last: Velocity = FORWARD) -> Guard:
    """A guard whose policy has driven until 0 s and says nothing any more; the scan goes on, and all is free."""
    guard = Guard(CONTRACT, config)
    for k in range(-5, 1):
        guard.on_scan(open_scan(0.1 * k), 0.1 * k)
        guard.on_policy_command(last, 0.1 * k, 0.1 * k)
        guard.decide(0.1 * k)
    return guard


def look(guard: Guard, now: float) -> tuple[str, str | None]:
    guard.on_scan(open_scan(now), now)
    verdict = guard.decide(now)
    return verdict.source, verdict.reason


# --- the controller -------------------------------------------------------------------------------------


def test_where_all_is_free_it_goes_straight_and_slowly() -> None:
    assert follow(np.zeros((0, 2))) == Velocity(0.1, pytest.approx(0.0, abs=1e-9))


def test_it_turns_to_where_most_is_free_before_it_goes() -> None:
    ahead_and_right = np.concatenate([wall(0.6), wall(-0.6)[:, ::-1]])  # open to the left, and behind
    turned = follow(ahead_and_right)
    assert turned.linear == 0.0 and turned.angular > 0.0
    assert follow(wall(0.6, half=0.3)).angular != 0.0


def test_where_there_is_no_room_it_stands() -> None:
    angles = np.linspace(0, 2 * math.pi, 360)
    assert follow(0.4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)) == Velocity()


def test_what_is_not_measured_is_not_free() -> None:
    every = np.radians(np.arange(-180.0, 180.0))
    assert follow(np.zeros((0, 2)), every) == Velocity()
    assert follow(np.zeros((0, 2)), every[np.abs(every) < 1.0]).linear == 0.0


def test_it_is_no_faster_than_the_limits() -> None:
    follower = ClearanceFollower(CONTRACT, FollowConfig(linear=9.0, angular=9.0), MARGIN)
    assert follower.command(np.zeros((0, 2)), NO_RAYS).linear == CONTRACT.limits.linear
    assert abs(follower.command(wall(0.5), NO_RAYS).angular) == CONTRACT.limits.angular


# --- in the guard ---------------------------------------------------------------------------------------


def test_a_silent_policy_is_followed_by_the_clearances_for_a_while_then_it_stops() -> None:
    guard = silent(FOLLOWS)
    said = [look(guard, 0.1 * k) for k in range(1, 200)]
    begins, ends = said.index(("fallback", None)), said.index(("stop", "stale_command"))
    assert begins == 6  # 0.6 s: 1.5 control periods
    assert 0.1 * (ends - begins) == pytest.approx(10.0, abs=0.11)
    assert set(said[ends:]) == {("stop", "stale_command")}
    assert guard.counts["fallback"] == guard.counts["stale_command"] == 1
    guard.on_policy_command(FORWARD, 20.0, 20.0)  # it is back, and falls silent again
    assert look(guard, 20.0) == ("policy", None)
    assert look(guard, 20.7) == ("fallback", None)


def test_a_policy_that_let_the_robot_stand_was_not_cut_off() -> None:
    assert look(silent(FOLLOWS, Velocity()), 1.0) == ("stop", "stale_command")
    assert look(Guard(CONTRACT, FOLLOWS), 1.0) == ("stop", "no_command")


@pytest.mark.parametrize("config", [GuardConfig(odom_check=False), FOLLOWS])
def test_what_else_stops_the_robot_stops_the_fallback_too(config: GuardConfig) -> None:
    guard = silent(dataclasses.replace(config, heartbeats=("policy",), odom_check=False))
    assert look(guard, 1.0) == ("stop", "no_heartbeat")
    guard = silent(config)
    guard.on_e_stop(True)
    assert look(guard, 1.0) == ("stop", "e_stop")
    guard = silent(config)
    assert guard.decide(1.0).reason == "stale_scan"


def test_stop_is_the_default() -> None:
    assert look(silent(GuardConfig(odom_check=False)), 1.0) == ("stop", "stale_command")


@pytest.mark.parametrize(("config", "source"), [({}, "stop"), ({"fallback": "follow_clearances"}, "fallback")])
def test_an_unsure_decision_acts_from_when_it_comes(config: dict[str, object], source: str) -> None:
    guard = silent(build(GuardConfig, {"unsure_above": 0.8, "odom_check": False, **config}, "test"))
    assert look(guard, 0.0) == ("policy", None)
    assert not guard.on_decision(0.0, 0.7)
    assert look(guard, 0.01) == ("policy", None)
    assert guard.on_decision(0.0, 0.9)
    assert look(guard, 0.02) == (source, "unsure" if source == "stop" else None)
    guard.on_policy_command(FORWARD, 0.1, 0.1)  # of another decision
    assert look(guard, 0.1) == ("policy", None)
    assert guard.on_decision(0.1, math.nan)


@pytest.mark.parametrize(
    ("probabilities", "value"),
    [([1.0, 0.0], 0.0), ([0.25] * 4, 1.0), ([0.5, 0.5, 0.0, 0.0], 0.5), ([0.9, 0.9], math.nan), ([], math.nan)],
)
def test_uncertainty_by_hand(probabilities: list[float], value: float) -> None:
    assert uncertainty(probabilities) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    "values",
    [
        {"fallback": "follow_clearances", "lockstep": True},
        {"fallback": "follow_clearances", "collision_check": False},
        {"fallback": "wander"},
        {"unsure_above": 0.5, "lockstep": True},
        {"unsure_above": 1.5},
    ],
)
def test_config_refuses(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(GuardConfig, values, "test")


def test_an_arm_can_only_stop() -> None:
    with pytest.raises(ConfigError, match="valid for sim_arm: stop"):
        Guard(load_contract("sim_arm"), FOLLOWS)


@settings(max_examples=30, deadline=None)
@given(st.lists(places, min_size=1, max_size=15))
def test_it_never_comes_nearer_than_the_margin(at: list[tuple[float, float]]) -> None:
    points = np.array(at)
    pose: Pose = (0.0, 0.0, 0.0)
    assume(distance(CONTRACT, points, pose) >= MARGIN)
    guard, nearest = silent(FOLLOWS), math.inf
    for k in range(14, 140):
        now = 0.05 * k
        guard.on_scan(scanned(CONTRACT, points, pose, now), now)
        verdict = guard.decide(now)
        pose = joined(pose, after(verdict.velocity, 0.05))
        nearest = min(nearest, distance(CONTRACT, points, pose))
    assert nearest >= MARGIN - 0.011
