"""The end of an episode: its last scene and its last outcome come on two topics, in any order and at any distance."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from graph_support import Goal, World
from ros_support import Graph

from llmagent_interfaces.action import ExecuteTask
from llmagent_ros.nodes.policy_node import LAST_SCENE_TIMEOUT

DELAYS = (0.0, 0.002, 0.005, 0.01, 0.02)  # s between the two; the model thinks for about 10 ms
REPEATS = 3


class Play(World):
    """Episodes of one step."""

    def play(self, scene_first: bool, delay: float) -> tuple[ExecuteTask.Result, float]:
        """One episode; its result and how long that took after everything was said, s."""
        instruction = f"go to the red ball number {len(self.transitions)}"
        goal = Goal(self, instruction, 0.0)
        task = self.task(instruction)
        self.pass_time()
        before = len(self.decisions)
        self.say(task)
        self.graph.until(lambda: len(self.decisions) > before, "no decision")
        self.pass_time()
        parts = [lambda: self.say(task), lambda: self.report(reward=0.5, truncated=True, reason="timeout")]
        for part in parts if scene_first else reversed(parts):
            part()
            time.sleep(delay)
        began = time.monotonic()
        _, result = goal.result()
        return result, time.monotonic() - began


def test_no_last_step_is_lost(tmp_path: Path) -> None:
    took = []
    with Graph(tmp_path) as graph:
        graph.start("policy", out=tmp_path, use_sim_time=True)
        world = Play(graph)
        for scene_first, delay, _ in itertools.product((True, False), DELAYS, range(REPEATS)):
            begun = len(world.transitions)
            result, seconds = world.play(scene_first, delay)
            assert (result.reason, result.steps, result.total_reward) == ("timeout", 1, 0.5)
            graph.until(lambda n=begun: len(world.transitions) > n, "the last step is lost")
            took.append(seconds)
    last = world.transitions
    assert len(last) == len(DELAYS) * 2 * REPEATS
    assert all(m.truncated and not m.terminated and m.step == 0 and m.reward == 0.5 for m in last)
    assert all(m.next_scene != m.scene and m.next_scene.startswith(m.task) for m in last)
    assert sorted(took)[len(took) // 2] < LAST_SCENE_TIMEOUT, "the end is waited for"
