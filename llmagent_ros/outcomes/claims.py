"""Who may say that an episode is over."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Authority(IntEnum):
    """Sources by rank: in one control period the first of them that says anything is believed."""

    PERSON = 0
    CONDITION = 1
    CLASSIFIER = 2
    TIME = 3


@dataclass(frozen=True)
class Claim:
    """That the episode is over. reason: one word for the outcome."""

    authority: Authority
    success: bool
    reason: str
