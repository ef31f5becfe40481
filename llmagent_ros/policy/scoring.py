"""Scores of action phrases after prompts that a model has read, or has still to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from llmagent_ros.errors import ModelError
from llmagent_ros.policy.base_model import attention_window
from llmagent_ros.policy.phrase_tokens import PhraseTokens

KeysAndValues = tuple[tuple[Tensor, Tensor], ...]  # of each layer, each (B, heads, tokens, size)


@dataclass(frozen=True)
class Reading:
    """A batch of prompts and what the base made of their beginnings.

    Attributes:
        ids, mask: left-padded tokens, (B, T). past: of the first tokens; empty: nothing is read yet.
    """

    ids: Tensor
    mask: Tensor
    past: KeysAndValues = ()

    @property
    def read(self) -> int:
        """How many tokens of each row, padding included."""
        return self.past[0][0].shape[2] if self.past else 0

    @property
    def cache(self) -> DynamicCache | None:
        """For a model that reads on; the tensors of `past` stay as they are."""
        return DynamicCache(self.past) if self.past else None


class PhraseScorer:
    """Scores of the phrases of a closed vocabulary.

    Attributes:
        way: "in one pass": what is left of the prompt and all phrases are one sequence (`PhraseTokens`); "by cache" for
            models that take no attention mask of ours: what is left of the prompt first, then each phrase after it.
    """

    def __init__(self, phrases: PhraseTokens) -> None:
        self._phrases = phrases
        self.way = "in one pass"

    def __call__(self, model: Any, reading: Reading) -> Tensor:
        """Mean (or summed) log-probability of each phrase's tokens after each prompt, float32, (B, phrases)."""
        return self._in_one_pass(model, reading) if self.way == "in one pass" else self._by_cache(model, reading)

    @torch.no_grad()
    def choose_way(self, model: Any, reading: Reading, most_tokens: int) -> None:
        """By whether a model heeds the attention mask: both ways then give the same for prompts that differ.

        Args:
            most_tokens: that a prompt may have; a mask of ours has no window, so all of it must be seen.
        """
        if attention_window(model.config) < most_tokens + self._phrases.ids.shape[1]:
            self.way = "by cache"
            return
        expected = self._by_cache(model, reading)
        try:
            at_once = self._in_one_pass(model, reading)
        except (TypeError, ValueError, RuntimeError):  # e.g. flash attention, ALiBi
            self.way = "by cache"
            return
        error = (at_once - expected).abs().max()
        self.way = "in one pass" if error < (1e-3 if model.dtype == torch.float32 else 0.1) else "by cache"

    def _in_one_pass(self, model: Any, reading: Reading) -> Tensor:
        phrases, start = self._phrases, reading.read
        ids, attention, positions = phrases.joined(reading.ids, reading.mask, model.dtype)
        out = model(
            input_ids=ids[:, start:],
            attention_mask=attention[:, :, start:],
            position_ids=positions[:, start:],
            past_key_values=reading.cache,
            use_cache=bool(start),
            logits_to_keep=1 + len(phrases.tail),
        )
        return phrases.scores(out.logits.float().log_softmax(-1))

    def _by_cache(self, model: Any, reading: Reading) -> Tensor:
        batch, (count, length) = len(reading.ids), self._phrases.ids.shape
        rest = reading.ids[:, reading.read :]
        prefix = forward(model, rest, reading.mask, reading.cache, use_cache=True, logits_to_keep=1)
        log_probs = prefix.logits[:, -1].float().log_softmax(-1)  # (B, V)
        scores = log_probs[:, self._phrases.ids[:, 0]]  # (B, P)
        if length > 1:
            phrase_ids, phrase_mask = self._phrases.ids.repeat(batch, 1), self._phrases.mask.repeat(batch, 1)
            full_mask = torch.cat([reading.mask.repeat_interleave(count, 0), phrase_mask[:, :-1]], dim=1)
            past = _repeated(keys_and_values(prefix, reading.ids.shape[1]), count)
            out = forward(model, phrase_ids[:, :-1], full_mask, past)
            log_probs = out.logits.float().log_softmax(-1)  # (B*P, L-1, V)
            following = log_probs.gather(-1, phrase_ids[:, 1:, None])[..., 0] * phrase_mask[:, 1:]
            scores = scores + following.sum(-1).view(batch, count)
        return scores / self._phrases.divisor


def forward(model: Any, ids: Tensor, mask: Tensor, past: DynamicCache | None = None, **options: Any) -> Any:
    """A pass over left-padded tokens that follow what `past` holds.

    Args:
        ids: (B, N). mask: 1 for tokens, of all that is read, (B, T) with T >= N.
    """
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    if past is None and options.get("use_cache"):
        past = DynamicCache()  # which keeps everything, where a model's own may keep a window
    return model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=past, **options)


def keys_and_values(out: Any, count: int) -> KeysAndValues:
    """Of the first `count` tokens of what a model has read.

    Raises:
        ModelError: it keeps none.
    """
    layers = getattr(out.past_key_values, "layers", ())
    pairs = tuple((layer.keys, layer.values) for layer in layers if getattr(layer, "keys", None) is not None)
    if not pairs or len(pairs) < len(layers):
        raise ModelError("it keeps no keys and values of what it has read; only models of attention layers can be used")
    return tuple((keys[:, :, :count], values[:, :, :count]) for keys, values in pairs)


def _repeated(past: KeysAndValues, times: int) -> DynamicCache:
    """The same cache for each of `times` continuations of every row; gradients flow through."""
    return DynamicCache([(k.repeat_interleave(times, dim=0), v.repeat_interleave(times, dim=0)) for k, v in past])
