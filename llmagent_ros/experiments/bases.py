"""Bases on disk: what is made beside their weights, and one that has learned nothing, to be measured against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from llmagent_ros.experiments.environments import EnvironmentSpec
from llmagent_ros.experiments.exploration import explore
from llmagent_ros.policy.features import fit_projection
from llmagent_ros.policy.language_model import SHIPPED_BASE, LanguageModel, LanguageModelConfig

COMPONENTS = 384
_SCENES = 3000  # of each environment


def add_projection(folder: Path, groups: Sequence[Sequence[str]]) -> None:
    """Fits the features' projection to scenes, a group for each environment, and saves it beside the model."""
    model = LanguageModel(LanguageModelConfig(model=str(folder)), ["wait"])  # its phrases have no part in features
    features = []
    for scenes in groups:
        chosen = scenes[:: max(1, len(scenes) // _SCENES)]
        features.append(torch.cat([model.features(chosen[i : i + 64]) for i in range(0, len(chosen), 64)]))
    fit_projection(features, COMPONENTS).save(folder)


def save_untrained(folder: Path, spec: EnvironmentSpec, seed: int) -> Path:
    """The shipped base with random weights; its projection is fitted to scenes of `spec` alone."""
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(SHIPPED_BASE)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(SHIPPED_BASE).save_pretrained(folder)
    add_projection(folder, [[step.scene for step in islice(explore(spec, 0, _SCENES), _SCENES)]])
    return folder
