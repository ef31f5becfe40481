"""Scenes to decisions and commands: the language model acts, one instruction at a time."""

from __future__ import annotations

import math
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from std_msgs.msg import String

from llmagent_interfaces.msg import Adapter, Outcome, Scene
from llmagent_interfaces.srv import SetTask
from llmagent_ros.bundle import latest_bundle
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.knowledge.start import StartConfig
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.acting_adapter import ActingAdapter
from llmagent_ros.nodes.base import ManagedNode
from llmagent_ros.nodes.calibrated_scenes import CalibratedScenes
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.driver import Driver
from llmagent_ros.nodes.goals import Goal, GoalServer
from llmagent_ros.nodes.heartbeat import Heartbeat
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.policy_outputs import PolicyOutputs
from llmagent_ros.nodes.retrieval import Retrieval, Retrieved
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.commands import command_topics
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.nodes.work import ROUNDING, Work
from llmagent_ros.perception.text import clean_instruction
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.policy.trace import EpisodeTrace
from llmagent_ros.recording.episodes import recorded_episodes
from llmagent_ros.types import Command, Source
from llmagent_ros.types import Decision as DecisionValue

WATCH_PERIOD = 0.1  # s of wall time
REPORT_PERIOD = 1.0  # s of wall time between two diagnostics
LAST_SCENE_TIMEOUT = 1.0  # s of wall time that the end of an episode waits for its last scene
STOP_TIMEOUT = 5.0  # s of wall time that a deactivation waits for the decision under way


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class PolicyNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path. seed: of the choices. out: folder of the run.
        model, device, dtype, chat, rank: of the language model and its adapter; see LanguageModelConfig.
        bundle: folder of a bundle to start from; empty: the newest in OUT/bundles, if there is one.
        temperature: 1 chooses as it explores, 0 the most probable phrase; see `policy.text_policy.draw`. Below 1 no
            head of the critic disagrees.
        lessons: how many retrieved lessons go into the prompt. skills: how many skills are asked for, of any contract.
        start: with which of them a new kind of task begins, see StartConfig.
        calibrate: whether what the phrases do is measured and made up for, see `perception.calibration`.
        retrieve_timeout: s of wall time to wait for the knowledge node at the start of a task.
        stepwise: whether every scene bears the stamp of an outcome (simulation in lockstep).
        threads: of torch on the CPU. autostart: configure and activate at once.
    """

    robot: str = "sim_diffdrive"
    seed: Annotated[int, Field(ge=0)] = 0
    out: str = "runs/default"
    model: str = ""
    device: str = "auto"
    dtype: str = "auto"
    chat: bool = False
    rank: Annotated[int, Field(gt=0)] = 16
    bundle: str = ""
    temperature: Annotated[float, Field(ge=0, le=1)] = 1.0
    lessons: Annotated[int, Field(ge=0, le=5)] = 2
    skills: Annotated[int, Field(ge=0, le=20)] = 5
    start: StartConfig = Field(default_factory=StartConfig)
    calibrate: bool = False
    retrieve_timeout: Annotated[float, Field(gt=0)] = 1.0
    stepwise: bool = True
    threads: Annotated[int, Field(gt=0)] = 1
    autostart: bool = True


class PolicyNode(ManagedNode):
    """Lifecycle: the model loads in configure, commands flow only while active, zero is the last thing sent.

    Action execute_task, service and topic set_task. The model runs in a thread of its own, so that services, cancel
    and pre-emption are answered while it thinks.
    """

    def __init__(self) -> None:
        super().__init__("policy")
        self._config = parameters(self, PolicyNodeConfig)
        self._contract = load_contract(self._config.robot)
        self._run = f"{Path(self._config.out).name}-{uuid.uuid4().hex[:8]}"
        self._policy: TextPolicy | None = None
        self._active = False
        self._work: Work | None = None
        self._episodes = recorded_episodes(Path(self._config.out))  # a run that goes on does not repeat its choices
        self._changed = threading.Condition()  # guards _work, _scene, _active
        self._scene: Scene | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()  # of that thread
        self._adapter = ActingAdapter(self)
        self._scenes = CalibratedScenes(self._contract, calibrate=self._config.calibrate)  # under _changed
        self._make_topics()
        self.starts_itself = self._config.autostart

    def _make_topics(self) -> None:
        self._outputs = PolicyOutputs(self, self._contract, exact=self._config.stepwise)
        self._diagnostics = Diagnostics(self)
        self._heartbeat = Heartbeat(self, lambda: self._active)
        self.create_subscription(Scene, "scene", self._on_scene, qos.COMMAND)
        self.create_subscription(Outcome, self._contract.reward.outcome_topic, self._on_outcome, qos.OUTCOME)
        self.create_subscription(Adapter, "adapter", self._adapter.on_message, qos.LATEST)
        self.create_subscription(String, "set_task", self._on_set_task_topic, qos.COMMAND)
        self.create_service(SetTask, "set_task", self._on_set_task)
        if self._config.calibrate:
            topics = command_topics(self._contract)
            on_sent, profile = lambda m: self._on_sent(topics.from_message(m)), qos.deep(qos.of(topics.driver_qos))
            self.create_subscription(topics.driver_kind, topics.driver, on_sent, profile)
        self._driver = Driver(self, self._contract, self._on_driver, lambda: self._outputs.commands.joints)
        self._goals = GoalServer(self, refusal=self._refusal, start=self._begin, cancel=self._cancel)
        c = self._config
        self._retrieval = Retrieval(self, c.skills, self._contract.robot, c.start, c.retrieve_timeout)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCH_PERIOD, self._watch, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    # --- lifecycle ----------------------------------------------------------------------------------

    def configure(self) -> None:
        torch.set_num_threads(self._config.threads)
        c = self._config
        language = LanguageModelConfig(model=c.model, device=c.device, dtype=c.dtype, chat=c.chat, rank=c.rank)
        model = LanguageModel(language, self._contract.phrases)
        self._policy = TextPolicy(model)
        start = Path(c.bundle) if c.bundle else latest_bundle(Path(c.out) / "bundles")
        self._adapter.begin(self._policy, start, chosen=bool(c.bundle))
        _warm_up(self._policy)
        facts = model.describe()
        self.get_logger().info(
            f"{facts['model']}: {facts['parameters']:,} parameters, {facts['adapter_parameters']:,} in the adapter, "
            f"on {model.device}, phrases scored {facts['scoring']}, acting by {self._policy.adapter}"
        )

    def activate(self) -> None:
        self._active = True
        self._stop = threading.Event()
        self._thread = self.work(self._decide_forever, "decide")

    def deactivate(self) -> None:
        if self._thread is None:
            return
        with self._changed:
            self._active = False
            self._stop.set()
            self._changed.notify_all()
        self._finish(self._work, "aborted")
        self._thread.join(timeout=STOP_TIMEOUT)
        self._outputs.commands.stop()
        if self._thread.is_alive():
            raise LlmAgentError(f"node {self.get_name()}: still at a decision after {STOP_TIMEOUT:.0f} s; ask again")
        self._thread = None

    def cleanup(self) -> None:
        self._policy = None

    def close(self) -> None:
        super().close()
        self._adapter.close()

    # --- tasks -----------------------------------------------------------------------------------------

    def _on_set_task_topic(self, message: String) -> None:
        refusal = self._refusal(message.data)
        if refusal:
            self.get_logger().warning(f"instruction {message.data[:80]!r} not taken: {refusal}")
        else:
            self._begin(message.data)

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        response.message = self._refusal(request.instruction)
        if not response.message:
            response.ok, response.task_id = True, self._begin(request.instruction)
        return response

    def _refusal(self, instruction: str) -> str:
        """Why an instruction is not taken; empty when it is."""
        if not self._active:
            return "the policy is not active"
        return self._contract.refusal(clean_instruction(instruction))

    def _begin(self, instruction: str, time_limit: float = 0.0, goal: Goal | None = None) -> str:
        """Takes up an instruction, which pre-empts the one before; returns its id."""
        self._finish(self._work, "preempted")
        trace = EpisodeTrace(self._run, self._episodes, stepwise=self._config.stepwise)
        text, now = clean_instruction(instruction), self._now()
        task_id = uuid.uuid4().hex if goal is None else goal.id
        identity = task_id, text, self._contract.generalised(text), self._episodes
        work = Work(*identity, trace, self._config.stepwise, time_limit, begun=now, goal=goal)
        self._episodes += 1
        with self._changed:
            self._work = work
            self._scenes.start_episode()
        self._retrieval.ask(work.wording, lambda retrieved: self._announce(work, retrieved))
        return work.id

    def _announce(self, work: Work, retrieved: Retrieved) -> None:
        """The skills are here (or not in time): perception may build scenes for the task."""
        with self._changed:
            if self._work is work:
                work.lessons = retrieved.lessons[: self._config.lessons]
                work.skills, work.start = retrieved.skills, retrieved.start
                self._outputs.task(work.id, work.instruction, work.episode, work.skills, work.start)

    def _recognise(self, work: Work, scene: Scene, retrieved: Retrieved) -> None:
        """No skill is like the instruction of a new kind of task; perhaps one is like what is seen."""
        with self._changed:
            if self._work is not work:
                return
            if retrieved.start.kind != "initial":
                work.lessons = retrieved.lessons[: self._config.lessons]
                work.skills, work.start = retrieved.skills, retrieved.start
                self._outputs.task(work.id, work.instruction, work.episode, work.skills, work.start)
            self._scene = self._scene or scene
            self._changed.notify_all()

    def _cancel(self, goal: Goal) -> None:
        work = self._work
        if work is not None and work.goal is goal:
            self._give_up(work, "cancelled")

    def _give_up(self, work: Work, reason: str) -> None:
        self._finish(work, reason)
        self._outputs.commands.stop()

    def _finish(self, work: Work | None, reason: str, *, success: bool = False) -> None:
        """Ends an instruction, unless something else has ended it already. From any thread."""
        with self._changed:
            if work is None or self._work is not work:
                return
            self._work = self._scene = None
            self._outputs.transitions(work.trace.flush())
            self._outputs.task("", "", work.episode)
            if not self._config.stepwise:  # in lockstep the world stands still by itself
                self._outputs.commands.stop()
        if work.goal is not None:
            reward, steps = work.trace.total_reward, work.trace.steps
            work.goal.finish(success=success, reason=reason, total_reward=reward, steps=steps)

    # --- what comes in ------------------------------------------------------------------------------------

    def _on_scene(self, message: Scene) -> None:
        with self._changed:
            work = self._work
            if work is None or message.task_id != work.id or not self._active:
                return
            jumped = work.is_of_another_time(message)
            self._scenes.hear(message)
            closed = [] if jumped else work.take_scene(message)
            unlike = work.start is not None and work.start.kind == "initial" and not work.seen
            if closed is None and unlike and not self._adapter.knows(work.wording):
                work.seen = True
                scene = self._contract.generalised(message.text)
                self._retrieval.ask(scene, lambda retrieved: self._recognise(work, message, retrieved))
                return
            if closed is None:
                self._scene = message
                self._changed.notify_all()
                return
            self._outputs.transitions(closed)
        if jumped:
            self.get_logger().warning("the clock has jumped back; the instruction is given up")
            self._give_up(work, "aborted")
        self._finish_if_complete(work)

    def _on_outcome(self, message: Outcome) -> None:
        with self._changed:
            work = self._work
            if work is None:
                return
            stamp = to_seconds(message.header.stamp) or self._now() + ROUNDING  # without one: by hand, just now
            self._outputs.transitions(work.take_outcome(message, stamp, self._scene))
            if work.trace.ended is not None:
                self._scene = None
        self._finish_if_complete(work)

    def _finish_if_complete(self, work: Work) -> None:
        ended = work.trace.ended
        if ended is not None and work.trace.complete:
            self._finish(work, ended.reason or "ended", success=ended.success)

    def _report(self) -> None:
        policy, work = self._policy, self._work
        values = {"adapter": policy.adapter if policy else "", "task": work.instruction if work else ""}
        values["calibration"] = told = self._scenes.told
        state = "active" if self._active else "inactive"
        self._diagnostics.publish(f"{state}; the robot differs from its contract: {told}" if told else state, values)

    def _watch(self) -> None:
        """Bounds the wait for the last scene of an episode, and a time limit while no scenes come."""
        work = self._work
        if work is None:
            return
        ended, waited = work.trace.ended, time.monotonic() - (work.ended_at or math.inf)
        if ended is not None and waited > LAST_SCENE_TIMEOUT:
            self._finish(work, ended.reason or "ended", success=ended.success)
        if work.is_late(self._now(), 2 * self._contract.control_period):
            self._give_up(work, "timeout")

    def _now(self) -> float:
        return to_seconds(self.get_clock().now().to_msg())

    # --- who drives ---------------------------------------------------------------------------------------

    def _on_sent(self, command: Command) -> None:
        with self._changed:
            self._scenes.on_command(command)

    def _on_driver(self, source: Source | None) -> None:
        with self._changed:
            if self._work is not None:
                self._work.trace.drives(source)
                self._scenes.interrupted()

    def _as_driven(self, decision: DecisionValue) -> tuple[DecisionValue, bool]:
        """The decision, or what a person does instead; and whether the robot does it, as far as is known."""
        phrase = self._driver.phrase()
        if self._driver.source is not Source.HUMAN or phrase is None:
            return decision, self._driver.source is Source.POLICY
        probability = float(decision.probabilities[decision.candidates.index(phrase)])
        log_probability = math.log(max(probability, 1e-9))
        return replace(decision, action=phrase, log_probability=log_probability, source=Source.HUMAN), True

    # --- the deciding thread --------------------------------------------------------------------------------

    def _decide_forever(self) -> None:
        stop = self._stop
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._scene is not None or stop.is_set())
                if stop.is_set():
                    return
                scene, work = self._scene, self._work
                self._scene = None
            try:
                if scene is not None and work is not None:
                    self._adapter.prepare(work)
                    self._decide(scene, work)
            except LlmAgentError as error:
                self.get_logger().error(f"no decision: {error}")

    def _decide(self, message: Scene, work: Work) -> None:
        assert self._policy is not None
        if self._is_answered(message, work):
            return
        self._outputs.commands.prepare(message)
        begin = time.perf_counter()
        # The 1 keeps it from being that of a world, which it would be at step 0: zeros at the end change nothing.
        rng = np.random.default_rng([self._config.seed, work.episode, work.trace.steps, 1])
        temperature = self._config.temperature
        head = work.episode if temperature == 1.0 else None
        with self._changed:
            sayable = self._scenes.sayable
        decision = self._policy.decide(
            message.text, rng, lessons=work.lessons, temperature=temperature, head=head, sayable=sayable
        )
        compute_ms = (time.perf_counter() - begin) * 1e3
        with self._changed:  # ended or pre-empted while the model was thinking: no command must go out
            if self._work is not work or not self._active:
                return
            scene, step, ended = decisions.scene_from_message(message), work.trace.steps, work.trace.ended is not None
            if not ended:
                decision = self._scenes.say(decision)
                self._outputs.commands.send(message, decision.said or decision.action)
                decision, executed = self._as_driven(decision)
                decision = self._scenes.done(decision, executed=executed)
            closed = work.trace.on_scene(scene) if ended else work.trace.on_decision(scene, decision, executed=executed)
            self._outputs.transitions(closed)
        if not ended:
            self._publish_decision(message, work, decision, step, compute_ms)
        self._finish_if_complete(work)

    def _is_answered(self, message: Scene, work: Work) -> bool:
        """Whether this scene has its decision: it came again because the command was lost, which goes out again."""
        with self._changed:
            last = work.trace.last_stamp
            answered = last is not None and to_seconds(message.header.stamp) <= last
            if answered and self._work is work:
                self._outputs.commands.repeat(message)
            return answered

    def _publish_decision(
        self, scene: Scene, work: Work, decision: DecisionValue, step: int, compute_ms: float
    ) -> None:
        assert self._policy is not None
        prefix = self._policy.model.form.lessons(work.lessons)
        self._outputs.decision(
            scene,
            decision,
            run=self._run,
            step=step,
            prompt_prefix=prefix,
            compute_ms=compute_ms,
            adapter_digest=self._adapter.digest,
        )
        if work.goal is not None:
            reward = work.trace.total_reward
            work.goal.feedback(step=step, scene=scene.text, action=decision.action, total_reward=reward)


def _warm_up(policy: TextPolicy) -> None:
    """The first passes of a model are slow; better now than at the first scene, or at the first with a critic."""
    for _ in range(3):
        policy.decide("nothing seen.", np.random.default_rng(0))
        policy.model.features(["nothing seen."])


def main() -> None:
    process.main(PolicyNode)


if __name__ == "__main__":
    main()
