"""An arm by hand: which keys are which phrases, where they lead, and which phrase is learned from."""

from __future__ import annotations

import copy
import math
import os
import pty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ros_support import Graph
from sensor_msgs.msg import JointState as JointStateMessage
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from llmagent_ros import config
from llmagent_ros.contract import ArmContract, contract_path, load_contract
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.driver import _change
from llmagent_ros.nodes.wire import sensors, stamps
from llmagent_ros.nodes.wire.commands import command_topics
from llmagent_ros.teleop.arm import ArmJoystick, ArmKeys, Pair, pairs_of
from llmagent_ros.teleop.jog import Jog
from llmagent_ros.teleop.joystick import JoystickConfig
from llmagent_ros.teleop.judging import Judge
from llmagent_ros.teleop.keys import KeysConfig
from llmagent_ros.types import JointState, JointTarget

ARM = load_contract("sim_arm")
assert isinstance(ARM, ArmContract)
HOME = dict(ARM.arm.home)
PLAIN: dict[str, Any] = yaml.safe_load(contract_path("sim_arm").read_text())
PERIOD = ARM.control_period
HELD = [0, 0, 0, 0, 1]  # an Xbox pad's left shoulder button
TICK = 0.05


def of_actions(**actions: dict[str, Any]) -> ArmContract:
    """The simulated arm with other phrases; "_" for a space."""
    named = {name.replace("_", " "): action for name, action in actions.items()}
    return config.build(ArmContract, copy.deepcopy(PLAIN) | {"actions": named}, "arm.yaml")


JOINTS = of_actions(
    turn_left={"joints": {"waist": 0.2}},
    turn_right={"joints": {"waist": -0.2}},
    lean_out={"joints": {"shoulder": 0.1}},
    stay={},
    lean_back={"joints": {"shoulder": -0.1}},
    reach_out={"joints": {"shoulder": 0.1, "elbow": -0.2}},
)
MIXED = of_actions(
    down={"z": -0.03},
    lift={"z": 0.03},
    lift_a_little={"z": 0.01},
    ahead={"x": 0.02},
    slanting={"x": 0.02, "y": 0.02},
    twist={"joints": {"wrist": 0.1}},
    untwist={"joints": {"wrist": -0.1}},
)


# --- keys and axes ------------------------------------------------------------------------------------------


def test_keys_are_those_of_the_contracts_own_phrases() -> None:
    assert ArmKeys(ARM).help == "w forward   s back   a left   d right   t up   b down"
    assert ArmKeys(JOINTS).help == "1 turn left   2 turn right   3 lean out   4 lean back   5 reach out"
    assert ArmKeys(MIXED).help == "w ahead   t lift   b down   1 lift a little   3 slanting   5 twist   6 untwist"
    assert pairs_of(of_actions(stay={}, sink={"z": -0.01})) == (Pair("sink", None, ("b", ".")),)


def test_more_phrases_than_keys_are_said() -> None:
    many = {f"pose_{chr(97 + n)}": {"joints": {"waist": 0.001 * (n + 1)}} for n in range(14)}
    assert ArmKeys(of_actions(**many)).help.endswith("m pose m   (no key) pose n")
    assert ArmJoystick(of_actions(**many)).without_axis == tuple(f"pose {letter}" for letter in "ghijklmn")


@pytest.mark.parametrize("contract", [ARM, JOINTS, MIXED], ids=["tip", "joints", "mixed"])
def test_no_key_means_two_things(contract: ArmContract) -> None:
    pairs = pairs_of(contract)
    keys = [key for pair in pairs for key in (*pair.forth_keys, *pair.back_keys)]
    assert len(keys) == len(set(keys)) and not set(keys) & set("erqyn+-=_ ")
    assert not any(Judge().press(key) for key in keys)
    phrases = [phrase for pair in pairs for phrase in (pair.forth, pair.back) if phrase is not None]
    assert sorted(phrases) == sorted(set(contract.phrases) - {"stay"})


def test_a_tap_is_a_step_and_a_key_that_repeats_goes_on() -> None:
    keys = ArmKeys(ARM)
    assert keys.wanted(0.0) is None and not keys.press("x", 0.0)
    assert keys.press("t", 0.0) and keys.wanted(PERIOD - 0.01) == {"up": 1.0}
    assert keys.wanted(PERIOD) is None
    for press in range(10):
        keys.press("up", 1.0 + 0.03 * press)
    keys.press(";", 1.25)
    assert keys.wanted(1.3) == {"forward": 1.0, "up": 1.0}, "two at once"
    keys.press("b", 1.3)
    assert keys.wanted(1.31) == {"forward": 1.0, "down": 1.0}, "not up and down"
    assert keys.press(" ", 1.4) and keys.wanted(1.41) == {}, "space holds it"
    assert keys.wanted(1.7) is None
    slow = ArmKeys(ARM, KeysConfig(step=0.25, hold=0.1))
    slow.press("w", 0.0)
    assert slow.wanted(0.09) == {"forward": 0.25} and slow.wanted(0.1) is None


