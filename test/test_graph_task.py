"""ExecuteTask, set_task and the life cycle of the policy, in a world that runs on whatever the policy does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from action_msgs.msg import GoalStatus
from graph_support import Agent, Goal, compose_world, is_zero, task_file
from lifecycle_msgs.msg import Transition
from ros_support import Graph
from std_msgs.msg import String

from llmagent_interfaces.srv import SetTask
from llmagent_ros.contract import load_contract
from llmagent_ros.nodes.wire.stamps import key

PERIOD = 0.4
ENDLESS = 1_000_000  # steps

pytestmark = pytest.mark.xdist_group("graph_task")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("graph")
    with Graph(folder) as graph:
        robot = compose_world(graph, folder, max_steps=ENDLESS)
        graph.start("policy", robot=robot, out=folder, use_sim_time=True, autostart=False)
        yield Agent(graph)


@pytest.fixture
def agent(shared: Agent) -> Agent:
    """The policy active and without a task, in a new world."""
    shared.bring_up()
    shared.reset(seed=1)
    return shared


def start(agent: Agent, instruction: str = "go to the red ball", time_limit: float = 0.0) -> Goal:
    goal = agent.send(instruction, time_limit)
    assert goal.accepted
    return goal


def check_stopped(agent: Agent) -> None:
    """The policy's last command is zero and not older than the one before, and nothing follows it."""
    agent.graph.until(lambda: agent.wanted and is_zero(agent.wanted[-1]), "the last command of the policy is not zero")
    agent.graph.catch_up("policy")
    decided, commanded = len(agent.decisions), len(agent.wanted)
    agent.settle()
    assert (len(agent.decisions), len(agent.wanted)) == (decided, commanded)
    before, last = (key(m.header.stamp) for m in agent.wanted[-2:])
    assert before <= last, "the guard would take it for a jump of the clock"


def test_every_step_has_feedback_and_the_time_limit_ends_it(agent: Agent) -> None:
    goal = start(agent, time_limit=4.5 * PERIOD)
    status, result = goal.result()
    assert (status, result.success, result.reason, result.steps) == (GoalStatus.STATUS_ABORTED, False, "timeout", 5)
    agent.graph.until(lambda: len(goal.feedback) >= 5, "feedback is missing")
    episode = agent.episode(goal.task_id, 5)
    assert [m.step for m in goal.feedback] == list(range(5))
    assert [m.action for m in goal.feedback] == [m.action for m in episode.decisions]
    assert [m.scene for m in goal.feedback] == [m.scene for m in episode.decisions]
    assert {m.action for m in episode.decisions} <= set(load_contract("sim_diffdrive").phrases)
    assert all("go to the red ball" in m.scene for m in goal.feedback)
    assert result.total_reward == pytest.approx(sum(m.reward for m in episode.outcomes), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "success", "reason", "status"),
    [
        ({"reach": 100.0}, True, "reached", GoalStatus.STATUS_SUCCEEDED),
        ({"max_steps": 3}, False, "timeout", GoalStatus.STATUS_ABORTED),
    ],
)
def test_the_end_that_the_world_says_is_the_result(
    agent: Agent, tmp_path: Path, changes: dict[str, float], success: bool, reason: str, status: int
) -> None:
    instruction = agent.reset(seed=2, task=str(task_file(tmp_path, **{"max_steps": ENDLESS} | changes)))
    goal = start(agent, instruction)
    got, result = goal.result()
    assert (got, result.success, result.reason) == (status, success, reason)
    assert result.steps == (1 if success else 3)
    outcomes = agent.episode(goal.task_id, result.steps).outcomes
    ends = [(m.terminated, m.truncated) for m in outcomes]
    assert ends == [(False, False)] * (result.steps - 1) + [(success, not success)]
    agent.reset(task=str(task_file(tmp_path, max_steps=ENDLESS)))


def test_cancel_ends_it_with_a_zero_and_no_decision_follows(agent: Agent) -> None:
    goal = start(agent)
    goal.wait_for_steps(3)
    goal.cancel()
    status, result = goal.result()
    assert (status, result.success, result.reason) == (GoalStatus.STATUS_CANCELED, False, "cancelled")
    assert result.steps >= 3
    check_stopped(agent)
    agent.graph.until(lambda: agent.tasks[-1].instruction == "", "something is left to do")


def by_goal(agent: Agent, instruction: str) -> str:
    assert start(agent, instruction).accepted
    return agent.announced(instruction)


