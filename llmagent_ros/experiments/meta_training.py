"""Meta-training: episodes of all members of a family, and from their replays an initial adapter and critic.

OUT/meta.json          what was asked for (`MetaTrainConfig`)
OUT/bundles/           the initial adapter and critic, the newest few: `llmagent train --start` begins with one
OUT/tasks/NN/          the replay of a member
OUT/tasks/experience/  a copy of the replay that it begins with
OUT/checkpoint/        to go on with
OUT/episodes.csv, summary.json, tensorboard/, learning_curve.png
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config as configuration
from llmagent_ros.bundle import next_bundle, prune_bundles
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import families
from llmagent_ros.experiments.calibrated import CalibratedText
from llmagent_ros.experiments.environments import DEFAULT_ROBOT, EnvironmentSpec, make_environment
from llmagent_ros.experiments.training import BUNDLES, CHECKPOINT, REPLAY, TRAINING_SEEDS, new_run
from llmagent_ros.learning.meta.meta_learner import MetaLearner
from llmagent_ros.learning.meta.methods import MetaConfig
from llmagent_ros.learning.meta.turns import Turns, TurnsBy
from llmagent_ros.learning.rl import checkpoint
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.rl.replay_copy import copy_replay
from llmagent_ros.learning.standing import start_with
from llmagent_ros.optimiser_state import part
from llmagent_ros.perception.gymnasium_text import TextEnvironment
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.recording.recorder import RecorderConfig, RunRecorder
from llmagent_ros.types import Transition

CONFIG, TASKS, EXPERIENCE = "meta.json", "tasks", "experience"
_KEPT = 3  # bundles
_PREPARED = 64  # scenes whose features are computed as one batch


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class MetaTrainConfig:
    """One run of meta-training; OUT/meta.json holds it.

    Attributes:
        family, robot: whose members to learn from. steps: of all environments together. seed: of everything drawn.
        start: a bundle to begin with, such as that of a skill of the unchanged robot; empty for none.
        experience: folder of a run whose replay is a task to learn from as well, such as the one that made `start`, so
            that what it can do is not unlearned; empty for none.
        calibrate: see `TrainConfig`: what is left to learn is what the phrases of a member cannot make up for.
        turns: which member is next; see `Turns`.
        ready: transitions of a member before it is learned from. Nothing is learned in the first round of all members:
            from two or three of them alone it would unlearn the rest.
        deploy_every: critic updates after which what was learned counts as deployed.
    """

    family: str
    robot: str = DEFAULT_ROBOT
    steps: Annotated[int, Field(gt=0)] = 40_000
    seed: Annotated[int, Field(ge=0)] = 0
    start: str = ""
    experience: str = ""
    calibrate: bool = False
    turns: TurnsBy = "need"
    meta: MetaConfig = Field(default_factory=MetaConfig)
    model: LanguageModelConfig = Field(default_factory=LanguageModelConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    ready: Annotated[int, Field(gt=0)] = 128
    deploy_every: Annotated[int, Field(gt=0)] = 400
    threads: Annotated[int, Field(gt=0)] = 1


class MetaTrainer:
    """Acts by what it has learned of all members, in one after the other, and learns from all their replays.

    A folder with a checkpoint is gone on with, exactly: episodes depend on (seed, episode) and the state alone.

    Args:
        on_episode: called with (episode, member, success, return, steps, reason, seconds).
    """

    def __init__(
        self,
        config: MetaTrainConfig,
        out: Path,
        on_episode: Callable[[int, str, bool, float, int, str, float], None] | None = None,
    ) -> None:
        self.config, self.out, self._on_episode = config, out, on_episode
        self.run = new_run(out.name)  # in the keys of all transitions
        torch.set_num_threads(config.threads)
        family = families.load_family(config.family)
        self.members = list(family.members("train"))
        self._envs: dict[int, TextEnvironment] = {}
        self._measured: dict[str, Any] = {}  # by the number of a member: of its robot, when its environment was made
        first = self._env(0)
        self.phrases, self._reward_scale = first.phrases, first.reward_scale
        self.model = LanguageModel(config.model, self.phrases)
        self._begun_with = [self._experience()] if config.experience else []
        self.replays = [
            Replay(out / TASKS / f"{number:02d}" / REPLAY, self.phrases) for number in range(len(self.members))
        ]
        self.turns = Turns(len(self.members), config.turns, config.seed)
        mirror = next((m for n in range(len(self.members)) if (m := self._env(n).mirror)), None)
        learner = Learner(config.learner, self.replays[0], self.model, config.seed, mirror if family.mirror else None)
        total = int(config.steps * config.learner.updates_per_step)
        replays = [*self.replays, *self._begun_with]
        self.meta = MetaLearner(learner, replays, config.meta, seed=config.seed, ready=config.ready, total=total)
        self.learner = learner
        self.policy = TextPolicy(self.model)
        self.policy.swap(None, learner.average.values, beta=config.learner.beta, name="meta-learning")
        self.env_steps = self.episode = 0
        self.stats: dict[str, float] = {}
        if checkpoint.exists(out / CHECKPOINT):
            self._resume()
            return
        if config.start:
            start_with(self.learner, Path(config.start))
            self.policy.beta = self.learner.beta
        self._checkpoint()  # killed before the next one it goes on from here

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.env_steps >= self.config.steps

    def run_episode(self) -> None:
        """One episode of the member whose turn it is, and the updates that are due then.

        Raises:
            DivergenceError: a loss exploded; the bundle on disk is the last good state.
        """
        number = self.turns.next(self.episode)
        began = time.monotonic()
        steps, info = self._act(number)
        self.learner.turn_to(self.replays[number])
        self.learner.observe(steps)
        self.env_steps += len(steps)
        success, reason = bool(info.get("success", False)), str(info.get("reason", ""))
        self.turns.tell(number, success)
        self.episode += 1
        self._learn()
        if self._on_episode is not None:
            total = sum(each.reward for each in steps) / self._reward_scale
            seconds = time.monotonic() - began
            self._on_episode(self.episode - 1, self.members[number], success, total, len(steps), reason, seconds)

    def save(self) -> None:
        """Checkpoint and bundle. Between episodes only."""
        self.learner.export(next_bundle(self.out / BUNDLES), {"family": self.config.family})
        self._checkpoint()
        prune_bundles(self.out / BUNDLES, _KEPT, set())

    def close(self) -> None:
        """Releases environments and replays."""
        for env in self._envs.values():
            env.close()
        for replay in (*self.replays, *self._begun_with):
            replay.close()

    # --- inside ----------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        tensors, meta = self.meta.state()
        callers = {
            "env_steps": self.env_steps,
            "episode": self.episode,
            "run": self.run,
            "transitions": [len(replay) for replay in self.replays],
            "meta": meta,
            "turns": self.turns.state(),
            "calibrations": self._calibrations(),
        }
        self.learner.turn_to(self.replays[0])
        for replay in (*self.replays, *self._begun_with):
            replay.sync()
        self.learner.save(self.out / CHECKPOINT, callers, tensors)

    def _experience(self) -> Replay:
        """The replay that is learned from as well."""
        source, own = Path(self.config.experience) / REPLAY, self.out / TASKS / EXPERIENCE / REPLAY
        if not own.exists():
            if not source.is_file():
                raise ConfigError(f"experience {self.config.experience}: no folder of a run; it has no {REPLAY}")
            copy_replay(source, own)
        return Replay(own, self.phrases)

    def _env(self, number: int) -> TextEnvironment:
        if number not in self._envs:
            spec = EnvironmentSpec(f"{self.config.family}{families.SEPARATOR}{self.members[number]}", self.config.robot)
            env = make_environment(spec)
            if self.config.calibrate:
                env = CalibratedText(env, self._measured.get(str(number)))
            self._envs[number] = env
        return self._envs[number]

    def _calibrations(self) -> dict[str, Any]:
        """What was measured of the members' robots."""
        made = {str(n): env.calibration.state() for n, env in self._envs.items() if isinstance(env, CalibratedText)}
        return self._measured | made

    def _act(self, number: int) -> tuple[list[Transition], dict[str, Any]]:
        env = self._env(number)
        rng = np.random.default_rng([self.config.seed, self.episode])
        scene, info = env.reset(seed=int(rng.integers(TRAINING_SEEDS)))
        steps: list[Transition] = []
        ended = False
        while not ended:
            decision = self.policy.decide(scene, rng, head=self.episode, sayable=env.sayable)
            following, reward, terminated, truncated, info = env.step(env.phrases.index(decision.action))
            steps.append(
                Transition(
                    *(self.run, self.episode, len(steps), env.task, scene, decision.action),
                    *(float(reward) * env.reward_scale, following, terminated, truncated),
                    log_probability=decision.log_probability,
                    stamp=float(self.env_steps + len(steps)),
                )
            )
            scene, ended = following, terminated or truncated
        return steps, info

    def _learn(self) -> None:
        while self.meta.prepare(_PREPARED):
            pass
        due = int(self.env_steps * self.config.learner.updates_per_step)
        if self.episode < len(self.members) or not self.meta.tasks():
            return
        if not self.meta.updates:  # what came before there was enough to learn from is not made up for
            self.meta.updates = max(0, due - int(self.config.ready * self.config.learner.updates_per_step))
        while self.meta.updates + self.meta.method.updates <= due:
            before = self.meta.updates
            self.stats |= self.meta.update()
            if before // self.config.deploy_every != self.meta.updates // self.config.deploy_every:
                self.learner.deploy()
        self.policy.beta = self.learner.beta

    def _resume(self) -> None:
        facts = self.learner.load(self.out / CHECKPOINT)
        self.policy.beta = self.learner.beta
        self.env_steps, self.episode = int(facts["env_steps"]), int(facts["episode"])
        self.run = str(facts.get("run", f"seed {self.config.seed}"))  # as runs of before had it
        for replay, transitions in zip(self.replays, facts["transitions"], strict=True):
            replay.rewind(int(transitions))  # what came after is made again, the same
        tensors, _ = checkpoint.load(self.out / CHECKPOINT, self.model.feature_digest)
        self.meta.load_state(part(tensors, "caller"), facts["meta"])
        self.turns.load_state(facts["turns"])
        self._measured = facts.get("calibrations", {})  # runs of before have none
        for env in self._envs.values():  # made before anything was known of their robots
            env.close()
        self._envs.clear()


