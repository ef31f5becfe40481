"""From a bundle on disk to what may act: nothing that does not fit the model gets further than here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from llmagent_ros.bundle import load_bundle
from llmagent_ros.errors import ModelError
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.text_policy import Values


class ActingCritic(Protocol):
    """What a policy needs of a critic. features: numbers of a scene. actions: phrases."""

    @property
    def features(self) -> int: ...
    @property
    def actions(self) -> int: ...
    def to(self, device: Any) -> Any: ...
    def values(self, features: Tensor, head: int | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Deployment:
    """An adapter and action values that fit a model; the arguments of `TextPolicy.swap`.

    wording: the kind of task that it is for, empty where the bundle does not say. digest: of the bundle.
    """

    adapter: dict[str, Tensor] | None
    values: Values | None
    beta: float
    name: str
    disagreement: float = 0.0
    wording: str = ""
    digest: str = ""


def read_deployment(
    path: Path,
    model: LanguageModel,
    build_critic: Callable[[Mapping[str, Tensor]], ActingCritic],
    digest: str = "",
) -> Deployment:
    """Reads a bundle and checks it against a model.

    Args:
        build_critic: makes a critic of its tensors. digest: the one that was announced; empty takes any.

    Raises:
        ModelError: it is damaged, another one than announced, or made for another base, prompt or vocabulary.
    """
    bundle = load_bundle(path)
    if digest and bundle.digest != digest:
        raise ModelError(f"{path}: digest {bundle.digest[:12]}, announced {digest[:12]}")
    if bundle.meta.get("feature_digest") != model.feature_digest:
        raise ModelError(f"{path}: made for another base model or prompt")
    if bundle.meta.get("phrases") != list(model.phrases):
        raise ModelError(f"{path}: made for other action phrases")
    beta = bundle.meta.get("beta", 1.0)
    if not (isinstance(beta, int | float) and 0.0 < beta < math.inf):
        raise ModelError(f"{path}: beta {beta!r}; valid: a finite number above 0")
    disagreement = bundle.meta.get("disagreement", 0.0)
    if not (isinstance(disagreement, int | float) and 0.0 <= disagreement < math.inf):
        raise ModelError(f"{path}: disagreement {disagreement!r}; valid: a finite number from 0 on")
    try:
        if bundle.adapter is not None:
            if otherwise := bundle.acts_otherwise(model.adapter_config()):
                raise ModelError(f"its adapter acts otherwise than the model's: {'; '.join(otherwise)}")
            model.check_adapter_state(bundle.adapter)
        critic = build_critic(bundle.critic).to(model.device) if bundle.critic else None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if critic is not None and (critic.features, critic.actions) != (model.feature_size, len(model.phrases)):
        raise ModelError(f"{path}: its critic is for {critic.features} features and {critic.actions} phrases")
    values = critic.values if critic is not None else None
    wording = str(bundle.meta.get("wording", ""))
    return Deployment(bundle.adapter, values, float(beta), path.name, float(disagreement), wording, bundle.digest)
