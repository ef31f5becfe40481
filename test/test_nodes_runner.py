"""The runner in the test's own process: which worlds it asks for, and whom it takes for lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.node import Node
from ros_support import DEADLINE, Domain
from std_msgs.msg import Bool

from llmagent_interfaces.msg import Decision, Outcome
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.runner_node import RunnerNode
from llmagent_ros.recording.episodes import Episode, EpisodeLog


@pytest.fixture
def start() -> Iterator[Callable[..., RunnerNode]]:
    """Starts a runner with parameters, in a domain of the test's own."""
    domain = Domain()
    nodes: list[RunnerNode] = []

    def begin(**parameters: object) -> RunnerNode:
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        rclpy.init(args=["--ros-args", *words], domain_id=domain.number)
        nodes.append(RunnerNode())
        return nodes[-1]

    yield begin
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()
    domain.free()


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def recorded(out: Path, count: int) -> None:
    log = EpisodeLog(out / "episodes.csv")
    for number in range(count):
        log.append(Episode("r", number, True, 1.0, 5, "reached", 1.0, 5 * number, ""))
    log.close()


@pytest.mark.parametrize("count", [0, 3])
def test_a_run_that_goes_on_draws_worlds_of_its_own(
    tmp_path: Path, start: Callable[..., RunnerNode], count: int
) -> None:
    recorded(tmp_path, count)
    node = start(seed=7, out=tmp_path)
    assert (node._seed == 7) == (count == 0)
    assert 0 <= node._seed < 2**32


def test_without_a_folder_the_seed_is_the_one_given(start: Callable[..., RunnerNode]) -> None:
    assert start(seed=7)._seed == 7


@pytest.mark.parametrize("recorder", [True, False])
def test_no_episode_begins_before_the_recorder_listens(start: Callable[..., RunnerNode], recorder: bool) -> None:
    runner = start(recorder=recorder, learn=False)
    waits_for = "listener of run_finished (node recorder)"
    assert (waits_for in runner._missing()) == recorder
    listener = Node("recorder")
    listener.create_subscription(Bool, "run_finished", print, qos.LATEST)
    until(lambda: waits_for not in runner._missing())
    listener.destroy_node()
    runner._complete = True
    assert waits_for not in runner._missing(), "a run goes on without one"


def test_only_a_policy_that_was_started_again_is_lost(start: Callable[..., RunnerNode]) -> None:
    runner = start()
    runner._missing = list
    policy = Node("policy")
    policy.create_publisher(Decision, "decision", qos.COMMAND)
    until(lambda: ("decision", "/policy") in runner._peers_now())
    runner._peers = runner._peers_now()
    tool = Node("_ros2cli_42")
    tool.create_publisher(Outcome, "outcome", qos.OUTCOME)
    until(lambda: ("outcome", "/_ros2cli_42") in runner._peers_now())
    assert not runner._lost(), "a person's command"
    policy.destroy_node()
    assert not runner._lost()
    again = Node("policy")
    again.create_publisher(Decision, "decision", qos.COMMAND)
    until(runner._lost)
    for node in (tool, again):
        node.destroy_node()
