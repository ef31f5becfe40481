"""What a person says of a real robot's episode reaches the policy, and what is learned from."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_support import LONG, Goal, World
from rclpy.duration import Duration
from ros_support import DEADLINE, Graph
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Judgement, Outcome, Task

INSTRUCTION = "go to the red ball"


def step(world: World, task: Task) -> None:
    """A control period: a scene, its decision."""
    before = len(world.decisions)
    world.pass_time()
    world.say(task)
    world.graph.until(lambda: len(world.decisions) > before, "no decision", LONG)


def judge(graph: Graph, verdict: str) -> Trigger.Response:
    """The answer to a person's verdict."""
    return graph.call(Trigger, f"outcome/{verdict}", Trigger.Request())


def test_a_verdict_ends_the_goal_and_its_last_transition(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        graph.start("policy", out=tmp_path, use_sim_time=True, stepwise=False)
        graph.start("outcome", use_sim_time=True)
        world = World(graph)
        judgement = graph.publisher(Judgement, "judgement")
        outcomes = graph.collect(Outcome, "/outcome")
        for verdict in ("success", "failure"):
            goal = Goal(world, INSTRUCTION, 0.0)
            task = world.task(INSTRUCTION)
            graph.until(lambda: "no decision yet" in judge(graph, "success").message, "the task does not arrive", LONG)
            outcomes.clear()
            for _ in range(3):
                step(world, task)
            while not outcomes:  # the outcome node may have seen the decision later than this test
                step(world, task)
            judgement.publish(Judgement(task_id=task.id, reward=0.5))
            assert judgement.wait_for_all_acked(Duration(seconds=DEADLINE)), "the reward is not taken"
            graph.catch_up("outcome")
            answer = judge(graph, verdict)
            assert answer.success, answer.message
            world.pass_time()
            world.say(task)
            _, result = goal.result()
            assert (result.success, result.reason) == (verdict == "success", verdict)
            end = 1.0 if verdict == "success" else -1.0
            graph.until(lambda: outcomes[-1].terminated, "the outcome node does not end the episode")
            assert result.total_reward == pytest.approx(0.5 + end - 0.01 * len(outcomes))
            graph.until(lambda: world.transitions and world.transitions[-1].terminated, "no last transition")
            assert world.transitions[-1].reward * end > 0
            world.transitions.clear()
            world.tasks.clear()