def test_the_joystick_moves_it_while_the_dead_man_is_held() -> None:
    stick = ArmJoystick(ARM, JoystickConfig(dead_zone=0.2))
    stick.on_joy([-1.0, 0.6, 0.0, 0.9, 0.0], HELD, 0.0)
    assert stick.wanted(0.4) == {"forward": pytest.approx(0.5), "right": 1.0}
    assert stick.wanted(0.6) is None, "a silent joystick counts as released"
    stick.on_joy([0.0, 0.0, 0.0, 0.0, -7.0], HELD, 1.0)
    assert stick.wanted(1.0) == {"down": 1.0}
    stick.on_joy([0.0, math.nan, 0.0, 0.0, 0.1], HELD, 2.0)
    assert stick.wanted(2.0) == {}, "held, and nothing wanted: the arm stands"
    stick.on_joy([1.0] * 8, [0] * 5, 3.0)
    assert stick.wanted(3.0) is None
    assert stick.missing([0.0] * 2, [0] * 8) == ["arm_axes up 4"]
    bare = ArmJoystick(JOINTS, JoystickConfig(arm_axes=(2,), arm=-0.5))
    bare.on_joy([0.0, 0.0, 1.0], HELD, 0.0)
    assert bare.wanted(0.0) == {"turn right": 0.5} and bare.without_axis == ("lean out", "reach out")
    bare.on_joy([0.0, 0.0, 0.0], HELD, 0.0)
    assert bare.wanted(0.0) == {}


# --- where it leads -----------------------------------------------------------------------------------------


Joints = dict[str, float]


def follow(jog: Jog, shares: dict[str, float], at: Joints, ticks: int, behind: float = 0.0) -> Joints:
    """Where an arm is that always has this share of the way to the target still before it."""
    for _ in range(ticks):
        target = dict(zip(ARM.joints, jog.target(shares, at, TICK).positions, strict=True))
        at = {name: target[name] + behind * (at[name] - target[name]) for name in at}
    return at


@pytest.mark.parametrize("phrase", ARM.phrases)
@pytest.mark.parametrize("behind", [0.0, 0.7])
def test_a_phrase_that_is_kept_up_goes_as_fast_as_its_steps(phrase: str, behind: float) -> None:
    at, action = dict(HOME), ARM.actions[phrase]
    jog, ticks = Jog(ARM), round(PERIOD / TICK)
    after = follow(jog, {phrase: 1.0}, at, ticks, behind)
    way = ARM.tip(dict(zip(ARM.joints, jog.target({phrase: 1e-9}, after, TICK).positions, strict=True))) - ARM.tip(at)
    assert way == pytest.approx([action.x, action.y, action.z], abs=1e-3)
    assert not jog.rest().joints


def test_it_does_not_leave_the_workspace_nor_the_limits() -> None:
    jog = Jog(ARM)
    at = follow(jog, {"down": 1.0, "left": 1.0}, dict(HOME), 200)
    space = ARM.arm.workspace
    assert ARM.tip(at)[1:] == pytest.approx([space.y[1], space.z[0]], abs=1e-3)
    assert all(ARM.limits[name].lower <= position <= ARM.limits[name].upper for name, position in at.items())


def test_it_waits_for_an_arm_that_does_not_follow_and_begins_anew_with_one_that_was_moved() -> None:
    jog = Jog(ARM)
    for _ in range(100):  # e.g. under an e-stop
        target = jog.target({"left": 1.0}, HOME, TICK)
    assert all(abs(p - HOME[n]) <= ARM.longest_step(n) for n, p in zip(ARM.joints, target.positions, strict=True))
    pushed = HOME | {"waist": -1.0}
    after = jog.target({"left": 1.0}, pushed, TICK)
    assert after.positions[0] == pytest.approx(-1.0, abs=0.05), "no jump back"
    jog.rest()
    sagged = {name: position + 0.02 for name, position in zip(ARM.joints, after.positions, strict=True)}
    again = jog.target({"up": 1e-9}, sagged, TICK)
    assert again.positions == pytest.approx(after.positions, abs=1e-3), "what hangs down does not add up"
    jog.rest()
    moved = sagged | {"waist": sagged["waist"] + 0.2}
    assert jog.target({"up": 1e-9}, moved, TICK).positions[0] == pytest.approx(moved["waist"], abs=1e-3)


def test_a_tool_that_looks_elsewhere_is_not_turned_faster_than_the_limits() -> None:
    tilted = HOME | {"wrist": HOME["wrist"] - 1.0}
    target = Jog(ARM).target({"up": 1.0}, tilted, TICK)
    for name, position, speed in zip(ARM.joints, target.positions, target.velocities, strict=True):
        assert abs(position - tilted[name]) <= ARM.limits[name].velocity * TICK + 1e-9
        assert speed == pytest.approx((position - tilted[name]) / TICK)


# --- what is learned ----------------------------------------------------------------------------------------

