"""The tokens of the action phrases, laid out so that one pass of a model scores all of them after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PhraseTokens:
    """P phrases of at most L tokens, and their M tail tokens: all but the last of each, common beginnings once.

    A model reads prompt and tail as one sequence in which a tail token sees the prompt and its own beginning only
    (tree attention, Miao et al. 2023), so that the tail costs M tokens and not P passes.

    Attributes:
        ids, mask: right-padded, (P, L).
        divisor: of the sum of a phrase's log-probabilities, (P,): its length, for the mean, or 1.
        tail: (M,). depth: how many tail tokens stand before each in its phrase, (M,).
        sees: which tail tokens each tail token sees, itself included, bool (M, M).
        after: for the tokens of a phrase from the second on, the place in "last prompt token, tail" that predicts it,
            (P, L-1); 0 on padding.
    """

    ids: Tensor
    mask: Tensor
    tail: Tensor
    depth: Tensor
    sees: Tensor
    after: Tensor
    divisor: Tensor

    @staticmethod
    def of(phrases: Sequence[Sequence[int]], pad: int, device: torch.device, *, mean: bool = True) -> PhraseTokens:
        """Lays token lists, none empty, out."""
        length = max(map(len, phrases))
        beginnings = dict.fromkeys(tuple(p[:n]) for p in phrases for n in range(1, len(p)))
        place = {beginning: number for number, beginning in enumerate(beginnings)}
        sees = [[one[: len(other)] == other for other in place] for one in place]
        after = [[place[tuple(p[:n])] + 1 if n < len(p) else 0 for n in range(1, length)] for p in phrases]

        def tensor(values: Sequence[object], kind: torch.dtype = torch.long) -> Tensor:
            return torch.tensor(values, dtype=kind, device=device)

        return PhraseTokens(
            ids=tensor([[*p, *[pad] * (length - len(p))] for p in phrases]),
            mask=tensor([[1] * len(p) + [0] * (length - len(p)) for p in phrases]),
            tail=tensor([beginning[-1] for beginning in place]),
            depth=tensor([len(beginning) - 1 for beginning in place]),
            sees=tensor(sees, torch.bool).view(len(place), len(place)),
            after=tensor(after).view(len(phrases), length - 1),
            divisor=tensor([len(p) if mean else 1 for p in phrases]),
        )

    def joined(self, ids: Tensor, mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """What a model reads of left-padded prompts, ids and mask (B, T), with the tail after each.

        Returns:
            ids (B, T+M), additive attention mask (B, 1, T+M, T+M), positions (B, T+M).
        """
        batch, size = ids.shape
        count = len(self.tail)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        allowed = torch.zeros(batch, size + count, size + count, dtype=torch.bool, device=ids.device)
        allowed[:, :size, :size] = torch.ones(size, size, dtype=torch.bool, device=ids.device).tril()
        allowed[:, size:, :size] = True
        allowed[:, :, :size] &= mask.bool()[:, None]
        allowed[:, size:, size:] = self.sees
        allowed.diagonal(dim1=1, dim2=2).fill_(True)  # padding sees itself: a row that sees nothing is not finite
        attention = torch.zeros(allowed.shape, dtype=dtype, device=ids.device)
        attention.masked_fill_(~allowed, torch.finfo(dtype).min)
        return (
            torch.cat([ids, self.tail.expand(batch, count)], dim=1),
            attention[:, None],
            torch.cat([positions, positions[:, -1:] + 1 + self.depth], dim=1),
        )

    def scores(self, log_probs: Tensor) -> Tensor:
        """Mean (or summed) log-probability of each phrase's tokens, (B, P).

        Args:
            log_probs: of the next token after the last prompt token and after each tail token, (B, 1+M, V).
        """
        first = log_probs[:, 0, self.ids[:, 0]]
        rest = log_probs[:, self.after, self.ids[:, 1:]] * self.mask[:, 1:]
        return (first + rest.sum(-1)) / self.divisor
