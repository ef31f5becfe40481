"""Steps between states of a learner, and the gradient at one, which no learner takes by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from llmagent_ros.errors import DivergenceError
from llmagent_ros.learning.rl.learner import Learner


def remember(learner: Learner) -> list[Tensor]:
    """Copies of its weights and of what follows the critic, for `blend`."""
    return [each.detach().clone() for each in (*learner.weights(), *learner.followers())]


@torch.no_grad()
def blend(learner: Learner, before: Sequence[Tensor], share: float, updates: int) -> None:
    """Keeps `share` of what has changed: w <- before + share (w - before).

    Args:
        before: from `remember`. updates: for how many target and average follow the outcome, from where they were.
    """
    weights = learner.weights()
    for weight, old in zip(weights, before[: len(weights)], strict=True):
        weight.copy_(torch.lerp(old, weight, share))
    for follower, old in zip(learner.followers(), before[len(weights) :], strict=True):
        follower.copy_(old)
    if updates:
        learner.follow(updates)


def gradient(learner: Learner, *, adapter: bool) -> list[Tensor | None]:
    """Of the losses of an update, for batches that are drawn now, in the order of its weights; changes nothing.

    Args:
        adapter: whether that of the adapter's loss too; None stands where there is none.

    Raises:
        DivergenceError: it is not finite.
    """
    critic = list(learner.critic.parameters())
    rest = learner.weights()[len(critic) :]
    parts = [(learner.critic_loss()[0], critic)]
    if adapter:
        parts.append((learner.actor_loss()[0], rest))
    found: list[Tensor | None] = []
    for loss, parameters in parts:
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float(each.square().sum()) for each in gradients))
        if not math.isfinite(norm):
            raise DivergenceError(f"gradient norm {norm:.4g} after {learner.updates} updates")
        scale = min(1.0, learner.config.max_gradient / max(norm, 1e-12))
        found += [each * scale for each in gradients]
    return found + [None] * (0 if adapter else len(rest))
