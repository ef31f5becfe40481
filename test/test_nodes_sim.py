"""The simulator's node as a process: to which task a world and its control periods belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from ros_support import ROOT, Graph
from sensor_msgs.msg import LaserScan

from llmagent_interfaces.msg import Outcome, Task
from llmagent_interfaces.srv import ResetSimulation
from llmagent_ros.contract import load_mobile_contract
from llmagent_ros.nodes import qos
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task

STEPS = 6  # of an episode
SEED = 3


class Driver:
    """Resets a simulator, gives it tasks, and answers its readings; the robot stands."""

    def __init__(self, graph: Graph, folder: Path, **task: Any) -> None:
        self.graph, self.task_file = graph, folder / "short.yaml"
        content = yaml.safe_load((ROOT / "config" / "tasks" / "navigate.yaml").read_text())
        self.task_file.write_text(yaml.safe_dump({**content, "max_steps": STEPS, **task}, sort_keys=False))
        graph.start("sim", task=self.task_file)
        self.commands = graph.publisher(TwistStamped, "cmd_vel")
        self.tasks = graph.publisher(Task, "task", qos.LATEST)
        self.scans: list[LaserScan] = graph.collect(LaserScan, "scan", qos.RELIABLE_SENSOR)
        self.outcomes: list[Outcome] = graph.collect(Outcome, "outcome", qos.OUTCOME)

    def reset(self, seed: int = SEED) -> str:
        """The instruction of the world that is drawn."""
        request = ResetSimulation.Request(use_seed=True, seed=seed)
        answer: Any = self.graph.call(ResetSimulation, "sim/reset", request)
        self.graph.until(lambda: self.scans, "no readings")
        return str(answer.instruction)

    def announce(self, identity: str, instruction: str) -> None:
        self.tasks.publish(Task(id=identity, instruction=instruction))
        self.graph.catch_up("sim")

    def step(self, count: int) -> str:
        """Why the episode ends with the last of so many control periods; empty when it does not."""
        for _ in range(count):
            self._answer(len(self.outcomes), self.scans[-1])
        ends = [outcome.reason for outcome in self.outcomes[-count:]]
        assert not any(ends[:-1])
        return ends[-1]

    def _answer(self, outcomes: int, scan: LaserScan) -> None:
        command = TwistStamped()
        command.header.stamp = scan.header.stamp
        self.commands.publish(command)
        self.graph.until(lambda: len(self.outcomes) > outcomes and self.scans[-1] != scan, "no step")


def test_a_task_that_pre_empts_has_all_the_periods_of_an_episode(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        driver = Driver(graph, tmp_path)
        words = driver.reset()
        assert driver.step(2) == ""
        driver.announce("runner's", words)
        assert driver.step(STEPS - 3) == ""
        driver.announce("a person's", words)
        assert driver.step(STEPS - 1) == "", "counted from its beginning"
        driver.announce("a person's", words)
        assert driver.step(1) == "timeout", "said again, it is the same task"


def test_the_task_that_a_world_was_drawn_for_has_its_first_periods_too(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        driver = Driver(graph, tmp_path)
        words = driver.reset()
        assert driver.step(2) == ""
        driver.announce("runner's", words)
        assert driver.step(STEPS - 2) == "timeout"


def test_a_task_after_the_end_of_an_episode_gets_the_next_world(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        driver = Driver(graph, tmp_path)
        driver.announce("runner's", driver.reset())
        assert driver.step(STEPS) == "timeout"
        seen = len(driver.scans)
        driver.announce("a person's", "go to the red ball")
        graph.until(lambda: len(driver.scans) > seen, "time stands")
        same = Simulator(load_mobile_contract("sim_diffdrive"), load_task(str(driver.task_file)), seed=SEED)
        same.reset()
        assert driver.scans[-1].ranges.tolist() == pytest.approx(list(same.reset().scan.ranges), abs=1e-5)
        same.close()
        assert driver.step(STEPS) == "timeout"


def test_a_task_for_which_no_world_can_be_drawn_is_told_of_and_the_next_one_tried(tmp_path: Path) -> None:
    room = {"world": "corners", "size": [4.3, 4.3], "objects": [2, 2], "start_distance": [4.4, 4.5]}
    (tmp_path / "corners.yaml").write_text(yaml.safe_dump({**room, "obstacles": {"count": [0, 0]}}))
    with Graph(tmp_path) as graph:
        driver = Driver(graph, tmp_path, world=str(tmp_path / "corners.yaml"))
        diagnostics: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics", qos.COMMAND)
        driver.reset(seed=0)  # whose first world can be drawn, and whose second one cannot
        driver.announce("runner's", "go to the red ball")
        assert driver.step(STEPS) == "timeout"
        driver.announce("a person's", "go to the red ball")

        def told() -> bool:
            states = [status for array in diagnostics for status in array.status if status.name == "/sim"]
            errors = [status.message for status in states if status.level == DiagnosticStatus.ERROR]
            return any("no episode of 'go to the red ball'" in message for message in errors)

        graph.until(told, "the diagnostics do not say so")
        assert driver.reset(seed=0), "it is still there"
