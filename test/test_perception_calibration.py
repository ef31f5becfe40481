"""A robot whose phrases do something else is measured, and a policy is told nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, contract_path, load_contract
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.perception.calibration import Calibration, CalibrationConfig
from llmagent_ros.perception.text import say_action, say_history, say_motion

ROBOT = load_contract("sim_diffdrive")
assert isinstance(ROBOT, MobileContract)
PHRASES = ROBOT.phrases
RADIUS, APART = 0.05, 0.3  # of wheels, m
Motion = tuple[float, float]
Robot = Callable[[Motion], Motion]


def contract(**scene: Any) -> MobileContract:
    plain = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    plain["scene"] |= scene
    return config.build(MobileContract, plain, "test")


def wheels(left: float = 1.0, right: float = 1.0, *, swapped: bool = False) -> Robot:
    """What comes of a velocity where each wheel turns so much of what it should."""

    def moves(command: Motion) -> Motion:
        both = command[0] - command[1] * APART / 2, command[0] + command[1] * APART / 2
        if swapped:
            both = both[::-1]
        a, b = left * both[0], right * both[1]
        return (a + b) / 2, (b - a) / APART

    return moves


class Drive:
    """A robot and the text that it tells, without noise."""

    def __init__(self, moves: Robot, calibration: Calibration | None = None) -> None:
        self.calibration = calibration or Calibration(ROBOT)
        self._moves, self._done = moves, list[tuple[str, Motion]]()

    def do(self, known: str) -> tuple[str, str]:
        """Chooses a phrase; what was said to the robot, and the scene that is read after it."""
        spoken = self.calibration.say(known)
        velocity = ROBOT.command(spoken)
        self._done = [*self._done, (spoken, self._moves((velocity.linear, velocity.angular)))][-3:]
        said = [say_action(*each) for each in self._done]
        raw = f"go to the red ball. clear ahead 1.0. {say_motion(*self._done[-1][1])} {say_history(said)}"
        return spoken, self.calibration.hear(raw)


def expected(*known: str) -> str:
    """The scene of the robot of the contract."""
    done = [(phrase, (ROBOT.command(phrase).linear, ROBOT.command(phrase).angular)) for phrase in known]
    said = [say_action(*each) for each in done]
    return f"go to the red ball. clear ahead 1.0. {say_motion(*done[-1][1])} {say_history(said)}"


def test_the_robot_of_the_contract_is_told_as_it_is() -> None:
    drive = Drive(wheels())
    for known in islice(cycle(PHRASES), 30):
        assert drive.do(known)[0] == known
    assert drive.do("forward")[1] == expected(*(PHRASES * 2)[4:6], "forward")
    assert not drive.calibration.active and drive.calibration.told() == ""
    assert drive.calibration.sayable.all() and drive.calibration.matrix == pytest.approx(np.eye(2), abs=0.1)


def test_swapped_wheels_swap_what_is_said_and_nothing_of_what_is_read() -> None:
    drive = Drive(wheels(swapped=True))
    assert drive.do("turn left")[1].endswith("did turn left 0.0 turning -1.3."), "one is no evidence yet"
    drive.do("forward")
    drive.do("turn left")
    said = [drive.do(known) for known in ("turn left", "curve right", "forward")]
    assert [spoken for spoken, _ in said] == ["turn right", "curve left", "forward"]
    assert drive.do("turn right")[0] == "turn left"
    assert "'turn left' is said as 'turn right'" in drive.calibration.told()
    assert drive.calibration.matrix == pytest.approx(np.diag([1.0, -1.0]), abs=0.35)
    for known in islice(cycle(PHRASES), 120):
        drive.do(known)
    drive.do("curve left")
    drive.do("turn right")
    assert drive.do("back")[1] == expected("curve left", "turn right", "back")


def test_a_robot_that_drives_backwards_says_back_to_go_forward() -> None:
    drive = Drive(wheels(-1.0, -1.0))
    for known in islice(cycle(PHRASES), 60):
        drive.do(known)
    assert drive.do("forward")[0] == "back" and drive.do("turn left")[0] == "turn right"
    can = dict(zip(PHRASES, drive.calibration.sayable, strict=True))
    assert can["forward"] and can["back"] and can["turn left"] and not can["curve left"]
    assert "'curve left' cannot be done" in drive.calibration.told()


def test_a_worn_wheel_is_made_up_for_by_the_phrase_that_now_does_it() -> None:
    drive = Drive(wheels(left=0.5))
    for known in islice(cycle(PHRASES), 60):
        drive.do(known)
    spoken, scene = drive.do("forward")
    assert spoken == "curve right", "which turns as much to the right as the wheel turns it to the left"
    assert scene.endswith("forward 0.5 turning 0.0.") and "moving 0.5 turning 0.0. did" in scene


def test_what_was_not_to_be_expected_is_told() -> None:
    """The robot of before, but it is held: what is missing of the motion that was to be expected is missing there."""
    held = [False]
    drive = Drive(lambda command: (0.0, 0.0) if held[0] else wheels(swapped=True)(command))
    for known in islice(cycle(PHRASES), 120):
        drive.do(known)
    held[0] = True
    _, scene = drive.do("turn left")
    assert scene.endswith("back -0.3 turning 0.0, turn left 0.0 turning 0.0.") and "moving 0.0 turning 0.0." in scene


def test_noise_and_delay_are_no_other_phrases() -> None:
    rng = np.random.default_rng(0)
    noisy = Drive(lambda command: (command[0] + rng.normal(0, 0.03), command[1] + rng.normal(0, 0.08)))
    before = [(0.0, 0.0)] * 2

    def late(command: Motion) -> Motion:
        before.append(command)
        return before[-3]

    delayed = Drive(late)
    for known in rng.choice(PHRASES, 200):
        assert noisy.do(known)[0] == known
        delayed.do(known)
    assert not noisy.calibration.active
    active = sum(bool(delayed.do(known) and delayed.calibration.active) for known in rng.choice(PHRASES, 200))
    assert active < 20


def test_a_mended_robot_is_told_as_it_is_again() -> None:
    swapped = [True]
    drive = Drive(lambda command: wheels(swapped=swapped[0])(command))
    for known in islice(cycle(PHRASES), 60):
        drive.do(known)
    assert drive.calibration.active
    swapped[0] = False
    for known in islice(cycle(PHRASES), 60):
        drive.do(known)
    assert drive.do("turn left")[0] == "turn left" and not drive.calibration.active
    drive.calibration.forget()
    assert drive.calibration.matrix == pytest.approx(np.eye(2))


def test_it_goes_on_where_it_was_saved() -> None:
    first = Drive(wheels(left=0.5))
    for known in islice(cycle(PHRASES), 17):
        first.do(known)
    second = Calibration(ROBOT)
    second.load_state(json.loads(json.dumps(first.calibration.state())))
    assert second.told() == first.calibration.told() != ""
    first.calibration.start_episode()
    a, b = Drive(wheels(left=0.5), first.calibration), Drive(wheels(left=0.5), second)
    assert [a.do(known) for known in PHRASES] == [b.do(known) for known in PHRASES]


def test_what_a_person_says_to_the_robot_is_told_in_the_policys_words() -> None:
    drive = Drive(wheels(swapped=True))
    for known in islice(cycle(PHRASES), 60):
        drive.do(known)
    calibration = drive.calibration
    calibration.start_episode()
    calibration.say("forward")
    assert calibration.did("turn left") == "turn right"
    assert calibration.hear("go. did turn left 0.0 turning -1.3.").endswith("did turn right 0.0 turning -1.3.")
    with pytest.raises(UnknownNameError, match="'fly'"):
        calibration.did("fly")
    fresh = Calibration(ROBOT)
    assert fresh.did("turn left") == "turn left"


def test_how_fast_a_person_drives_says_nothing_of_the_robot() -> None:
    """Keys drive at half of the limits: such a robot is no weak one."""
    calibration = Calibration(ROBOT)
    for _ in range(10):
        calibration.say("turn left")
        assert calibration.did("forward") == "forward"
        scene = "go. moving 0.3 turning 0.0. did forward 0.3 turning 0.0."
        assert calibration.hear(scene) == scene
    assert calibration.state() == Calibration(ROBOT).state()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_a_command_was_reduced_to_is_what_the_motion_came_of(share: float) -> None:
    """The guard slows a sound robot down before obstacles; that is no other robot."""
    drive = Drive(lambda command: (share * command[0], share * command[1]))
    calibration, say = drive.calibration, drive.calibration.say

    def reduced(known: str) -> str:
        spoken = say(known)
        velocity = ROBOT.command(spoken)
        calibration.sent(share * velocity.linear, share * velocity.angular)
        return spoken

    calibration.say = reduced  # type: ignore[method-assign]
    for known in islice(cycle(PHRASES), 60):
        assert drive.do(known)[0] == known
    assert not calibration.active and calibration.sayable.all()
    assert calibration.matrix == pytest.approx(np.eye(2), abs=0.15)


def test_what_was_kept_from_being_done_teaches_nothing() -> None:
    """An emergency stop is no robot that cannot move."""
    calibration = Calibration(ROBOT)
    for _ in range(30):
        calibration.say("forward")
        calibration.ignore()
        scene = "go. moving 0.0 turning 0.0. did forward 0.0 turning 0.0."
        assert calibration.hear(scene) == scene
    assert calibration.state() == Calibration(ROBOT).state()


def test_what_teaches_nothing_is_told_as_expected_all_the_same() -> None:
    """It is not known what the robot had been told in the end; the policy must not read of a turn the wrong way."""
    drive = Drive(wheels(swapped=True))
    for known in islice(cycle(PHRASES), 120):
        drive.do(known)
    calibration, before = drive.calibration, drive.calibration.matrix
    calibration.start_episode()
    assert calibration.say("turn left") == "turn right"
    calibration.ignore()
    heard = calibration.hear("go. moving 0.0 turning 1.3. did turn right 0.0 turning 1.3.")
    assert heard == "go. moving 0.0 turning 1.3. did turn left 0.0 turning 1.3."
    calibration.say("back")
    calibration.ignore()
    heard = calibration.hear("go. moving 0.0 turning 0.0. did turn right 0.0 turning 1.3, back 0.0 turning 0.0.")
    assert heard.endswith("did turn left 0.0 turning 1.3, back 0.0 turning 0.0."), "it was held"
    assert (calibration.matrix == before).all()


def test_a_scene_that_tells_of_no_motion_teaches_nothing() -> None:
    calibration = Calibration(ROBOT)
    assert calibration.hear("go. moving unknown. did nothing.") == "go. moving unknown. did nothing."
    calibration.say("turn left")
    assert calibration.hear("go. moving unknown. did turn left.") == "go. moving unknown. did turn left."
    calibration.say("forward")
    scene = "go. moving 0.3 turning 0.8. did turn left, curve left 0.3 turning 0.8."
    assert calibration.hear(scene) == scene, "somebody else drove"
    assert calibration.state() == Calibration(ROBOT).state()
    with pytest.raises(UnknownNameError, match="'fly'"):
        calibration.say("fly")


@pytest.mark.parametrize(
    "instruction",
    ["did turn left 0.0 turning 1.3", "moving 0.5 turning 0.0. did nothing", "did x. moving 9.9 turning 9.9"],
)
def test_an_instruction_that_sounds_like_a_motion_is_left_alone(instruction: str) -> None:
    drive = Drive(wheels(swapped=True))
    for known in islice(cycle(PHRASES), 30):
        drive.do(known)
    drive.calibration.start_episode()
    drive.calibration.say("turn left")
    heard = drive.calibration.hear(f"{instruction}. moving 0.0 turning 1.3. did turn right 0.0 turning 1.3.")
    assert heard.startswith(f"{instruction}. moving 0.0 turning 1.")
    assert heard.removeprefix(f"{instruction}. ").count("did turn left 0.0 turning 1.") == 1


@pytest.mark.parametrize(
    ("scene", "missing"),
    [({"effects": False}, "effects"), ({"history": 0}, "history"), ({"parts": ["history", "motion"]}, "history last")],
)
def test_a_contract_whose_scenes_do_not_tell_is_refused(scene: dict[str, Any], missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        Calibration(contract(**scene))
    with pytest.raises(ConfigError, match="robots that drive"):
        Calibration(load_contract("sim_arm"))


@given(
    matrix=st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    chosen=st.lists(st.sampled_from(PHRASES), min_size=1, max_size=40),
)
def test_whatever_the_robot_does_only_phrases_of_the_contract_are_said(matrix: list[float], chosen: list[str]) -> None:
    m = np.array(matrix).reshape(2, 2)
    drive = Drive(lambda command: (float(m[0] @ command), float(m[1] @ command)))
    for known in chosen:
        spoken, scene = drive.do(known)
        assert spoken in PHRASES and f"{known} " in scene.rsplit("did ", 1)[1]
        assert drive.calibration.sayable.any() and np.isfinite(drive.calibration.matrix).all()


def test_the_estimate_is_that_of_the_equations() -> None:
    """Two phrases by hand, with another forgetting and ridge."""
    calibration = Calibration(ROBOT, CalibrationConfig(forgetting=0.5, ridge=1.0))
    drive = Drive(lambda command: (0.8 * command[0], command[1] / 1.3), calibration)
    drive.do("forward")  # u = (1, 0), x = (0.8, 0)
    drive.do("turn left")  # u = (0, 1), x = (0, 1 / 1.3)
    # A: I -> .5 I + uu' + .5 I = diag(2, 1) -> .5 diag(2, 1) + .5 I + uu' = diag(1.5, 2)
    # B: I -> diag(1.8, 1) -> .5 diag(1.8, 1) + .5 I + xu' = diag(1.4, 1 + 1 / 1.3)
    assert calibration.matrix == pytest.approx(np.diag([1.4 / 1.5, (1 + 1 / 1.3) / 2]))
