"""The terms of the critic's loss, as `learner.py` puts them together."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lower_bound(values: Tensor, pessimism: float) -> Tensor:
    """Mean over the heads less so many of their (sample) standard deviations, (heads, B, actions) -> (B, actions)."""
    return values.mean(0) - pessimism * values.std(0)


def soft_targets(values: Tensor, bound: Tensor, returns: Tensor, discount: Tensor, beta: float) -> Tensor:
    """y of the module's critic equation, (B,).

    Args:
        values: of every head at the next scene, (heads, B, actions). bound: of the target heads there, (B, actions).
        returns, discount: n-step return and gamma^m (0 where terminated), (B,).
    """
    policy = (values.mean(0) / beta).softmax(-1)
    return returns + discount * (policy * bound).sum(-1)


def entropy_share(values: Tensor, beta: float) -> float:
    """Mean entropy of softmax(values / beta), as a share of that of the uniform distribution.

    Args:
        values: mean of the heads, (B, actions), of two actions or more.
    """
    log_policy = (values / beta).log_softmax(-1)
    entropy = -(log_policy.exp() * log_policy).sum(-1).mean()
    return float(entropy) / math.log(values.shape[-1])


def margin_loss(values: Tensor, shown: Tensor, margin: float) -> Tensor:
    """How far what was shown is from being better by a margin than all else, mean over scenes, (heads,).

    Args:
        values: (heads, B, actions). shown: actions, (B,). margin: in units of return.
    """
    others = torch.full_like(values, margin).scatter(-1, shown.expand(len(values), -1)[..., None], 0.0)
    own = values.gather(-1, shown.expand(len(values), -1)[..., None])[..., 0]
    return ((values + others).amax(-1) - own).mean(1)