def read_config(out: Path) -> MetaTrainConfig | None:
    """What the run of a folder was asked for; None where there is none."""
    path = out / CONFIG
    if not path.exists():
        return None
    return configuration.build(MetaTrainConfig, json.loads(path.read_text(encoding="utf-8")), str(path))


def meta_train(
    config: MetaTrainConfig, out: Path, *, save_every: int = 2000, say: Callable[[str], None] | None = None
) -> dict[str, Any] | None:
    """Meta-trains to the end, or on from the last checkpoint; returns the summary as written.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    known = read_config(out)
    if known is not None:
        before = dataclasses.asdict(dataclasses.replace(known, steps=config.steps))
        if other := configuration.differences(before, dataclasses.asdict(config)):
            told = ", ".join(other)
            raise ConfigError(f"{out}: holds a run of meta-training with other settings: {told}; choose another --out")
    recorder = RunRecorder(RecorderConfig(out=out, seed=config.seed, model=config.model.model, decisions_mb=0.0))
    complete = False
    try:
        _run(config, out, recorder, save_every, say)
        complete = True
    finally:
        summary = recorder.finish(complete=complete)
    return summary


def _run(
    config: MetaTrainConfig, out: Path, recorder: RunRecorder, save_every: int, say: Callable[[str], None] | None
) -> None:
    def on_episode(
        episode: int, member: str, success: bool, total: float, steps: int, reason: str, seconds: float
    ) -> None:
        recorder.on_learner(trainer.learner.updates, trainer.stats)
        recorder.on_episode_end(episode, success, total, steps, reason, seconds, member)
        if say is not None:
            said = reason or ("success" if success else "")
            say(f"step {trainer.env_steps:,} of {config.steps:,}, episode {episode}, {member}: {said}, {total:.2f}")

    trainer = MetaTrainer(config, out, on_episode)
    write_atomic(out / CONFIG, (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())
    saved = trainer.env_steps
    try:
        while not trainer.done:
            trainer.run_episode()
            if trainer.env_steps - saved >= save_every:
                trainer.save()
                saved = trainer.env_steps
        trainer.save()
    finally:
        trainer.close()
