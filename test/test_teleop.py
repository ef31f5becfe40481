"""Keys and joystick, without ROS; and the node on a terminal of its own."""

from __future__ import annotations

import math
import os
import pty
import termios
from pathlib import Path

import pytest
from geometry_msgs.msg import TwistStamped
from ros_support import Graph
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from llmagent_interfaces.msg import Judgement as JudgementMessage
from llmagent_interfaces.msg import Scene
from llmagent_ros.contract import Limits, load_mobile_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes import qos
from llmagent_ros.teleop.joystick import JoystickConfig, JoystickTeleop
from llmagent_ros.teleop.judging import Judge, JudgeConfig
from llmagent_ros.teleop.keyboard import REPEAT_PAUSE, Keyboard, Keystrokes, Repeats
from llmagent_ros.teleop.keys import KeysConfig, KeyTeleop
from llmagent_ros.teleop.phrases import PhraseDrive, deflections
from llmagent_ros.types import Judgement, Velocity

LIMITS = Limits(linear=1.0, angular=2.0, linear_acceleration=1.0, angular_acceleration=1.0)
HELD = [0, 0, 0, 0, 1]  # an Xbox pad's left shoulder button


def test_a_key_drives_while_it_is_heard() -> None:
    keys = KeyTeleop(LIMITS, KeysConfig(linear=0.5, angular=0.25, hold=0.6))
    assert keys.velocity(0.0) is None
    assert keys.press("w", 0.0) and keys.press("A", 0.3)
    assert keys.velocity(0.5) == Velocity(0.5, 0.5)
    assert keys.velocity(0.7) == Velocity(0.0, 0.5)
    assert keys.velocity(0.9) is None
    keys.press("s", 1.0)
    keys.press("d", 1.0)
    assert keys.velocity(1.1) == Velocity(-0.5, -0.5)
    keys.press(" ", 1.2)
    assert keys.velocity(1.3) == Velocity(), "space is a command to stand"
    assert keys.velocity(1.9) is None
    assert not keys.press("x", 2.0) and keys.velocity(2.0) is None


def test_the_joystick_drives_while_the_dead_man_is_held() -> None:
    stick = JoystickTeleop(LIMITS, JoystickConfig(dead_zone=0.2))
    stick.on_joy([0.0, 0.6, 0.0, -1.0], HELD, 0.0)
    assert stick.velocity(0.4) == Velocity(pytest.approx(0.5), -2.0)
    assert stick.velocity(0.6) is None, "a silent joystick counts as released"
    stick.on_joy([0.0, 1.0, 0.0, 0.1], [0] * 5, 1.0)
    assert stick.velocity(1.0) is None
    stick.on_joy([0.0, math.nan, 0.0, 7.0], HELD, 2.0)
    assert stick.velocity(2.0) == Velocity(0.0, 2.0)
    stick.on_joy([], [1], 3.0)
    assert stick.velocity(3.0) is None, "an axis or button that is not there moves nothing"
    assert stick.missing([0.0], [0]) == ["linear_axis 1", "angular_axis 3", "dead_man 4", "e_stop 1"]


def test_the_e_stop_button_counts_when_it_goes_down() -> None:
    stick = JoystickTeleop(LIMITS)
    downs = [stick.on_joy([], [0, pressed], 0.0) for pressed in (0, 1, 1, 0, 1)]
    assert downs == [False, True, False, False, True]


def test_keys_and_buttons_judge_once_for_each_press() -> None:
    judge = Judge(JudgeConfig(reward=0.5, bad=-1))
    said = [judge.press(key) for key in "yN+=-_"]
    assert said == [Judgement("success"), Judgement("failure"), *[Judgement(reward=r) for r in (0.5, 0.5, -0.5, -0.5)]]
    assert not any(judge.press(key) for key in "wasderq x"), "those drive, stop and end"
    keys = KeyTeleop(LIMITS)
    assert not any(keys.press(key, 0.0) for key in "yn+=-_") and keys.velocity(0.0) is None
    start, nothing = [0] * 7 + [1], [0] * 8
    assert judge.on_joy(start) == [Judgement("success")] and judge.on_joy(start) == [], "held is not pressed again"
    assert judge.on_joy(nothing) == [] and judge.on_joy(start) == [Judgement("success")]
    assert judge.on_joy([0, 0, 1, 1, 0, 0, 1, 0]) == [Judgement("failure"), Judgement(reward=0.5)]
    assert judge.missing([0] * 4) == ["judge.success 7", "judge.failure 6"]


