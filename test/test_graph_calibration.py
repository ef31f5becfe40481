"""A robot whose wheels were swapped, in the graph: it is told other phrases, and nobody learns of it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from graph_support import EVERYTHING, LONG, Agent, task_file
from ros_support import Graph

from llmagent_interfaces.msg import Decision, Transition
from llmagent_ros.contract import MobileContract, load_contract
from llmagent_ros.nodes.wire.stamps import key

pytestmark = pytest.mark.xdist_group("graph_calibration")
ROBOT = load_contract("sim_diffdrive")
MIRRORED = {"turn left": "turn right", "turn right": "turn left"}
_LAST = re.compile(r"([a-z ]+?) (-?\d\.\d) turning (-?\d\.\d)\.$")


def last(scene: str) -> tuple[str, float]:
    """The last action that a scene tells, and how it turned."""
    found = _LAST.search(scene.rsplit(", ", 1)[-1].removeprefix("did "))
    assert found is not None, scene
    return found[1].rsplit("did ", 1)[-1].strip(), float(found[3])


def test_swapped_wheels_are_told_the_other_way(tmp_path: Path) -> None:
    assert isinstance(ROBOT, MobileContract)
    with Graph(tmp_path) as graph:
        graph.compose(
            guard={"robot": "sim_diffdrive", "mode": "lockstep", "scan_wait": 10.0, "use_sim_time": True},
            perception={"robot": "sim_diffdrive", "decision_timeout": 10.0, "use_sim_time": True},
            sim={"robot": "sim_diffdrive", "task": task_file(tmp_path, max_steps=25, variation={"swapped": True})}
            | {"use_sim_time": True},
        )
        graph.start("policy", robot="sim_diffdrive", out=tmp_path / "out", use_sim_time=True, calibrate=True)
        agent = Agent(graph)
        transitions: list[Transition] = graph.collect(Transition, "/transition", EVERYTHING)
        episodes = []
        for seed in range(4):
            goal = agent.send(agent.reset(seed=seed))
            steps = goal.result()[1].steps
            episodes.append(agent.episode(goal.task_id, steps))
        expected = sum(len(episode.decisions) for episode in episodes)
        graph.until(lambda: len(transitions) >= expected, "not every step became a transition", LONG)

    turned = 0
    for number, episode in enumerate(episodes):
        for decision, command in zip(episode.decisions, episode.commands, strict=True):
            velocity = ROBOT.command(decision.said or decision.action)
            assert command.twist.angular.z == pytest.approx(velocity.angular, abs=0.01)
        for decision, after in pairwise(episode.decisions):
            raw = next(m.text for m in episode.scenes if key(m.header.stamp) == key(after.header.stamp))
            assert last(raw)[0] == (decision.said or decision.action), "perception tells what was said to the robot"
            if number == 0 or decision.action not in MIRRORED:
                continue
            turned += 1
            assert decision.said == MIRRORED[decision.action]
            action, turning = last(after.scene)
            assert action == decision.action and (turning > 0.9) == (action == "turn left")
    assert turned >= 4
    check_learned(transitions, [decision for episode in episodes for decision in episode.decisions])


def check_learned(transitions: list[Transition], decisions: list[Decision]) -> None:
    """What is learned from is what the policy read and chose."""
    read = {(m.episode, m.step): (m.scene, m.action) for m in decisions}
    for m in transitions:
        assert (m.scene, m.action) == read[m.episode, m.step]
        if (m.episode, m.step + 1) in read:
            assert m.next_scene == read[m.episode, m.step + 1][0]
