"""Other ways to learn tasks one after another with one network: fine-tuning, reservoir replay, EWC.

All have the critic, the features, the targets, the exploration and the calibration of our learner, and one output for
each phrase of any task; the outputs of the present task's phrases act and are trained. No language model follows. What
differs is how the past is kept:

    fine-tuning         not at all
    reservoir replay    half of each batch from a sample of all earlier transitions (Vitter 1985; Chaudhry et al. 2019)
    EWC                 + lambda / 2 sum_j F_j (theta_j - theta*_j)^2, with F the mean squared gradient of the values
                        at the end of each earlier task (Kirkpatrick et al. 2017; for values: Wołczyk et al. 2021, B)
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmagent_ros.config import build
from llmagent_ros.experiments.bench.curves import point
from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.calibrated import CalibratedText, can_calibrate, seen_through
from llmagent_ros.experiments.environments import EnvironmentSpec, learner_settings, make_environment
from llmagent_ros.experiments.evaluation import Policy, evaluate, figures
from llmagent_ros.experiments.training import TRAINING_SEEDS
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import Critic
from llmagent_ros.learning.rl.losses import lower_bound, soft_targets
from llmagent_ros.perception.calibration import Calibration
from llmagent_ros.perception.gymnasium_text import TextEnvironment
from llmagent_ros.perception.mirror import Mirror
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.policy.text_policy import among, draw
from llmagent_ros.types import FloatArray, RealArray

NAMES = ("fine-tuning", "reservoir replay", "EWC")
RESERVOIR = 10_000  # transitions of earlier tasks
EWC_WEIGHT = 100.0
_FISHER_SAMPLES = 512
_FIRST_LOOK = 200  # random steps in each task that fix the scale of the features


def configuration() -> dict[str, Any]:
    return {"reservoir": RESERVOIR, "ewc_weight": EWC_WEIGHT, "fisher_samples": _FISHER_SAMPLES, "look": _FIRST_LOOK}


def measure(
    method: str,
    tasks: Sequence[EnvironmentSpec],
    seed: int,
    steps: int,
    every: int,
    glance: int,
    episodes: int,
    say: Say,
) -> dict[str, Any]:
    """See `bench.continual.measure`.

    Args:
        every, glance: steps between two evaluations on the way, and their episodes. episodes: of the others.
    """
    torch.set_num_threads(1)
    network = _Network(tasks, seed)
    told: list[dict[str, Any]] = []
    for number, spec in enumerate(tasks):
        agent = _Agent(network, spec, method, np.random.default_rng([seed, number]))
        curve = [point(0, _figures(network, spec, glance))]
        while agent.steps < steps:
            agent.step()
            if agent.steps % every == 0:
                curve.append(point(agent.steps, _figures(network, spec, glance)))
        agent.finish()
        after = _figures(network, spec, episodes)["success"]
        say(f"task {number + 1}, {spec.name}: {after:.2f} after {steps:,} steps")
        told.append({"name": spec.name, "curve": curve, "after": after, "began": "begins with what it is"})
    end = [_figures(network, spec, episodes)["success"] for spec in tasks]
    say(f"at the end: {statistics.fmean(end):.2f}")
    return {"tasks": [{**task, "end": each} for task, each in zip(told, end, strict=True)]}


def _figures(network: _Network, spec: EnvironmentSpec, episodes: int) -> dict[str, float]:
    calibration = network.calibrations.get(spec)
    seen_as = None if calibration is None else seen_through(calibration.state())
    return figures(evaluate(spec, network.policy(spec), episodes, seen_as=seen_as))


class _Network:
    """One critic for all tasks, on the features of scenes.

    Attributes:
        outputs: phrase to its output, over all tasks. calibrations: of the robots of the tasks so far.
    """

    def __init__(self, tasks: Sequence[EnvironmentSpec], seed: int) -> None:
        phrases: dict[str, None] = {}
        for spec in tasks:
            env = make_environment(spec)
            phrases |= dict.fromkeys(env.phrases)
            env.close()
        self.outputs = {phrase: number for number, phrase in enumerate(phrases)}
        self.model = LanguageModel(LanguageModelConfig(), tuple(phrases))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.critic, self.target, self.average = (self._new() for _ in range(3))
        for copy in (self.target, self.average):
            copy.load_state_dict(self.critic.state_dict())
            copy.requires_grad_(False)
        look = torch.cat([self._look(spec, seed) for spec in tasks])
        for each in (self.critic, self.target, self.average):
            each.standardise(look, LearnerConfig().feature_floor or 0.0)
        self.calibrations: dict[EnvironmentSpec, Calibration] = {}
        self.reservoir = _Reservoir(RESERVOIR, np.random.default_rng([seed, 99]))
        self.anchors: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # Fisher information, weights

    def columns(self, env: TextEnvironment) -> list[int]:
        return [self.outputs[phrase] for phrase in env.phrases]

    def policy(self, spec: EnvironmentSpec) -> Policy:
        env = make_environment(spec)
        env.close()
        columns, beta = self.columns(env), _settings(env).beta

        def log_probabilities(scenes: Any) -> RealArray:
            values = self.average.values(self.model.features(scenes))[:, columns]
            return np.asarray((values.double() / beta).log_softmax(-1).numpy())

        return log_probabilities

    def penalty(self) -> Tensor:
        """EWC's, without its weight."""
        named = dict(self.critic.named_parameters())
        terms = [(f[n] * (named[n] - w[n]) ** 2).sum() for f, w in self.anchors for n in named]
        return torch.stack(terms).sum() / 2 if terms else torch.zeros(())

    def _new(self) -> Critic:
        return Critic(self.model.feature_size, len(self.outputs), LearnerConfig().critic)

    def _look(self, spec: EnvironmentSpec, seed: int) -> Tensor:
        env, rng = make_environment(spec), np.random.default_rng([seed, 7])
        scenes, ended = [env.reset(seed=int(rng.integers(TRAINING_SEEDS)))[0]], False
        while len(scenes) < _FIRST_LOOK:
            if ended:
                scenes.append(env.reset()[0])
            scene, _, terminated, truncated, _ = env.step(int(rng.integers(len(env.phrases))))
            scenes.append(scene)
            ended = terminated or truncated
        env.close()
        return self.model.features(scenes)


