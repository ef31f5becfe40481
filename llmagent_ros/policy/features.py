"""Features of a prompt from a frozen base model: pooled hidden states and their principal components."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmagent_ros.errors import ModelError
from llmagent_ros.policy.prompt import PromptFormat

PROJECTION = "projection.safetensors"
_MAX_FEATURES = 1024  # a wide model gives fewer of its cue's tokens


def cue_tokens(tokenizer: Any, form: PromptFormat, width: int) -> int:
    """How many of the cue's last tokens give features, for hidden states of size `width`."""
    cue = len(tokenizer(form.cue, add_special_tokens=False).input_ids)
    return max(1, min(cue, _MAX_FEATURES // width - 1))


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


def fit_projection(features: Tensor, size: int) -> Projection:
    """The `size` strongest components of features, (N, D)."""
    mean = features.mean(0)
    _, scale, components = torch.linalg.svd(features - mean, full_matrices=False)
    deviation = (scale[:size].square().mean() / len(features)).sqrt()
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
