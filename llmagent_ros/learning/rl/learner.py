"""Off-policy learning of the critic and the adapter from the replay.

One update of the critic (every head h, target heads h'):

    y = R_n + gamma^m (1 - terminated) * sum_a pi(a|s') (mean_h' - pessimism std_h') Q'_h'(s', a)
    pi(a|s) = softmax_a(mean_h Q_h(s, a) / beta)
    loss = sum_h Huber(Q_h(s, a_t) - y) + sum_h margin_weight (max_a [Q_h(s, a) + margin 1(a != a_t)] - Q_h(s, a_t))

The expected target of discrete soft actor-critic without its entropy bonus, by a lower bound of what the ensemble says
(optimistic actor-critic, Ciosek et al. 2019, eq. 4), on RLPD's half-and-half batches (Ball et al. 2023).

One update of the adapter, the M-step of MPO (Abdolmaleki et al. 2018) over the closed vocabulary:

    loss = CE(softmax(mean_h Q_h / beta), pi_LM) + kl_weight KL(pi_deployed || pi_LM) + clone_weight NLL(demonstrations)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llmagent_ros.bundle import save_bundle
from llmagent_ros.errors import ConfigError, DivergenceError, ModelError
from llmagent_ros.learning.rl import checkpoint
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import Critic
from llmagent_ros.learning.rl.losses import entropy_share, lower_bound, margin_loss, soft_targets
from llmagent_ros.learning.rl.protocols import AdaptedModel, SceneMirror
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.rl.sampling import NStepBatch
from llmagent_ros.optimiser_state import load_optimiser, optimiser_tensors, part
from llmagent_ros.types import Transition

_BETA_RATE, _BETA_RANGE = 0.005, 1000.0  # of an update; by which factor beta may change at most
_STANDARD = 2048  # transitions whose features are the measure of the others


class Learner:
    """See the module. Not thread-safe; transport, time and files are its caller's.

    Args:
        replay: opened for writing, its vocabulary the model's phrases.
        seed: of the critic's start and of everything drawn.
        mirror: of the scenes, where what holds on one side holds on the other: about half of every batch is seen in it.
    """

    def __init__(
        self,
        config: LearnerConfig,
        replay: Replay,
        model: AdaptedModel,
        seed: int = 0,
        mirror: SceneMirror | None = None,
    ) -> None:
        self.config, self.replay, self.model = config, replay, model
        self._mirror = mirror if config.mirror else None
        self.take_in(replay)
        self._rng = np.random.default_rng(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.critic = Critic(model.feature_size, len(model.phrases), config.critic).to(model.device)
        self._target = Critic(model.feature_size, len(model.phrases), config.critic).to(model.device)
        self._target.load_state_dict(self.critic.state_dict())
        self._target.requires_grad_(False)
        self.average = Critic(model.feature_size, len(model.phrases), config.critic).to(model.device)
        self.average.load_state_dict(self.critic.state_dict())
        self.average.requires_grad_(False)
        self._critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=config.learning_rate, fused=True)
        self._adapter = model.adapter_parameters()
        self._actor_optimiser = torch.optim.AdamW(self._adapter, lr=config.actor_learning_rate, weight_decay=0.0)
        self._deployed = model.adapter_state()
        self.beta = config.beta  # temperature of the policy now
        self._good = (self.average.state(), dict(self._deployed), self.beta)
        self.updates = 0
        self.actor_updates = 0
        self._scaled = config.feature_floor is None  # whether the critic's scale of features is set
        self._rescales = False  # whether it will be once more
        self.lessons: tuple[str, ...] = ()  # such as the acting policy reads before a scene

    def start_from(
        self, critic: Mapping[str, Tensor] | None, adapter: Mapping[str, Tensor] | None, beta: float | None = None
    ) -> None:
        """Begins with what was learned before in place of nothing; None leaves that part as new.

        beta is the temperature that went with the critic; it counts where the learner finds its own (target_entropy).

        The critic's scale of features stays, as its heads were learned with it. As always `warmup` transitions are
        stored before the first update: there are data of the new task when the critic begins to change (Zhou et al.
        2024).

        Raises:
            ConfigError: it has learned already. ModelError: the tensors do not fit; nothing was changed.
        """
        if self.updates:
            raise ConfigError(f"learner: it has made {self.updates} updates; only a new one can start from others")
        if adapter is not None:
            before = self.model.adapter_state()
            self.model.load_adapter_state(adapter)
        if critic is not None:
            try:
                self.critic.load_state(critic)
            except ModelError:
                if adapter is not None:
                    self.model.load_adapter_state(before)
                raise
            for copy in (self._target, self.average):
                copy.load_state(critic)
            self._scaled = True
            if beta is not None and self.config.target_entropy:
                self.beta = beta
        self.deploy()

    def go_back_to(
        self, critic: Mapping[str, Tensor], adapter: Mapping[str, Tensor], beta: float | None = None
    ) -> None:
        """Learns on from an earlier state, with the data that it has; the optimisers begin anew.

        beta: see `start_from`.

        Raises:
            ModelError: the tensors do not fit.
        """
        self.average.load_state(critic)
        self.model.load_adapter_state(adapter)
        self._scaled, self._rescales = True, False  # what the critic was learned with holds, also before a first update
        if beta is not None and self.config.target_entropy:
            self.beta = beta
        self._good = (self.average.state(), self.model.adapter_state(), self.beta)
        self._deployed = dict(self._good[1])
        self._go_back()

    # --- data -----------------------------------------------------------------------------------------

    def observe(self, transitions: Sequence[Transition]) -> int:
        """Stores transitions durably; returns how many were new."""
        return self.replay.append(transitions)

    def prepare(self, limit: int = 64) -> int:
        """Computes the mirror images and features of up to `limit` scenes that lack them; returns how many it did."""
        if self._mirror is not None and (missing := self.replay.missing_images(limit)):
            self.replay.put_images([i for i, _ in missing], [self._mirror.scene(text) for _, text in missing])
        if not self.config.cache_features:
            return 0
        missing = self.replay.missing_features(limit)
        if missing:
            ids = [text_id for text_id, _ in missing]
            self.replay.put_features(ids, self.model.features([text for _, text in missing]).cpu().numpy())
        return len(missing)

    @property
    def backlog(self) -> int:
        """Critic updates that the stored transitions allow and that are not done yet."""
        steps = len(self.replay)
        allowed = int(self.config.updates_per_step * steps) if steps >= self.config.warmup else 0
        return max(0, allowed - self.updates)

    def take_in(self, replay: Replay) -> None:
        """Makes a replay ready for `turn_to`: says whose features and mirror images it keeps."""
        if self._mirror is not None:
            replay.use_mirror(self._mirror.rule)
        replay.use_base(self.model.feature_digest, self.model.feature_size)

    def turn_to(self, replay: Replay) -> None:
        """Samples from another replay of the same phrases from now on; what was learned stays, and so do all counts."""
        self.replay = replay

    # --- learning ---------------------------------------------------------------------------------------

    def update(self) -> dict[str, float]:
        """One update of the critic, and of the adapter when it is due. Features must be prepared.

        Returns:
            critic_loss, value, and with the adapter actor_loss, agreement (share of scenes where the adapter alone
            would choose the critic's best action) and kl.

        Raises:
            DivergenceError: a loss or gradient is not finite or too large; critic and adapter are as last exported.
        """
        self._see_to_the_scale()
        stats = self._update_critic()
        self.updates += 1
        if self.config.actor_every and self.updates % self.config.actor_every == 0:
            stats |= self._update_actor()
            self.actor_updates += 1
        return stats

    @property
    def standardised(self) -> bool:
        """Whether the critic's scale of features is set, as it is from the first update on."""
        return self._scaled

    def _see_to_the_scale(self) -> None:
        """Sets it by the first transitions, and once more where nearly all of them were shown: how it is done is little
        of what there is to see.
        """
        if self._scaled and not self._rescales:
            return
        seen_much = len(self.replay) - self.replay.demonstrations >= self.config.warmup
        if self._scaled and not seen_much:
            return
        positions = np.arange(min(len(self.replay), _STANDARD))
        if self._scaled:  # its own are behind what was shown
            positions = np.linspace(0, len(self.replay) - 1, len(positions)).astype(np.int64)
        features = self._features(self.replay.at(positions, 1, self.config.gamma).scene_id)
        if self._scaled:
            self._rescale(features)
        else:
            self.standardise(features)
        self._rescales = not seen_much

    def _rescale(self, features: Tensor) -> None:
        assert self.config.feature_floor is not None
        for critic in (self.critic, self._target, self.average):
            more = critic.rescale(features.to(_device(critic)), self.config.feature_floor)
        moments = self._critic_optimiser.state[self.critic.first.weight]  # of the gradient, which shrinks as they grow
        if moments:
            moments["exp_avg"].div_(more)
            moments["exp_avg_sq"].div_(more**2)
        self._good = (self.average.state(), *self._good[1:])

    def standardise(self, features: Tensor) -> None:
        """Fixes the scale by features, (N, feature_size), for good: what the heads learn holds for this scale."""
        assert self.config.feature_floor is not None
        for critic in (self.critic, self._target, self.average):
            critic.standardise(features.to(_device(critic)), self.config.feature_floor)
        self._scaled, self._rescales = True, False
        self._good = (self.average.state(), *self._good[1:])  # the scale stays, also where learning goes back

    def _update_critic(self) -> dict[str, float]:
        loss, stats = self.critic_loss()
        self._step(loss, self._critic_optimiser, list(self.critic.parameters()), "critic")
        self.follow()
        return stats

    def follow(self, updates: int = 1) -> None:
        """Target and average go after the critic, as far as in so many updates."""
        average_rate = max(self.config.average_rate, 1 / (1 + self.updates))
        for follower, rate in ((self._target, self.config.target_rate), (self.average, average_rate)):
            _move(follower, self.critic, rate if updates == 1 else 1 - (1 - rate) ** updates)

    def critic_loss(self) -> tuple[Tensor, dict[str, float]]:
        """The critic's loss, differentiable, of a batch that is drawn now; and its figures."""
        c = self.config
        batch = self._sample(c.batch_size, c.n_step)
        features, after = self._features(np.stack([batch.scene_id, batch.bootstrap_id]))
        returns, discount = (torch.from_numpy(x).to(features.device) for x in (batch.returns, batch.discount))
        with torch.no_grad():
            bound = lower_bound(self._target(after), c.pessimism)
            following = self.critic(after)
            target = soft_targets(following, bound, returns, discount, self.beta)
            self._temper(following)
        action = torch.from_numpy(batch.action.astype(np.int64)).to(features.device)
        values = self.critic(features)
        taken = values.gather(-1, action.expand(c.critic.heads, -1)[..., None])[..., 0]
        loss = nn.functional.huber_loss(taken, target.expand_as(taken), reduction="none").mean(1).sum()
        if c.margin_weight and batch.demonstration.any():
            shown = torch.from_numpy(np.flatnonzero(batch.demonstration)).to(features.device)
            loss = loss + c.margin_weight * margin_loss(values[:, shown], action[shown], c.margin * self.beta).sum()
        return loss, {"critic_loss": loss.item(), "value": taken.mean().item()}

    def _temper(self, values: Tensor) -> None:
        """log beta <- log beta + rate (target_entropy - share of entropy), as soft actor-critic tunes its own (Haarnoja
        et al. 2018), where a target was given.
        """
        c = self.config
        if c.target_entropy and values.shape[-1] > 1:
            change = math.exp(_BETA_RATE * (c.target_entropy - entropy_share(values.mean(0), self.beta)))
            self.beta = min(max(self.beta * change, c.beta / _BETA_RANGE), c.beta * _BETA_RANGE)

    def _update_actor(self) -> dict[str, float]:
        loss, stats = self.actor_loss()
        self._step(loss, self._actor_optimiser, self._adapter, "actor")
        return stats

    def actor_loss(self) -> tuple[Tensor, dict[str, float]]:
        """The adapter's loss, likewise."""
        c = self.config
        batch = self._sample(c.actor_batch, 1)
        scenes = self.replay.texts(batch.scene_id)
        values = self.average.values(self._features(batch.scene_id))
        lessons = self._some_lessons()
        reading = self.model.read(scenes, lessons)
        deployed = self._deployed_log_probs(reading) if c.kl_weight else None
        log_probs = self.model.phrase_log_probs_of(reading)
        target = (values.clone() / self.beta).softmax(-1).to(log_probs.device)
        loss = -(target * log_probs).sum(-1).mean()
        stats = {"actor_loss": loss.item()}
        stats["agreement"] = (log_probs.argmax(-1) == target.argmax(-1)).float().mean().item()
        if deployed is not None:
            kl = (deployed.exp() * (deployed - log_probs)).sum(-1).mean()
            loss = loss + c.kl_weight * kl
            stats["kl"] = kl.item()
        if c.clone_weight and batch.demonstration.any():
            rows = torch.from_numpy(np.flatnonzero(batch.demonstration))
            chosen = log_probs[rows, torch.from_numpy(batch.action.astype(np.int64))[rows]]
            loss = loss - c.clone_weight * chosen.mean()
        return loss, stats

    @torch.no_grad()
    def errors(self, positions: NDArray[np.int64], critic: Critic | None = None) -> NDArray[np.float32]:
        """How far a critic is off, float32, (N,): |r + gamma (1 - terminated) V(s') - Q(s, a)|, in units of return, of
        transitions of the replay by their positions. Their features must be prepared.

        Args:
            critic: of this base and vocabulary; None: the one that acts.
        """
        critic = critic or self.average
        batch = self.replay.at(positions, 1, self.config.gamma)
        features, following = self._features(np.stack([batch.scene_id, batch.bootstrap_id]))
        values, after = critic.values(features), critic.values(following)
        ahead = ((after / self.beta).softmax(-1) * after).sum(-1).cpu().numpy()
        taken = values.cpu().numpy()[np.arange(len(batch)), batch.action]
        return np.asarray(np.abs(batch.returns + batch.discount * ahead - taken), np.float32)

    # --- its parts, for learning from many tasks (`learning.meta`) ------------------------------------------

    def weights(self) -> list[nn.Parameter]:
        """What learning changes: of the critic, then of the adapter."""
        return [*self.critic.parameters(), *self._adapter]

    def followers(self) -> list[nn.Parameter]:
        """What goes after the critic: of the target, then of the average."""
        return [*self._target.parameters(), *self.average.parameters()]

    # --- inside -------------------------------------------------------------------------------------------

    def _sample(self, size: int, n_step: int) -> NStepBatch:
        """A batch in which, with a mirror, about half of the transitions are seen in it."""
        batch = self.replay.sample(size, n_step, self.config.gamma, self._rng, self._demo_share())
        if self._mirror is None:
            return batch
        scene, after = self.replay.images(np.stack([batch.scene_id, batch.bootstrap_id]))
        seen = (self._rng.random(size) < 0.5) & (scene >= 0) & (after >= 0)
        return dataclasses.replace(
            batch,
            scene_id=np.where(seen, scene, batch.scene_id),
            bootstrap_id=np.where(seen, after, batch.bootstrap_id),
            action=np.where(seen, np.array(self._mirror.actions)[batch.action], batch.action),
        )

    def _features(self, text_ids: NDArray[np.int64]) -> Tensor:
        """Of texts of any shape, (*shape, feature_size)."""
        if self.config.cache_features:
            return torch.from_numpy(self.replay.features(text_ids)).to(_device(self.critic))
        features = self.model.features(self.replay.texts(text_ids.reshape(-1)))
        return features.clone().view(*text_ids.shape, -1).to(_device(self.critic))

    def _some_lessons(self) -> tuple[str, ...]:
        """In `lesson_share` of the updates the first one, two or more, as the acting policy may read any number."""
        if not self.lessons or self._rng.random() >= self.config.lesson_share:
            return ()
        return self.lessons[: int(self._rng.integers(1, len(self.lessons) + 1))]

    @torch.no_grad()
    def _deployed_log_probs(self, reading: Any) -> Tensor:
        """The deployed adapter's log-probabilities; the learning one is put aside for the moment."""
        learning = [p.detach().clone() for p in self._adapter]
        self.model.load_adapter_state(self._deployed)
        try:
            return self.model.phrase_log_probs_of(reading)
        finally:
            with torch.no_grad():
                for parameter, kept in zip(self._adapter, learning, strict=True):
                    parameter.copy_(kept)

    def _step(self, loss: Tensor, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], who: str) -> None:
        """A clipped gradient step, or back to the last good state."""
        size = loss.item()
        norm = math.nan
        if math.isfinite(size) and size <= self.config.max_loss:
            optimiser.zero_grad()
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(parameters, self.config.max_gradient))
        if not math.isfinite(norm):
            self._go_back()
            raise DivergenceError(f"{who} loss {size:.4g}, gradient norm {norm:.4g} after {self.updates} updates")
        optimiser.step()

    def _go_back(self) -> None:
        critic, adapter, self.beta = self._good
        for each in (self.critic, self._target, self.average):
            each.load_state(critic)
        self.model.load_adapter_state(adapter)
        for optimiser in (self._critic_optimiser, self._actor_optimiser):
            optimiser.state.clear()  # moments that the bad steps went into

    def _check_finite(self) -> None:
        """What is written or deployed is looked at once more, whatever the losses said."""
        critics = (*self.critic.parameters(), *self._target.parameters(), *self.average.parameters())
        for who, parameters in (("critic", critics), ("adapter", tuple(self._adapter))):
            if not all(bool(parameter.isfinite().all()) for parameter in parameters):
                self._go_back()
                raise DivergenceError(f"{who} holds values that are not finite after {self.updates} updates")

    def _demo_share(self) -> float | None:
        return self.config.demo_share if self.replay.demonstrations else None

    # --- results -----------------------------------------------------------------------------------------

    def deploy(self) -> None:
        """What was learned so far counts as deployed: the KL term holds on to it, and divergence goes back to it.

        Raises:
            DivergenceError: it holds values that are not finite; critic and adapter are as last deployed.
        """
        self._check_finite()
        self._deployed = self.model.adapter_state()
        self._good = (self.average.state(), dict(self._deployed), self.beta)

    def export(self, folder: Path, meta: Mapping[str, Any] | None = None) -> str:
        """Writes critic and adapter as a bundle, which counts as deployed from now on; returns its digest."""
        self.deploy()
        critic, adapter, beta = self._good
        facts = {
            "base_digest": self.model.base_digest,
            "feature_digest": self.model.feature_digest,
            "phrases": list(self.model.phrases),
            "beta": beta,
            "disagreement": self.config.disagreement,
            "env_steps": len(self.replay),
            "updates": self.updates,
        }
        return save_bundle(
            folder,
            adapter=adapter,
            adapter_config=self.model.adapter_config(),
            critic=critic,
            meta=facts | dict(meta or {}),
        )

    def save(
        self, folder: Path, callers: Mapping[str, Any] | None = None, extra: Mapping[str, Tensor] | None = None
    ) -> None:
        """Everything needed to go on exactly here, except the replay, which is on disk already.

        Args:
            callers: facts of the caller's, as JSON, which `load` gives back. extra: tensors of the caller's, which are
                kept below "caller/".

        Raises:
            DivergenceError: as `deploy`; nothing was written.
        """
        self._check_finite()
        modules = {
            "critic": self.critic.state(),
            "target": self._target.state(),
            "average": self.average.state(),
            "adapter": self.model.adapter_state(),
            "good": self._good[0],
        }
        tensors = {f"{part}/{name}": tensor for part, state in modules.items() for name, tensor in state.items()}
        tensors |= {f"deployed/{name}": tensor for name, tensor in self._deployed.items()}
        tensors |= {f"caller/{name}": tensor for name, tensor in (extra or {}).items()}
        for name, optimiser in (("critic", self._critic_optimiser), ("actor", self._actor_optimiser)):
            tensors |= optimiser_tensors(f"{name}_optimiser", optimiser)
        facts = {
            "updates": self.updates,
            "actor_updates": self.actor_updates,
            "beta": self.beta,
            "good_beta": self._good[2],
            "scaled": self._scaled,
            "rescales": self._rescales,
            "lessons": self.lessons,
            "random": self._rng.bit_generator.state,
            "replay": self.replay.state(),
            "base_digest": self.model.base_digest,
            "feature_digest": self.model.feature_digest,
            "caller": dict(callers or {}),
        }
        self.replay.sync()  # else features would be computed again, in batches of another size, to other last digits
        checkpoint.save(folder, tensors, facts)

    def load(self, folder: Path) -> dict[str, Any]:
        """Goes on where `save` was called; returns the caller's facts.

        Raises:
            ModelError: damaged, or of another base or shape. StoreError: of another replay.
        """
        tensors, facts = checkpoint.load(folder, self.model.feature_digest)
        self.replay.check_state(facts["replay"])
        self.critic.load_state(part(tensors, "critic"))
        self._target.load_state(part(tensors, "target"))
        self.average.load_state(part(tensors, "average"))
        self.model.load_adapter_state(part(tensors, "adapter"))
        self._deployed = part(tensors, "deployed")
        self.beta = float(facts["beta"])
        good = part(tensors, "good") or self.average.state()  # of before it was kept
        self._good = (good, dict(self._deployed), float(facts.get("good_beta", self.beta)))
        for name, optimiser in (("critic", self._critic_optimiser), ("actor", self._actor_optimiser)):
            load_optimiser(part(tensors, f"{name}_optimiser"), optimiser)
        self.updates, self.actor_updates = facts["updates"], facts["actor_updates"]
        self._scaled = bool(facts.get("scaled", self.updates > 0))
        self._rescales = bool(facts.get("rescales", False))
        self.lessons = tuple(facts.get("lessons", ()))
        self._rng.bit_generator.state = facts["random"]
        caller: dict[str, Any] = facts.get("caller", {})
        return caller


@torch.no_grad()
def _move(module: nn.Module, towards: nn.Module, rate: float) -> None:
    """module <- module + rate (towards - module)."""
    for kept, new in zip(module.parameters(), towards.parameters(), strict=True):
        kept.lerp_(new, rate)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