def by_service(agent: Agent, instruction: str) -> str:
    answer = agent.graph.call(SetTask, "set_task", SetTask.Request(instruction=instruction))
    assert answer.ok, answer.message
    return str(answer.task_id)


def by_topic(agent: Agent, instruction: str) -> str:
    agent.graph.publisher(String, "set_task").publish(String(data=instruction))
    return agent.announced(instruction)


@pytest.mark.parametrize("how", [by_goal, by_service, by_topic])
def test_another_task_pre_empts(agent: Agent, how: Callable[[Agent, str], str]) -> None:
    first = start(agent, "go to the blue pillar")
    first.wait_for_steps(2)
    old, instruction = first.task_id, f"go to the green cylinder {how.__name__}"
    new = how(agent, instruction)
    status, result = first.result()
    assert (status, result.success, result.reason) == (GoalStatus.STATUS_ABORTED, False, "preempted")
    assert new != old
    agent.graph.until(lambda: sum(m.task_id == new for m in agent.decisions) >= 3, "the new task is not worked on")
    ids = [m.task_id for m in agent.decisions]
    assert old not in ids[ids.index(new) :], "a decision for the task that was given up"
    own = [m for m in agent.decisions if m.task_id == new]
    assert [m.step for m in own] == list(range(len(own)))
    assert all(instruction in m.scene for m in own)
    assert own[0].episode == 1 + max(m.episode for m in agent.decisions if m.task_id == old)


@pytest.mark.parametrize("instruction", ["", "  ", "\n\t", " . ", "\x07"])
def test_a_goal_without_an_instruction_is_refused(agent: Agent, instruction: str) -> None:
    assert not agent.send(instruction).accepted
    answer = agent.graph.call(SetTask, "set_task", SetTask.Request(instruction=instruction))
    assert (answer.ok, answer.message) == (False, "it is empty")


def test_a_goal_that_names_nothing_known_is_refused_with_what_is_known(agent: Agent) -> None:
    assert not agent.send("go to the purple elephant").accepted
    answer = agent.graph.call(SetTask, "set_task", SetTask.Request(instruction="go to the purple elephant"))
    valid = ", ".join(load_contract("sim_diffdrive").objects)
    assert (answer.ok, answer.message) == (False, f"it names nothing that sim_diffdrive knows; valid: {valid}")
    words = ("-m", "llmagent_ros.cli.main", "task", "go to the purple elephant")
    process = agent.graph.run("task", *words)
    assert agent.graph.exit_code(process) == 2
    (line,) = process.said.strip().splitlines()
    assert line.startswith("llmagent: instruction 'go to the purple elephant' not taken: ") and line.endswith(valid)


def test_deactivation_stops_the_robot_and_activation_lets_it_go_on(agent: Agent) -> None:
    goal = start(agent)
    goal.wait_for_steps(3)
    assert agent.change(Transition.TRANSITION_DEACTIVATE)
    status, result = goal.result()
    assert (status, result.reason) == (GoalStatus.STATUS_ABORTED, "aborted")
    check_stopped(agent)
    assert not agent.send("go to the red ball").accepted, "inactive"
    answer = agent.graph.call(SetTask, "set_task", SetTask.Request(instruction="go to the red ball"))
    assert (answer.ok, answer.message) == (False, "the policy is not active")
    assert agent.change(Transition.TRANSITION_ACTIVATE)
    agent.reset()
    assert start(agent, time_limit=2.5 * PERIOD).result()[1].reason == "timeout"


def test_what_was_loaded_can_be_put_away_and_loaded_again(agent: Agent) -> None:
    assert agent.change(Transition.TRANSITION_DEACTIVATE)
    assert agent.change(Transition.TRANSITION_CLEANUP)
    assert agent.state() == "unconfigured"
    assert not agent.send("go to the red ball").accepted
    agent.bring_up()
    agent.reset()
    assert start(agent, time_limit=1.5 * PERIOD).result()[1].steps == 2


def test_a_model_that_cannot_be_loaded_leaves_the_policy_unconfigured(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.start("policy", model=tmp_path / "nothing", autostart=False)
        lame = Agent.__new__(Agent)
        lame.graph = graph
        assert not lame.change(Transition.TRANSITION_CONFIGURE)
        assert lame.state() == "unconfigured"
        (line,) = [line for line in process.said.splitlines() if "[ERROR]" in line]
        assert f"model '{tmp_path}/nothing'" in line
        process.stop()
        assert graph.exit_code(process) == 0
