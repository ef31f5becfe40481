"""Transitions to better adapters, in a process of its own."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType

from llmagent_interfaces.msg import Adapter, Task, Transition
from llmagent_ros.bundle import Bundle, latest_bundle, load_bundle
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError, DivergenceError, LlmAgentError, ModelError, StoreError
from llmagent_ros.learning import candidates
from llmagent_ros.learning.change import Alarm, ChangeConfig
from llmagent_ros.learning.gate import GateConfig
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import build_critic
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.standing import Beginning, Offer, usable
from llmagent_ros.learning.track import Track, TrackConfig
from llmagent_ros.learning.tracks import Tracks
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import ManagedNode
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.skill_exchange import SkillExchange
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.skills import beginning_from_message, beginning_from_skill
from llmagent_ros.nodes.wire.stamps import header, to_seconds
from llmagent_ros.perception.mirror import robot_mirror
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.policy.surprise import surprise
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.types import RealArray
from llmagent_ros.types import Transition as TransitionValue

REPORT_PERIOD = 0.5  # s of wall time
CHUNK = 8  # updates between two looks at what has arrived
META = "meta"  # folder of OUT in which `llmagent meta-train --runs OUT` keeps what it learns
INBOX = 20_000  # transitions that may wait to be stored
PATIENCE = 10.0  # s of wall time that a deactivation waits for the learning thread


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class LearnerNodeConfig:
    """Parameters.

    Attributes:
        robot, model, device, dtype, chat, rank: as of the policy node; both must have the same base.
        seed: of the critic's start and of sampling. out: folder of the run: replay, bundles and checkpoint go there.
        rl, gate: see LearnerConfig, GateConfig.
        max_lag: env steps by which learning may lag behind before the runner holds the next episode back.
        publish_every, keep, skill_every: see TrackConfig.
        checkpoint_period: s of wall time between two checkpoints.
        niceness: added to the learning thread's, so that the policy's control ticks come first.
        threads: of torch on the CPU. autostart: configure and activate at once.
        start: bundle that kinds of tasks begin with for which no skill is found, such as `llmagent meta-train` makes;
            empty: the newest of OUT/meta, should there be one.
        watch: whether changes of robot, sensors and world are looked for. change: see ChangeConfig.
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
    gate: GateConfig = Field(default_factory=GateConfig)
    max_lag: Annotated[int, Field(gt=0)] = 50
    publish_every: Annotated[int, Field(gt=0)] = 100
    keep: Annotated[int, Field(ge=2)] = 5
    checkpoint_period: Annotated[float, Field(gt=0)] = 60.0
    skill_every: Annotated[int, Field(ge=0)] = 10
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    threads: Annotated[int, Field(gt=0)] = 1
    start: str = ""
    watch: bool = True
    change: ChangeConfig = Field(default_factory=ChangeConfig)
    autostart: bool = True


