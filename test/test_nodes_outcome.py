"""The outcome node as a process: what is said of an episode, and what comes of it."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from outcomes_support import labelled_run, scene
from rclpy.duration import Duration
from ros_support import DEADLINE, Graph, Process
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Decision, Judgement, Outcome, Scene, Task, Verdict
from llmagent_ros.contract import load_contract
from llmagent_ros.experiments.outcome_fitting import OutcomeFitConfig, fit_outcomes
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import stamps
from llmagent_ros.outcomes.classifier import SceneClassifier, save
from llmagent_ros.policy.trace import EpisodeTrace
from llmagent_ros.types import Decision as DecisionValue
from llmagent_ros.types import Outcome as OutcomeValue
from llmagent_ros.types import Scene as SceneValue

PERIOD = load_contract("sim_diffdrive").control_period
TASK = """
task: test
time_limit: 100
instructions: ["go to the {object}"]
success: [{topic: docked, type: std_msgs/msg/Bool, field: data, equals: true, for: 0.1, reason: docked}]
failure: [{topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.x, above: 5, reason: away}]
"""


class Around:
    """What is around an outcome node: policy, guard, a person and the robot's topics."""

    def __init__(self, graph: Graph, **parameters: Any) -> None:
        self.graph = graph
        path = graph.folder / "task.yaml"
        path.write_text(TASK)
        self.process: Process = graph.start("outcome", task=path, **parameters)
        self.outcomes: list[Outcome] = graph.collect(Outcome, "outcome", qos.OUTCOME)
        self.task = graph.publisher(Task, "task", qos.LATEST)
        self.decision = graph.publisher(Decision, "decision", qos.DECISION)
        self.judgement = graph.publisher(Judgement, "judgement")
        self.verdict = graph.publisher(Verdict, "verdict", qos.VERDICT)
        graph.catch_up("outcome")

    def now(self) -> float:
        return stamps.to_seconds(self.graph.node.get_clock().now().to_msg())

    def begin(self, task: str, instruction: str = "go to the red ball") -> float:
        """An episode with its first decision; the stamp of that."""
        self.outcomes.clear()
        self.task.publish(Task(id=task, instruction=instruction))

        def step() -> bool:
            self.decision.publish(Decision(header=stamps.header(now), task_id=task))
            return bool(self.outcomes)  # two topics: the decision may have been first

        now = self.now()
        self.graph.until(step, "no outcomes")
        return now

    def end(self) -> Outcome:
        outcomes = self.outcomes
        self.graph.until(lambda: outcomes[-1].terminated or outcomes[-1].truncated, "the episode does not end")
        return outcomes[-1]


def test_a_person_a_condition_and_the_time_end_episodes_each_once(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, time_limit=1.0, reward__step=-0.25)
        begun = around.begin("a")
        graph.until(lambda: len(around.outcomes) >= 4, "not an outcome for each period")
        times = [stamps.to_seconds(message.header.stamp) for message in around.outcomes]
        assert times[0] > begun and all(a < b for a, b in itertools.pairwise(times))
        assert times[3] - times[0] > 2 * PERIOD, "one for each period; on a machine that stalls, the first comes late"
        assert {message.reward for message in around.outcomes} == {-0.25}
        around.judgement.publish(Judgement(reward=0.5))
        around.verdict.publish(_stopped(begun, "obstacle"))
        around.judgement.publish(Judgement(header=stamps.header(begun - 1.0), verdict="failure"))
        graph.until(lambda: "before the episode's beginning" in around.process.said, "nothing of a stale verdict")

        def given() -> float:
            return sum(message.reward + 0.25 for message in around.outcomes)

        graph.until(lambda: given() == pytest.approx(0.5 - 0.1), "the reward or the stop does not count")
        answer = graph.call(Trigger, "/outcome/success", Trigger.Request())
        assert answer.success, answer.message
        last = around.end()
        assert (last.terminated, last.success, last.reason) == (True, True, "success")
        assert given() == pytest.approx(0.5 - 0.1 + 1.0)
        late = graph.call(Trigger, "/outcome/failure", Trigger.Request())
        assert not late.success and "ended already" in late.message

        docked = graph.publisher(Bool, "docked")
        docked.publish(Bool(data=True))  # of no episode
        assert docked.wait_for_all_acked(Duration(seconds=DEADLINE)), "it is not taken"
        graph.catch_up("outcome")
        around.begin("b")
        assert not any(message.terminated for message in around.outcomes), "what was said before ends it"

        def dock() -> bool:
            docked.publish(Bool(data=True))
            return around.outcomes[-1].terminated

        graph.until(dock, "the condition does not end it")
        assert (around.end().success, around.end().reason) == (True, "docked")

        around.begin("c", "leave the red ball")

        def stay() -> bool:
            docked.publish(Bool(data=True))
            return around.outcomes[-1].terminated or around.outcomes[-1].truncated

        graph.until(stay, "the time limit does not end it")
        last = around.end()
        assert (last.terminated, last.truncated, last.reason) == (False, True, "timeout"), "it is of other instructions"
        around.task.publish(Task())
        assert around.task.wait_for_all_acked(Duration(seconds=DEADLINE)), "it is not taken"
        refused = graph.call(Trigger, "/outcome/success", Trigger.Request())
        assert refused.message == "no task is worked on"


def _stopped(stamp: float, reason: str) -> Verdict:
    return Verdict(header=stamps.header(stamp), source="policy", verdict="stopped", reason=reason)


