"""An optimiser's moments as named tensors, so that training goes on from a safetensors file as if never interrupted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors below `name`/."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def optimiser_tensors(name: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments and step counts, as `name`/index/key."""
    state = optimiser.state_dict()["state"]
    return {
        f"{name}/{index}/{key}": value.detach().cpu().clone()
        for index, values in state.items()
        for key, value in values.items()
    }


def load_optimiser(tensors: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Puts back what `optimiser_tensors` gave; settings such as the learning rate stay as configured."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
