"""Scenes to decisions and commands: the language model acts, one instruction at a time."""

from __future__ import annotations

import math
import threading
import time
import uuid
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from geometry_msgs.msg import TwistStamped
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from std_msgs.msg import String

from llmagent_interfaces.msg import Adapter, Outcome, Scene
from llmagent_interfaces.srv import SetTask
from llmagent_ros.bundle import latest_bundle
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.learning.rl.critic import build_critic
from llmagent_ros.nodes import common, qos
from llmagent_ros.nodes.bundle_loader import BundleLoader
from llmagent_ros.nodes.goals import GoalServer
from llmagent_ros.nodes.policy_outputs import PolicyOutputs
from llmagent_ros.nodes.retrieval import Retrieval
from llmagent_ros.nodes.wire import decisions, sensors
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.perception.text import clean_instruction
from llmagent_ros.policy.deployment import Deployment, read_deployment
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.policy.trace import EpisodeTrace
from llmagent_ros.types import Decision as DecisionValue
from llmagent_ros.types import Outcome as OutcomeValue
from llmagent_ros.types import Source, Velocity

TELEOP_TIMEOUT = 0.5  # s of wall time after which a person's command no longer counts; as in the guard
WATCH_PERIOD = 0.1  # s of wall time
REPORT_PERIOD = 1.0  # s of wall time between two diagnostics
LAST_SCENE_TIMEOUT = 1.0  # s of wall time that the end of an episode waits for its last scene


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class PolicyNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path. seed: of the choices. out: folder of the run.
        model, device, dtype, rank: of the language model and its adapter; see LanguageModelConfig.
        bundle: folder of a bundle to start from; empty: the newest in OUT/bundles, if there is one.
        greedy: always the most probable phrase.
        lessons: how many retrieved lessons go into the prompt. skills: how many skills are asked for.
        retrieve_timeout: s of wall time to wait for the knowledge node at the start of a task.
        stepwise: whether an outcome comes for every control period (simulation).
        threads: of torch on the CPU. autostart: configure and activate at once.
    """

    robot: str = "sim_diffdrive"
    seed: Annotated[int, Field(ge=0)] = 0
    out: str = "runs/default"
    model: str = ""
    device: str = "auto"
    dtype: str = "auto"
    rank: Annotated[int, Field(gt=0)] = 8
    bundle: str = ""
    greedy: bool = False
    lessons: Annotated[int, Field(ge=0, le=5)] = 2
    skills: Annotated[int, Field(ge=0, le=20)] = 3
    retrieve_timeout: Annotated[float, Field(gt=0)] = 1.0
    stepwise: bool = True
    threads: Annotated[int, Field(gt=0)] = 1
    autostart: bool = True


@plain_dataclass
class _Work:
    """The instruction that is worked on."""

    id: str
    instruction: str
    episode: int
    trace: EpisodeTrace
    time_limit: float
    started: float | None = None  # stamp of its first scene, s
    lessons: tuple[str, ...] = ()
    ended_at: float | None = None  # wall time of its last outcome


class PolicyNode(common.ManagedNode):
    """Lifecycle: the model loads in configure, commands flow only while active, zero is the last thing sent.

    Action execute_task, service and topic set_task. The model runs in a thread of its own, so that services, cancel
    and pre-emption are answered while it thinks.
    """

    def __init__(self) -> None:
        super().__init__("policy")
        self._config = common.parameters(self, PolicyNodeConfig)
        self._contract = load_contract(self._config.robot)
        self._run = f"{Path(self._config.out).name}-{uuid.uuid4().hex[:8]}"
        self._policy: TextPolicy | None = None
        self._active = False
        self._teleop = (-math.inf, Velocity())  # wall time and value of a person's last command
        self._work: _Work | None = None
        self._episodes = 0
        self._changed = threading.Condition()  # guards _work, _scene, _active
        self._scene: Scene | None = None
        self._thread: threading.Thread | None = None
        self._loader = BundleLoader(self, self._read_bundle)
        self._make_topics()
        self.starts_itself = self._config.autostart

    def _make_topics(self) -> None:
        self._outputs = PolicyOutputs(self, self._contract)
        self._diagnostics = common.Diagnostics(self)
        self.create_subscription(Scene, "scene", self._on_scene, qos.COMMAND)
        self.create_subscription(Outcome, "outcome", self._on_outcome, qos.OUTCOME)
        self.create_subscription(Adapter, "adapter", self._on_adapter, qos.LATEST)
        self.create_subscription(TwistStamped, "cmd_vel_teleop", self._on_teleop, qos.COMMAND)
        self.create_subscription(String, "set_task", self._on_set_task_topic, qos.COMMAND)
        self.create_service(SetTask, "set_task", self._on_set_task)
        self._goals = GoalServer(self, accept=lambda: self._active, start=self._begin, cancel=self._cancel)
        self._retrieval = Retrieval(self, self._config.skills, self._contract.robot, self._config.retrieve_timeout)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCH_PERIOD, self._watch, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    # --- lifecycle ----------------------------------------------------------------------------------

    def configure(self) -> None:
        torch.set_num_threads(self._config.threads)
        c = self._config
        language = LanguageModelConfig(model=c.model, device=c.device, dtype=c.dtype, rank=c.rank)
        model = LanguageModel(language, self._contract.phrases)
        self._policy = TextPolicy(model)
        start = Path(c.bundle) if c.bundle else latest_bundle(Path(c.out) / "bundles")
        if start is not None:
            self._swap(self._read_bundle(start))
        _warm_up(self._policy)
        facts = model.describe()
        self.get_logger().info(
            f"{facts['model']}: {facts['parameters']:,} parameters, {facts['adapter_parameters']:,} in the adapter, "
            f"on {model.device}, acting by {self._policy.adapter}"
        )

    def activate(self) -> None:
        self._active = True
        self._thread = self.work(self._decide_forever, "decide")

    def deactivate(self) -> None:
        if not self._active:
            return
        with self._changed:
            self._active = False
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._finish("aborted", success=False)
        self._outputs.stop()

    def cleanup(self) -> None:
        self._policy = None

    def close(self) -> None:
        super().close()
        self._loader.close()

    # --- tasks -----------------------------------------------------------------------------------------

    def _on_set_task_topic(self, message: String) -> None:
        if self._active and clean_instruction(message.data):
            self._begin(message.data, 0.0)

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        if not self._active or not clean_instruction(request.instruction):
            response.message = "the policy is not active" if not self._active else "the instruction is empty"
            return response
        response.ok, response.task_id = True, self._begin(request.instruction, 0.0)
        return response

    def _begin(self, instruction: str, time_limit: float) -> str:
        """Takes up an instruction, which pre-empts the one before; returns its id."""
        self._finish("preempted", success=False)
        trace = EpisodeTrace(self._run, self._episodes, stepwise=self._config.stepwise)
        work = _Work(uuid.uuid4().hex, clean_instruction(instruction), self._episodes, trace, time_limit)
        self._episodes += 1
        with self._changed:
            self._work = work
        self._retrieval.ask(work.instruction, lambda lessons: self._announce(work, lessons))
        return work.id

    def _announce(self, work: _Work, lessons: tuple[str, ...]) -> None:
        """The skills are here (or not in time): perception may build scenes for the task."""
        if self._work is not work:
            return
        work.lessons = lessons[: self._config.lessons]
        self._outputs.task(work.id, work.instruction, work.episode)

    def _cancel(self) -> None:
        self._finish("cancelled", success=False)
        self._outputs.stop()

    def _finish(self, reason: str, *, success: bool) -> None:
        with self._changed:
            work, self._work, self._scene = self._work, None, None
            if work is None:
                return
            self._outputs.transitions(work.trace.flush())
        self._outputs.task("", "", work.episode)
        self._goals.finish(success=success, reason=reason, total_reward=work.trace.total_reward, steps=work.trace.steps)

    # --- what comes in ------------------------------------------------------------------------------------

    def _on_scene(self, message: Scene) -> None:
        with self._changed:
            work = self._work
            if work is None or message.task_id != work.id or not self._active:
                return
            if work.trace.ended is not None or self._out_of_time(work, message):
                self._outputs.transitions(work.trace.on_scene(decisions.scene_from_message(message)))
            else:
                self._scene = message
                self._changed.notify_all()
                return
        self._finish_if_complete(work)

    def _out_of_time(self, work: _Work, message: Scene) -> bool:
        stamp = to_seconds(message.header.stamp)
        if work.started is None:
            work.started = stamp
        if work.time_limit <= 0 or stamp - work.started < work.time_limit or work.trace.steps == 0:
            return False
        work.trace.on_outcome(stamp, OutcomeValue(0.0, truncated=True, reason="timeout"))
        return True

    def _on_outcome(self, message: Outcome) -> None:
        with self._changed:
            work = self._work
            stamp = to_seconds(message.header.stamp)
            if work is None or work.started is None or stamp <= work.started:
                return  # of what was before
            outcome = decisions.outcome_from_message(message)
            self._outputs.transitions(work.trace.on_outcome(stamp, outcome))
            if outcome.ended:
                work.ended_at = time.monotonic()
                last, self._scene = self._scene, None
                if last is not None:  # came before the outcome, and was not decided on yet
                    self._outputs.transitions(work.trace.on_scene(decisions.scene_from_message(last)))
        self._finish_if_complete(work)

    def _finish_if_complete(self, work: _Work) -> None:
        ended = work.trace.ended
        if ended is not None and work.trace.complete and self._work is work:
            self._finish(ended.reason or "ended", success=ended.success)

    def _report(self) -> None:
        policy, work = self._policy, self._work
        values = {"adapter": policy.adapter if policy else "", "task": work.instruction if work else ""}
        self._diagnostics.publish("active" if self._active else "inactive", values)

    def _watch(self) -> None:
        """Bounds the wait for the last scene of an episode."""
        work = self._work
        if work is None or work.ended_at is None or work.trace.ended is None:
            return
        if time.monotonic() - work.ended_at > LAST_SCENE_TIMEOUT:
            self._finish(work.trace.ended.reason or "ended", success=work.trace.ended.success)

    def _on_teleop(self, message: TwistStamped) -> None:
        self._teleop = (time.monotonic(), sensors.velocity_from_message(message))

    def _as_driven(self, decision: DecisionValue) -> DecisionValue:
        """The decision, or what a person does instead: the guard lets that pass, so that is what is learned from."""
        since, velocity = self._teleop
        if time.monotonic() - since > TELEOP_TIMEOUT:
            return decision
        phrase = self._contract.nearest_phrase(velocity)
        probability = float(decision.probabilities[decision.candidates.index(phrase)])
        log_probability = math.log(max(probability, 1e-9))
        return replace(decision, action=phrase, log_probability=log_probability, source=Source.HUMAN)

    # --- adapters -----------------------------------------------------------------------------------------

    def _on_adapter(self, message: Adapter) -> None:
        self._loader.load(message.path, message.digest)

    def _read_bundle(self, path: Path, digest: str = "") -> Deployment:
        assert self._policy is not None, "configured"
        return read_deployment(path, self._policy.model, build_critic, digest)

    # --- the deciding thread --------------------------------------------------------------------------------

    def _decide_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._scene is not None or not self._active)
                if not self._active:
                    return
                scene, work = self._scene, self._work
                self._scene = None
            incoming = self._loader.take()
            try:
                if incoming is not None:
                    self._swap(incoming)
                if scene is not None and work is not None:
                    self._decide(scene, work)
            except LlmAgentError as error:
                self.get_logger().error(f"no decision: {error}")

    def _swap(self, new: Deployment) -> None:
        assert self._policy is not None
        self._policy.swap(new.adapter, new.values, beta=new.beta, name=new.name)

    def _decide(self, message: Scene, work: _Work) -> None:
        assert self._policy is not None
        if self._is_answered(message, work):
            return
        begin = time.perf_counter()
        rng = np.random.default_rng([self._config.seed, work.episode, work.trace.steps])
        decision = self._policy.decide(message.text, rng, lessons=work.lessons, greedy=self._config.greedy)
        compute_ms = (time.perf_counter() - begin) * 1e3
        decision = self._as_driven(decision)
        with self._changed:  # ended or pre-empted while the model was thinking: no command must go out
            if self._work is not work or not self._active:
                return
            scene, step, ended = decisions.scene_from_message(message), work.trace.steps, work.trace.ended is not None
            closed = work.trace.on_scene(scene) if ended else work.trace.on_decision(scene, decision)
            if not ended:
                self._outputs.command(message, decision.action)
            self._outputs.transitions(closed)
        if not ended:
            self._publish_decision(message, work, decision, step, compute_ms)
        self._finish_if_complete(work)

    def _is_answered(self, message: Scene, work: _Work) -> bool:
        """Whether this scene has its decision: it came again because the command was lost, which goes out again."""
        with self._changed:
            last = work.trace.last_stamp
            answered = last is not None and to_seconds(message.header.stamp) <= last
            if answered and self._work is work:
                self._outputs.repeat_command(message)
            return answered

    def _publish_decision(
        self, scene: Scene, work: _Work, decision: DecisionValue, step: int, compute_ms: float
    ) -> None:
        assert self._policy is not None
        prefix = self._policy.model.form.lessons(work.lessons)
        self._outputs.decision(
            scene, decision, run=self._run, step=step, prompt_prefix=prefix, compute_ms=compute_ms
        )
        self._goals.feedback(step=step, scene=scene.text, action=decision.action, total_reward=work.trace.total_reward)


def _warm_up(policy: TextPolicy) -> None:
    """The first passes of a model are slow; better now than at the first scene, or at the first with a critic."""
    for _ in range(3):
        policy.decide("nothing seen.", np.random.default_rng(0))
        policy.model.features(["nothing seen."])


def main() -> None:
    common.main(PolicyNode)


if __name__ == "__main__":
    main()