class LearnerNode(ManagedNode):
    """Lifecycle: replay and model open in configure, learning happens only while active.

    The executor takes transitions and tasks in; one thread stores, learns, and writes bundles. Each kind of task has a
    `Track` of its own, so that learning one never changes another; what it is about says which one is open. Where robot
    or world have changed, a new one takes over, and what was learned before stays as it is.
    """

    def __init__(self) -> None:
        super().__init__("learner")
        self._config = parameters(self, LearnerNodeConfig)
        self._contract = load_contract(self._config.robot)
        c = self._config
        self._track_config = TrackConfig(c.rl, c.gate, c.publish_every, c.keep, c.skill_every, c.change)
        self._inbox: deque[TransitionValue] = deque()
        self._announced: Task | None = None
        self._wake = threading.Condition()
        self._stop = threading.Event()  # of the thread of this activation
        self._thread: threading.Thread | None = None
        self._model: LanguageModel | None = None
        self._tracks: Tracks | None = None
        self._alarm: Alarm | None = None  # for which skills were asked for
        self._stats: dict[str, float] = {}
        self._problem = ""
        self._failure: StoreError | None = None
        self._stored = 0
        self._adapter_publisher = self.create_publisher(Adapter, "adapter", qos.LATEST)
        self._diagnostics = Diagnostics(self)
        self.create_subscription(Transition, "transition", self._on_transition, qos.TRANSITION)
        self.create_subscription(Task, "task", self._on_task, qos.LATEST)
        self._skills = SkillExchange(self, self._contract.robot, self._awake)
        self.create_timer(REPORT_PERIOD, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.starts_itself = self._config.autostart

    # --- lifecycle -------------------------------------------------------------------------------------

    def configure(self) -> None:
        c = self._config
        torch.set_num_threads(c.threads)
        language = LanguageModelConfig(model=c.model, device=c.device, dtype=c.dtype, chat=c.chat, rank=c.rank)
        self._model = LanguageModel(language, self._contract.phrases)
        self._tracks = Tracks(
            Path(c.out),
            self._contract.phrases,
            self._model,
            self._track_config,
            seed=c.seed,
            mirror=robot_mirror(self._contract),
            judge=self._judge,
            surprise=partial(surprise, self._model) if c.watch else None,
            start=partial(_start, c.start, Path(c.out) / META, self._model),
        )
        track = self._tracks.current
        self.get_logger().info(
            f"replay of {len(track.replay)} transitions, {track.learner.updates} updates so far, "
            f"on {self._model.device}"
        )

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
        if self._track is not None and self._failure is None:
            self._drain()
            self._take_answers()  # or a skill that was stored would be stored anew
            self._save()
        self._thread = None

    def cleanup(self) -> None:
        if self._tracks is not None:
            self._tracks.close()
        self._tracks = self._model = None

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

    def _on_task(self, message: Task) -> None:
        if message.id:
            with self._wake:
                self._announced = message
                self._wake.notify_all()

    def _awake(self) -> None:
        with self._wake:
            self._wake.notify_all()

    # --- the learning thread ------------------------------------------------------------------------------

    def _learn_forever(self, stop: threading.Event) -> None:
        os.nice(self._config.niceness)  # on Linux of this thread alone: not of nodes composed with it
        saved_at = time.monotonic()
        while not stop.is_set():
            try:
                self._drain()
                self._take_answers()
                self._follow()
                if self._problem or not self._learn_a_little():
                    with self._wake:
                        self._wake.wait_for(lambda: self._inbox or self._announced or stop.is_set(), timeout=1.0)
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
        """Stores what has arrived, each with its kind of task; from then on it is never lost."""
        with self._wake:
            waiting = list(self._inbox)
        for wording, group in itertools.groupby(waiting, key=lambda each: self._contract.generalised(each.task)):
            self._enter(wording, self._announced_beginning(wording))
            self._observe(list(group))
        with self._wake:
            for _ in waiting:
                self._inbox.popleft()
        if any(transition.terminated or transition.truncated for transition in waiting):
            self._consider()
            self._look()

    def _observe(self, transitions: Sequence[TransitionValue]) -> None:
        assert self._track is not None
        try:
            self._stored += self._track.observe(transitions)
        except ConfigError as error:
            if len(transitions) == 1:
                self.get_logger().error(f"transition refused: {error}")
                return
            for transition in transitions:  # one is malformed: the others must not suffer for it
                self._observe([transition])

    def _learn_a_little(self) -> bool:
        """Some features, or a few updates, if any are due; publishes a bundle when it is time."""
        assert self._track is not None
        if self._track.learner.prepare():
            return True
        if self._notice():
            return self._begin_anew()
        due = self._track.learner.backlog > 0
        if due:
            self._stats = self._stats | self._track.learn(CHUNK)  # a new one: the executor may be reading the old
        if self._track.due:
            self._publish_bundle(*self._track.export(self._facts()))
        return due

    def _save(self) -> None:
        if self._track is not None:
            self._track.save()

    # --- tracks -------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Turns to the kind of task that was announced, beginning with the skills that were found for it."""
        with self._wake:
            task, self._announced = self._announced, None
        if task is None:
            return
        wording = self._contract.generalised(task.instruction)
        if not self._goes_on(wording):
            self._enter(wording, self._beginning(wording, task))

    def _goes_on(self, wording: str) -> bool:
        """Whether a kind of task is learned on as it is: what is announced for it need not be read."""
        track = self._track
        return track is not None and track.wording == wording and track.settled

    def _announced_beginning(self, wording: str) -> Beginning:
        """With what a kind of task begins whose first transition is here before its announcement was looked at."""
        with self._wake:
            task = self._announced
        if task is None or self._contract.generalised(task.instruction) != wording or self._goes_on(wording):
            return Beginning()
        return self._beginning(wording, task)

    def _beginning(self, wording: str, task: Task) -> Beginning:
        assert self._model is not None
        try:
            return beginning_from_message(task.beginning, self._model)
        except LlmAgentError as error:
            self.get_logger().warning(f"{wording!r} begins with nothing: {error}")
            return Beginning()

    def _enter(self, wording: str, beginning: Beginning) -> None:
        """Turns to a kind of task, and says by what the policy acts on it."""
        assert self._tracks is not None
        why = self._tracks.enter(wording, beginning)
        if why is None:
            return
        self._alarm, self._stats = None, {}
        if why:
            self.get_logger().info(f"{wording!r}: {why}")
        self._publish_first()

    def _publish_first(self) -> None:
        """By what is acted from now on; where nothing was learned yet, the policy knows itself."""
        track = self._track
        assert track is not None
        if track.version:
            folder = track.bundles / track.version
            self._publish_bundle(folder, load_bundle(folder).digest)
        elif track.begun:
            self._publish_bundle(*track.export(self._facts()))

    def _judge(self, bundle: Bundle, scenes: Sequence[str]) -> tuple[RealArray, RealArray]:
        assert self._model is not None
        policy = TextPolicy(self._model)
        critic = build_critic(bundle.critic).to(self._model.device) if bundle.critic else None
        values = None if critic is None else critic.values
        policy.swap(bundle.adapter, values, beta=float(bundle.meta["beta"]), name="judged")
        log_pi, said = policy.distribution(scenes)
        return log_pi.numpy(), said.numpy()

    def _facts(self) -> dict[str, object]:
        return {"robot": self._contract.robot, "seed": self._config.seed}

    def _publish_bundle(self, folder: Path, digest: str) -> None:
        assert self._track is not None
        learner = self._track.learner
        message = Adapter(name=folder.name, path=str(folder.resolve()), digest=digest, wording=self._track.wording)
        message.header = header(to_seconds(self.get_clock().now().to_msg()))
        message.base = learner.model.base_digest
        message.env_steps, message.updates = len(learner.replay), learner.updates
        self._adapter_publisher.publish(message)

    # --- changes -------------------------------------------------------------------------------------------

    def _notice(self) -> bool:
        """Whether robot or world have changed, and nothing was begun anew yet."""
        assert self._track is not None
        alarm = self._track.notice()
        if alarm is not None and self._alarm is None:
            self.get_logger().warning(f"{self._track.wording!r}: a change was noticed: {alarm}")
            self._skills.find(self._track.wording)
        self._alarm = alarm
        return alarm is not None

    def _begin_anew(self) -> bool:
        """A new track takes over, with what explains best what was seen since the change; the one before stays.

        Returns:
            False while the knowledge node may still say which skills there are.
        """
        skills = self._skills.found()
        if skills is None:
            return False
        assert self._tracks is not None and self._alarm is not None and self._model is not None
        beginnings = []
        for message in skills:
            try:
                beginnings.append(beginning_from_skill(message, self._model))
            except ModelError as error:
                self.get_logger().warning(f"skill {message.id} is no beginning: {error}")
        why = self._tracks.begin_anew(self._alarm, [each for each in beginnings if each is not None])
        self.get_logger().info(f"{self._tracks.current.wording!r}: {why}")
        self._alarm, self._stats = None, {}
        self._publish_first()
        return True

    # --- candidates ----------------------------------------------------------------------------------------

    def _consider(self) -> None:
        """Takes up the first of the bundles that were offered to this run, if it is for this kind of task, or not."""
        assert self._track is not None
        wording = self._track.wording
        for folder in candidates.waiting(Path(self._config.out)):
            if candidates.wording(folder) not in ("", wording):
                continue
            ruling = self._track.consider(folder)
            candidates.decide(folder, ruling, wording)
            self.get_logger().info(f"candidate {folder.name} for {wording!r}, {ruling.says}: {ruling.why}")
            if ruling.says == "accept":
                self._publish_bundle(*self._track.export({**self._facts(), "candidate": folder.name}))
            return

    # --- the skill -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Offers a version to the knowledge node when the gate lets it; a missing node is no reason not to learn."""
        assert self._track is not None
        if not self._skills.ready:
            return
        ruling = self._track.look()
        if isinstance(ruling, Offer):
            self._skills.offer(ruling)
        elif ruling is not None:
            self.get_logger().info(f"skill {self._track.wording!r}, {ruling.says}: {ruling.why}")
            if ruling.says == "take back":
                self._publish_bundle(*self._track.export(self._facts()))

    def _take_answers(self) -> None:
        """What the knowledge node said to offers, each to the track that made it."""
        for offer, response in self._skills.answers():
            if not response.ok:
                self.get_logger().warning(f"skill not stored: {response.message}")
            gone = offer.skill_id and response.message.startswith(f"unknown skill {offer.skill_id!r}")
            if response.ok or gone:  # gone: of another store, or deleted there; the next one is a new skill
                assert self._tracks is not None
                self._tracks.confirm(offer, response.id if response.ok else "")

    # --- reports ----------------------------------------------------------------------------------------------

    @property
    def _track(self) -> Track | None:
        return None if self._tracks is None else self._tracks.current

    @property
    def _learner(self) -> Learner | None:
        return None if self._track is None else self._track.learner

    def _report(self) -> None:
        track = self._track
        if track is None:
            return
        learner = track.learner
        values: dict[str, object] = {
            "env_steps": len(learner.replay),
            "stored": self._stored,
            "updates": learner.updates,
            "actor_updates": learner.actor_updates,
            "backlog": 0 if self._problem else learner.backlog,
            "backlog_limit": int(self._config.max_lag * learner.config.updates_per_step),
            "adapter": track.version,
            "demonstrations": learner.replay.demonstrations,
        }
        values |= {name: f"{value:.6g}" for name, value in self._stats.items()}
        adapting = track.standing.changed if not track.standing.deployed else ""
        level = DiagnosticStatus.WARN if adapting else DiagnosticStatus.OK
        level = DiagnosticStatus.ERROR if self._problem else level
        message = f"adapting to a change: {adapting}" if adapting else "learning"
        self._diagnostics.publish(self._problem or message, values, level=level)


def _start(path: str, meta: Path, model: LanguageModel) -> Beginning:
    """What tasks begin with for which no skill is found. meta: folder of what was meta-learned beside this run.

    Raises:
        ModelError: the one at `path` is damaged, or of another base.
    """
    folder = Path(path) if path else latest_bundle(meta / "bundles")
    if folder is None:
        return Beginning(why="begins with the initial adapter")
    try:
        bundle = load_bundle(folder)
        critic, adapter = usable(bundle, model)
    except ModelError as error:
        if path:
            raise
        return Beginning(why=f"begins with the initial adapter: {error}")  # it is another process's
    if path and critic is None and adapter is None:
        raise ModelError(f"start {path}: made for another base model or prompt")
    return Beginning(critic, adapter, why=f"begins with {folder}", beta=bundle.beta)


def main() -> None:
    process.main(LearnerNode)


if __name__ == "__main__":
    main()
