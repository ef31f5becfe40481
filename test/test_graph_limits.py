"""How an instruction ends when the world, the clock, the client and the time limit disagree."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from graph_support import PERIOD, Goal, World, is_zero
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from ros_support import Graph, Process

from llmagent_interfaces.action import ExecuteTask
from llmagent_interfaces.msg import Adapter, Outcome
from llmagent_ros.nodes import qos

pytestmark = pytest.mark.xdist_group("graph_limits")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("graph")
    with Graph(folder) as graph:
        graph.start("policy", out=folder, use_sim_time=True)
        yield World(graph)


def begin(world: World, instruction: str, time_limit: float) -> Goal:
    """A goal with one decision made."""
    goal = Goal(world, instruction, time_limit)
    world.pass_time()
    before = len(world.decisions)
    world.say(world.task(instruction))
    world.graph.until(lambda: len(world.decisions) > before, "no decision")
    return goal


def ending(goal: Goal) -> tuple[bool, str, int, float]:
    _, result = goal.result()
    return result.success, result.reason, result.steps, result.total_reward


def test_the_worlds_word_on_the_moment_of_the_time_limit_counts(world: World) -> None:
    goal, task = begin(world, "go to the red ball 1", PERIOD), world.task("go to the red ball 1")
    world.pass_time()
    world.say(task)
    world.graph.until(lambda: world.scene.wait_for_all_acked(), "not heard")
    world.report(reward=1.0, terminated=True, success=True, reason="reached")
    assert ending(goal) == (True, "reached", 1, 1.0)
    own = world.graph.until(lambda: [m for m in world.transitions if m.task == task.instruction], "no transition")
    assert (own[-1].terminated, own[-1].reward) == (True, 1.0)


def test_a_world_that_goes_on_is_cut_off_at_the_time_limit(world: World) -> None:
    goal, task = begin(world, "go to the red ball 2", PERIOD), world.task("go to the red ball 2")
    world.pass_time()
    world.say(task)
    world.report(reward=0.25)
    assert ending(goal) == (False, "timeout", 1, 0.25)
    own = world.graph.until(lambda: [m for m in world.transitions if m.task == task.instruction], "no transition")
    last = own[0]
    assert (last.truncated, last.terminated, last.reward) == (True, False, 0.25)


def test_without_scenes_the_time_limit_ends_it_all_the_same(world: World) -> None:
    goal = Goal(world, "go to the red ball 3", 0.5)
    world.task("go to the red ball 3")
    world.pass_time(0.5 + 3 * PERIOD)
    assert ending(goal) == (False, "timeout", 0, 0.0)
    world.graph.until(lambda: world.wanted and is_zero(world.wanted[-1]), "the last word is no zero")


def test_an_outcome_without_a_stamp_is_of_now(world: World) -> None:
    """`ros2 topic pub` sends one by hand."""
    goal, task = begin(world, "go to the red ball 4", 0.0), world.task("go to the red ball 4")
    world.outcome.publish(Outcome(reward=1.0, terminated=True, success=True, reason="reached"))
    world.pass_time()
    world.say(task)
    assert ending(goal) == (True, "reached", 1, 1.0)


def test_a_clock_that_jumps_back_ends_it_and_stops_the_robot(world: World) -> None:
    world.pass_time(100.0)
    goal, task = begin(world, "go to the red ball 5", 0.0), world.task("go to the red ball 5")
    world.pass_time(-100.0)
    world.say(task)
    assert ending(goal)[:2] == (False, "aborted")
    world.graph.until(lambda: is_zero(world.wanted[-1]), "the last word is no zero")
    begin(world, "go to the red ball 6", 0.0)  # and it can work on


@pytest.mark.parametrize("limit", [-1.0, math.nan, math.inf])
def test_a_time_limit_that_is_none_is_refused(world: World, limit: float) -> None:
    assert not Goal(world, "go to the red ball 7", limit).accepted


def test_a_goal_taken_back_before_it_was_taken_up_is_cancelled(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        policy = graph.start("policy", out=tmp_path, use_sim_time=True)
        world = World(graph)
        client = graph.node.create_client(CancelGoal, "execute_task/_action/cancel_goal")
        graph.until(client.service_is_ready, "no cancel")
        assert not Goal(world, "go to the red ball", -1.0).accepted  # by now the policy knows both clients:
        graph.until(client.call_async(CancelGoal.Request()).done, "no answer")  # its answers will reach them
        policy.stop(signal.SIGSTOP)  # a busy moment: both requests wait for it
        answer = world.action.send_goal_async(ExecuteTask.Goal(instruction="go to the red ball"))
        cancelled = client.call_async(CancelGoal.Request())
        for _ in range(20):
            graph.spin_once()
        policy.stop(signal.SIGCONT)
        handle = graph.until(lambda: answer.done() and answer.result(), "the goal is not answered")
        graph.until(cancelled.done, "the cancel is not answered")
        if not cancelled.result().goals_canceling:  # came first after all: nothing was there to cancel
            handle.cancel_goal_async()
        result = handle.get_result_async()
        graph.until(result.done, "the goal has no result")
        assert result.result().status == GoalStatus.STATUS_CANCELED
        assert result.result().result.reason == "cancelled"


def change(graph: Graph, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(graph.call(ChangeState, "policy/change_state", request).success)


def test_an_adapter_wakes_no_policy_that_is_not_configured(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        policy: Process = graph.start("policy", out=tmp_path, autostart=False)
        adapter = graph.publisher(Adapter, "adapter", qos.LATEST)
        message = Adapter(name="v1", path=str(tmp_path / "v1"), digest="0" * 64)
        adapter.publish(message)
        assert change(graph, Transition.TRANSITION_CONFIGURE) and change(graph, Transition.TRANSITION_CLEANUP)
        adapter.publish(message)
        assert change(graph, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        adapter.publish(message)
        state = graph.call(GetState, "policy/get_state", GetState.Request()).current_state.label
        assert state == "finalized" and policy.code is None
        policy.stop()
        assert graph.exit_code(policy) == 0
    assert "Traceback" not in policy.said