def test_a_key_that_is_held_is_not_pressed_again() -> None:
    repeats = Repeats()
    assert [repeats.take("e", 0.0), *(repeats.take("e", 0.66 + 0.04 * i) for i in range(9))] == [False] + 9 * [True]
    assert not repeats.take("e", 0.98 + REPEAT_PAUSE), "let go, and pressed again"
    assert [repeats.take(key, 2.0) for key in "+-+"] == [False] * 3, "only the last key repeats"


def test_a_button_that_means_two_things_is_refused() -> None:
    JudgeConfig().check(JoystickConfig())
    with pytest.raises(ConfigError, match=r"judge\.good: button 4 is joystick\.dead_man already"):
        JudgeConfig(good=4).check(JoystickConfig())
    with pytest.raises(ConfigError, match=r"judge\.failure: button 7 is judge\.success already; valid: another one"):
        JudgeConfig(failure=7).check(JoystickConfig())
    JudgeConfig(good=-1, bad=-1).check(JoystickConfig())


def test_arrows_drive_as_letters_and_are_not_taken_for_letters() -> None:
    strokes = Keystrokes()
    assert strokes.take("wA") == ["w", "a"], "Caps Lock changes nothing"
    assert strokes.take("\x1b[A\x1b[D\x1bOB\x1b[C") == ["up", "left", "down", "right"]
    assert strokes.take("\x1b[3~\x1b[1;5Q\x1b[15~e") == ["e"], "other keys are none"
    assert strokes.take("s\x1b") == ["s"] and strokes.take("[") == [] and strokes.take("D") == ["left"]
    assert strokes.take("\x1b") == [] and strokes.take("") == [] and strokes.take("e") == ["e"]
    assert strokes.take("\x1be\xff\x1b\x1bq") == ["e", "\xff", "q"]
    keys = KeyTeleop(LIMITS)
    assert keys.press("up", 0.0) and keys.press("right", 0.0) and keys.velocity(0.1) == Velocity(0.5, -1.0)


def test_a_person_teaches_by_phrases_one_for_each_scene() -> None:
    contract = load_mobile_contract("sim_diffdrive")
    drive, forward, curve = PhraseDrive(contract), contract.command("forward"), contract.command("curve left")
    assert drive.velocity(Velocity(0.55, 0.1), 0.0) == forward
    assert drive.velocity(Velocity(0.4, 0.9), 0.1) == forward, "a phrase that has begun goes on"
    drive.on_scene()
    assert drive.velocity(Velocity(0.4, 0.9), 0.2) == curve
    assert drive.velocity(Velocity(0.55, 0.1), 0.7) == curve
    assert drive.velocity(Velocity(0.55, 0.1), 0.9) == forward, "without scenes a phrase ends by itself"
    assert drive.velocity(Velocity(), 0.95) == Velocity(), "to stand still waits for nothing"
    assert drive.velocity(Velocity(0.4, 0.9), 1.0) == curve
    assert drive.velocity(None, 1.05) is None, "nor does letting go"
    assert drive.velocity(Velocity(0.01, 0.0), 1.1) == Velocity(), "less than any phrase"
    assert drive.velocity(Velocity(0.55, 0.0), 1.15) == forward, "and holds none off"
    assert drive.velocity(Velocity(0.05, 0.0), 1.2) == Velocity(), "nor goes on with one"


@pytest.mark.parametrize("robot", ["sim_diffdrive", "sim_scout", "turtlebot3_burger", "husky"])
def test_every_phrase_of_a_base_can_be_taught_by_keys_and_stick(robot: str) -> None:
    contract = load_mobile_contract(robot)
    slow = KeysConfig(linear=0.2, angular=0.2)
    wanted = {"forward": "w", "curve left": "wa", "curve right": "wd", "turn left": "a", "turn right": "d", "back": "s"}
    assert set(contract.phrases) <= set(wanted)
    for phrase in contract.phrases:
        keys, stick = deflections(contract, slow, JoystickConfig(linear=0.5, angular=-0.5))
        for key in wanted[phrase]:
            keys.press(key, 0.0)
        velocity = keys.velocity(0.1)
        assert velocity is not None and contract.nearest_phrase(velocity) == phrase
        full = contract.fastest()
        stick.on_joy([0.0, velocity.linear / full.linear, 0.0, -velocity.angular / full.angular], HELD, 0.0)
        assert stick.velocity(0.1) == velocity, "the axis is turned round, and full is full"
    _, still = deflections(contract, slow, JoystickConfig(angular=0.0))
    still.on_joy([0.0, 0.0, 0.0, 1.0], HELD, 0.0)
    assert still.velocity(0.1) == Velocity(), "an axis that is switched off stays so"


