"""Joining what comes on several topics, in whatever order: episodes, latencies; and the conversions."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from llmagent_interfaces.msg import Decision as DecisionMessage
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.messages import said_to_the_robot
from llmagent_ros.nodes.episode_tracker import EpisodeTracker
from llmagent_ros.nodes.latency_probe import LatencyProbe
from llmagent_ros.nodes.wire import decisions, reports, skills, stamps, verdicts
from llmagent_ros.types import Decision, Lesson, Outcome, RetrievedSkill, Scene, Source, Transition, Velocity, Verdict

END = Outcome(1.0, terminated=True, success=True, reason="reached")


def test_an_episode_ends_whatever_order_its_messages_come_in() -> None:
    """Two steps at 10 and 20; of each topic the order is kept, as the middleware does."""
    for order in set(itertools.permutations("ddoo")):
        tracker = EpisodeTracker()
        said = {"d": iter([10, 20]), "o": iter([(20, Outcome(0.25)), (30, END)])}
        ends = []
        for topic in order:
            if topic == "d":
                ends.append(tracker.on_decision(next(said["d"]), "r", 4))
            else:
                ends.append(tracker.on_outcome(*next(said["o"])))
        (ended,) = [end for end in ends if end is not None]
        assert (ended.run, ended.episode, ended.success, ended.reason) == ("r", 4, True, "reached"), order
        assert (ended.total_reward, ended.steps) == (1.25, 2), order
        assert tracker.is_ended("r", 4) and not tracker.is_ended("r", 5)


def test_outcomes_do_not_leak_into_the_next_episode() -> None:
    tracker = EpisodeTracker()
    tracker.on_decision(10, "r", 0)
    tracker.on_decision(30, "r", 1)  # it comes before the end of the episode before
    first = tracker.on_outcome(20, END)
    assert first is not None and (first.episode, first.steps) == (0, 1)
    tracker.on_outcome(40, Outcome(0.5))
    tracker.on_decision(40, "r", 1)
    second = tracker.on_outcome(50, END)
    assert second is not None and (second.episode, second.total_reward, second.steps) == (1, 1.5, 2)


def test_an_abandoned_episode_and_a_restarted_world_are_forgotten() -> None:
    tracker = EpisodeTracker()
    tracker.on_decision(1000, "r", 0)
    tracker.on_outcome(1010, Outcome(5.0))
    tracker.on_decision(10, "r", 1)
    ended = tracker.on_outcome(20, END)
    assert ended is not None and (ended.episode, ended.total_reward) == (1, 1.0)


def test_latency_counts_only_scenes_that_were_decided_on() -> None:
    events = {
        "old": lambda probe: probe.on_scene(7, "old", 1_000_000),
        "new": lambda probe: probe.on_scene(7, "new", 2_000_000),
        "decision": lambda probe: probe.on_decision(7, "new"),
        "command": lambda probe: probe.on_command(7, 5_000_000),
    }
    for order in itertools.permutations(events):
        probe = LatencyProbe()
        assert [ms for ms in (events[name](probe) for name in order) if ms is not None] == [3.0], order
    probe = LatencyProbe()
    assert [probe.on_scene(7, "old", 1), probe.on_command(7, 2)] == [None, None]


def test_conversions_keep_everything() -> None:
    transition = Transition(
        "r", 1, 2, "go", "s", "left", -0.5, "n", False, True, Source.HUMAN, -1.5, 12.4, {"adapter": "v"}
    )
    assert decisions.transition_from_message(decisions.transition_to_message(transition)) == transition
    outcome = Outcome(-0.5, True, False, True, "reached")
    assert decisions.outcome_from_message(decisions.outcome_to_message(outcome, 3.0)) == outcome
    task = decisions.task_to_message("id", "go", 3, 1.0)
    scene = Scene(12.4, "text", "go", ("scan",))
    message = decisions.scene_to_message(scene, task, "base_link")
    assert decisions.scene_from_message(message) == scene and (message.task_id, message.episode) == ("id", 3)
    choices = np.array([0.75, 0.25], np.float32)
    decision = Decision("a", -0.5, ("a", "b"), choices, np.ones(2, np.float32), "v1", Source.HUMAN, "b")
    back = decisions.decision_from_message(decisions.decision_to_message(decision, message, run="r", step=4))
    assert (back.action, back.candidates, back.adapter, back.source) == ("a", ("a", "b"), "v1", Source.HUMAN)
    told = decisions.decision_to_message(decision, message, run="r", step=4)
    assert back.said == said_to_the_robot(told) == "b"
    assert back.probabilities.tolist() == [0.75, 0.25] and back.values.tolist() == [1.0, 1.0]
    skill = Skill("drive", ("go",), "robot", (Lesson("slow", 3.0, 0.5),), 3, 2, id="abc")
    assert skills.skill_from_message(skills.skill_to_message(skill)) == (skill, None)


def test_messages_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 candidates, 1 probabilities"):
        decisions.decision_from_message(DecisionMessage(candidates=["a", "b"], probabilities=[1.0], action="a"))
    with pytest.raises(UnknownNameError, match="valid: a"):
        decisions.decision_from_message(
            DecisionMessage(candidates=["a"], probabilities=[1.0], values=[0.0], action="rm -rf")
        )
    told = {"candidates": ["a"], "probabilities": [1.0], "values": [0.0], "source": "policy"}
    with pytest.raises(UnknownNameError, match="'rm -rf'; valid: a"):
        decisions.decision_from_message(DecisionMessage(**told, action="a", said="rm -rf"))
    of_before = SimpleNamespace(candidates=["a"], probabilities=[1.0], values=[0.0], action="a")  # in a recording
    assert said_to_the_robot(of_before) == "a"
    message = decisions.transition_to_message(Transition("r", 0, 0, "t", "s", "a", 0.0, "n", False, False))
    message.source = "robot"
    with pytest.raises(UnknownNameError, match="human, policy, script"):
        decisions.transition_from_message(message)


def test_who_speaks_in_diagnostics_is_told_by_the_full_name() -> None:
    """/diagnostics is one topic for every robot of a domain."""
    said = ("/guard", "/a/guard", "/a/b/guard", "/ab/guard", "lidar: status")
    for namespace, seen in (
        ("/", ["guard", "a/guard", "a/b/guard", "ab/guard", "lidar: status"]),
        ("/a", ["/guard", "guard", "b/guard", "/ab/guard", "lidar: status"]),
    ):
        assert [reports.component(DiagnosticStatus(name=name), namespace) for name in said] == seen


def test_figures_in_diagnostics_are_read_with_care() -> None:
    said = {"a": "1.5", "b": "nan", "c": "word", "n": "7", "minus": "-1", "count.e_stop": "2", "count.x": "?"}
    assert reports.numbers(said) == {"a": 1.5, "n": 7.0, "minus": -1.0, "count.e_stop": 2.0}
    assert [reports.count(said, name) for name in ("n", "a", "minus", "none")] == [7, None, None, None]
    assert reports.guard_counts(said) == {"e_stop": 2}


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Velocity(0.5, -0.25), "policy", None, (), 1.5, Velocity(0.5, -0.25)),
        Verdict(Velocity(0.6, 1.0), "teleop", None, ("speed", "acceleration"), 1.5, Velocity(1e300, 1.0)),
        Verdict(Velocity(), "stop", "stale_scan", (), 1.5, Velocity(0.1, 0.0)),
    ],
)
def test_a_verdict_comes_back_from_its_message(verdict: Verdict) -> None:
    message = verdicts.verdict_to_message(verdict, stamps.to_time(1.5), "base_link")
    assert (message.verdict, message.reason) == (verdict.word, verdict.why)
    assert verdicts.verdict_from_message(message) == verdict
    message.source = "nobody"
    with pytest.raises(UnknownNameError, match="verdict 'nobody'; valid: fallback, none, policy, teleop"):
        verdicts.verdict_from_message(message)


def test_what_was_retrieved_comes_back_from_the_task() -> None:
    found = (RetrievedSkill("a", "go to the ball", 0.75), RetrievedSkill("b", "explore", -0.5))
    task = decisions.task_to_message("1", "go to the red ball", 4, 1.5, found)
    assert decisions.retrieved_from_messages(task.skills) == found
    assert decisions.retrieved_from_messages(decisions.task_to_message("", "", 4, 1.5).skills) == ()