@dataclass(frozen=True)
class _Batch:
    """features, after: (B, features). action: output that was done, (B,). allowed: outputs of the task, (B, outputs).

    returns, discount: (B,).
    """

    features: FloatArray
    action: Any
    returns: FloatArray
    discount: FloatArray
    after: FloatArray
    allowed: Any

    def tensors(self) -> list[Tensor]:
        return [torch.from_numpy(np.asarray(getattr(self, field.name))) for field in dataclasses.fields(self)]


Row = tuple[FloatArray, int, float, float, FloatArray, Any]


class _Reservoir:
    """A uniform sample of everything that was offered (algorithm R, Vitter 1985)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size, self._rng, self._seen = size, rng, 0
        self.rows: list[Row] = []

    def offer(self, row: Row) -> None:
        self._seen += 1
        if len(self.rows) < self._size:
            self.rows.append(row)
        elif (place := int(self._rng.integers(self._seen))) < self._size:
            self.rows[place] = row


class _Agent:
    """Acts and learns in one task."""

    def __init__(self, network: _Network, spec: EnvironmentSpec, method: str, rng: np.random.Generator) -> None:
        self._network, self._method, self._rng = network, method, rng
        self._env = make_environment(spec)
        if can_calibrate(self._env):
            self._env = calibrated = CalibratedText(self._env)
            network.calibrations[spec] = calibrated.calibration
        self._mirror: Mirror | None = self._env.mirror
        self._config = _settings(self._env)
        self._columns = network.columns(self._env)
        allowed = np.zeros(len(network.outputs), bool)
        allowed[self._columns] = True
        self._allowed = allowed
        self._optimiser = torch.optim.Adam(network.critic.parameters(), lr=self._config.learning_rate)
        self._rows: list[Row] = []
        self._recent: deque[tuple[str, FloatArray, int, float]] = deque()  # scene, features, action, reward
        self.steps = self._updates = self._episode = 0
        self._scene = ""

    def step(self) -> None:
        if not self._scene:
            self._scene, _ = self._env.reset(seed=int(self._rng.integers(TRAINING_SEEDS)))
        scene, features = self._scene, self._features(self._scene)
        action, _ = draw(among(self._log_probabilities(features), self._env.sayable), 1.0, self._rng.random())
        self._scene, reward, terminated, truncated, _ = self._env.step(action)
        self._recent.append((scene, features, action, float(reward) * self._env.reward_scale))
        ended = terminated or truncated
        self._remember(self._scene, terminated=terminated, ended=ended)
        if ended:
            self._scene, self._episode = "", self._episode + 1
        self.steps += 1
        if self.steps >= self._config.warmup:
            while self._updates < self._config.updates_per_step * self.steps:
                self._update()

    def finish(self) -> None:
        """Keeps of the task what the method keeps."""
        self._env.close()
        if self._method == "reservoir replay":
            for row in self._rows:
                self._network.reservoir.offer(row)
        elif self._method == "EWC":
            self._network.anchors.append(self._fisher())

    # --- data ------------------------------------------------------------------------------------------

    def _features(self, scene: str) -> FloatArray:
        return np.asarray(self._network.model.features([scene])[0].numpy())

    def _log_probabilities(self, features: FloatArray) -> RealArray:
        batch = torch.from_numpy(features)[None]
        values = self._network.average.values(batch)
        if self._config.disagreement:
            values = values + self._config.disagreement * (self._network.average.values(batch, self._episode) - values)
        return np.asarray((values[0, self._columns].double() / self._config.beta).log_softmax(-1).numpy())

    def _remember(self, after: str, *, terminated: bool, ended: bool) -> None:
        """Rows of those steps whose n-step return is known now, each also as seen in the mirror."""
        c = self._config
        while self._recent and (ended or len(self._recent) == c.n_step):
            returns = sum(c.gamma**i * reward for i, (_, _, _, reward) in enumerate(self._recent))
            discount = 0.0 if terminated else c.gamma ** len(self._recent)
            scene, features, action, _ = self._recent.popleft()
            self._rows.append(self._row(features, action, returns, discount, self._features(after)))
            if self._mirror is not None:
                image, image_after = self._mirror.scene(scene), self._mirror.scene(after)
                if image is not None and image_after is not None:
                    seen = self._features(image), self._mirror.actions[action]
                    self._rows.append(self._row(*seen, returns, discount, self._features(image_after)))

    def _row(self, features: FloatArray, action: int, returns: float, discount: float, after: FloatArray) -> Row:
        return features, self._columns[action], returns, discount, after, self._allowed

    def _sample(self, size: int) -> _Batch:
        past = self._network.reservoir.rows if self._method == "reservoir replay" else []
        old = size // 2 if past else 0
        rows = [self._rows[i] for i in self._rng.integers(len(self._rows), size=size - old)]
        rows += [past[i] for i in self._rng.integers(len(past), size=old)] if old else []
        features, action, returns, discount, after, allowed = zip(*rows, strict=True)
        return _Batch(
            np.stack(features), np.array(action), np.array(returns, np.float32), np.array(discount, np.float32),
            np.stack(after), np.stack(allowed),
        )  # fmt: skip

    # --- learning --------------------------------------------------------------------------------------

    def _update(self) -> None:
        c, n = self._config, self._network
        features, action, returns, discount, after, allowed = self._sample(c.batch_size).tensors()
        with torch.no_grad():
            forbidden = torch.where(allowed, 0.0, -torch.inf)
            values = n.critic(after) + forbidden
            bound = lower_bound(n.target(after), c.pessimism)
            target = soft_targets(values, bound, returns, discount, c.beta)
        said = n.critic(features)
        taken = said.gather(-1, action.expand(c.critic.heads, -1)[..., None])[..., 0]
        loss = nn.functional.huber_loss(taken, target.expand_as(taken), reduction="none").mean(1).sum()
        if self._method == "EWC":
            loss = loss + EWC_WEIGHT * n.penalty()
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(n.critic.parameters(), c.max_gradient)
        self._optimiser.step()
        self._updates += 1
        rate = max(c.average_rate, 1 / (1 + self._updates))
        for kept, towards in ((n.target, c.target_rate), (n.average, rate)):
            with torch.no_grad():
                for old, new in zip(kept.parameters(), n.critic.parameters(), strict=True):
                    old.lerp_(new, towards)

    def _fisher(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean squared gradients of the task's values at its scenes, and the weights they were taken at."""
        critic = self._network.critic
        found = {name: torch.zeros_like(p) for name, p in critic.named_parameters()}
        for i in self._rng.integers(len(self._rows), size=_FISHER_SAMPLES):
            critic.zero_grad()
            critic(torch.from_numpy(self._rows[i][0])[None])[..., self._columns].sum().backward()
            for name, parameter in critic.named_parameters():
                assert parameter.grad is not None
                found[name] += parameter.grad**2 / _FISHER_SAMPLES
        return found, {name: p.detach().clone() for name, p in critic.named_parameters()}


def _settings(env: TextEnvironment) -> LearnerConfig:
    return build(LearnerConfig, learner_settings(env), "bench continual")
