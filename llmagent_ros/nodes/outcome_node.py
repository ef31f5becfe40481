"""Outcomes of a real robot: what people, topics and the scene say of an episode becomes rewards and its end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from diagnostic_msgs.msg import DiagnosticStatus
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Decision, Outcome, Scene, Task
from llmagent_interfaces.msg import Judgement as JudgementMessage
from llmagent_interfaces.msg import Verdict as VerdictMessage
from llmagent_ros.contract import load_contract
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.condition_topics import ConditionTopics
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.outcomes.arbiter import FAILURE, SUCCESS, Arbiter, ArbiterConfig, RewardConfig
from llmagent_ros.outcomes.conditions import Conditions
from llmagent_ros.outcomes.task import RobotTask, load_robot_task
from llmagent_ros.types import Judgement

if TYPE_CHECKING:
    from llmagent_ros.nodes.scene_judge import SceneJudge

REPORT_PERIOD = 1.0  # s of wall time between two diagnostics
SILENT_AFTER = 5.0  # s of an episode after which a topic that has never spoken is reported
WARNING_PERIOD = 10.0  # s of wall time between two warnings of one kind


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class OutcomeNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path. task: of config/robot_tasks, or a path; empty: no conditions.
        time_limit: s from the first decision on after which an episode is cut off, where the task says nothing; 0:
            none.
        reward: see RewardConfig.
        classifier: folder that `llmagent outcomes fit` has made; empty: none. consecutive: scenes in a row that must
            look like success to it.
        model, device, dtype, chat: the base that it was fitted with; see LanguageModelConfig. threads: of torch.
    """

    robot: str = "sim_diffdrive"
    task: str = ""
    time_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    reward: RewardConfig = Field(default_factory=RewardConfig)
    classifier: str = ""
    consecutive: Annotated[int, Field(ge=1, le=100)] = 3
    model: str = ""
    device: str = "auto"
    dtype: str = "auto"
    chat: bool = False
    threads: Annotated[int, Field(gt=0)] = 1