def test_the_terminal_is_left_as_it_was_found() -> None:
    master, slave = pty.openpty()
    found = termios.tcgetattr(slave)
    keyboard = Keyboard(os.dup(slave))
    assert not termios.tcgetattr(slave)[3] & termios.ECHO and termios.tcgetattr(slave)[3] & termios.ISIG
    assert keyboard.read() == ""
    os.write(master, b"wa")
    assert keyboard.read() == "wa"
    keyboard.close()
    keyboard.close()
    assert termios.tcgetattr(slave) == found
    reader, writer = os.pipe()
    with pytest.raises(OSError):
        Keyboard(reader)
    for descriptor in (master, slave, reader, writer):
        os.close(descriptor)


def test_a_person_drives_and_stops_by_keys_and_joystick(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    found = termios.tcgetattr(slave)
    with Graph(tmp_path) as graph:
        graph.environment["LLMAGENT_TTY"] = os.ttyname(slave)
        teleop = graph.start("teleop", keyboard="always", keys__linear=1.0)
        commands = graph.collect(TwistStamped, "cmd_vel_teleop")
        stops = graph.collect(Bool, "e_stop", qos.LATEST)
        judgements = graph.collect(JudgementMessage, "judgement")
        joystick = graph.publisher(Joy, "joy", qos.COMMAND)

        def speeds() -> list[float]:
            return [message.twist.linear.x for message in commands]

        os.write(master, b"w")
        graph.until(lambda: 0.6 in speeds(), "the key does not drive")
        graph.until(lambda: speeds()[-1] == 0.0, "no zero when the key is let go")
        commands.clear()

        def push() -> bool:
            joystick.publish(Joy(axes=[0.0, -1.0, 0.0, 0.0], buttons=HELD))
            return -0.6 in [pytest.approx(speed) for speed in speeds()]

        graph.until(push, "the joystick does not drive")
        os.write(master, b"Y---")  # with Caps Lock, the second held
        graph.until(lambda: len(judgements) == 2, "no judgement by keys")
        assert [(m.verdict, m.reward) for m in judgements] == [("success", 0.0), ("", pytest.approx(-0.2))]
        assert all(m.header.stamp.sec > 0 for m in judgements), "without a stamp it could be of any episode"

        def judge() -> bool:
            joystick.publish(Joy(axes=[0.0] * 4, buttons=[0] * 6 + [1, 0]))
            return len(judgements) > 2

        graph.until(judge, "no judgement by the joystick")
        assert judgements[2].verdict == "failure"
        os.write(master, b"eee")  # held
        graph.until(lambda: stops, "no e-stop")
        graph.catch_up("teleop")
        assert [stop.data for stop in stops] == [True] and len(judgements) >= 3
        assert all(m.reward == 0.0 for m in judgements[2:]), "a key that is held judges once"
        os.write(master, b" E")  # with Caps Lock
        graph.until(lambda: [stop.data for stop in stops] == [True, False], "Caps Lock takes the e-stop away")
        os.write(master, b"R")
        graph.until(lambda: "no guard to reset" in teleop.said, "Caps Lock takes the reset away")
        os.write(master, b"Q")
        assert graph.exit_code(teleop) == 0
    assert termios.tcgetattr(slave) == found
    os.close(master)
    os.close(slave)


def test_with_teach_the_stick_says_phrases(tmp_path: Path) -> None:
    contract = load_mobile_contract("sim_diffdrive")
    with Graph(tmp_path) as graph:
        graph.start("teleop", keyboard="never", teach=True)
        commands = graph.collect(TwistStamped, "cmd_vel_teleop")
        joystick = graph.publisher(Joy, "joy", qos.COMMAND)
        scenes = graph.publisher(Scene, "scene", qos.COMMAND)

        def push(forward: float, left: float) -> None:
            joystick.publish(Joy(axes=[0.0, forward, 0.0, left], buttons=HELD))

        def last() -> Velocity | None:
            return Velocity(commands[-1].twist.linear.x, commands[-1].twist.angular.z) if commands else None

        graph.until(lambda: push(0.9, 0.2) or last() == contract.command("forward"), "the stick says no phrase")
        graph.until(
            lambda: push(0.6, 0.6) or scenes.publish(Scene()) or last() == contract.command("curve left"),
            "a scene ends no phrase",
        )
        assert {(m.twist.linear.x, m.twist.angular.z) for m in commands} == {(0.5, 0.0), (0.35, 0.8)}
