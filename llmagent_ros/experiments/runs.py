"""A training run as a folder: made by `llmagent train`, measured by `llmagent eval` from its files alone.

    OUT/train.json          what was asked for (`TrainConfig`)
    OUT/bundles/            adapter and critic, the newest few
    OUT/checkpoint/         the learner, to go on with
    OUT/replay.sqlite       every transition
    OUT/evaluation.json     figures and episodes of the last evaluation (evaluation-ROBOT.json: with another robot)
    OUT/episodes.csv, summary.json, tensorboard/, learning_curve.png
    OUT/decisions.sqlite    the newest decisions, for `llmagent explain`
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llmagent_ros import config as configuration
from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.contract import load_contract
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ConfigError, ModelError
from llmagent_ros.experiments.calibrated import CalibratedText
from llmagent_ros.experiments.environments import EnvironmentSpec, learner_settings, make_environment
from llmagent_ros.experiments.evaluation import EpisodeResult, as_rows, evaluate, figures
from llmagent_ros.experiments.training import BUNDLES, TrainConfig, Trainer
from llmagent_ros.learning.rl.critic import build_critic
from llmagent_ros.perception.gymnasium_text import TextEnvironment
from llmagent_ros.policy.deployment import read_deployment
from llmagent_ros.policy.grounding import Grounding
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.recording.decision_rows import DecisionRecord
from llmagent_ros.recording.decisions import DecisionLog
from llmagent_ros.recording.recorder import RecorderConfig, RunRecorder
from llmagent_ros.types import Decision, Outcome, RealArray, Transition

CONFIG, EVALUATION = "train.json", "evaluation.json"


def make_config(environment: str, settings: Mapping[str, Any], origin: str) -> TrainConfig:
    """A configuration from plain values; the learner's are those of the environment's description where not given.

    Raises:
        ConfigError: a value or key is wrong.
    """
    env = make_environment(EnvironmentSpec(environment, str(settings.get("robot", EnvironmentSpec(environment).robot))))
    try:
        learner = {**learner_settings(env), **settings.get("learner", {})}
    finally:
        env.close()
    return configuration.build(TrainConfig, {**settings, "environment": environment, "learner": learner}, origin)


def settings(config: TrainConfig) -> dict[str, Any]:
    """A configuration as plain values, without those at its top that are empty or off."""
    plain = dataclasses.asdict(config)
    return {key: value for key, value in plain.items() if value is not False and value not in ("", None)}


def read_config(out: Path) -> TrainConfig:
    """What a run was asked for.

    Raises:
        ConfigError: the folder holds no run.
    """
    path = out / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{out}: no run of `llmagent train` ({path}: {error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    return configuration.build(TrainConfig, values, str(path))


def check(config: TrainConfig, out: Path) -> None:
    """A folder of the same run is gone on with, to more steps if so asked.

    Raises:
        ConfigError: the folder holds a run with other settings; they are named.
    """
    if not (out / CONFIG).exists():
        return
    before = dataclasses.replace(read_config(out), steps=config.steps)
    other = configuration.differences(dataclasses.asdict(before), dataclasses.asdict(config))
    if other:
        raise ConfigError(f"{out}: holds a run with other settings: {', '.join(other)}; choose another --out")


def train(
    config: TrainConfig,
    out: Path,
    *,
    save_every: int = 1000,
    decisions_mb: float = 0.0,
    on_step: Callable[[Trainer], None] | None = None,
) -> dict[str, Any] | None:
    """Trains to the end, or on from the last checkpoint; returns the summary as written.

    Args:
        save_every: steps of the environment between two checkpoints, made at the end of an episode.
        decisions_mb: MB in which the newest decisions are kept, for `llmagent explain`; 0 keeps none.
        on_step: called after each step.
    """
    check(config, out)
    recorder = RunRecorder(
        RecorderConfig(out=out, seed=config.seed, model=config.model.model, decisions_mb=decisions_mb)
    )
    complete = False
    try:
        run = _Run(config, out, recorder, save_every, on_step)
        # only now: a model that cannot be loaded leaves no folder that refuses the mended command
        write_atomic(out / CONFIG, (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())
        run.go()
        complete = True
    finally:
        summary = recorder.finish(complete=complete)
    return summary


class _Run:
    """A trainer whose episodes are recorded and whose state is saved now and then."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        recorder: RunRecorder,
        save_every: int,
        on_step: Callable[[Trainer], None] | None,
    ) -> None:
        self._recorder, self._save_every = recorder, save_every
        log = recorder.decisions
        self.trainer = Trainer(
            config,
            out,
            on_step=on_step,
            on_episode=self._on_episode,
            on_decision=self._on_decision,
            on_transition=None if log is None else partial(_keep, log),
        )
        self._saved_at = self.trainer.env_steps
        if log is not None:
            log.rewind(self._saved_at)  # what came after is made again, the same

    def go(self) -> None:
        trainer = self.trainer
        try:
            while not trainer.done:
                trainer.run_episode()
                if trainer.env_steps - self._saved_at >= self._save_every:
                    trainer.save()
                    self._saved_at = trainer.env_steps
            trainer.save()
        finally:
            trainer.close()

    def _on_episode(self, episode: int, success: bool, total: float, steps: int, reason: str, seconds: float) -> None:
        self._recorder.on_learner(self.trainer.learner.updates, self.trainer.stats)
        self._recorder.on_episode_end(episode, success, total, steps, reason, seconds, self.trainer.run)

    def _on_decision(self, decision: Decision, milliseconds: float, episode: int) -> None:
        self._recorder.on_decision(decision, milliseconds, episode, self.trainer.run)


