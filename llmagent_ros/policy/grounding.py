"""Other words for the actions that a policy has learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from llmagent_ros.errors import ConfigError
from llmagent_ros.types import RealArray

_HISTORY = re.compile(r"\bdid ((?:[^.]|\.\d)*)\.")
_ACTION = re.compile(r"(.*?)((?: -?\d+\.\d turning -?\d+\.\d)?)")  # with the motion that came of it


class Grounding:
    """Lets a policy that has learned one vocabulary act in another.

    What was done, and which ways are free, is told in the words that it knows, and what it chooses is said in those
    that are spoken.

    Args:
        known: the phrases of the policy, by index.
        meaning: of each spoken phrase, in order, the known one that does the same (e.g. `RobotContract.meaning`).

    Raises:
        ConfigError: a meaning is not known, or a known phrase cannot be said.
    """

    def __init__(self, known: Sequence[str], meaning: Mapping[str, str]) -> None:
        self._known, self._meaning = tuple(known), dict(meaning)
        foreign = sorted(set(meaning.values()) - set(known))
        if foreign:
            raise ConfigError(f"meaning {foreign[0]!r} is none of the known phrases: {', '.join(known)}")
        unsaid = [phrase for phrase in known if phrase not in meaning.values()]
        if unsaid:
            raise ConfigError(f"nothing that is spoken means {unsaid[0]!r}; spoken: {', '.join(meaning)}")
        spoken = list(meaning)
        phrases = "|".join(re.escape(phrase) for phrase in sorted(spoken, key=len, reverse=True))
        way = rf"(?:{phrases}) (?:unknown|\d+\.\d)"
        self._ways = re.compile(rf"\bfree ({way}(?: {way})*)\.(?!\d)")
        self._way = re.compile(rf"({phrases}) (unknown|\d+\.\d)")
        self._spoken = [next(i for i, word in enumerate(spoken) if meaning[word] == phrase) for phrase in known]

    def scene(self, text: str) -> str:
        """A scene with history and free ways in known phrases."""
        return self._ways.sub(self._translate_ways, _HISTORY.sub(self._translate, text))

    def log_probabilities(self, known: RealArray) -> RealArray:
        """Those of the spoken phrases, (N, spoken), from those of the known ones, (N, known).

        Of several that mean the same the first takes it all; the others are never said.
        """
        spoken = np.full((len(known), len(self._meaning)), -np.inf)
        spoken[:, self._spoken] = known
        return spoken

    def _translate(self, found: re.Match[str]) -> str:
        return f"did {', '.join(map(self._translate_action, found.group(1).split(', ')))}."

    def _translate_action(self, said: str) -> str:
        found = _ACTION.fullmatch(said)
        assert found is not None  # it matches whatever is said
        return self._meaning.get(found[1], found[1]) + found[2]

    def _translate_ways(self, found: re.Match[str]) -> str:
        """In the known phrases' order; of several that mean the same the first counts."""
        ways: dict[str, str] = {}
        for phrase, metres in self._way.findall(found[1]):
            ways.setdefault(self._meaning[phrase], metres)
        order = [phrase for phrase in self._known if phrase in ways]
        return f"free {' '.join(f'{phrase} {ways[phrase]}' for phrase in order)}."
