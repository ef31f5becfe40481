"""How well a model foretells the text of logs while its adapter acts where it does in use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.logs import LoggedStep
from llmagent_ros.policy.pretraining import without_task

SCENES = "_scenes"


@torch.inference_mode()
def perplexities(model: LanguageModel, steps: Sequence[LoggedStep]) -> dict[str, float]:
    """exp of the mean token loss over whole sequences "scene, cue, action, next scene", as `pretraining.perplexity`.

    Returns:
        base: without the adapter. adapted: with it, acting on cue and phrase, as in use. onwards: acting on all that
        follows as well, as PEFT has it where text is generated. base_scenes, adapted_scenes, onwards_scenes: the same
        of all tokens but the phrase's, which an adapter that has learned to choose otherwise must foretell worse.
    """
    base, adapted = model.for_inference(adapter=False), model.for_inference(adapter=True)
    ways = {"base": (base, base, base), "adapted": (base, adapted, base), "onwards": (base, adapted, adapted)}
    sums = {f"{name}{part}": 0.0 for name in ways for part in ("", SCENES)}
    counts = {"": 0, SCENES: 0}
    for step in steps:
        tokens, ends = _tokens(model, step)
        phrase = slice(ends[0] + model.cue_tokens - 1, ends[1] - 1)  # among the losses, which begin with token 1
        counts[""] += len(tokens) - 1
        counts[SCENES] += len(tokens) - 1 - (phrase.stop - phrase.start)
        for name, models in ways.items():
            losses = _losses(models, torch.tensor([tokens], device=model.device), ends)
            sums[name] += float(losses.sum())
            sums[f"{name}{SCENES}"] += float(losses.sum() - losses[phrase].sum())
    return {name: math.exp(total / counts[SCENES if name.endswith(SCENES) else ""]) for name, total in sums.items()}


def _tokens(model: LanguageModel, step: LoggedStep) -> tuple[list[int], list[int]]:
    """Of a step, and where the scene, the phrase and the whole end."""
    scene = model.encode([model.form.prompt(step.scene)])[0]
    told = without_task(step.next_scene, step.task)
    after = model.tokenizer(model.form.outcome(step.action, told), add_special_tokens=False).input_ids
    phrase = model.tokenizer(model.form.phrase(step.action), add_special_tokens=False).input_ids
    tokens = [*scene, *after, int(model.tokenizer.eos_token_id)]
    return tokens, [len(scene) - model.cue_tokens, len(scene) + len(phrase), len(tokens)]


def _losses(models: Sequence[Any], ids: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    """Of all tokens but the first, each part read by its model after the parts before it."""
    cache, logits, begin = DynamicCache(), [], 0
    for model, end in zip(models, ends, strict=True):
        out = model(input_ids=ids[:, begin:end], past_key_values=cache, use_cache=True)
        logits.append(out.logits[0].float())
        begin = end
    log_probs = torch.cat(logits)[:-1].log_softmax(-1)
    return -log_probs.gather(-1, ids[0, 1:, None])[:, 0]
