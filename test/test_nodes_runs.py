"""Runner and recorder among a simulator and a policy that are played by the test."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.action import ActionServer
from ros_support import ROOT, Graph
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from llmagent_interfaces.action import ExecuteTask
from llmagent_interfaces.msg import Decision, Outcome, RetrievedSkill, Scene, Task, Transition, Verdict
from llmagent_interfaces.srv import ResetSimulation, RetrieveSkills
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import reports, stamps
from llmagent_ros.recording.decision_reader import DecisionReader
from llmagent_ros.recording.episodes import read_episodes, recorded_episodes
from llmagent_ros.types import Outcome as OutcomeValue
from llmagent_ros.types import RetrievedSkill as RetrievedSkillValue

PERIOD = 0.4


class World:
    """Plays simulator, perception, policy and guard; each episode has three steps, every second one succeeds."""

    def __init__(self, graph: Graph, outcomes: str = "outcome") -> None:
        self.graph, self.node = graph, graph.node
        self.time = 0.0
        self.resets: list[ResetSimulation.Request] = []
        self.goals = 0
        self.limited: set[int] = set()  # episodes that end by the time limit of the action
        self.refusals = 0  # of goals that are still to come
        self.ticks = 0
        self.longest = 0.0  # s from before a scene was said to after its command was
        self.scene = self.node.create_publisher(Scene, "scene", qos.COMMAND)
        self.decision = self.node.create_publisher(Decision, "decision", qos.DECISION)
        self.cmd_vel = self.node.create_publisher(TwistStamped, "cmd_vel", qos.COMMAND)
        self.outcome = self.node.create_publisher(Outcome, outcomes, qos.OUTCOME)
        self.task = self.node.create_publisher(Task, "task", qos.LATEST)
        self.transition = self.node.create_publisher(Transition, "transition", qos.TRANSITION)
        self.diagnostics = self.node.create_publisher(DiagnosticArray, "/diagnostics", qos.COMMAND)

    def serve(self) -> World:
        """From now on a runner finds a simulator and a policy."""
        self.node.create_service(ResetSimulation, "sim/reset", self._on_reset)
        self._server = ActionServer(self.node, ExecuteTask, "execute_task", self._execute)
        return self

    def _on_reset(self, request: ResetSimulation.Request, response: ResetSimulation.Response) -> Any:
        self.resets.append(request)
        response.ok, response.instruction = request.task != "nonsense", "go to the red ball"
        response.message = "" if response.ok else "unknown task 'nonsense'; valid: navigate"
        return response

    def _execute(self, goal: Any) -> ExecuteTask.Result:
        if self.refusals:
            self.refusals -= 1
            goal.abort()
            return ExecuteTask.Result(reason="aborted")
        episode, self.goals = self.goals, self.goals + 1
        success = episode % 2 == 1
        task = bytes(goal.goal_id.uuid).hex()
        self.task.publish(Task(id=task, instruction=goal.request.instruction, episode=episode))
        for step in range(3):
            self.time += PERIOD
            self._step(episode, step, task)
            self.outcome.publish(
                Outcome(
                    header=stamps.header(self.time + PERIOD),
                    reward=0.5,
                    terminated=step == 2 and episode not in self.limited,
                    success=success and step == 2,
                    reason="" if step < 2 or episode in self.limited else "reached" if success else "collision",
                )
            )
            goal.publish_feedback(ExecuteTask.Feedback(step=step))
        self.time += PERIOD
        self.task.publish(Task())
        self.report("sim", ticks=self.ticks, ticks_missed=1)
        self.report("learner", updates=5 * self.goals, critic_loss=0.25)
        self.report("guard", **{"source": "policy", "count.e_stop": 2})
        self.report("other/sim", ticks=1000 + self.ticks, ticks_missed=500)  # another robot of this domain
        self.report("other/learner", updates=1000, critic_loss=9.0)
        self.report("other/guard", **{"count.e_stop": 70, "count.obstacle": 7})
        if episode in self.limited:
            self.transition.publish(Transition(run="run", episode=episode, step=2, truncated=True))
            goal.abort()
            return ExecuteTask.Result(reason="timeout", steps=3)
        goal.succeed() if success else goal.abort()
        return ExecuteTask.Result(success=success, reason="reached" if success else "collision", steps=3)

    def _step(self, episode: int, step: int, task: str = "0") -> None:
        header, self.ticks, began = stamps.header(self.time), self.ticks + 1, time.monotonic()
        self.scene.publish(Scene(header=header, text="scene", task_id=task, episode=episode))
        self.decision.publish(
            Decision(
                header=header,
                run="run",
                task_id=task,
                episode=episode,
                step=step,
                candidates=["left", "right"],
                probabilities=[0.75, 0.25],
                values=[0.0, 0.0],
                action="left",
                source="policy",
                adapter=f"v{episode}",
                compute_ms=2.0,
            )
        )
        self.cmd_vel.publish(TwistStamped(header=header))
        self.longest = max(self.longest, time.monotonic() - began)

    def report(self, name: str, **values: object) -> None:
        status = DiagnosticStatus(name=f"/{name}", level=DiagnosticStatus.OK)
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        self.diagnostics.publish(DiagnosticArray(status=[status]))

    def wait_for_readers(self, count: int) -> None:
        for publisher in (self.scene, self.decision, self.cmd_vel, self.outcome, self.transition):
            self.graph.until(lambda p=publisher: p.get_subscription_count() >= count, "nobody listens")
        self.graph.catch_up("recorder")  # which has found all that is published here


def test_three_episodes_end_in_a_summary(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Graph(tmp_path) as graph:
        world = World(graph).serve()
        world.refusals = 1
        finished = []
        graph.node.create_subscription(Bool, "run_finished", finished.append, qos.LATEST)
        recorder = graph.start("recorder", out=out, seed=7, model="tiny")
        world.wait_for_readers(1)
        runner = graph.start("runner", episodes=3, seed=7, task="navigate", learn=False)
        assert graph.exit_code(recorder) == 0
        graph.until(lambda: finished, "the end is said to the recorder alone")
        assert [message.data for message in finished] == [True]
        assert runner.code is None, "the runner stays until the launch ends"
        runner.stop()
        assert graph.exit_code(runner) == 0
        assert "episode 3/3: collision" in runner.said
    first, again, *others = world.resets
    assert (first.use_seed, first.seed, first.task) == (True, 7, "navigate")
    assert again.use_seed and again.seed != 7, "an episode that is done again must not begin the same worlds again"
    assert [request.use_seed for request in others] == [False, False]
    summary = json.loads((out / "summary.json").read_text())
    expected = {
        "episodes": 3,
        "successes": 1,
        "env_steps": 9,
        "adapter_versions": 3,
        "updates": 15,
        "guard_reasons": {"e_stop": 2},
        "ticks": 9,
        "missed_tick_share": pytest.approx(1 / 9),
        "episode_ends": {"collision": 2, "reached": 1},
        "return_mean_last_20": pytest.approx(1.5),
        "seed": 7,
        "model": "tiny",
        "finished": True,
    }
    assert {name: summary[name] for name in expected} == expected
    latency = summary["scene_to_command_ms"]
    assert latency["count"] == 9 and 0.0 < latency["p50"] <= latency["p99"] <= 1e3 * world.longest + 1.0
    assert (out / "learning_curve.png").stat().st_size > 1000
    assert "3, 1 successes" in recorder.said


def test_a_recorder_that_is_found_late_has_the_first_steps_too(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        world = World(graph)
        over = graph.node.create_publisher(Bool, "run_finished", qos.LATEST)
        for step in range(3):
            world.time += PERIOD
            world._step(0, step)
            ends = {"terminated": True, "success": True, "reason": "reached"} if step == 2 else {}
            world.outcome.publish(Outcome(header=stamps.header(world.time + PERIOD), reward=0.5, **ends))
        recorder = graph.start("recorder", out=tmp_path / "out")
        graph.until(lambda: recorded_episodes(tmp_path / "out"), "the episode is not recorded")
        over.publish(Bool(data=True))
        assert graph.exit_code(recorder) == 0
    (episode,) = read_episodes(tmp_path / "out" / "episodes.csv")
    assert (episode.steps, episode.env_steps, episode.total_reward, episode.success) == (3, 3, 1.5, True)


def test_a_decision_is_kept_with_what_other_topics_say_of_it(tmp_path: Path) -> None:
    """The command goes out before the decision is said, so its outcome, and the end, may come first."""
    out = tmp_path / "out"
    with Graph(tmp_path) as graph:
        world = World(graph)
        verdict = graph.node.create_publisher(Verdict, "verdict", qos.VERDICT)
        recorder = graph.start("recorder", out=out)
        world.wait_for_readers(1)
        for publisher in (world.task, verdict):
            graph.until(lambda p=publisher: p.get_subscription_count() >= 1, "nobody listens")
        world.task.publish(Task(id="0", instruction="go on", skills=[RetrievedSkill(id="a", similarity=0.5)]))
        world._step(0, 0)
        ending = stamps.header(2 * PERIOD)
        world.outcome.publish(Outcome(header=ending, reward=-1.0, terminated=True, reason="collision"))
        graph.until(lambda: recorded_episodes(out), "the episode is not recorded")
        world.time = PERIOD
        world._step(0, 1)
        values = {"reward": -1.0, "terminated": True, "next_scene": "bumped"}
        world.transition.publish(Transition(run="run", episode=0, step=1, **values))
        verdict.publish(Verdict(header=stamps.header(PERIOD), source="nobody"))  # of another version: it is left out
        verdict.publish(Verdict(header=stamps.header(PERIOD), source="none", verdict="stopped", reason="no_scan"))

        def complete() -> bool:
            with suppress(ConfigError, StoreError), DecisionReader(out) as reader:
                found = reader.find("worst")
                joined = None not in (found.verdict, found.outcome, found.latency_ms)
                return found.step == 1 and joined and found.next_scene != ""
            return False

        graph.until(complete, "it is not kept while the run goes on")
        recorder.stop()
        assert graph.exit_code(recorder) == 0
    with DecisionReader(out) as reader:
        found = reader.find("0:1")
    assert found.outcome == OutcomeValue(-1.0, True, False, False, "collision") and found.next_scene == "bumped"
    assert found.verdict is not None and (found.verdict.word, found.verdict.why) == ("stopped", "no_scan")
    assert (found.task, found.skills) == ("go on", (RetrievedSkillValue("a", "", 0.5),))
    assert "unknown source of a verdict 'nobody'" in recorder.said


def test_episodes_that_the_time_limit_ends_are_recorded(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        world = World(graph).serve()
        world.limited = {0, 2}
        recorder = graph.start("recorder", out=tmp_path / "out")
        world.wait_for_readers(1)
        graph.start("runner", episodes=3, learn=False)
        assert graph.exit_code(recorder) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["episodes"], summary["env_steps"]) == (3, 9)
    assert summary["episode_ends"] == {"timeout": 2, "reached": 1}
    assert summary["return_mean_last_20"] == pytest.approx(1.5)


def test_outcomes_are_taken_from_the_topic_that_the_contract_names(tmp_path: Path) -> None:
    contract = yaml.safe_load((ROOT / "config" / "robots" / "sim_diffdrive.yaml").read_text())
    robot = tmp_path / "robot.yaml"
    robot.write_text(yaml.safe_dump({**contract, "reward": {"outcome_topic": "judged"}}, sort_keys=False))
    with Graph(tmp_path) as graph:
        world = World(graph, "judged").serve()
        recorder = graph.start("recorder", out=tmp_path / "out", robot=robot)
        console = graph.start("console", robot=robot, screen="never", plain_period=0.1)
        world.wait_for_readers(1)
        graph.until(lambda: world.outcome.get_subscription_count() == 2, "recorder and console do not listen")
        graph.until(lambda: world.decision.get_subscription_count() == 2, "recorder and console do not listen")
        graph.start("runner", episodes=2, learn=False, robot=robot)
        assert graph.exit_code(recorder) == 0
        graph.until(lambda: "episodes 2/2 |" in console.said, "the console does not count them")
    assert [episode.reason for episode in read_episodes(tmp_path / "out" / "episodes.csv")] == ["collision", "reached"]


@pytest.mark.parametrize("began", [True, False])
def test_an_interrupted_recorder_writes_the_summary_of_what_began(tmp_path: Path, began: bool) -> None:
    out = tmp_path / "out"
    with Graph(tmp_path) as graph:
        world = World(graph)
        recorder = graph.start("recorder", out=out)
        world.wait_for_readers(1)
        if began:
            world._step(0, 0)
            graph.until((out / "tensorboard").exists, "it does not begin")
        recorder.stop()
        assert graph.exit_code(recorder) == 0
        assert ("written to" in recorder.said) is began
    assert out.exists() is began
    if began:
        assert json.loads((out / "summary.json").read_text())["episodes"] == 0


def test_the_runner_waits_for_the_learner(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        world = World(graph)
        runner = graph.start("runner", episodes=2, learn=True)
        graph.until(lambda: world.diagnostics.get_subscription_count() >= 1, "nobody listens")

        def say_late() -> bool:
            world.report("learner", backlog=100, backlog_limit=10)
            return "episode 1/2" in runner.said

        say_late()  # it is known to be late before anything begins
        world.serve()
        graph.until(say_late, "no episode")
        for _ in range(50):  # a second or so in which it must not go on
            say_late()
            graph.spin_once()
        assert world.goals == 1
        world.report("learner", backlog=10, backlog_limit=10)
        graph.until(lambda: "run finished" in runner.said, "the runner waits for ever")
        assert world.goals == 2


def test_a_task_between_two_episodes_is_left_to_its_end(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        world = World(graph)
        runner = graph.start("runner", episodes=2, learn=True)
        graph.until(lambda: world.diagnostics.get_subscription_count() >= 1, "nobody listens")

        def report(backlog: int) -> bool:
            world.report("learner", backlog=backlog, backlog_limit=10)
            return "episode 1/2" in runner.said

        report(100)
        world.serve()
        graph.until(lambda: report(100), "no episode")
        said = graph.collect(DiagnosticArray, "/diagnostics", writers=2)

        def told() -> list[str]:
            report(100)
            values = (reports.values(one.status[0]) for one in said)
            return [each["others_task"] for each in values if "others_task" in each]

        # of the same words, and at once: its own task may never be seen, of which only the latest is kept
        world.task.publish(Task(id="a person's", instruction="go to the red ball", episode=7))
        graph.until(lambda: "true" in told(), "the task is not seen")
        for _ in range(150):  # three seconds or so, longer than the handover
            report(0)
            graph.spin_once()
        assert (world.goals, len(world.resets)) == (1, 1)
        world.task.publish(Task())
        graph.until(lambda: "run finished" in runner.said, "the runner waits for ever")
        assert world.goals == 2


def test_a_run_goes_on_without_the_knowledge_node(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        world = World(graph).serve()
        runner = graph.start("runner", episodes=3, learn=True, knowledge=True)
        graph.until(lambda: "waiting for" in runner.said, "it does not wait")
        assert "retrieve_skills (node knowledge)" in runner.said and not world.resets
        skills = graph.node.create_service(RetrieveSkills, "retrieve_skills", lambda request, response: response)

        def say_late(backlog: int) -> None:
            world.report("learner", backlog=backlog, backlog_limit=10)

        graph.until(lambda: say_late(100) or "episode 1/3" in runner.said, "no episode")
        graph.node.destroy_service(skills)
        graph.until(lambda: say_late(0) or "run finished" in runner.said, "it waits for the knowledge node")
        assert "started again" not in runner.said


def test_a_run_that_cannot_begin_says_why(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        World(graph).serve()
        runner = graph.start("runner", task="nonsense", learn=False)
        assert graph.exit_code(runner) == 2
        assert "unknown task 'nonsense'; valid: navigate" in runner.said


def test_a_policy_that_never_comes_ends_the_run(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        graph.node.create_service(ResetSimulation, "sim/reset", lambda request, response: response)
        runner = graph.start("runner", server_timeout=0.5, learn=False)
        assert graph.exit_code(runner) == 1
        assert "no action execute_task (node policy)" in runner.said


CONTROLLER = "joint_trajectory_controller/joint_trajectory"


@pytest.mark.parametrize(
    ("robot", "command", "kind", "topic", "stamped"),
    [
        ("sim_arm", {}, JointTrajectory, CONTROLLER, True),
        ("sim_arm", {}, JointTrajectory, CONTROLLER, False),  # in real time a trajectory begins when it comes
        ("sim_arm", {"type": "Float64MultiArray", "topic": "arm"}, Float64MultiArray, "arm", False),
        ("sim_diffdrive", {"topic": "base/cmd_vel"}, TwistStamped, "base/cmd_vel", True),
        ("sim_diffdrive", {"type": "Twist", "topic": "base/cmd_vel"}, Twist, "base/cmd_vel", False),
    ],
)
def test_the_latency_of_any_robots_commands_is_measured(
    tmp_path: Path, robot: str, command: dict[str, Any], kind: type, topic: str, stamped: bool
) -> None:
    """Where they bear no stamp, by the verdicts that follow them."""
    contract = yaml.safe_load((ROOT / "config" / "robots" / f"{robot}.yaml").read_text())
    path, out = tmp_path / "robot.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(contract | {"command": command}, sort_keys=False))
    with Graph(tmp_path) as graph:
        world = World(graph)
        publisher = graph.node.create_publisher(kind, topic, qos.COMMAND)
        verdict = graph.node.create_publisher(Verdict, "verdict", qos.VERDICT)
        over = graph.node.create_publisher(Bool, "run_finished", qos.LATEST)
        recorder = graph.start("recorder", out=out, robot=path)
        for each in (world.scene, world.decision, publisher, verdict, over):
            graph.until(lambda p=each: p.get_subscription_count() >= 1, "nobody listens")
        if not stamped:
            publisher.publish(kind())  # what the guard's timer sends in between
            with suppress(AssertionError):
                graph.until(lambda: False, "", 0.5)
        for step in range(3):
            world.time += PERIOD
            world._step(0, step)
            header = stamps.header(world.time)
            publisher.publish(kind(header=header) if stamped else kind())
            verdict.publish(Verdict(header=header, source="policy", verdict="passed"))
            outcome = Outcome(header=stamps.header(world.time + PERIOD), terminated=step == 2, reason="reached")
            world.outcome.publish(outcome)
        graph.until(lambda: recorded_episodes(out), "the episode is not recorded")
        over.publish(Bool(data=True))
        assert graph.exit_code(recorder) == 0
    latency = json.loads((out / "summary.json").read_text())["scene_to_command_ms"]
    assert latency["count"] == 3 and 0.0 < latency["p50"] < 1000.0
