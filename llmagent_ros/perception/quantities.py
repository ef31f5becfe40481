"""The numbers that a scene of a robot says, read back from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from llmagent_ros.contract import MobileContract
from llmagent_ros.types import FloatArray

_NUMBER = r"(-?\d+(?:\.\d+)?|unknown)"


class SceneQuantities:
    """Free distances by sector and by phrase, and own motion, as `perception.text` says them.

    Attributes:
        names: of each number, in order, e.g. "clear ahead" (m), "free forward" (m), "moving" and "turning" (m/s and
            rad/s on the scale of the contract's `scene.full_speed`).
    """

    def __init__(self, contract: MobileContract) -> None:
        sectors = tuple(contract.scene.sectors)
        phrases = tuple(phrase for phrase, action in contract.actions.items() if action.linear)  # those that drive
        self.names = (
            *(f"clear {sector}" for sector in sectors),
            *(f"free {phrase}" for phrase in phrases),
            "moving",
            "turning",
        )
        self._sentences = [  # whole sentences, so that an instruction which sounds like one is not taken for it
            _sentence([("clear", sector) if not at else (sector,) for at, sector in enumerate(sectors)]),
            _sentence([("free", phrase) if not at else (phrase,) for at, phrase in enumerate(phrases)]),
            _sentence([("moving",), ("turning",)]),
        ]
        self._counts = (len(sectors), len(phrases), 2)

    def read(self, scene: str) -> FloatArray:
        """(names,); NaN where the scene does not say it, or says that it is unknown."""
        sentences = re.split(r"\.(?:\s|$)", scene)
        found: list[float] = []
        for pattern, count in zip(self._sentences, self._counts, strict=True):
            said = next((match for match in map(pattern.fullmatch, sentences) if match), None)
            values = said.groups() if said is not None else ("unknown",) * count
            found += [math.nan if value == "unknown" else float(value) for value in values]
        return np.array(found, np.float32)


def _sentence(names: Sequence[tuple[str, ...]]) -> re.Pattern[str]:
    """Each name with its number, in order."""
    return re.compile(" ".join(rf"{re.escape(' '.join(words))} {_NUMBER}" for words in names))
