"""Features of a prompt from a frozen base model: pooled hidden states and their principal components."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmagent_ros.errors import ModelError

PROJECTION = "projection.safetensors"
_MOST = 2048  # numbers before the projection; a wide model gives fewer parts
_ENOUGH = 8  # parts of that size from which on statistics of several layers are among them


@dataclass(frozen=True)
class Pooling:
    """Which hidden states of a prompt become its features; each part is standardised on its own.

    Attributes:
        layers: indices into the hidden states, 0 those of the tokens themselves: the mean over all tokens is taken.
        squares: whether the mean of the squares is, too: a mean alone cannot tell a few strong states from many weak
            ones (statistics pooling, Snyder et al. 2018).
        tokens: how many of the last tokens' states of the last of these layers follow by themselves.
    """

    layers: tuple[int, ...]
    squares: bool
    tokens: int

    @property
    def parts(self) -> int:
        """How many vectors of a hidden state's size."""
        return len(self.layers) * (1 + self.squares) + self.tokens

    def __call__(self, hidden: Sequence[Tensor], mask: Tensor) -> Tensor:
        """(B, parts * width).

        Args:
            hidden: of every layer, each (B, T, width), of left-padded prompts. mask: 1 for tokens, (B, T).
        """
        shares = (mask / mask.sum(-1, keepdim=True))[..., None]
        parts: list[Tensor] = []
        for layer in self.layers:
            states = _standardised(hidden[layer].float())
            means = [states, states.square()] if self.squares else [states]
            parts += [_standardised((each * shares).sum(1, keepdim=True)) for each in means]
        return torch.cat([*parts, states[:, -self.tokens :]], dim=1).flatten(1)


def pooling_of(cue: int, width: int, depth: int) -> Pooling:
    """How a model of `depth` layers and hidden states of size `width` is pooled.

    The states below the last layer: those above it only serve to predict the next word. Of a narrow model also those of
    the tokens and of the middle, as its deeper ones have forgotten which number was which.

    Args:
        cue: how many tokens every prompt ends with.
    """
    last, budget = depth - 1, _MOST // width
    many = budget >= _ENOUGH
    layers = tuple(sorted({0, last // 2, last})) if many else (last,)
    statistics = len(layers) * (2 if many else 1)
    return Pooling(layers, many, max(1, min(cue, budget - statistics)))


def shared_ending(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens two prompts end with alike: of scenes that end differently, those of the cue."""
    first, second = (list(reversed(tokens)) for tokens in prompts)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _standardised(states: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(states, states.shape[-1:])


class Projection:
    """Principal components: most of what hidden states hold is the same for every scene, and says nothing.

    The components keep their proportions (whitening would blow up those that are noise) and have a mean variance of 1
    on the scenes that they were fitted to.

    Attributes:
        mean: (D,). basis: (D, size).
    """

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        self.mean, self.basis = mean, basis
        data = b"".join(t.detach().cpu().contiguous().numpy().tobytes() for t in (mean, basis))
        self._digest = hashlib.sha256(data).hexdigest()

    @property
    def size(self) -> int:
        return int(self.basis.shape[1])

    def __call__(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, size)."""
        return (features - self.mean) @ self.basis

    def __repr__(self) -> str:
        return f"Projection({self.size}, {self._digest})"

    def save(self, folder: Path) -> None:
        save_file({"mean": self.mean.contiguous(), "basis": self.basis.contiguous()}, folder / PROJECTION)


def fit_projection(groups: Sequence[Tensor], size: int) -> Projection:
    """The `size` strongest components within groups, each of features (N, D) of one environment's scenes.

    Each group is centred by itself and counts alike: what tells environments apart is the same for all scenes of a run,
    and would else take the place of what a scene says.
    """
    mean = torch.stack([group.mean(0) for group in groups]).mean(0)
    centred = torch.cat([(group - group.mean(0)) / len(group) ** 0.5 for group in groups])
    _, scale, components = torch.linalg.svd(centred, full_matrices=False)
    deviation = (scale[:size].square().mean() / len(groups)).sqrt()
    return Projection(mean, components[:size].T / deviation)


def load_projection(folder: Path, device: torch.device) -> Projection | None:
    """The projection that lies beside a model, or None.

    Raises:
        ModelError: it is damaged.
    """
    path = folder.expanduser() / PROJECTION
    if not path.is_file():
        return None
    try:
        tensors = load_file(path, device=str(device))
        return Projection(tensors["mean"], tensors["basis"])
    except (SafetensorError, KeyError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
