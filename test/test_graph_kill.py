"""kill -9 of policy and learner while the robot drives: it stops, and the run goes on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from geometry_msgs.msg import TwistStamped
from graph_support import EVERYTHING, LONG, Agent, find_node, is_zero, kill_node, slow_robot, task_file
from ros_support import Graph

from llmagent_interfaces.msg import Decision, Scene
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.nodes.wire.stamps import to_seconds

PERIOD = 0.4
STALE = 1.5 * PERIOD  # s after which the guard stops a robot that nobody commands
SLACK = 0.3  # s of simulated time: half a tick of the clock and of the guard's timer, and their way


def test_in_real_time_the_guard_stops_a_robot_whose_policy_was_killed(tmp_path: Path) -> None:
    robot = slow_robot(tmp_path)
    with Graph(tmp_path) as graph:
        graph.compose(
            guard={"robot": robot, "mode": "realtime", "use_sim_time": True},
            perception={"robot": robot, "mode": "realtime", "use_sim_time": True},
            sim={"robot": robot, "mode": "realtime", "task": task_file(tmp_path, max_steps=1_000_000)},
        )
        policy = graph.start("policy", robot=robot, out=tmp_path, use_sim_time=True)
        agent = Agent(graph)
        agent.reset(seed=0)
        goal = agent.send("go to the red ball")
        goal.wait_for_steps(2)
        goal.cancel()
        assert goal.result()[1].reason == "cancelled"
        graph.until(lambda: is_zero(agent.commands[-1]), "the robot drives on after a cancel")

        drive(agent)
        policy.kill()
        graph.catch_up("guard")  # what the policy said last is known by now
        graph.until(lambda: is_zero(agent.commands[-1]), "the robot drives on without a policy")
        check_stop(agent)

        # the dead one's action server seems to be there for some time
        known = publishers(graph)
        policy = graph.start("policy", robot=robot, out=tmp_path, use_sim_time=True)
        graph.until(lambda: policy.said.count("acting by") == 2, "the policy does not come back", LONG)
        graph.until(lambda: publishers(graph) - known, "the policy is not found again")
        agent.settle()
        drive(agent)


def publishers(graph: Graph) -> set[bytes]:
    return {bytes(info.endpoint_gid) for info in graph.node.get_publishers_info_by_topic("/decision")}


def drive(agent: Agent) -> None:
    """Gives the policy a goal until it has made the robot move."""
    before = len(agent.commands)
    agent.send("go to the red ball").wait_for_steps(2)
    agent.graph.until(lambda: any(not is_zero(m) for m in agent.commands[before:]), "the robot does not drive")


def check_stop(agent: Agent) -> None:
    """Every command after the time-out is zero, and such commands keep coming."""
    last = to_seconds(agent.wanted[-1].header.stamp)

    def after_timeout() -> list[TwistStamped]:
        return [m for m in agent.commands if to_seconds(m.header.stamp) > last + STALE + SLACK]

    agent.graph.until(lambda: len(after_timeout()) >= 5, "the guard has fallen silent")
    assert all(is_zero(m) for m in after_timeout())


@pytest.mark.xdist_group("graph_kill")
def test_a_run_survives_the_kill_of_learner_and_policy(tmp_path: Path) -> None:
    out, episodes, steps = tmp_path / "out", 4, 30
    with Graph(tmp_path) as graph:
        run = graph.launch(
            "sim.launch.xml",
            headless=True,
            episodes=episodes,
            task=task_file(tmp_path, max_steps=steps),
            robot=slow_robot(tmp_path),
            out=out,
        )
        decisions: list[Decision] = graph.collect(Decision, "/decision", EVERYTHING, writers=0)
        scenes: list[Scene] = graph.collect(Scene, "/scene", EVERYTHING, writers=0)
        graph.until(lambda: len(decisions) >= 5 or run.code is not None, "nothing is decided", LONG)
        kill_node(run, "learner")
        policy = find_node(run, "policy")  # by now: a search takes as long as many a step
        assert policy is not None
        graph.until(lambda: decisions[-1].episode >= 2 or run.code is not None, "it does not go on", LONG)
        policy.kill()
        check_nothing_missed(decisions, scenes)
        first_run = decisions[-1].run
        graph.until(lambda: "no command for the scene" in run.said, "the simulator does not report it", LONG)
        graph.until(lambda: decisions[-1].run != first_run or run.code is not None, "the policy is not back", LONG)
        graph.until(lambda: run.code is not None, "the run does not end", LONG)
        assert run.code == 0
        said = run.said
    for node in ("learner", "policy"):
        assert said.count(f"[launch] {node}_node-") >= 3  # started, died, started again
        assert any(f"{node}_node-" in line and "died: killed by SIGKILL" in line for line in said.splitlines())
    assert "is done again" in said
    assert "Traceback" not in said
    rows = list(csv.DictReader((out / "episodes.csv").open()))
    assert len(rows) == episodes
    # a recorder that finds the new policy late may miss the first steps of an episode
    assert all(0 < int(row["steps"]) <= steps and row["reason"] == "timeout" for row in rows)
    with Replay(out / "replay.sqlite", read_only=True) as replay:
        assert 0 < len(replay) <= (episodes + 1) * steps


def check_nothing_missed(decisions: list[Decision], scenes: list[Scene]) -> None:
    """In each episode that has ended, from the first decision seen on: no gap, and one for each scene."""
    first, last = decisions[0].episode, max(m.episode for m in decisions)
    assert first < last, "no whole episode was seen"
    for episode in range(first, last):
        own = [m for m in decisions if m.episode == episode]
        assert own, f"nothing was seen of episode {episode}"
        steps, decided = [m.step for m in own], [to_seconds(m.header.stamp) for m in own]
        assert steps == list(range(steps[0], steps[0] + len(own)))
        assert decided == sorted(set(decided))
        seen = sorted({to_seconds(m.header.stamp) for m in scenes if m.episode == episode and m.text})
        assert {stamp for stamp in seen[:-1] if stamp >= decided[0]} <= set(decided)
