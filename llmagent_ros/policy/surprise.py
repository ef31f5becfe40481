"""How little the base expected what came of an action: its prediction error of the next scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.pretraining import without_task
from llmagent_ros.types import FloatArray, Transition

_BATCH = 32


def surprise(model: LanguageModel, transitions: Sequence[Transition]) -> FloatArray:
    """Of each transition, float32, (N,): the mean of -log p(y | scene, action, before) over the next scene's tokens y.

    In nats a token. The adapter is off: the base does not change, so that what was usual stays comparable. The
    instruction is left out of the next scene, as in what the shipped base has read.
    """
    found = [_surprise(model, transitions[start : start + _BATCH]) for start in range(0, len(transitions), _BATCH)]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


@torch.inference_mode()
def _surprise(model: LanguageModel, transitions: Sequence[Transition]) -> FloatArray:
    before, after = zip(*(_tokens(model, each) for each in transitions), strict=True)
    length = max(len(b) + len(a) for b, a in zip(before, after, strict=True))
    pad = int(model.tokenizer.pad_token_id)
    rows = [[pad] * (length - len(b) - len(a)) + b + a for b, a in zip(before, after, strict=True)]
    ids = torch.tensor(rows, device=model.device)
    steps = torch.arange(length, device=model.device)
    real, scored = (
        (steps >= length - torch.tensor(sizes, device=model.device)[:, None]).long()
        for sizes in ([len(b) + len(a) for b, a in zip(before, after, strict=True)], [len(a) for a in after])
    )
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    base = model.for_inference(adapter=False)
    logits = base(input_ids=ids, attention_mask=real, position_ids=positions, use_cache=False).logits[:, :-1]
    log_probs = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    counted = scored[:, 1:]
    return np.asarray((-(log_probs * counted).sum(1) / counted.sum(1).clamp(min=1)).cpu().numpy())


def _tokens(model: LanguageModel, transition: Transition) -> tuple[list[int], list[int]]:
    """Of prompt and phrase, and of what came of it; where the first is too long, it loses its beginning."""
    form, most = model.form, model.config.max_tokens
    phrase = form.phrase(transition.action)
    told = form.outcome(transition.action, without_task(transition.next_scene, transition.task)).removeprefix(phrase)
    done, after = (model.tokenizer(text, add_special_tokens=False).input_ids for text in (phrase, told))
    return [*model.encode([form.prompt(transition.scene)])[0], *done][-most:], after[:most]
