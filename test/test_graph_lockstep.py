"""In lockstep a seed gives an episode, whatever the timing and however the nodes are spread over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graph_support import EVERYTHING, LONG, Agent, Episode, task_file
from rclpy.action import ActionClient
from ros_support import Graph, Process

from llmagent_interfaces.action import ExecuteTask
from llmagent_interfaces.msg import Decision
from llmagent_interfaces.srv import ResetSimulation
from llmagent_ros.nodes import compose
from llmagent_ros.nodes.wire.stamps import key

EPISODES = 2
MAX_STEPS = 10


def world(task: Path) -> dict[str, dict[str, Any]]:
    """Parameters of what is around the policy; long waits, so that a busy machine reports no missed tick."""
    return {
        "guard": {"mode": "lockstep", "scan_wait": 10.0, "use_sim_time": True},
        "perception": {"decision_timeout": 10.0, "use_sim_time": True},
        "sim": {"task": task, "command_timeout": 10.0, "use_sim_time": True},
    }


def run_episodes(agent: Agent, seed: int) -> list[dict[str, Any]]:
    """What happened in the first episodes of a seed, without ids and wall times."""
    told = []
    for episode in range(EPISODES):
        instruction = agent.reset(seed if episode == 0 else None)
        goal = agent.send(instruction)
        _, result = goal.result()
        told.append({"instruction": instruction, **tell(agent.episode(goal.task_id, result.steps), result)})
    return told


def tell(episode: Episode, result: ExecuteTask.Result) -> dict[str, Any]:
    begin = key(episode.scenes[0].header.stamp)
    return {
        "scenes": [(m.text, tuple(m.unknown)) for m in episode.scenes],
        "choices": [(m.step, m.scene, m.action, round(m.log_probability, 5)) for m in episode.decisions],
        "outcomes": [(round(m.reward, 5), m.terminated, m.truncated, m.reason) for m in episode.outcomes],
        "times": [round((key(m.header.stamp) - begin) * 1e-9, 6) for m in episode.outcomes],
        "commands": [(round(m.twist.linear.x, 6), round(m.twist.angular.z, 6)) for m in episode.commands],
        "result": (result.success, result.reason, result.steps, round(result.total_reward, 5)),
    }


def check_plausible(told: list[dict[str, Any]]) -> None:
    """Enough happened for the comparison to mean something."""
    assert len(told) == EPISODES
    for episode in told:
        success, reason, steps, total = episode["result"]
        assert 1 <= steps <= MAX_STEPS and reason in {"reached", "collision", "timeout"}
        assert [step for step, *_ in episode["choices"]] == list(range(steps))
        assert total == pytest.approx(sum(reward for reward, *_ in episode["outcomes"]), abs=1e-4)
        assert episode["times"] == pytest.approx([0.4 * (k + 1) for k in range(steps)])
        assert success is (reason == "reached")
        assert all(episode["instruction"].split()[-1] in text for text, _ in episode["scenes"])


def test_a_seed_gives_the_same_episodes_in_processes_of_their_own_and_composed(tmp_path: Path) -> None:
    task = task_file(tmp_path, max_steps=MAX_STEPS)
    records: dict[str, list[dict[str, Any]]] = {}
    for name in ("apart", "composed"):
        (tmp_path / name).mkdir()
        with Graph(tmp_path / name) as graph:
            if name == "apart":
                for node, parameters in world(task).items():
                    graph.start(node, **parameters)
            else:
                composed = graph.compose(**world(task))
            graph.start("policy", seed=3, out=tmp_path / name, use_sim_time=True)
            agent = Agent(graph)
            records[name] = run_episodes(agent, seed=5)
            if name == "composed":
                records["other seed"] = run_episodes(agent, seed=6)
                check_close(graph, composed)
    for told in records.values():
        check_plausible(told)
    assert records["apart"] == records["composed"]
    for one, other in zip(records["apart"], records["other seed"], strict=True):
        assert one["scenes"] != other["scenes"] and one["outcomes"] != other["outcomes"]


def test_nodes_that_come_late_get_what_they_missed(tmp_path: Path) -> None:
    """The world repeats its readings until a command comes; who was not there would wait for them for ever."""
    parameters = world(task_file(tmp_path, max_steps=3))
    with Graph(tmp_path) as graph:
        graph.compose(sim=parameters["sim"], policy={"use_sim_time": True, "out": tmp_path})
        client = ActionClient(graph.node, ExecuteTask, "execute_task")
        graph.until(client.server_is_ready, "no action execute_task", LONG)
        graph.call(ResetSimulation, "sim/reset", ResetSimulation.Request(use_seed=True))
        answer = client.send_goal_async(ExecuteTask.Goal(instruction="go to the red ball"))
        handle = graph.until(lambda: answer.done() and answer.result(), "the goal is not answered")
        assert handle.accepted
        decisions = graph.collect(Decision, "/decision", EVERYTHING)
        graph.start("perception", **parameters["perception"])
        graph.until(lambda: decisions, "perception has not got the readings")
        graph.start("guard", **parameters["guard"])
        result = handle.get_result_async()
        graph.until(result.done, "the guard has not got the command")
        assert result.result().result.reason in ("timeout", "reached", "collision")
        steps = [m.step for m in decisions][: result.result().result.steps]
        assert steps == list(range(len(steps))), "a command that is repeated is no decision of its own"


def check_close(graph: Graph, composed: Process) -> None:
    """The nodes of one process end together and in order."""
    composed.stop()
    assert graph.exit_code(composed) == 0
    assert "Traceback" not in composed.said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "no nodes to compose; valid: bag_recorder, console, guard, knowledge, learner"),
        (("guard", "gaurd"), "unknown node 'gaurd'; valid: bag_recorder, console, guard, knowledge"),
        (("guard", "sim", "guard"), "node 'guard' is given twice"),
    ],
)
def test_what_cannot_be_composed_is_said(
    words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        compose.main(["compose", *words, "--ros-args", "-p", "mode:=lockstep"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and problem in line


def test_one_composed_node_that_cannot_start_ends_all_with_one_line(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.compose(guard={"mode": "lockstep"}, perception={"mdoe": "lockstep"})
        assert graph.exit_code(process) == 2
        (line,) = process.said.strip().splitlines()
    assert line == "error: node perception: unknown parameter 'mdoe'; valid: decision_timeout, mode, robot"
