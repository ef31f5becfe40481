"""Features of a prompt from a frozen base model: pooled hidden states and their principal components."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmagent_ros.errors import ModelError

PROJECTION = "projection.safetensors"
_MAX_FEATURES = 1024  # a wide model gives fewer of its cue's tokens


def cue_tokens(prompts: Sequence[Sequence[int]], width: int) -> int:
    """How many of the last tokens give features, for hidden states of size `width`.

    Args:
        prompts: tokens of two prompts of scenes that end differently: what they share at their ends is the cue.
    """
    first, second = (list(reversed(tokens)) for tokens in prompts)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    return max(1, min(shared, _MAX_FEATURES // width - 1))


def cue_features(hidden: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """Mean over a prompt's tokens, then its last `tokens` tokens; (B, (1 + tokens) * width).

    Args:
        hidden: hidden states of one layer, (B, T, width), of left-padded prompts. mask: 1 for tokens, (B, T).
    """
    states = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])
    mean = (states * (mask / mask.sum(-1, keepdim=True))[..., None]).sum(1, keepdim=True)
    mean = torch.nn.functional.layer_norm(mean, mean.shape[-1:])
    return torch.cat([mean, states[:, -tokens:]], dim=1).flatten(1)


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
