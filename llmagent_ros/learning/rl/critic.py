"""The critic: an ensemble of small LayerNorm heads on frozen features of the base model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from llmagent_ros.errors import ModelError


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class CriticConfig:
    """Heads, hidden width and hidden layers of each."""

    heads: int = Field(default=5, ge=2)
    width: int = Field(default=128, gt=0)
    depth: int = Field(default=2, ge=1)


class _EnsembleLinear(nn.Module):
    """One linear layer per head, computed together: (heads, B, inputs) -> (heads, B, outputs)."""

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs))

    def forward(self, x: Tensor, heads: Tensor | None = None) -> Tensor:
        weight, bias = (self.weight, self.bias) if heads is None else (self.weight[heads], self.bias[heads])
        return torch.baddbmm(bias, x, weight)


class _EnsembleNorm(nn.Module):
    """LayerNorm with its own scale and shift for each head."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, 1, width))
        self.bias = nn.Parameter(torch.zeros(heads, 1, width))

    def forward(self, x: Tensor, heads: Tensor | None = None) -> Tensor:
        weight, bias = (self.weight, self.bias) if heads is None else (self.weight[heads], self.bias[heads])
        return nn.functional.layer_norm(x, x.shape[-1:]) * weight + bias


class Critic(nn.Module):
    """Q(s, .) of every head over the closed vocabulary.

    LayerNorm bounds extrapolation to actions that the data lacks (RLPD, Ball et al. 2023); the ensemble's mean is what
    targets are made of (averaged DQN, Anschel et al. 2017), and its spread tells when it does not know.

    Args:
        features: size of a feature vector. actions: size of the vocabulary.
    """

    def __init__(self, features: int, actions: int, config: CriticConfig | None = None) -> None:
        super().__init__()
        self.config = config or CriticConfig()
        self.features, self.actions = features, actions
        heads, width = self.config.heads, self.config.width
        layers: list[nn.Module] = []
        size = features
        for _ in range(self.config.depth):
            layers += [_EnsembleLinear(heads, size, width), _EnsembleNorm(heads, width), nn.SiLU()]
            size = width
        layers.append(_EnsembleLinear(heads, size, actions))
        self.net = nn.Sequential(*layers)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        with torch.no_grad():  # start near zero, so that untrained heads leave the choice to the language model
            last = self.net[-1]
            assert isinstance(last, _EnsembleLinear)
            last.weight.mul_(0.1)

    def forward(self, features: Tensor, heads: Tensor | None = None) -> Tensor:
        """(B, features) -> (heads, B, actions): of all heads, or of the chosen ones alone, (k,) -> (k, B, actions)."""
        count = self.config.heads if heads is None else len(heads)
        x = ((features.float() - self.shift) * self.scale).expand(count, *features.shape)
        for layer in self.net:
            x = layer(x) if isinstance(layer, nn.SiLU) else layer(x, heads)
        return x

    @torch.no_grad()
    def standardise(self, features: Tensor, floor: float) -> None:
        """Scales what the heads see by the spread of some features, (N, features): (x - mean) / sqrt(var + floor v).

        v is the mean variance: what varies much less than the rest may be noise, and is not blown up to its size.
        """
        variance = features.var(0, unbiased=False)
        self.shift.copy_(features.mean(0))
        self.scale.copy_((variance + floor * variance.mean()).clamp(min=1e-12).rsqrt())

    @torch.no_grad()
    def rescale(self, features: Tensor, floor: float) -> Tensor:
        """The same where heads have learned with another scale: their first layer changes with it, so that they say of
        each feature vector what they did.

        Returns:
            By how much more the first layer's weights count now, (features, 1).
        """
        shift, scale = self.shift.clone(), self.scale.clone()
        self.standardise(features, floor)
        self.first.bias.add_((((self.shift - shift) * scale) @ self.first.weight)[:, None])
        more = (scale / self.scale)[:, None]
        self.first.weight.mul_(more)
        return more

    @property
    def first(self) -> _EnsembleLinear:
        """The layer that sees the features; its weight is (heads, features, width)."""
        layer = self.net[0]
        assert isinstance(layer, _EnsembleLinear)
        return layer

    @torch.inference_mode()
    def values(self, features: Tensor, head: int | None = None) -> Tensor:
        """Mean over the heads, or what one head says, (B, actions). head: any number from 0 on, modulo the heads."""
        if head is None:
            return self.forward(features).mean(0)
        return self.forward(features, torch.tensor([head % self.config.heads], device=features.device))[0]

    def state(self) -> dict[str, Tensor]:
        """Its tensors on the CPU, for a bundle."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Copies tensors in.

        Raises:
            ModelError: names or shapes do not fit; nothing was changed.
        """
        own = self.state_dict()
        wrong = sorted(set(own) ^ set(state)) or sorted(n for n, t in state.items() if t.shape != own[n].shape)
        if wrong:
            raise ModelError(f"critic does not fit: {len(wrong)} tensors differ, first {wrong[0]!r}")
        self.load_state_dict(dict(state))


def build_critic(state: Mapping[str, Tensor]) -> Critic:
    """A critic of the shape that the tensors say, with them in it.

    Raises:
        ModelError: these are not a critic's tensors.
    """
    layers = ((n, t.shape) for n, t in state.items() if n.endswith(".weight") and t.ndim == 3)
    linear = (name for name, shape in layers if shape[0] > 1 < shape[1] and shape[2] > 0)
    weights = sorted(linear, key=_layer_number)
    if len(weights) < 2:
        raise ModelError("these tensors are not a critic's: no ensemble of linear layers in them")
    heads, features, width = state[weights[0]].shape
    config = CriticConfig(heads=heads, width=width, depth=len(weights) - 1)
    critic = Critic(features, state[weights[-1]].shape[-1], config)
    critic.load_state(state)
    return critic


def _layer_number(name: str) -> int:
    part = name.split(".")[1] if name.count(".") >= 2 else ""
    return int(part) if part.isdigit() else -1
