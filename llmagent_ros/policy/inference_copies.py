"""Copies of a model for inference: PEFT's layers cost a small model as much as its own arithmetic.

A copy shares every tensor with its original except those that have to differ, so it takes little memory.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn


def sharing_copy(model: Any) -> Any:
    """The same modules over the same parameters and buffers."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def without_last_layer(plain: Any) -> Any | None:
    """A sharing copy whose last layer does nothing, for hidden states that are taken below it; None where the layers of
    this kind of model are not found.
    """
    made = sharing_copy(plain)
    stacks = [module for module in made.modules() if isinstance(module, nn.ModuleList)]
    layers = [stack for stack in stacks if len(stack) == plain.config.num_hidden_layers]
    if len(layers) != 1:
        return None

    class Through(type(layers[0][-1])):  # type: ignore[misc] # the kind whose outputs transformers records
        def __init__(self) -> None:
            nn.Module.__init__(self)

        def forward(self, hidden_states: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
            return hidden_states

    layers[0][-1] = Through()
    return made


class MergedCopy:
    """The base with an adapter added into copies of the weights that it changes: W + scale B A (Hu et al. 2022).

    Args:
        plain: the base without PEFT's layers, over the same parameters. adapted: the model that PEFT made of it.
        adapter: its name there.
    """

    def __init__(self, plain: Any, adapted: PeftModel, adapter: str) -> None:
        self.model = sharing_copy(plain)
        self._adapter = adapter
        inner: Any = adapted.base_model.model
        layers = {name: module for name, module in inner.named_modules() if isinstance(module, LoraLayer)}
        self._pairs: list[tuple[Any, nn.Parameter]] = []
        for name, layer in layers.items():
            module = self.model.get_submodule(name)
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
            self._pairs.append((layer, module.weight))
        self._parameters = [p for name, p in adapted.named_parameters() if f".{adapter}." in name]
        self._versions: list[int] = []

    @torch.no_grad()
    def refresh(self) -> Any:
        """The model, with the adapter as it is now. Changes are seen that autograd sees, so not those of `.data`."""
        versions = [parameter._version for parameter in self._parameters]
        if versions != self._versions:
            for layer, weight in self._pairs:
                weight.copy_(layer.get_base_layer().weight + layer.get_delta_weight(self._adapter))
            self._versions = versions
        return self.model
