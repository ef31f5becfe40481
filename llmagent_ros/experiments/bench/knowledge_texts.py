"""The texts of the knowledge benchmark: skills with held-out wordings, and a grammar of a million distinct skills."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from llmagent_ros.errors import ConfigError
from llmagent_ros.types import FloatArray

_SLOTS = ("verb", "adjective", "object", "room", "manner", "condition")
_CHUNK = 2048  # texts embedded between two notes of how far it is
_QUERY_SEED = 1_000_003  # of what is asked for: apart from the seeds of what is stored


@functools.cache
def words() -> dict[str, Any]:
    """knowledge_words.yaml: skills with wordings that are stored and that are asked; the words of the grammar."""
    text = files("llmagent_ros.experiments.bench").joinpath("knowledge_words.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


class Grammar:
    """Numbered skill descriptions, all distinct, and for each a fresh wording of the same.

    Args:
        seed: of the order in which the combinations of words come.
    """

    def __init__(self, seed: int) -> None:
        told = words()["grammar"]
        self._slots = [[entry.split("|") for entry in told[f"{slot}s".replace("ys", "ies")]] for slot in _SLOTS]
        self._stored: list[str] = told["stored"]
        self._asked: list[str] = told["asked"]
        self._seed = seed
        self.size = math.prod(len(slot) for slot in self._slots)
        rng = np.random.default_rng(seed)
        self._offset = int(rng.integers(self.size))
        # A stride that has no divisor in common with the size meets every combination once.
        self._stride = int(rng.integers(self.size // 3, self.size // 2))
        while math.gcd(self._stride, self.size) != 1:
            self._stride += 1

    def description(self, number: int) -> str:
        """What is stored as skill `number`, 0 <= number < size."""
        return self._sentence(number, self._stored, 0)

    def wording(self, number: int) -> str:
        """How skill `number` is asked for: other words in another sentence."""
        return self._sentence(number, self._asked, 1)

    def _sentence(self, number: int, sentences: Sequence[str], side: int) -> str:
        if not 0 <= number < self.size:
            raise ConfigError(f"skill {number}: the grammar has {self.size:,}")
        rest = (self._offset + number * self._stride) % self.size
        chosen = {}
        for name, slot in zip(_SLOTS, self._slots, strict=True):
            rest, index = divmod(rest, len(slot))
            chosen[name] = slot[index][side]
        return sentences[number % len(sentences)].format(**chosen)


def queries(grammar: Grammar, skills: int, count: int) -> list[str]:
    """Fresh wordings of `count` of the first `skills` skills, drawn with replacement."""
    rng = np.random.default_rng(_QUERY_SEED)
    return [grammar.wording(int(number)) for number in rng.integers(skills, size=count)]


def embedded(path: Path, key: str, count: int, source: Source, say: Callable[[str], None]) -> FloatArray:
    """Vectors of the texts 0 … count - 1, shape (count, d), mapped from `path`, where they are kept row by row.

    An interrupted call goes on where it was; a file that holds more serves as well.

    Args:
        key: of what the vectors depend on (model, seed): a file of another key is made anew.
    """
    note = path.with_suffix(".json")
    told = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    done = int(told.get("done", 0)) if told.get("key") == key and path.exists() else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    if done < count:
        with path.open("r+b" if done else "wb") as file:
            file.truncate(4 * source.dimension * done)  # what an interruption left behind the last note
            file.seek(0, os.SEEK_END)
            for first in range(done, count, _CHUNK):
                numbers = range(first, min(first + _CHUNK, count))
                vectors = source.embed([source.text(number) for number in numbers])
                file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
                file.flush()
                note.write_text(json.dumps({"key": key, "done": numbers.stop}), encoding="utf-8")
                if numbers.stop % (16 * _CHUNK) == 0 or numbers.stop == count:
                    say(f"{numbers.stop:,} of {count:,} embedded")
    return np.memmap(path, "<f4", "r", shape=(count, source.dimension))


@dataclass(frozen=True)
class Source:
    """Numbered texts, and what embeds them into vectors of length `dimension`."""

    text: Callable[[int], str]
    embed: Callable[[Sequence[str]], FloatArray]
    dimension: int
