"""robot.launch.xml in two parts: a robot whose policy's machine is dead stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from graph_support import EVERYTHING, LONG, Agent, find_node, is_zero, slow_robot, task_file
from ros_support import Graph

from llmagent_ros.nodes.wire import reports


@pytest.mark.xdist_group("graph_split")
def test_the_robot_stops_when_the_machine_of_the_policy_is_dead(tmp_path: Path) -> None:
    robot = slow_robot(tmp_path)
    common = {"robot": robot, "use_sim_time": True, "console": "false"}
    with Graph(tmp_path) as graph:
        graph.start("sim", robot=robot, mode="realtime", task=task_file(tmp_path, max_steps=1_000_000))
        here = graph.launch("robot", part="robot", out=tmp_path / "robot", **common)
        there = graph.launch("robot", part="compute", learn="false", out=tmp_path / "compute", **common)
        states: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics", EVERYTHING, writers=0)
        agent = Agent(graph)
        assert find_node(here, "guard") and find_node(there, "policy")
        assert not find_node(here, "policy") and not find_node(there, "guard")
        agent.reset(seed=0)
        agent.send("go to the red ball").wait_for_steps(2)
        graph.until(lambda: any(not is_zero(m) for m in agent.commands[-5:]), "the robot does not drive", LONG)

        there.kill_all()
        graph.catch_up("guard")  # what the dead one said last is handled, and what the guard said of it
        states.clear()
        graph.until(lambda: reason(states) == "stale_heartbeat", "the reason is another")
        graph.catch_up("guard")
        agent.commands.clear()
        graph.until(lambda: len(agent.commands) >= 5, "the guard has fallen silent")
        assert all(map(is_zero, agent.commands))
        assert here.code is None, "the robot's part goes on"


def reason(states: list[DiagnosticArray]) -> str:
    said = [reports.values(status)["reason"] for m in states for status in m.status if status.name == "/guard"]
    return said[-1] if said else ""
