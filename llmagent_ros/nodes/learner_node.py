"""Transitions to better adapters, in a process of its own."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType

from llmagent_interfaces.msg import Adapter, Transition
from llmagent_interfaces.msg import Skill as SkillMessage
from llmagent_interfaces.srv import StoreSkill
from llmagent_ros.bundle import latest_bundle, load_bundle, next_bundle, prune_bundles
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError, DivergenceError, LlmAgentError, ModelError, StoreError
from llmagent_ros.learning.lessons import distil_lessons
from llmagent_ros.learning.rl import checkpoint
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import ManagedNode
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.stamps import header, to_seconds
from llmagent_ros.perception.mirror import robot_mirror
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.types import Transition as TransitionValue

REPORT_PERIOD = 0.5  # s of wall time
CHUNK = 8  # updates between two looks at what has arrived
SKILL_ID = "skill_id"  # file in OUT: a learner that is started again updates the skill of the run
INBOX = 20_000  # transitions that may wait to be stored
PATIENCE = 10.0  # s of wall time that a deactivation waits for the learning thread
TASKS = 8  # instructions that a skill names


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class LearnerNodeConfig:
    """Parameters.

    Attributes:
        robot, model, device, dtype, chat, rank: as of the policy node; both must have the same base.
        seed: of the critic's start and of sampling. out: folder of the run: replay, bundles and checkpoint go there.
        rl: see LearnerConfig.
        max_lag: env steps by which learning may lag behind before the runner holds the next episode back.
        publish_every: critic updates between two bundles. keep: bundles that stay on disk.
        checkpoint_period: s of wall time between two checkpoints.
        skill_every: episodes between two updates of the task's skill in the knowledge node; 0: never.
        niceness: added to the learning thread's, so that the policy's control ticks come first.
        threads: of torch on the CPU. autostart: configure and activate at once.
    """

    robot: str = "sim_diffdrive"
    model: str = ""
    device: str = "auto"
    dtype: str = "auto"
    chat: bool = False
    rank: Annotated[int, Field(gt=0)] = 16
    seed: Annotated[int, Field(ge=0)] = 0
    out: str = "runs/default"
    rl: LearnerConfig = Field(default_factory=LearnerConfig)
    max_lag: Annotated[int, Field(gt=0)] = 50
    publish_every: Annotated[int, Field(gt=0)] = 100
    keep: Annotated[int, Field(ge=2)] = 5
    checkpoint_period: Annotated[float, Field(gt=0)] = 60.0
    skill_every: Annotated[int, Field(ge=0)] = 10
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    threads: Annotated[int, Field(gt=0)] = 1
    autostart: bool = True


class LearnerNode(ManagedNode):
    """Lifecycle: replay and model open in configure, learning happens only while active.

    The executor takes transitions in; one thread stores them, learns, and writes bundles.
    """

    def __init__(self) -> None:
        super().__init__("learner")
        self._config = parameters(self, LearnerNodeConfig)
        self._contract = load_contract(self._config.robot)
        self._out = Path(self._config.out)
        self._inbox: deque[TransitionValue] = deque()
        self._wake = threading.Condition()
        self._stop = threading.Event()  # of the thread of this activation
        self._thread: threading.Thread | None = None
        self._learner: Learner | None = None
        self._replay: Replay | None = None
        self._stats: dict[str, float] = {}
        self._problem = ""
        self._version = ""
        self._failure: StoreError | None = None
        self._stored = 0
        self._exported_at = 0
        self._episodes, self._skill_at = 0, 0  # episodes that have ended, and how many had when a skill was stored
        known = self._out / SKILL_ID
        self._skill_id = known.read_text(encoding="utf-8").strip() if known.is_file() else ""
        self._adapter_publisher = self.create_publisher(Adapter, "adapter", qos.LATEST)
        self._diagnostics = Diagnostics(self)
        self.create_subscription(Transition, "transition", self._on_transition, qos.TRANSITION)
        self._store = self.create_client(StoreSkill, "store_skill")
        self.create_timer(REPORT_PERIOD, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.starts_itself = self._config.autostart

    # --- lifecycle -------------------------------------------------------------------------------------

    def configure(self) -> None:
        c = self._config
        torch.set_num_threads(c.threads)
        self._replay = Replay(self._out / "replay.sqlite", self._contract.phrases)
        language = LanguageModelConfig(model=c.model, device=c.device, dtype=c.dtype, chat=c.chat, rank=c.rank)
        model = LanguageModel(language, self._contract.phrases)
        self._learner = Learner(c.rl, self._replay, model, c.seed, robot_mirror(self._contract))
        if checkpoint.exists(self._checkpoint):
            self._learner.load(self._checkpoint)
        self._take_up_bundle()
        self._episodes = self._skill_at = self._replay.endings()[0]
        self.get_logger().info(
            f"replay of {len(self._replay)} transitions, {self._learner.updates} updates so far, on {model.device}"
        )

    def _take_up_bundle(self) -> None:
        """The newest bundle acts; after a death it may know more than the checkpoint, and nothing older may follow."""
        newest = latest_bundle(self._out / "bundles")
        if newest is not None:
            self._version = newest.name
            self._exported_at = int(load_bundle(newest).meta.get("updates", 0))

    def activate(self) -> None:
        stop = self._stop = threading.Event()
        self._thread = self.work(lambda: self._learn_forever(stop), "learn")

    def deactivate(self) -> None:
        if self._thread is None:
            return
        with self._wake:
            self._stop.set()
            self._wake.notify_all()
        self._thread.join(timeout=PATIENCE)
        if self._thread.is_alive():  # nothing may be stored, saved or closed beside it
            raise LlmAgentError(f"{self.get_name()}: still busy with an update; ask again")
        if self._learner is not None and self._failure is None:
            self._drain()
            self._save()
        self._thread = None

    def cleanup(self) -> None:
        if self._replay is not None:
            self._replay.close()
        self._replay = self._learner = None

    @property
    def _checkpoint(self) -> Path:
        return self._out / "learner"

    # --- what comes in ----------------------------------------------------------------------------------

    def _on_transition(self, message: Transition) -> None:
        try:
            transition = decisions.transition_from_message(message)
        except ConfigError as error:
            self.get_logger().error(f"transition refused: {error}")
            return
        with self._wake:
            if len(self._inbox) >= INBOX:
                self.get_logger().error(f"{INBOX} transitions wait to be stored; one is dropped")
                return
            self._inbox.append(transition)
            self._wake.notify_all()

    # --- the learning thread ------------------------------------------------------------------------------

    def _learn_forever(self, stop: threading.Event) -> None:
        assert self._learner is not None
        os.nice(self._config.niceness)  # on Linux of this thread alone: not of nodes composed with it
        saved_at = time.monotonic()
        while not stop.is_set():
            try:
                self._drain()
                if self._problem or not (self._learner.prepare() or self._learn_a_little()):
                    with self._wake:
                        self._wake.wait_for(lambda: self._inbox or stop.is_set(), timeout=1.0)
                if time.monotonic() - saved_at > self._config.checkpoint_period:
                    self._save()
                    saved_at = time.monotonic()
            except (DivergenceError, ModelError) as error:
                self._problem = f"learning stopped, the last good adapter acts on: {error}"
                self.get_logger().error(self._problem)
            except StoreError as error:
                self._failure = error  # the node ends: what cannot be stored must not be acknowledged
                self.get_logger().fatal(str(error))
                self.finished = 2
                return

    def _drain(self) -> None:
        """Stores what has arrived; from then on it is never lost."""
        assert self._learner is not None
        with self._wake:
            waiting = list(self._inbox)
        if not waiting:
            return
        try:
            self._stored += self._learner.observe(waiting)
        except ConfigError:
            for transition in waiting:  # one is malformed: the others must not suffer for it
                self._observe_one(transition)
        with self._wake:
            for _ in waiting:
                self._inbox.popleft()
        if any(transition.terminated or transition.truncated for transition in waiting):
            self._count_episodes()

    def _observe_one(self, transition: TransitionValue) -> None:
        assert self._learner is not None
        try:
            self._stored += self._learner.observe([transition])
        except ConfigError as error:
            self.get_logger().error(f"transition refused: {error}")

    def _count_episodes(self) -> None:
        assert self._learner is not None
        self._episodes, successes = self._learner.replay.endings()
        every = self._config.skill_every
        if every and self._episodes >= self._skill_at + every and self._version:
            self._skill_at = self._episodes
            self._store_skill(self._episodes, successes)

    def _learn_a_little(self) -> bool:
        """A few updates, if any are due; publishes a bundle when it is time."""
        assert self._learner is not None
        due = min(self._learner.backlog, CHUNK)
        for _ in range(due):
            self._stats = self._stats | self._learner.update()  # a new one: the executor may be reading the old
        if self._learner.updates - self._exported_at >= self._config.publish_every:
            self._publish_bundle()
        return due > 0

    def _publish_bundle(self) -> None:
        assert self._learner is not None
        bundles = self._out / "bundles"
        folder = next_bundle(bundles)
        digest = self._learner.export(folder, {"robot": self._contract.robot, "seed": self._config.seed})
        self._exported_at, self._version = self._learner.updates, folder.name
        message = Adapter(name=folder.name, path=str(folder.resolve()), digest=digest)
        message.header = header(to_seconds(self.get_clock().now().to_msg()))
        message.base = self._learner.model.base_digest
        message.env_steps, message.updates = len(self._learner.replay), self._learner.updates
        self._adapter_publisher.publish(message)
        prune_bundles(bundles, self._config.keep, {folder.name})

    def _save(self) -> None:
        if self._learner is not None:
            self._learner.save(self._checkpoint)

    # --- the skill -----------------------------------------------------------------------------------------

    def _store_skill(self, attempts: int, successes: int) -> None:
        """Offers what was learned so far to the knowledge node; a missing node is no reason to stop learning."""
        assert self._learner is not None
        tasks = self._learner.replay.tasks(TASKS)
        if not tasks or not self._store.service_is_ready():
            return
        asked = self._skill_id
        skill = SkillMessage(id=asked, contract=self._contract.robot, instructions=tasks)
        skill.description = f"{self._contract.robot}: {tasks[0]}"
        skill.path = str((self._out / "bundles" / self._version).resolve())
        skill.attempts, skill.successes = attempts, successes
        skill.lessons = distil_lessons(self._learner.replay.recent(2000))
        self._learner.lessons = tuple(skill.lessons)  # the policy will read them
        future = self._store.call_async(StoreSkill.Request(skill=skill))
        future.add_done_callback(lambda done: self._on_skill_stored(asked, done.result()))

    def _on_skill_stored(self, asked: str, response: StoreSkill.Response) -> None:
        if response.ok:
            self._remember_skill(response.id)
            return
        self.get_logger().warning(f"skill not stored: {response.message}")
        if asked and response.message.startswith(f"unknown skill {asked!r}"):
            self._remember_skill("")  # of another store, or deleted there: the next one is a new skill

    def _remember_skill(self, skill_id: str) -> None:
        self._skill_id = skill_id
        try:
            (self._out / SKILL_ID).write_text(skill_id, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{self._out / SKILL_ID}: cannot be written: {error.strerror}") from error

    # --- reports ----------------------------------------------------------------------------------------------

    def _report(self) -> None:
        learner = self._learner
        if learner is None:
            return
        values: dict[str, object] = {
            "env_steps": len(learner.replay),
            "stored": self._stored,
            "updates": learner.updates,
            "actor_updates": learner.actor_updates,
            "backlog": 0 if self._problem else learner.backlog,
            "backlog_limit": int(self._config.max_lag * self._config.rl.updates_per_step),
            "adapter": self._version,
            "demonstrations": learner.replay.demonstrations,
        }
        values |= {name: f"{value:.6g}" for name, value in self._stats.items()}
        level = DiagnosticStatus.ERROR if self._problem else DiagnosticStatus.OK
        self._diagnostics.publish(self._problem or "learning", values, level=level)


def main() -> None:
    process.main(LearnerNode)


if __name__ == "__main__":
    main()
