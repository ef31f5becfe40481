"""One adapter and one critic out of several, exactly.

Adapters of a base share LoRA's A (`LanguageModelConfig.train_a`), so what they add to the weights is linear in B:

    sum_i w_i (s B_i A) = s (sum_i w_i B_i) A

and the mean of their B is the mean of their changes. A critic is an ensemble: a merged one takes some heads of each, in
proportion to the weights, and the mean over its heads is the weighted mean of theirs. Heads of critics that were scaled
by other features are folded into one scale first, which leaves what they say as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llmagent_ros.errors import ConfigError, ModelError

State = Mapping[str, Tensor]
_SHIFT, _SCALE, _FIRST_WEIGHT, _FIRST_BIAS = "shift", "scale", "net.0.weight", "net.0.bias"


def merge_adapters(adapters: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """The adapter whose change of the model is the weighted mean of theirs.

    Args:
        adapters: PEFT state dicts. weights: of each, not negative; they are divided by their sum.

    Raises:
        ModelError: their names, shapes or A differ, so that there is no such adapter of the same rank.
        ConfigError: weights that do not say a mean.
    """
    shares = _shares(weights, len(adapters))
    first = adapters[0]
    for other in adapters[1:]:
        wrong = sorted(set(first) ^ set(other)) or sorted(n for n in first if first[n].shape != other[n].shape)
        if wrong:
            raise ModelError(f"adapters do not merge: {len(wrong)} tensors differ in shape, first {wrong[0]!r}")
        if any("lora_A" in name and not torch.equal(first[name], other[name]) for name in first):
            raise ModelError("adapters do not merge exactly: their A differ; valid: adapters whose A did not train")
    merged: dict[str, Tensor] = {}
    for name, tensor in first.items():
        if "lora_A" in name:
            merged[name] = tensor.clone()
        else:
            merged[name] = sum((s * a[name].double() for s, a in zip(shares, adapters, strict=True)), start=_zero()).to(
                tensor.dtype
            )
    return merged


def merge_critics(critics: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """The critic that has heads of each, in proportion to the weights (by largest remainder).

    Args:
        critics: their states (`Critic.state`), of one shape. weights: as of `merge_adapters`.

    Raises:
        ModelError: their shapes differ. ConfigError: weights that do not say a mean.
    """
    shares = _shares(weights, len(critics))
    for other in critics[1:]:
        if {n: t.shape for n, t in other.items()} != {n: t.shape for n, t in critics[0].items()}:
            raise ModelError("critics do not merge: their shapes differ")
    heads = len(critics[0][_FIRST_WEIGHT])
    heaviest = critics[shares.index(max(shares))]
    shift, scale = heaviest[_SHIFT], heaviest[_SCALE]
    counts = _apportion(shares, heads)
    chosen: list[tuple[State, slice]] = []
    start = 0
    for critic, count in zip(critics, counts, strict=True):  # not all of them the first ones: those may be alike
        chosen.append((_rescaled(critic, shift, scale), slice(start, start + count)))
        start += count
    merged = {
        name: torch.cat([state[name][part] for state, part in chosen])
        for name in critics[0]
        if name not in (_SHIFT, _SCALE)
    }
    return {**merged, _SHIFT: shift.clone(), _SCALE: scale.clone()}


def _rescaled(critic: State, shift: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """The same function of the features, with another shift and scale before its first layer:

        ((x - m) s) W + b = ((x - m') s') (s/s' W) + b + ((m' - m) s) W
    """
    own_shift, own_scale = critic[_SHIFT].double(), critic[_SCALE].double()
    weight, bias = critic[_FIRST_WEIGHT].double(), critic[_FIRST_BIAS].double()  # (h, in, out), (h, 1, out)
    moved = ((shift.double() - own_shift) * own_scale) @ weight  # (h, out)
    changed = {
        _FIRST_WEIGHT: (own_scale / scale.double())[:, None] * weight,
        _FIRST_BIAS: bias + moved[:, None],
    }
    return {name: changed[name].to(tensor.dtype) if name in changed else tensor for name, tensor in critic.items()}


def _shares(weights: Sequence[float], count: int) -> list[float]:
    total = math.fsum(weights)
    if len(weights) != count or not count:
        raise ConfigError(f"weights: one for each of {count}, at least one (got {len(weights)})")
    if not (math.isfinite(total) and total > 0 and min(weights) >= 0):
        raise ConfigError(f"weights: not negative, finite, not all zero (got {list(weights)})")
    return [weight / total for weight in weights]


def _apportion(shares: Sequence[float], seats: int) -> list[int]:
    """Whole numbers that add up to `seats`, as near to the shares as can be: Hamilton's largest remainder."""
    counts = [int(share * seats) for share in shares]
    rests = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i] * seats, i))
    for i in rests[: seats - sum(counts)]:
        counts[i] += 1
    return counts


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)