def test_a_topic_that_never_speaks_is_reported_and_not_fatal(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph)
        said: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")
        wrong = graph.node.create_publisher(String, "docked", 1)
        around.begin("a")

        def problems() -> str:
            told = [status.message for array in said for status in array.status if status.level != b"\x00"]
            return told[-1] if told else ""

        graph.until(lambda: "nobody publishes /odom" in problems(), "a silent topic is not reported")
        wrong_type = "/docked is std_msgs/msg/String, not std_msgs/msg/Bool"
        graph.until(lambda: wrong_type in problems(), "a topic of another type is not reported")
        graph.node.destroy_publisher(wrong)
        odom = graph.publisher(Odometry, "odom")

        def drive() -> bool:
            message = Odometry(header=stamps.header(around.now()))
            message.pose.pose.position.x = 6.0
            odom.publish(message)
            return around.outcomes[-1].terminated

        graph.until(drive, "the failure does not end it")
        assert (around.end().success, around.end().reason) == (False, "away")


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("type: std_msgs/msg/Bol, field: data", "unknown message type of std_msgs 'Bol'; valid: Bool, Byte"),
        ("type: no_msgs/msg/Bool, field: data", "type no_msgs/msg/Bool: no package with messages of that name"),
        ("type: std_msgs/msg/Bool, field: dat", "'dat'; valid: data"),
    ],
)
def test_a_condition_that_no_message_can_meet_ends_the_node_with_one_line(
    tmp_path: Path, condition: str, said: str
) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(f"task: t\nsuccess: [{{topic: a, {condition}, equals: true}}]\n")
    with Graph(tmp_path) as graph:
        process = graph.start("outcome", task=path)
        assert graph.exit_code(process) == 2
        assert said in process.said


def test_scenes_in_a_row_that_look_like_success_end_it(tmp_path: Path) -> None:
    classifier = tmp_path / "classifier"
    fit_outcomes(OutcomeFitConfig(runs=(str(labelled_run(tmp_path / "run")),)), classifier)
    with Graph(tmp_path) as graph:
        around = Around(graph, classifier=classifier, consecutive=2)
        scenes = graph.publisher(Scene, "scene")
        said: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")

        def probability() -> float:
            statuses = [status for array in said for status in array.status]
            return next((float(v.value) for s in reversed(statuses) for v in s.values if v.key == "probability"), 0.0)

        def see(distance: float, task: str = "a", instruction: str = "go to the red ball") -> None:
            text = scene(3, distance).replace("go to the red ball", instruction)
            scenes.publish(Scene(task_id=task, task=instruction, text=text))

        around.begin("a")
        see(1.6)
        see(0.2)
        graph.until(lambda: probability() > 0.9, "the scene is not judged")
        see(0.2, task="b")
        see(1.6)
        graph.until(lambda: probability() < 0.1, "the next scene is not judged")
        assert not around.outcomes[-1].terminated, "one scene, and one of another task, are not two"

        def arrive() -> bool:
            see(0.2)
            return around.outcomes[-1].terminated

        graph.until(arrive, "the classifier does not end it")
        assert (around.end().success, around.end().reason) == (True, "recognised")
        around.begin("c", "leave the red ball")
        said.clear()
        for _ in range(4):
            see(0.2, "c", "leave the red ball")
        see(1.6, "c")  # of an instruction that it was fitted to: judged, so that the others have been passed over
        graph.until(lambda: said and probability() < 0.1, "the last scene is not judged")
        assert not any(outcome.terminated for outcome in around.outcomes)


def test_a_classifier_of_another_base_ends_the_node_with_one_line(tmp_path: Path) -> None:
    made = SceneClassifier({}, "abc", (), 0.5, {"wished": 0.9, "best_precision": 0.9, "held_out": {}})
    sizes = {"mean": (3,), "scale": (3,), "weight": (3,), "bias": (), "slope": (), "offset": ()}
    tensors = {name: np.ones(shape) for name, shape in sizes.items()}
    save(dataclasses.replace(made, tensors=tensors), tmp_path / "c", b"")
    with Graph(tmp_path) as graph:
        process = graph.start("outcome", classifier=tmp_path / "c")
        assert graph.exit_code(process) == 2
        assert f"{tmp_path / 'c'}: outcome classifier: made for another base model or prompt" in process.said


def test_without_a_classifier_no_language_model_is_loaded() -> None:
    """It runs on the robot, whose computer may be small."""
    code = "import sys, llmagent_ros.nodes.outcome_node; print(sorted({'torch', 'sklearn'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_real_time_trace_takes_such_outcomes_and_one_end() -> None:
    """As the policy's: rewards count for the open step, and the end for the last one."""
    trace = EpisodeTrace("run", 0, stepwise=False)
    closed = []
    for step in range(3):
        seen = SceneValue(100.0 + 0.4 * step, f"scene {step}", "task")
        decision = DecisionValue("forward", 0.0, ("forward",), np.ones(1), np.zeros(1), "initial")
        closed += trace.on_decision(seen, decision)
        closed += trace.on_outcome(seen.stamp + 0.15, OutcomeValue(-0.01))
    closed += trace.on_outcome(101.2, OutcomeValue(0.99, terminated=True, success=True, reason="success"))
    assert trace.on_outcome(101.3, OutcomeValue(-1.0, terminated=True)) == []
    closed += trace.on_scene(SceneValue(101.3, "scene 3", "task"))
    assert [round(t.reward, 6) for t in closed] == [-0.01, -0.01, 0.98] and trace.complete
    assert [t.terminated for t in closed] == [False, False, True]
