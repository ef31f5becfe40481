"""What the learner needs of others, which it does not import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class AdaptedModel(Protocol):
    """What the learner needs of the language model; texts are scenes, (B,)."""

    phrases: tuple[str, ...]
    feature_size: int
    feature_digest: str
    base_digest: str
    device: torch.device  # where its features are, and so the critic

    def features(self, scenes: Sequence[str]) -> Tensor: ...

    def read(self, scenes: Sequence[str], lessons: Sequence[str] = ()) -> Any: ...

    def phrase_log_probs_of(self, reading: Any) -> Tensor: ...

    def adapter_parameters(self) -> list[nn.Parameter]: ...

    def adapter_state(self) -> dict[str, Tensor]: ...

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None: ...

    def adapter_config(self) -> dict[str, Any]: ...


class SceneMirror(Protocol):
    """See `perception.mirror.Mirror`."""

    actions: tuple[int, ...]
    rule: str

    def scene(self, text: str) -> str | None: ...