def _keep(log: DecisionLog, transition: Transition, decision: Decision, milliseconds: float) -> None:
    log.put(
        DecisionRecord(
            *(transition.run, transition.episode, transition.step),
            task_id="",
            task=transition.task,
            stamp=transition.stamp,
            scene=transition.scene,
            prompt_prefix="",
            decision=decision,
            compute_ms=milliseconds,
            skills=(),
            outcome=Outcome(transition.reward, transition.terminated, transition.truncated),
            next_scene=transition.next_scene if transition.terminated or transition.truncated else "",
            number=int(transition.stamp),
        )
    )


class SavedPolicy:
    """The policy of a run's files; nothing of the training is left but what is on disk.

    Args:
        critic: False leaves the choice to the language model and its adapter alone.
        robot: contract of another robot that is to act, its words told by what they do; empty: the run's own.

    Attributes:
        spec: the environment in which it acts. temperature: at which it is measured there.

    Raises:
        ConfigError, ModelError: the folder holds no run, or nothing that fits its model, or the environment has no
            robot, or that robot moves in another way.
    """

    def __init__(self, out: Path, *, critic: bool = True, robot: str = "") -> None:
        self.config = read_config(out)
        self.spec = dataclasses.replace(self.config.spec, robot=robot) if robot else self.config.spec
        torch.set_num_threads(self.config.threads)
        env = make_environment(self.config.spec)
        model = LanguageModel(self.config.model, env.phrases, self.config.prompt)
        self.temperature = env.temperature
        self._grounding = _grounding(env, robot) if robot else None
        env.close()
        bundle = latest_bundle(out / BUNDLES)
        if bundle is None:
            raise ModelError(f"{out}: nothing was learned yet (no bundle in {BUNDLES})")
        known = self.config.calibrate and not robot  # what was measured of one robot says nothing of another
        self._measured = load_bundle(bundle).meta.get("calibration") if known else None
        deployment = read_deployment(bundle, model, build_critic)
        self.policy = TextPolicy(model)
        values = deployment.values if critic and self.config.critic_acts else None
        self.policy.swap(deployment.adapter, values, beta=deployment.beta, name=deployment.name)

    def log_probabilities(self, scenes: Sequence[str]) -> RealArray:
        """log pi of every phrase of the robot, (scenes, phrases)."""
        if self._grounding is None:
            return self.policy.distribution(scenes)[0].numpy()
        known = self.policy.distribution([self._grounding.scene(scene) for scene in scenes])[0].numpy()
        return self._grounding.log_probabilities(known)

    def seen_as(self, env: TextEnvironment) -> TextEnvironment:
        """An environment as the policy sees it, for `evaluate`."""
        return CalibratedText(env, self._measured, keep=False) if self.config.calibrate else env


def _grounding(env: TextEnvironment, robot: str) -> Grounding:
    """What the phrases of another robot mean to a policy that was learned in `env`."""
    if env.contract is None:
        raise ConfigError(f"robot {robot}: there is no robot in what was learned ({env.contract_name})")
    return Grounding(env.phrases, env.contract.meaning(load_contract(robot)))


def evaluate_run(
    out: Path,
    episodes: int,
    *,
    critic: bool = True,
    temperature: float | None = None,
    robot: str = "",
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, float], list[EpisodeResult]]:
    """Episodes of the saved policy on held-out seeds; OUT/evaluation.json keeps figures and episodes, and
    OUT/evaluation-ROBOT.json those of another robot.

    Args:
        temperature: None takes the environment's. robot: see `SavedPolicy`.
    """
    policy = SavedPolicy(out, critic=critic, robot=robot)
    temperature = policy.temperature if temperature is None else temperature
    began = time.monotonic()
    results = evaluate(
        *(policy.spec, policy.log_probabilities, episodes),
        temperature=temperature,
        progress=progress,
        seen_as=policy.seen_as,
    )
    measured = figures(results)
    content = {
        "critic": critic,
        "robot": policy.spec.robot,
        "temperature": temperature,
        "figures": measured,
        "wall_s": time.monotonic() - began,
        "episodes": as_rows(results),
    }
    path = out / (f"evaluation-{Path(robot).stem}.json" if robot else EVALUATION)
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())
    return measured, results
