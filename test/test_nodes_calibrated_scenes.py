"""What the policy's node makes of scenes and commands while it calibrates."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np
import pytest
from builtin_interfaces.msg import Time

from llmagent_interfaces.msg import Scene
from llmagent_ros.contract import MobileContract, load_contract
from llmagent_ros.nodes.calibrated_scenes import CalibratedScenes
from llmagent_ros.perception.text import say_action, say_history, say_motion
from llmagent_ros.types import Decision, Source, Velocity


class Robot:
    """A robot that does what it is told, and a node that hears its scenes.

    Args:
        moves: what comes of a turning velocity, as a share.
    """

    def __init__(self, name: str, turns: float = 1.0) -> None:
        contract = load_contract(name)
        assert isinstance(contract, MobileContract)
        self.contract, self._turns = contract, turns
        self.scenes = CalibratedScenes(contract, calibrate=True)
        self._done: list[tuple[str, tuple[float, float]]] = []
        self._time = 0

    def step(self, known: str, share: float | None = 1.0, source: Source = Source.POLICY) -> Decision:
        """A decision, of whose command the guard lets a share through; None: nothing is heard of what it does."""
        probabilities = np.full(len(self.contract.phrases), 1.0 / len(self.contract.phrases))
        decision = Decision(known, 0.0, self.contract.phrases, probabilities, probabilities, "none", source)
        decision = self.scenes.say(decision)
        done = self.scenes.done(decision, executed=True)
        sent = self.contract.command(done.said or done.action)
        passed = 1.0 if share is None else share
        velocity = Velocity(passed * sent.linear, passed * sent.angular)
        if share is not None:
            self.scenes.on_command(velocity)
        moved = self.contract.as_said(velocity.linear, self._turns * velocity.angular)
        self._done = [*self._done, (done.said or done.action, moved)][-3:]
        self._time += 1
        said = f"{say_motion(*moved)} {say_history([say_action(*each) for each in self._done])}"
        message = Scene(text=f"go to the red ball. {said}")
        message.header.stamp = Time(sec=self._time)
        self.scenes.hear(message)
        return done


@pytest.mark.parametrize("name", ["sim_diffdrive", "turtlebot3_burger", "husky"])
@pytest.mark.parametrize("share", [0.0, 0.2, None])
def test_a_sound_robot_that_is_slowed_down_is_told_nothing_else(name: str, share: float | None) -> None:
    robot = Robot(name)
    for count, known in enumerate(islice(cycle(robot.contract.phrases), 60)):
        assert robot.step(known, share if count % 3 else 1.0).said == ""
    assert robot.scenes.told == "" and robot.scenes.sayable is not None and robot.scenes.sayable.all()


@pytest.mark.parametrize(("share", "noticed"), [(1.0, True), (0.5, True), (None, False)])
def test_a_changed_robot_shows_in_what_was_let_through(share: float | None, noticed: bool) -> None:
    robot = Robot("sim_diffdrive", turns=-1.0)
    for known in islice(cycle(robot.contract.phrases), 30):
        robot.step(known, share)
    assert ("'turn left' is said as 'turn right'" in robot.scenes.told) is noticed


def test_a_person_who_drives_slowly_makes_no_weak_robot() -> None:
    robot = Robot("turtlebot3_burger")
    for known in islice(cycle(robot.contract.phrases), 30):
        assert robot.step(known, 0.5, Source.HUMAN).action == known
    assert robot.scenes.told == ""
