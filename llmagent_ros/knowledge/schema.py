"""The tables of the skill store, and skills and vectors as their rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmagent_ros.errors import StoreError
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import FloatArray

VERSION = 1
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE skills (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, description TEXT NOT NULL, instructions TEXT NOT NULL,
    contract TEXT NOT NULL, lessons TEXT NOT NULL, attempts INTEGER NOT NULL, successes INTEGER NOT NULL,
    digest TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, parents TEXT NOT NULL
) STRICT;
CREATE INDEX skills_contract ON skills (contract);
CREATE INDEX skills_digest ON skills (digest);
CREATE TABLE texts (  -- AUTOINCREMENT: an id is never used again, so an older index can be caught up by its ids
    vector INTEGER PRIMARY KEY AUTOINCREMENT, skill INTEGER NOT NULL REFERENCES skills (row) ON DELETE CASCADE,
    text TEXT NOT NULL, embedding BLOB NOT NULL, UNIQUE (skill, text)
) STRICT;
"""
COLUMNS = "id, description, instructions, contract, lessons, attempts, successes, digest, created, updated, parents"
PASSES = (
    "(:contract = '' OR s.contract = :contract)"
    " AND (:rate <= 0 OR s.attempts > 0 AND s.successes >= :rate * s.attempts)"
)


@dataclass(frozen=True)
class Filter:
    """Which skills count. contract: its name, empty for any. min_success_rate: 0..1, 0 for any."""

    contract: str = ""
    min_success_rate: float = 0.0

    @property
    def values(self) -> dict[str, Any]:
        return {"contract": self.contract, "rate": self.min_success_rate}


def to_row(skill: Skill) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    texts = skill.instructions, skill.lessons, skill.parents
    instructions, lessons, parents = (json.dumps(list(part), ensure_ascii=False) for part in texts)
    counts = skill.attempts, skill.successes
    times = skill.created, skill.updated
    return skill.id, skill.description, instructions, skill.contract, lessons, *counts, skill.digest, *times, parents


def from_row(row: tuple[Any, ...]) -> Skill:
    """The skill of the values of `COLUMNS`; its path is for who knows the folder."""
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    lists = {name: tuple(json.loads(values[name])) for name in ("instructions", "lessons", "parents")}
    return Skill(**{**values, **lists})


def to_blob(vector: FloatArray) -> bytes:
    """A vector of shape (d,) as little-endian float32."""
    return np.ascontiguousarray(vector, "<f4").tobytes()


def from_blobs(blobs: list[bytes]) -> FloatArray:
    """Vectors of shape (n, d).

    Raises:
        StoreError: they are not of one length.
    """
    sizes = {len(blob) for blob in blobs}
    if len(sizes) != 1 or sizes.pop() % 4:
        raise StoreError("the stored vectors are damaged: not of one dimension")
    return np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), -1)
