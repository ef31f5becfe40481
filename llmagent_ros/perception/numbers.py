"""A robot's scene text as numbers: the same information, for policies that do not read."""

from __future__ import annotations

import math
import re

import numpy as np

from llmagent_ros.contract import MobileContract
from llmagent_ros.perception.text import UNKNOWN
from llmagent_ros.types import FloatArray, Place

_PLACE = r"(ahead|left (\d+)|right (\d+)) at (\d+(?:\.\d+)?)"
_OBJECT_NUMBERS = 5
_SIGNED = r"(-?\d+(?:\.\d+)?)"


class SceneNumbers:
    """Reads scenes of one robot contract into vectors of fixed length, every number within about [-1, 1].

    In this order: for each of `max_objects` objects, the one that the task names first: seen now, remembered, cosine
    and sine of its bearing, distance / max_clearance (of one that is not seen, where it may be; all 0 if that is not
    told); for each sector: clearance / max_clearance, -1 when unknown; for each phrase that drives: free way /
    lookahead, -1 when unknown; forward speed and turning as said; for each of the last `history` actions, newest last:
    one 1 among as many numbers as there are phrases; with `effects` also speed and turning that came of it, 0 where
    they are not told.

    Args:
        contract: its scene must have all parts.
    """

    def __init__(self, contract: MobileContract) -> None:
        self._contract = contract
        names = "|".join(re.escape(name) for name in sorted(contract.objects, key=len, reverse=True))
        self._objects = re.compile(rf"({names}) (?:(not seen)(?:, maybe {_PLACE})?|{_PLACE}( before)?|{UNKNOWN})\.")
        sectors = " ".join(rf"{re.escape(name)} ({UNKNOWN}|\d+(?:\.\d+)?)" for name in contract.scene.sectors)
        self._sectors = re.compile(rf"clear {sectors}\.")
        self._driving = [phrase for phrase, action in contract.actions.items() if action.linear]
        ways = " ".join(rf"{re.escape(phrase)} ({UNKNOWN}|\d+(?:\.\d+)?)" for phrase in self._driving)
        self._free = re.compile(rf"free {ways}\.")
        self._motion = re.compile(rf"moving {_SIGNED} turning {_SIGNED}\.")
        motion = rf"(?: {_SIGNED} turning {_SIGNED})?"
        phrases = "|".join(re.escape(phrase) for phrase in sorted(contract.phrases, key=len, reverse=True))
        self._history = re.compile(r"did ((?:[^.]|\.\d)*)\.")
        self._done = re.compile(rf"({phrases}){motion}")
        self._of_action = len(contract.phrases) + (2 if contract.scene.effects else 0)

    @property
    def size(self) -> int:
        form = self._contract.scene
        actions = form.history * self._of_action
        return _OBJECT_NUMBERS * form.max_objects + len(form.sectors) + len(self._driving) + 2 + actions

    def __call__(self, scene: str) -> FloatArray:
        """(size,) float32."""
        rest = scene.partition(". ")[2]  # after the instruction, which names objects too
        form = self._contract.scene
        clear = _distances(self._sectors.search(rest), len(form.sectors), form.max_clearance)
        free = _distances(self._free.search(rest), len(self._driving), form.lookahead)
        return np.array(
            [*self._say_objects(rest), *clear, *free, *self._say_motion(rest), *self._say_history(rest)], np.float32
        )

    def _say_objects(self, text: str) -> list[float]:
        most, numbers = self._contract.scene.max_objects, []
        for found in list(self._objects.finditer(text))[:most]:
            _, absent, *maybe_and_place, before = found.groups()
            where, left, right, distance = maybe_and_place[:4] if absent else maybe_and_place[4:]
            if where is None:
                numbers += [0.0] * _OBJECT_NUMBERS
                continue
            bearing = math.radians(float(left or 0) - float(right or 0))
            seen = [0.0, 0.0] if absent else [0.0, 1.0] if before else [1.0, 0.0]
            far = float(distance) / self._contract.scene.max_clearance
            numbers += [*seen, math.cos(bearing), math.sin(bearing), far]
        return numbers + [0.0] * (_OBJECT_NUMBERS * most - len(numbers))

    def _say_motion(self, text: str) -> list[float]:
        found = self._motion.search(text)
        return [0.0, 0.0] if found is None else [float(value) for value in found.groups()]

    def _say_history(self, text: str) -> list[float]:
        found = self._history.search(text)
        rows = [row for each in (found.group(1).split(", ") if found else []) if (row := self._action(each))]
        missing = self._contract.scene.history - len(rows)
        return [value for row in [[0.0] * self._of_action] * missing + rows for value in row]

    def _action(self, said: str) -> list[float]:
        """Of one of the last actions; empty for "nothing"."""
        found, phrases = self._done.fullmatch(said), self._contract.phrases
        if found is None:
            return []
        phrase, linear, turning = found.groups()
        return [*(float(phrase == one) for one in phrases), float(linear or 0), float(turning or 0)][: self._of_action]


def where_to_look(numbers: FloatArray, max_clearance: float) -> Place | None:
    """Where the object may be that the task names; None when it is seen or remembered, or when that is not told.

    Args:
        numbers: of a scene, as `SceneNumbers` gives them. max_clearance: of the contract, m.
    """
    seen, remembered, cosine, sine, far = (float(value) for value in numbers[:_OBJECT_NUMBERS])
    if seen or remembered or not far:
        return None
    return Place(math.atan2(sine, cosine), far * max_clearance)


def _distances(found: re.Match[str] | None, count: int, limit: float) -> list[float]:
    if found is None:
        return [-1.0] * count
    return [-1.0 if value == UNKNOWN else float(value) / limit for value in found.groups()]
