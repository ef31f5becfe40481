"""What the knowledge tests share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmagent_ros.types import FloatArray


class HashEmbedder:
    """Unit vectors drawn from the SHA-256 of a text: cheap, deterministic, unlike for unlike texts."""

    def __init__(self, dimension: int = 16, salt: str = "") -> None:
        self.dimension = dimension
        self.salt = salt
        self.calls = 0

    @property
    def digest(self) -> str:
        return f"hash-{self.dimension}-{self.salt}"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        self.calls += 1
        rows = [self._vector(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)

    def _vector(self, text: str) -> FloatArray:
        seed = int.from_bytes(hashlib.sha256((self.salt + text).encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def make_bundle(folder: Path, value: float = 1.0) -> str:
    """A small sound bundle; equal values give equal digests."""
    import torch

    from llmagent_ros.bundle import save_bundle

    return save_bundle(
        folder, adapter=None, adapter_config={}, critic={"w": torch.full((4, 4), value)}, meta={"base_digest": "test"}
    )
