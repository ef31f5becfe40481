"""The whole graph around an arm: in lockstep a seed gives an episode, and in real time it moves as it is told."""

from __future__ import annotations

import os
import pty
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from graph_support import LONG, Agent
from ros_support import ROOT, Graph
from trajectory_msgs.msg import JointTrajectory

from llmagent_interfaces.msg import Transition, Verdict
from llmagent_ros.contract import ArmContract, load_contract
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire.stamps import key

ARM = load_contract("sim_arm")
assert isinstance(ARM, ArmContract)
TOPIC = "/joint_trajectory_controller/joint_trajectory"
MAX_STEPS = 8


def task_file(folder: Path, max_steps: int = MAX_STEPS) -> Path:
    content = yaml.safe_load((ROOT / "config" / "tasks" / "reach.yaml").read_text())
    path = folder / "reach.yaml"
    path.write_text(yaml.safe_dump(content | {"task": "short", "max_steps": max_steps}))
    return path


def meet(graph: Graph) -> Agent:
    """The agent, once the policy is there: it loads a language model first."""
    graph.until(lambda: graph.node.count_publishers("/decision") > 0, "no policy", LONG)
    return Agent(graph, JointTrajectory, "/cmd_joint_policy", TOPIC)


def episode(folder: Path, seed: int) -> dict[str, Any]:
    folder.mkdir()
    with Graph(folder) as graph:
        common: dict[str, Any] = {"robot": "sim_arm", "use_sim_time": True}
        graph.compose(
            guard=common | {"mode": "lockstep", "scan_wait": 10.0},
            perception=common | {"decision_timeout": 10.0},
            sim=common | {"task": task_file(folder), "command_timeout": 10.0},
        )
        graph.start("policy", seed=3, out=folder, **common)
        verdicts: list[Verdict] = graph.collect(Verdict, "/verdict", qos.VERDICT)
        agent = meet(graph)
        goal = agent.send(agent.reset(seed))
        _, result = goal.result()
        told = agent.episode(goal.task_id, result.steps)
        decided = [key(m.header.stamp) for m in told.decisions]

        def answered() -> list[Verdict] | None:
            first = {key(m.header.stamp): m for m in reversed(verdicts)}  # a command that came again has another one
            return [first[stamp] for stamp in decided] if set(decided) <= set(first) else None

        verdicts_of_steps = graph.until(answered, "not a verdict for each decision")
    return {
        "scenes": [m.text for m in told.scenes],
        "actions": [m.action for m in told.decisions],
        "commands": [dict(zip(m.joint_names, m.points[0].positions, strict=True)) for m in told.commands],
        "rewards": [round(m.reward, 6) for m in told.outcomes],
        "result": (result.success, result.reason, result.steps),
        "passed": [m.verdict == "passed" for m in verdicts_of_steps],
        "reasons": {m.reason for m in verdicts_of_steps},
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("arm")
    return [episode(folder / str(number), seed=5) for number in range(2)]


def test_a_seed_gives_the_same_episode(told: list[dict[str, Any]]) -> None:
    first, second = told
    assert first == second
    assert first["result"][1] in {"timeout", "reached", "collision"} and 1 <= first["result"][2] <= MAX_STEPS


def test_the_arm_does_what_was_decided(told: list[dict[str, Any]]) -> None:
    """From scene to scene the tip has moved as the phrase says: policy, guard and robot have carried it."""
    first = told[0]
    passed = first["passed"]  # but where what is decided turns a joint round at once
    assert first["reasons"] <= {"", "acceleration"} and 2 * sum(passed) > len(passed)
    tips = [ARM.tip(command) for command in first["commands"]]
    pairs = zip(first["actions"][1:], tips, tips[1:], passed, passed[1:], strict=False)
    moves = [(action, before, after) for action, before, after, *both in pairs if all(both)]
    assert moves
    for action, before, after in moves:
        step = ARM.actions[action]
        wanted = ARM.arm.workspace.clamp(before + [step.x, step.y, step.z])
        assert after == pytest.approx(wanted, abs=2e-3)
    assert all(len(command) == len(ARM.joints) for command in first["commands"])
    for text, action in zip(first["scenes"][1:], first["actions"], strict=True):
        assert text.split("did ")[1].rstrip(".").split(", ")[-1] == action
        assert text.startswith("reach the ") and "unknown" not in text


def test_in_real_time_the_arm_follows(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        common: dict[str, Any] = {"robot": "sim_arm", "use_sim_time": True}
        graph.compose(
            guard=common | {"mode": "realtime"},
            perception=common | {"mode": "realtime"},
            sim=common | {"mode": "realtime", "task": task_file(tmp_path, max_steps=1_000_000)},
        )
        graph.start("policy", seed=3, out=tmp_path, stepwise=False, **common)
        agent = meet(graph)
        goal = agent.send(agent.reset(1))
        graph.until(lambda: len(agent.decisions) >= 5, "it does not decide")
        waist = graph.until(lambda: [m.points[0].positions for m in agent.commands][-40:], "it is not commanded")
        goal.cancel()
        positions = np.array(waist)
    assert np.abs(np.diff(positions, axis=0)).max() <= 0.2 * 3.0, "no jump"
    assert {m.header.stamp.sec for m in agent.commands} == {0}


def test_what_a_person_does_with_an_arm_is_learned_as_theirs_and_it_stays_where_they_let_go(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with Graph(tmp_path) as graph:
        graph.environment["LLMAGENT_TTY"] = os.ttyname(slave)
        common: dict[str, Any] = {"robot": "sim_arm", "use_sim_time": True}
        graph.compose(
            guard=common | {"mode": "realtime", "clock_timeout": 5.0, "dead_man": True},
            perception=common | {"mode": "realtime"},
            sim=common | {"mode": "realtime", "task": task_file(tmp_path, 5000)},
        )
        graph.start("policy", seed=3, out=tmp_path, stepwise=False, **common)
        graph.start("teleop", keyboard="always", **common)
        agent = meet(graph)
        transitions: list[Transition] = graph.collect(Transition, "/transition", qos.TRANSITION)
        goal = agent.send(agent.reset(1))
        graph.until(lambda: len(agent.decisions) >= 2, "it does not decide")

        def side() -> float:
            last = next(m for m in reversed(agent.commands) if m.joint_names)
            return float(ARM.tip(dict(zip(last.joint_names, last.points[0].positions, strict=True)))[1])

        def press(key: bytes) -> None:
            os.write(master, key)

        key = b"a"

        def theirs() -> list[Transition]:
            """The person goes to and fro; at the edge of the workspace nothing moves, and nothing is learned."""
            nonlocal key
            key = b"d" if side() > 0.15 else b"a" if side() < -0.15 else key
            press(key)
            return [m for m in transitions if m.source == "human"][4:]

        graph.until(theirs, "nothing is learned from the person", LONG)
        learned = [m for m in transitions if m.source == "human"]
        assert {m.action for m in learned} <= {"left", "right"}
        assert any(f" {m.action}" in m.next_scene.split("did ")[1] for m in learned)
        assert agent.decisions[0].source == "policy"
        goal.cancel()
        goal.result()
        begin = side()

        def away() -> bool:
            press(b"a" if begin < 0 else b"d")
            return abs(side() - begin) > 0.06

        graph.until(away, "it does not move any more")

        def stands() -> bool:
            held = [m.points[0].positions for m in agent.commands[-20:]]
            return bool(np.ptp(held, axis=0).max() < 1e-6)

        graph.until(stands, "it moves on though nobody moves it")
        there = side()
        agent.settle(1.0)
        assert stands() and side() == pytest.approx(there, abs=1e-6)
    os.close(master)
    os.close(slave)
