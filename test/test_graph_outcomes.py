"""What a person says of a real robot's episode reaches the policy, and what is learned from."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_support import LONG, Goal, World
from ros_support import Graph
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Judgement, Task

INSTRUCTION = "go to the red ball"


def step(world: World, task: Task) -> None:
    """A control period: a scene, its decision."""
    before = len(world.decisions)
    world.pass_time()
    world.say(task)
    world.graph.until(lambda: len(world.decisions) > before, "no decision", LONG)


def test_a_verdict_ends_the_goal_and_its_last_transition(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        graph.start("policy", out=tmp_path, use_sim_time=True, stepwise=False)
        graph.start("outcome", use_sim_time=True)
        world = World(graph)
        judgement = graph.publisher(Judgement, "judgement")
        for verdict in ("success", "failure"):
            goal = Goal(world, INSTRUCTION, 0.0)
            task = world.task(INSTRUCTION)
            refused = graph.call(Trigger, "outcome/success", Trigger.Request())
            assert "no decision yet" in refused.message
            for _ in range(3):
                step(world, task)
            judgement.publish(Judgement(task_id=task.id, reward=0.5))
            answer = graph.call(Trigger, f"outcome/{verdict}", Trigger.Request())
            assert answer.success, answer.message
            world.pass_time()
            world.say(task)
            _, result = goal.result()
            assert (result.success, result.reason) == (verdict == "success", verdict)
            end = 1.0 if verdict == "success" else -1.0
            assert result.total_reward == pytest.approx(0.5 + end, abs=0.06), "the rest are steps of -0.01"
            graph.until(lambda: world.transitions and world.transitions[-1].terminated, "no last transition")
            assert world.transitions[-1].reward * end > 0
            world.transitions.clear()
            world.tasks.clear()