class OutcomeNode(Node):
    """Publishes one outcome for each control period of an episode on the contract's topic; the last one ends it.

    Subscribes task and decision (which episode there is, and when it began), judgement (a person), verdict (what the
    guard stopped), the topics of the task's conditions and, with a classifier, scene. Services ~/success and ~/failure
    are a person's verdict.
    """

    def __init__(self) -> None:
        super().__init__("outcome", automatically_declare_parameters_from_overrides=True)
        self._config = c = parameters(self, OutcomeNodeConfig)
        self._contract = load_contract(c.robot)
        self._arbiter = Arbiter(ArbiterConfig(self._contract.control_period, c.time_limit, c.reward))
        self._task = load_robot_task(c.task) if c.task else RobotTask(task="any")
        self._conditions = Conditions(self._task.success, self._task.failure)
        self._applies = False  # whether the task's file is about the present instruction
        self._begun = math.inf
        self.finished: int | None = None
        self._topics = ConditionTopics(self, self._conditions, self._now)
        self._judge = self._make_judge() if c.classifier else None
        self._make_topics()

    def _make_judge(self) -> SceneJudge:
        from llmagent_ros.nodes.scene_judge import judge_of  # needs torch, as nothing else here does

        c = self._config
        base = {"model": c.model, "device": c.device, "dtype": c.dtype, "chat": c.chat}
        return judge_of(self, Path(c.classifier), base, self._contract, c.consecutive, c.threads)

    def _make_topics(self) -> None:
        self._publisher = self.create_publisher(Outcome, self._contract.reward.outcome_topic, qos.OUTCOME)
        self._diagnostics = Diagnostics(self)
        self.create_subscription(Task, "task", self._on_task, qos.LATEST)
        self.create_subscription(Decision, "decision", self._on_decision, qos.DECISION)
        self.create_subscription(JudgementMessage, "judgement", self._on_judgement, qos.COMMAND)
        self.create_subscription(VerdictMessage, "verdict", self._on_verdict, qos.COMMAND)
        if self._judge is not None:
            self.create_subscription(Scene, "scene", self._on_scene, qos.COMMAND)
        self.create_service(Trigger, "~/success", lambda request, response: self._answer(SUCCESS, response))
        self.create_service(Trigger, "~/failure", lambda request, response: self._answer(FAILURE, response))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        # simulated time may run at any speed; when the system's steps back, its timers wait until it has caught up
        simulated = bool(self.get_parameter("use_sim_time").value)
        clock = self.get_clock() if simulated else steady
        self.create_timer(self._contract.control_period, self._tick, clock=clock)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    # --- the episode ------------------------------------------------------------------------------

    def _on_task(self, message: Task) -> None:
        self._applies = bool(message.instruction) and self._task.is_about(message.instruction, self._contract)
        limit = self._task.time_limit if self._applies else None
        if self._arbiter.announce(message.id if message.instruction else "", limit):
            self._begun = math.inf
            if message.instruction and not self._applies:
                self.get_logger().info(f"{message.instruction!r} is not what task {self._task.task} is about")

    def _on_decision(self, message: Decision) -> None:
        stamp = to_seconds(message.header.stamp)
        if self._arbiter.begin(message.task_id, stamp):
            self._begun = stamp
            self._conditions.begin(stamp)

    # --- what is said of it -----------------------------------------------------------------------

    def _on_judgement(self, message: JudgementMessage) -> None:
        judgement = Judgement(message.verdict, message.reward)
        self._take(judgement, to_seconds(message.header.stamp), message.task_id)

    def _answer(self, verdict: str, response: Trigger.Response) -> Trigger.Response:
        response.message = self._take(Judgement(verdict))
        response.success = not response.message
        return response

    def _take(self, judgement: Judgement, stamp: float = 0.0, task: str = "") -> str:
        """Why it is refused; empty when it is taken."""
        refusal = self._arbiter.judge(judgement, self._now(), stamp, task)
        if refusal:
            said = judgement.verdict[:40] or f"reward {judgement.reward:g}"
            self.get_logger().warning(f"a person's {said} is not taken: {refusal}")
        return refusal

    def _on_verdict(self, message: VerdictMessage) -> None:
        stamp = to_seconds(message.header.stamp)
        self._arbiter.on_stop(message.source, message.verdict, message.reason, stamp)

    def _on_scene(self, message: Scene) -> None:
        if self._judge is not None and self._judge.knows(message.task):
            self._judge.offer(message.task_id, message.task, message.text)

    # --- what comes of it -------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._now()
        if self._applies:
            self._arbiter.claim(self._conditions.claim(now))
        if self._judge is not None:
            self._arbiter.claim(self._judge.claim(self._arbiter.task))
        outcome = self._arbiter.tick(now)
        if outcome is None:
            return
        self._publisher.publish(decisions.outcome_to_message(outcome, now))
        if outcome.ended:
            word = "success" if outcome.success else "cut off" if outcome.truncated else "failure"
            self.get_logger().info(f"the episode has ended after {now - self._begun:.1f} s: {word} ({outcome.reason})")

    def _report(self) -> None:
        problems = self._problems()
        level = DiagnosticStatus.WARN if problems else DiagnosticStatus.OK
        values = dict(self._arbiter.report())
        if self._judge is not None:
            values["probability"] = f"{self._judge.last:.3f}"
        self._diagnostics.publish("; ".join(problems) or "ok", values, level=level)
        if problems:
            self.get_logger().warning("; ".join(problems), throttle_duration_sec=WARNING_PERIOD)

    def _problems(self) -> list[str]:
        topic = self._publisher.topic_name
        problems = []
        if self.count_publishers(topic) > 1:
            problems.append(f"somebody else publishes {topic} too: rewards count twice")
        if self._applies and self._arbiter.is_open and self._now() - self._begun > SILENT_AFTER:
            problems += self._topics.problems()
        return problems

    def _now(self) -> float:
        return to_seconds(self.get_clock().now().to_msg())

    def close(self) -> None:
        """Ends the thread that judges scenes."""
        if self._judge is not None:
            self._judge.close()


def main() -> None:
    process.main(OutcomeNode)


if __name__ == "__main__":
    main()
