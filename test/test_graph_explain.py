"""A run in lockstep leaves decisions that `llmagent explain` explains, the guard's verdicts and the outcomes joined."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from graph_support import Agent, Episode, compose_world
from ros_support import DEADLINE, Graph
from std_msgs.msg import Bool

from llmagent_interfaces.msg import Lesson, Skill
from llmagent_interfaces.srv import RetrieveSkills
from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.recording.decision_reader import DecisionReader
from llmagent_ros.recording.decision_rows import DecisionRecord
from llmagent_ros.recording.episodes import recorded_episodes
from llmagent_ros.types import RetrievedSkill, Velocity

STEPS = 4


def answer(request: RetrieveSkills.Request, response: RetrieveSkills.Response) -> RetrieveSkills.Response:
    """Plays the knowledge node."""
    lessons = [Lesson(text="turn left near a box", support=3.0, against=0.0)]
    found = Skill(id="5f0c", description="go to the ball", contract="sim_diffdrive", lessons=lessons, similarity=0.75)
    response.ok, response.skills = True, [found]
    return response


def play(agent: Agent, out: Path, number: int) -> Episode:
    """An episode, when the recorder has it too."""
    goal = agent.send(agent.reset(seed=number))
    _, result = goal.result()
    assert result.steps == STEPS
    episode = agent.episode(goal.task_id, STEPS)
    agent.graph.until(lambda: recorded_episodes(out) == number, "the episode is not recorded")
    return episode


def kept(out: Path, episode: int) -> list[DecisionRecord]:
    with DecisionReader(out) as reader:
        return [reader.find(f"{episode}:{step}") for step in range(STEPS)]


def is_kept(out: Path, episode: int) -> bool:
    """Whether all of an episode can be read, its end too."""
    with suppress(ConfigError, StoreError):
        return kept(out, episode)[-1].end is not None
    return False


def heard(agent: Agent, out: Path) -> tuple[int, Episode]:
    """The first episode whose task the recorder was there for; a subscriber may be found seconds after it is seen."""
    for number in range(5):
        driven = play(agent, out, number + 1)
        agent.graph.until(lambda n=number: is_kept(out, n), "nothing can be read while the run goes on")
        if kept(out, number)[0].skills is not None:
            return number, driven
    raise AssertionError("the recorder never hears of a task")


def check(records: list[DecisionRecord], said: Episode) -> None:
    """What every decision has, whatever became of its command."""
    for record, decision, command in zip(records, said.decisions, said.commands, strict=True):
        assert (record.scene, record.decision.action, record.run) == (decision.scene, decision.action, decision.run)
        assert record.task and record.task in record.scene
        assert record.skills == (RetrievedSkill("5f0c", "go to the ball", 0.75),)
        assert record.prompt_prefix == "lesson: turn left near a box. "
        assert record.latency_ms is not None and record.latency_ms > 0.0
        assert record.verdict is not None and record.verdict.stamp == to_seconds(decision.header.stamp)
        assert record.verdict.velocity == Velocity(command.twist.linear.x, command.twist.angular.z)
        assert record.end is not None and (record.end.reason, record.end.steps) == ("timeout", STEPS)


@pytest.fixture
def words(capsys: pytest.CaptureFixture[str]) -> Any:
    def explain(*arguments: object) -> str:
        assert main(["explain", *map(str, arguments)]) == 0
        return " ".join(capsys.readouterr().out.split())

    return explain


def test_each_step_of_a_run_is_explained(tmp_path: Path, words: Any) -> None:
    out = tmp_path / "out"
    with Graph(tmp_path) as graph:
        graph.node.create_service(RetrieveSkills, "retrieve_skills", answer)
        robot = compose_world(graph, tmp_path, max_steps=STEPS)
        recorder = graph.start("recorder", out=out, use_sim_time=True)
        graph.start("policy", robot=robot, out=out, use_sim_time=True, retrieve_timeout=DEADLINE)
        agent = Agent(graph)
        for topic, readers in {"/task": 4, "/decision": 3, "/verdict": 1, "/transition": 1}.items():
            graph.until(lambda t=topic, n=readers: graph.node.count_subscribers(t) >= n, "the recorder does not listen")
        first_one, driven = heard(agent, out)
        assert "timeout" in words(out), "the list of episodes"
        button = graph.publisher(Bool, "e_stop", qos.LATEST, readers=2)
        button.publish(Bool(data=True))
        graph.until(lambda: agent.commands[-1].header.stamp.sec == 0, "the e-stop does not stop")
        graph.catch_up("guard", "policy")  # who knows now that the guard stops the robot
        stopped = play(agent, out, first_one + 2)
        recorder.stop()
        assert graph.exit_code(recorder) == 0
    first, second = kept(out, first_one), kept(out, first_one + 1)
    check(first, driven)
    check(second, stopped)
    assert [record.outcome.reward for record in first if record.outcome] == [m.reward for m in driven.outcomes]
    begin = first_one * STEPS
    assert [record.number for record in (*first, *second)] == list(range(begin, begin + 2 * STEPS))
    assert first[-1].outcome is not None and first[-1].outcome.truncated
    assert first[-1].next_scene == driven.scenes[-1].text
    assert {record.verdict.word for record in first if record.verdict} <= {"passed", "limited"}
    assert {record.verdict.why for record in second if record.verdict} == {"e_stop"}
    assert {record.outcome for record in second} == {None}, "what the robot did not do is not learned from"
    text = words(out, f"{first_one}:1")
    assert text.startswith(f"Step {begin + 1}: episode {first_one}, step 1 of run out-")
    assert f"saw {first[1].scene}" in text
    assert "skills 0.75 go to the ball (5f0c) For a kind of task that is new in this run: begins with the" in text
    assert "lessons turn left near a box phrase probability" in text
    assert "There was no critic" in text and "Adapter initial; the policy drove." in text
    assert "The episode ended 2 steps later: timeout, no success" in text
    assert "It stopped the robot: the emergency stop is pressed" in words(out, "last")
