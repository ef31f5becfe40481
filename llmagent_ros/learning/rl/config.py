"""Settings of the learner."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.learning.rl.critic import CriticConfig

_STRICT = ConfigDict(extra="forbid")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(config=_STRICT, frozen=True)
class LearnerConfig:
    """What the learner does with the replay.

    Attributes:
        gamma: discount of one step. n_step: steps of reward before bootstrapping.
        beta: temperature of the policy over action values, in units of return.
        target_entropy: share of the greatest entropy that this policy is to have on average; beta is changed towards
            it, from the one given on and by at most a factor of 1000. 0: beta stays as it is.
        pessimism: how many standard deviations of the heads targets stay below their mean. More keeps what was learned
            more steadily; less is bolder where most of what is tried early fails.
        disagreement: while it learns, the policy acts in each episode by the mean of the critic's heads and this much
            of what sets one of them apart: 0 by the mean, 2 by one head. More explores more deeply, and does worse
            meanwhile.
        batch_size, learning_rate: of the critic. target_rate: of the target's moving average.
        average_rate: of the moving average of the critic, which acts and teaches the adapter.
        updates_per_step: critic updates for each new transition.
        warmup: transitions before the first update.
        mirror: whether what a step teaches is learned of its mirror image too, where robot or environment has the same
            on both sides (`perception.mirror`). Not for a robot that pulls to one side.
        demo_share: share of a batch from demonstrations and interventions, when there are any (RLPD).
        margin, margin_weight: by how much the critic is to prefer what was demonstrated (in units of beta: the policy's
            log-odds), and how much that counts (DQfD, Hester et al. 2018).
        actor_every: critic updates for one update of the adapter; 0 leaves the adapter alone.
        actor_batch, actor_learning_rate: of it.
        lesson_share: share of the adapter's updates with lessons before the scene, so that it reads scenes alike
            with and without them.
        kl_weight: of KL(adapter || deployed adapter). clone_weight: of imitating demonstrations.
        feature_floor: how much the critic equalises the spread of its features when it begins to learn; see
            `Critic.standardise`. None leaves them as the base gives them.
        cache_features: False computes them again for every batch; only to measure what keeping them is worth.
        max_gradient: norm at which gradients are clipped. max_loss: a critic loss beyond it is divergence.
    """

    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.985
    n_step: Annotated[int, Field(gt=0)] = 1
    beta: Positive = 0.02
    target_entropy: Annotated[float, Field(ge=0, lt=1)] = 0.0
    pessimism: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    disagreement: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    batch_size: Annotated[int, Field(gt=0)] = 128
    learning_rate: Positive = 5e-4
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    average_rate: Annotated[float, Field(gt=0, le=1)] = 0.002
    updates_per_step: Positive = 4.0
    warmup: Annotated[int, Field(gt=0)] = 256
    mirror: bool = True
    demo_share: Share = 0.5
    margin: Positive = 2.0
    margin_weight: Annotated[float, Field(ge=0)] = 1.0
    actor_every: Annotated[int, Field(ge=0)] = 40
    actor_batch: Annotated[int, Field(gt=0)] = 32
    actor_learning_rate: Positive = 2e-3
    lesson_share: Share = 0.5
    kl_weight: Annotated[float, Field(ge=0)] = 0.1
    clone_weight: Annotated[float, Field(ge=0)] = 0.5
    feature_floor: Annotated[float, Field(gt=0)] | None = 2.0
    cache_features: bool = True
    max_gradient: Positive = 10.0
    max_loss: Positive = 1e4
    critic: CriticConfig = Field(default_factory=CriticConfig)
