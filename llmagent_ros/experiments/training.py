"""The learning loop without ROS: one environment, one model, one process, repeatable to the bit."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.bundle import next_bundle, prune_bundles
from llmagent_ros.experiments.calibrated import CalibratedText
from llmagent_ros.experiments.environments import DEFAULT_ROBOT, EnvironmentSpec, make_environment
from llmagent_ros.learning.rl import checkpoint
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.standing import start_with
from llmagent_ros.perception.calibration import Calibration
from llmagent_ros.perception.gymnasium_text import DescribedText, TextEnvironment
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.policy.prompt import PromptFormat
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.simulation.teachers import teacher
from llmagent_ros.types import Decision, RealArray, Source, Transition

TRAINING_SEEDS = 1_000_000  # episodes are reset with seeds below; those of logs and evaluations lie above
CHECKPOINT, BUNDLES, REPLAY = "checkpoint", "bundles", "replay.sqlite"
_KEPT = 3  # bundles
_PREPARED = 64  # scenes whose features are computed as one batch


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class TrainConfig:
    """One training run; OUT/train.json holds it.

    Attributes:
        environment, robot: see `EnvironmentSpec`. steps: of the environment. seed: of everything that is drawn.
        demonstrations: episodes that the environment's scripted teacher shows first; their steps do not count.
        start: a bundle to begin with, empty for none; its critic counts only where the phrases are the same.
        model: the base and its adapter. learner: see `LearnerConfig`.
        prompt: the words around a scene; None: those that the base was made for.
        calibrate: measures what each phrase does on this robot; see `perception.calibration`.
        critic_acts: False leaves the choice to the language model and its adapter, which the critic teaches.
        burst: environment steps between two looks of the learner at what is new.
        deploy_every: critic updates after which what was learned counts as deployed.
        threads: of torch on the CPU; the last digits of sums depend on it.
    """

    environment: str
    robot: str = DEFAULT_ROBOT
    steps: Annotated[int, Field(gt=0)] = 20_000
    seed: Annotated[int, Field(ge=0)] = 0
    demonstrations: Annotated[int, Field(ge=0)] = 0
    start: str = ""
    model: LanguageModelConfig = Field(default_factory=LanguageModelConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    prompt: PromptFormat | None = None
    calibrate: bool = False
    critic_acts: bool = True
    burst: Annotated[int, Field(gt=0)] = 4
    deploy_every: Annotated[int, Field(gt=0)] = 100
    threads: Annotated[int, Field(gt=0)] = 1

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(self.environment, self.robot)


def new_run(name: str) -> str:
    """An id of a run that no other has, so that the transitions of several can be put together."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


