"""Only what the robot did is learned from: the guard says who drives it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TwistStamped
from graph_support import Goal, World, is_zero
from ros_support import Graph

from llmagent_interfaces.msg import Task
from llmagent_ros.contract import load_contract

CONTRACT = load_contract("sim_diffdrive")


class Drive(World):
    """Plays guard and person too, through one episode."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._diagnostics = graph.publisher(DiagnosticArray, "/diagnostics")
        self._teleop = graph.publisher(TwistStamped, "cmd_vel_teleop")
        self.goal = Goal(self, "go to the red ball", 0.0)
        self._task: Task = self.task("go to the red ball")

    def guard(self, source: str, reason: str = "", name: str = "/guard") -> None:
        """The guard says who drives; back when the policy has surely heard it."""
        status = DiagnosticStatus(name=name, level=DiagnosticStatus.OK)
        status.values = [KeyValue(key="source", value=source), KeyValue(key="reason", value=reason)]
        self._diagnostics.publish(DiagnosticArray(status=[status]))
        assert self._diagnostics.wait_for_all_acked()
        self.be_heard()

    def person(self, linear: float, angular: float) -> None:
        message = TwistStamped()
        message.twist.linear.x, message.twist.angular.z = linear, angular
        self._teleop.publish(message)
        assert self._teleop.wait_for_all_acked()
        self.be_heard()

    def step(self) -> None:
        """One control period: the outcome of the last, a scene, its decision."""
        before = len(self.decisions)
        self.pass_time()
        if before:
            self.report(reward=1.0)
        self.say(self._task)
        self.graph.until(lambda: len(self.decisions) > before, "no decision")

    def end(self) -> list[tuple[int, str, str]]:
        """Ends the episode; step, phrase and source of what is to be learned from."""
        self.pass_time()
        self.report(reward=1.0, truncated=True, reason="timeout")
        self.say(self._task)
        assert self.goal.result()[1].steps == len(self.decisions)
        self.graph.until(lambda: self.transitions and self.transitions[-1].truncated, "the last step is missing")
        return [(m.step, m.action, m.source) for m in self.transitions]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    with Graph(tmp_path) as graph:
        graph.start("policy", out=tmp_path, use_sim_time=True)
        yield Drive(graph)


def chosen(drive: Drive) -> list[str]:
    return [m.action for m in drive.decisions]


def test_what_a_person_drives_is_learned_as_theirs_and_never_commanded(drive: Drive) -> None:
    drive.step()
    drive.guard("teleop")
    drive.person(0.3, 0.0)
    drive.step()
    drive.step()
    drive.step()
    drive.person(0.0, 0.0)  # in the middle of a step, which is no "forward" any more; and no phrase says that
    drive.step()
    drive.person(math.nan, 0.0)
    drive.step()
    drive.guard("policy")
    drive.step()
    learned, phrases = drive.end(), chosen(drive)
    assert learned == [(1, "forward", "human"), (2, "forward", "human"), (6, phrases[6], "policy")]
    assert [m.source for m in drive.decisions] == ["policy", "human", "human", "human", "policy", "policy", "policy"]
    # the policy goes on to say what it would do itself; only that may act when the person lets go
    commands = [m for m in drive.wanted if not is_zero(m)]
    assert len(commands) == 7
    for decision, command in zip(drive.decisions, commands, strict=True):
        if decision.source == "policy":
            wanted = CONTRACT.command(decision.action)
            assert command.twist.linear.x == pytest.approx(wanted.linear)
            assert command.twist.angular.z == pytest.approx(wanted.angular)


def test_what_the_guard_stopped_is_not_learned(drive: Drive) -> None:
    drive.step()
    drive.guard("stop", "e_stop")
    drive.step()
    drive.guard("stop", "no_command", name="/other/guard")
    drive.step()
    drive.guard("stop", "stale_command")  # waits for the policy only
    drive.step()
    drive.step()
    assert [(step, source) for step, _, source in drive.end()] == [(3, "policy"), (4, "policy")]