inside = st.tuples(st.floats(0.2, 0.38), st.floats(-0.2, 0.2), st.floats(0.08, 0.25))


@pytest.mark.parametrize("contract", [ARM, JOINTS, MIXED], ids=["tip", "joints", "mixed"])
@settings(deadline=None, max_examples=30)
@given(point=inside, share=st.floats(0.6, 1.0), data=st.data())
def test_what_a_key_does_is_learned_as_its_phrase(
    contract: ArmContract, point: tuple[float, ...], share: float, data: st.DataObject
) -> None:
    bounds = {name: (limit.lower, limit.upper) for name, limit in ARM.limits.items()}
    at = ARM.chain.solve(HOME, np.array(point), bounds, np.array([0.0, 0.0, -1.0]))
    assume(all(low + 0.15 < at[name] < high - 0.15 for name, (low, high) in bounds.items()))
    phrase = data.draw(st.sampled_from([p for pair in pairs_of(contract) for p in (pair.forth, pair.back) if p]))
    target = Jog(contract).target({phrase: share}, at, TICK)
    sagged = {name: position + 0.01 for name, position in at.items()}
    heard = command_topics(contract).from_message(command_topics(contract).to_message(target, None))
    assert isinstance(heard, JointTarget)
    nearest = contract.nearest_phrase(sagged, _change(contract, heard, sagged))
    assert nearest == phrase or (contract is MIXED and {nearest, phrase} <= {"lift", "lift a little"})


def test_what_no_phrase_says_is_none() -> None:
    def heard(contract: ArmContract, target: JointTarget, at: dict[str, float] = HOME) -> str | None:
        return contract.nearest_phrase(at, _change(contract, target, at))

    assert heard(ARM, JointTarget()) is None, "held"
    assert heard(JOINTS, JointTarget()) == "stay", "there is a phrase for it"
    assert heard(ARM, Jog(ARM).target({"up": 0.2}, HOME, TICK)) is None, "slower than half of a step"
    assert heard(ARM, JointTarget(ARM.joints, tuple(HOME.values()), 1.0)) is None
    assert heard(ARM, JointTarget(("waist",), (math.nan,))) is None
    assert heard(ARM, JointTarget(("finger",), (0.5,))) is None, "of another body"
    # a target far away, as of a program that sends poses: where it leads
    far = ARM.stepped(ARM.stepped(HOME, (0.0, 0.1, 0.0)), (0.0, 0.08, 0.0))
    assert heard(ARM, JointTarget(tuple(far), tuple(far.values()), 2.0)) == "left"


# --- the node -----------------------------------------------------------------------------------------------


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    with Graph(tmp_path) as made:
        yield made


def test_a_person_moves_and_stops_an_arm_by_keys_and_joystick(graph: Graph) -> None:
    master, slave = pty.openpty()
    graph.environment["LLMAGENT_TTY"] = os.ttyname(slave)
    teleop = graph.start("teleop", robot="sim_arm", keyboard="always")
    commands: list[JointTrajectory] = graph.collect(JointTrajectory, "cmd_joint_teleop")
    stops: list[Bool] = graph.collect(Bool, "e_stop", qos.LATEST)
    graph.until(lambda: "w forward   s back   a left   d right   t up   b down" in teleop.said, "no help")
    joints = graph.publisher(JointStateMessage, "joint_states", qos.RELIABLE_SENSOR)
    joystick = graph.publisher(Joy, "joy", qos.COMMAND)
    at = dict(HOME)

    def see() -> None:
        joints.publish(sensors.joints_to_message(JointState(stamps.to_seconds(stamps.header(1.0).stamp), at)))
        if commands and commands[-1].joint_names:
            at.update(zip(commands[-1].joint_names, commands[-1].points[0].positions, strict=True))

    os.write(master, b"t")
    graph.until(lambda: "no fresh joint states on /joint_states" in teleop.said, "it does not say what it lacks")
    assert commands == []

    def rises() -> bool:
        see()
        os.write(master, b"T")  # with Caps Lock
        return bool(ARM.tip(at)[2] > ARM.tip(HOME)[2] + 0.05)

    graph.until(rises, "the key does not move it")
    assert all(m.header.frame_id == "base_link" and m.header.stamp.sec > 0 for m in commands)

    def let_go() -> bool:
        see()
        return commands[-1].joint_names == []

    graph.until(let_go, "it is not told to hold when the key is let go")
    commands.clear()

    def reaches() -> bool:
        see()
        joystick.publish(Joy(axes=[0.0, 1.0, 0.0, 0.0, 0.0], buttons=HELD))
        return bool(ARM.tip(at)[0] > ARM.tip(HOME)[0] + 0.05)

    graph.until(reaches, "the joystick does not move it")
    graph.until(let_go, "it is not told to hold when the dead-man is silent")
    os.write(master, b"e")
    graph.until(lambda: [stop.data for stop in stops] == [True], "no e-stop")
    os.write(master, b"q")
    assert graph.exit_code(teleop) == 0
    os.close(master)
    os.close(slave)