class Trainer:
    """Acts, stores, learns. A folder with a checkpoint is gone on with.

    What is exact: environment and choices of an episode depend on (seed, episode) and the learner's state alone, and
    checkpoints are made between episodes, so a run that was interrupted ends as if it had not been.

    Args:
        out: folder of the run, made if missing.
        on_step: called after each step of the environment with the trainer.
        on_episode: called with (episode, success, return, steps, reason, seconds).
        on_decision: called with (decision, milliseconds, episode).
        on_transition: called with (transition, decision, milliseconds) of each step, `stamp` being its number.
        meta: what bundles are to say besides.
        name: of the run; empty: that of the folder. With something random after it, it is in the keys of transitions.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        *,
        on_step: Callable[[Trainer], None] | None = None,
        on_episode: Callable[[int, bool, float, int, str, float], None] | None = None,
        on_decision: Callable[[Decision, float, int], None] | None = None,
        on_transition: Callable[[Transition, Decision, float], None] | None = None,
        meta: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self.config, self.out = config, out
        self._name = name or out.name
        self.run = new_run(self._name)
        self._meta = {"environment": config.environment, **(meta or {})}
        self._on_step, self._on_episode, self._on_decision = on_step, on_episode, on_decision
        self._on_transition = on_transition
        torch.set_num_threads(config.threads)
        self.env = make_environment(config.spec)
        if config.calibrate:
            self.env = CalibratedText(self.env)
        self.model = LanguageModel(config.model, self.env.phrases, config.prompt)
        self.replay = Replay(out / REPLAY, self.env.phrases)
        self.learner = Learner(config.learner, self.replay, self.model, config.seed, self.env.mirror)
        self.policy = TextPolicy(self.model)
        values = self.learner.average.values if config.critic_acts else None
        disagreement = config.learner.disagreement
        self.policy.swap(None, values, beta=config.learner.beta, name="learning", disagreement=disagreement)
        self.env_steps = 0
        self.episode = 0
        self.stats: dict[str, float] = {}
        self.recent_returns: deque[float] = deque(maxlen=20)
        self._pending: list[Transition] = []
        self._target = config.steps
        if checkpoint.exists(out / CHECKPOINT):
            self._resume()
            return
        if config.start:
            start_with(self.learner, Path(config.start))
            self.policy.beta = self.learner.beta
        if config.demonstrations:
            self._demonstrate()
        self.learner.save(out / CHECKPOINT, self._position())  # killed before the next one it goes on from here

    def run_episode(self) -> None:
        """One episode; the last one of a run ends where the steps of the configuration do.

        Raises:
            DivergenceError: a loss exploded; the bundle on disk is the last good state.
        """
        self._run_episode()
        self.episode += 1

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.env_steps >= self._target

    def stop(self) -> None:
        """No further step, whatever the configuration says."""
        self._target = self.env_steps

    def extend(self, steps: int) -> None:
        """So many steps from now on, whatever the configuration says."""
        self._target = self.env_steps + steps

    def branch(self) -> None:
        """What comes is another run, which goes on with what this one learned: its episodes, and so its worlds, are
        counted from the first again.
        """
        self.run, self.episode = new_run(self._name), 0

    def save(self) -> None:
        """Checkpoint and bundle. Between episodes only."""
        self._learn()
        measured = {} if self.calibration is None else {"calibration": self.calibration.state()}
        self.learner.export(next_bundle(self.out / BUNDLES), self._meta | measured)
        self.learner.save(self.out / CHECKPOINT, self._position())  # after: the bundle counts as deployed in it
        prune_bundles(self.out / BUNDLES, _KEPT, set())

    def close(self) -> None:
        """Releases the environment and the replay."""
        self.env.close()
        self.replay.close()

    def log_probabilities(self, scenes: Sequence[str]) -> RealArray:
        """The policy as it is now, for `evaluate`."""
        return self.policy.distribution(scenes)[0].numpy()

    @property
    def calibration(self) -> Calibration | None:
        """Of the robot, where it is calibrated."""
        return self.env.calibration if isinstance(self.env, CalibratedText) else None

    def seen_as(self, env: TextEnvironment) -> TextEnvironment:
        """An environment as the policy sees its own now, for `evaluate`."""
        return env if self.calibration is None else CalibratedText(env, self.calibration.state(), keep=False)

    # --- inside ----------------------------------------------------------------------------------------

    def _run_episode(self) -> None:
        rng = np.random.default_rng([self.config.seed, self.episode])
        scene, _ = self.env.reset(seed=int(rng.integers(TRAINING_SEEDS)))
        began, total, step, ended = time.monotonic(), 0.0, 0, False
        info: Mapping[str, Any] = {}
        while not ended and not self.done:
            asked = time.monotonic()
            decision = self.policy.decide(scene, rng, head=self.episode, sayable=self.env.sayable)
            milliseconds = 1e3 * (time.monotonic() - asked)
            if self._on_decision is not None:
                self._on_decision(decision, milliseconds, self.episode)
            action = self.env.phrases.index(decision.action)
            following, reward, terminated, truncated, info = self.env.step(action)
            decision = dataclasses.replace(decision, said=self.env.said)
            transition = Transition(
                *(self.run, self.episode, step, self.env.task, scene, decision.action),
                *(float(reward) * self.env.reward_scale, following, terminated, truncated),
                log_probability=decision.log_probability,
                stamp=float(self.env_steps),
            )
            self._pending.append(transition)
            if self._on_transition is not None:
                self._on_transition(transition, decision, milliseconds)
            scene, total, step, ended = following, total + float(reward), step + 1, terminated or truncated
            self.env_steps += 1
            if self.env_steps % self.config.burst == 0 or ended:
                self._learn()
            if self._on_step is not None:
                self._on_step(self)
        if ended:
            self.recent_returns.append(total)
        if ended and self._on_episode is not None:
            seconds = time.monotonic() - began
            self._on_episode(self.episode, bool(info["success"]), total, step, str(info.get("reason", "")), seconds)

    def _demonstrate(self) -> None:
        """Stores the teacher's episodes; their scenes are those of no other episode.

        Where the environment's description says so, a share of the steps is random, and not to be imitated: so the
        teacher shows how to recover as well (DART, Laskey et al. 2017).
        """
        act = teacher(self.env)
        noise = self.env.description.teacher_noise if isinstance(self.env, DescribedText) else 0.0
        for episode in range(self.config.demonstrations):
            rng = np.random.default_rng([self.config.seed, episode, 1])
            scene, _ = self.env.reset(seed=int(rng.integers(TRAINING_SEEDS)))
            step, ended = 0, False
            while not ended:
                action, source = act(self.env.observation), Source.SCRIPT
                if rng.random() < noise:
                    action, source = int(rng.integers(len(self.env.phrases))), Source.POLICY
                following, reward, terminated, truncated, _ = self.env.step(action)
                self._pending.append(
                    Transition(
                        *(f"{self.run}, teacher", episode, step, self.env.task, scene, self.env.phrases[action]),
                        *(float(reward) * self.env.reward_scale, following, terminated, truncated, source),
                    )
                )
                scene, step, ended = following, step + 1, terminated or truncated
        self._learn()

    def _learn(self) -> None:
        self.learner.observe(self._pending)
        self._pending = []
        while self.learner.prepare(_PREPARED):
            pass
        for _ in range(self.learner.backlog):
            self.stats |= self.learner.update()
            if self.learner.updates % self.config.deploy_every == 0:
                self.learner.deploy()
        self.policy.beta = self.learner.beta

    def _position(self) -> dict[str, Any]:
        counts: dict[str, Any] = {"env_steps": self.env_steps, "episode": self.episode, "transitions": len(self.replay)}
        counts["run"] = self.run
        return counts if self.calibration is None else {**counts, "calibration": self.calibration.state()}

    def _resume(self) -> None:
        position = self.learner.load(self.out / CHECKPOINT)
        self.policy.beta = self.learner.beta
        self.env_steps, self.episode = int(position["env_steps"]), int(position["episode"])
        self.run = str(position.get("run", f"seed {self.config.seed}"))  # as runs of before had it
        self.replay.rewind(int(position["transitions"]))  # what came after is made again, the same
        if self.calibration is not None:
            self.calibration.load_state(position["calibration"])
