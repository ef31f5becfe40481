"""A bundle: one version of what was learned (adapter and critic), saved as a whole or not at all.

A bundle is a folder in PEFT's adapter layout with two more files:

    adapter_model.safetensors  adapter_config.json   the LoRA; both absent when only a critic was learned
    critic.safetensors                               the critic heads
    bundle.json                                      format, version, meta, and the SHA-256 of every file above

`bundle.json` holds the other files' hashes, so its own SHA-256, the *digest*, covers the bundle. A folder that has its
final name is complete: it is written under a temporary name beside it, flushed to disk, and renamed.
Tensors are safetensors, never pickle: a bundle that came over a network can be wrong, but it cannot run code.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from llmagent_ros.durable import write_folder
from llmagent_ros.errors import ConfigError, ModelError, StoreError

FORMAT = "llmagent-bundle"
VERSION = 1
MANIFEST = "bundle.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
CRITIC = "critic.safetensors"
BASE_KEY = "base_digest"  # the one entry that every meta must have
MAX_BYTES = 1 << 30  # of all files of a bundle together

_FILES = (ADAPTER, ADAPTER_CONFIG, CRITIC)
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
_NAME = re.compile(r"v(\d{6,})")
_MAX_MANIFEST_BYTES = 1 << 22
_ACTING = ("r", "lora_alpha", "use_rslora", "use_dora", "alora_invocation_tokens")


@dataclass(frozen=True)
class Bundle:
    """What `load_bundle` read.

    Attributes:
        adapter: PEFT state dict (name to tensor, on the CPU), or None for a bundle without an adapter.
        adapter_config: PEFT's LoraConfig as a dict; empty without an adapter.
        critic: state dict of the critic heads, on the CPU; empty without a critic.
        meta: what the writer said about it; `meta["base_digest"]` is always there.
        digest: SHA-256 over the bundle, hexadecimal.
    """

    adapter: dict[str, Tensor] | None
    adapter_config: dict[str, Any]
    critic: dict[str, Tensor]
    meta: dict[str, Any]
    digest: str

    @property
    def base_digest(self) -> str:
        """Digest of the base model that the adapter and the critic belong to."""
        return str(self.meta[BASE_KEY])

    @property
    def beta(self) -> float | None:
        """The temperature that goes with its critic; None where it does not say one."""
        value = self.meta.get("beta")
        return float(value) if isinstance(value, int | float) and 0.0 < value < math.inf else None

    def acts_otherwise(self, config: Mapping[str, Any]) -> list[str]:
        """Where its adapter's LoraConfig differs from another so that the same tensors would do something else."""
        own = self.adapter_config if self.adapter is not None else config
        pairs = ((key, own.get(key), config.get(key)) for key in _ACTING)
        return [f"{key} {its!r}, not {other!r}" for key, its, other in pairs if its != other]


def save_bundle(
    folder: Path,
    *,
    adapter: Mapping[str, Tensor] | None,
    adapter_config: Mapping[str, Any],
    critic: Mapping[str, Tensor],
    meta: Mapping[str, Any],
) -> str:
    """Writes a bundle atomically and durably; equal content gives an equal digest.

    Args:
        folder: must not exist yet; its parent is made if needed.
        adapter_config: empty if and only if `adapter` is None.
        meta: JSON values, with the digest of the base under "base_digest".

    Returns:
        The digest.

    Raises:
        ModelError: the content is not a bundle (no base digest, a tensor that is not finite, not JSON), or larger than
            MAX_BYTES.
        StoreError: the folder exists or cannot be written (disk full); nothing is left of it.
    """
    contents = _contents(folder, adapter, adapter_config, critic)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        "meta": _checked_meta(folder, meta),
    }
    contents[MANIFEST] = _json(folder / MANIFEST, manifest)
    _check_size(folder, sum(map(len, contents.values())), MAX_BYTES)
    if os.path.lexists(folder):
        raise StoreError(f"{folder}: already exists; a bundle is never overwritten")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, contents)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "no space left on the disk, nothing was written" if full else error.strerror or str(error)
        raise StoreError(f"{folder}: cannot be saved: {reason}") from error
    return hashlib.sha256(contents[MANIFEST]).hexdigest()


def load_bundle(folder: Path, max_bytes: int = MAX_BYTES) -> Bundle:
    """Reads a bundle after checking every file against its hash.

    Args:
        max_bytes: of all its files; a larger one is refused before it is read.

    Raises:
        ModelError: naming the folder and the file that is missing, damaged, too much, a link, or of another format.
    """
    manifest, contents, digest = _read(folder, max_bytes)
    adapter = _tensors(folder / ADAPTER, contents[ADAPTER]) if ADAPTER in contents else None
    config = _parsed(folder / ADAPTER_CONFIG, contents[ADAPTER_CONFIG]) if adapter is not None else {}
    return Bundle(adapter, config, _tensors(folder / CRITIC, contents[CRITIC]), manifest["meta"], digest)


def bundle_meta(folder: Path) -> dict[str, Any]:
    """What the writer of a bundle said about it, without a look at its tensors.

    Raises:
        ModelError: as `load_bundle`, but for what is wrong in the other files.
    """
    _check_entries(folder, MAX_BYTES)
    manifest = _parsed(folder / MANIFEST, _read_file(folder / MANIFEST, _MAX_MANIFEST_BYTES))
    _checked_manifest(folder, manifest)
    return dict(manifest["meta"])


def bundle_digest(folder: Path, max_bytes: int = MAX_BYTES) -> str:
    """The digest of the bundle in `folder`, all of its files checked.

    Raises:
        ModelError: as `load_bundle`.
    """
    return _read(folder, max_bytes)[2]


def bundle_files(folder: Path, max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    """Every file of a bundle by its name, the manifest among them, after checking each against its hash.

    Raises:
        ModelError: as `load_bundle`.
    """
    _, contents, digest = _read(folder, max_bytes)
    data = _read_file(folder / MANIFEST, _MAX_MANIFEST_BYTES)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ModelError(f"{folder}: {MANIFEST} changed while it was read")
    return {**contents, MANIFEST: data}


def latest_bundle(parent: Path) -> Path | None:
    """The newest sound bundle (v000000, v000001, …) in `parent`; damaged ones and leftovers are passed over."""
    return next(_sound(parent), None)


def next_bundle(parent: Path) -> Path:
    """The folder for the next version: one above every number in use, damaged bundles included."""
    numbers = [number for number, _ in _versions(parent)]
    return parent / f"v{max(numbers, default=-1) + 1:06d}"


def prune_bundles(parent: Path, keep: int, protect: set[str]) -> list[str]:
    """Removes old versions, and what an interrupted save or prune left.

    Only for the one writer of `parent`, between two saves.

    Args:
        keep: how many of the newest sound bundles stay, at least 1.
        protect: names that stay as well, e.g. the deployed one.

    Returns:
        The names removed.

    Raises:
        ConfigError: keep < 1. StoreError: a folder cannot be removed.
    """
    if keep < 1:
        raise ConfigError(f"keep: at least 1 bundle has to stay (got {keep})")
    kept = [path.name for path in itertools.islice(_sound(parent), keep)]
    if not kept:
        return []
    oldest = int(kept[-1][1:])
    removed = [path for number, path in _versions(parent) if number < oldest and path.name not in protect]
    try:
        for path in removed:  # renamed first: a name vNNNNNN never stands for half a bundle
            path.rename(path.with_name(f".{path.name}.removed.tmp"))
        for leftover in parent.glob(".v*.tmp"):
            shutil.rmtree(leftover)
    except OSError as error:
        raise StoreError(f"{error.filename or parent}: cannot be removed: {error.strerror}") from error
    return [path.name for path in removed]


def _versions(parent: Path) -> list[tuple[int, Path]]:
    """(number, folder) of everything named vNNNNNN, newest first."""
    if not parent.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in parent.iterdir())
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _sound(parent: Path) -> Iterator[Path]:
    for _, path in _versions(parent):
        try:
            _read(path, MAX_BYTES)
        except ModelError:
            continue  # the caller asked for sound ones; loading this one by name says what is wrong with it
        yield path


def _contents(
    folder: Path, adapter: Mapping[str, Tensor] | None, config: Mapping[str, Any], critic: Mapping[str, Tensor]
) -> dict[str, bytes]:
    if (not adapter) != (not config):
        raise ModelError(f"{folder}: an adapter and its adapter_config only make sense together")
    contents = {CRITIC: _dump(folder / CRITIC, critic)}
    if adapter:
        contents[ADAPTER] = _dump(folder / ADAPTER, adapter)
        contents[ADAPTER_CONFIG] = _json(folder / ADAPTER_CONFIG, dict(config))
    return contents


def _dump(path: Path, tensors: Mapping[str, Tensor]) -> bytes:
    _check_finite(path, tensors)
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    return bytes(dump_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: tensor {name!r} has values that are not finite")


def _checked_meta(where: Path, meta: object) -> dict[str, Any]:
    if not isinstance(meta, Mapping) or not isinstance(meta.get(BASE_KEY), str) or not meta[BASE_KEY]:
        raise ModelError(f"{where}: meta has no {BASE_KEY!r}, so nobody could tell which base it belongs to")
    return dict(meta)


def _json(path: Path, value: object) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    return text.encode()


def _plain(value: object) -> object:
    if isinstance(value, (set, frozenset)):  # LoraConfig.target_modules
        return sorted(value)
    raise TypeError(f"{type(value).__name__} {value!r} has no JSON form")


def _read(folder: Path, max_bytes: int) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """(manifest, file name to bytes, digest). What is hashed is what is returned: no second read."""
    _check_entries(folder, max_bytes)
    data = _read_file(folder / MANIFEST, _MAX_MANIFEST_BYTES)
    manifest = _parsed(folder / MANIFEST, data)
    hashes = _checked_manifest(folder, manifest)
    contents = {name: _read_file(folder / name, max_bytes) for name in hashes}
    for name, expected in hashes.items():
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            raise ModelError(f"{folder}: {name} is damaged: its SHA-256 is not the one in {MANIFEST}")
    return manifest, contents, hashlib.sha256(data).hexdigest()


def _check_entries(folder: Path, max_bytes: int) -> None:
    try:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(folder)}
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{folder}: cannot be read as a bundle: {reason}") from error
    entries = {name: status.st_mode for name, status in found.items()}
    for name, mode in sorted(entries.items()):
        if stat.S_ISLNK(mode):
            raise ModelError(f"{folder}: {name} is a link; a bundle holds plain files only")
        if Path(name).suffix in _PICKLE_SUFFIXES:
            raise ModelError(f"{folder}: {name} is a pickle, which can run code; valid: {ADAPTER}, {CRITIC}")
        if Path(name).suffix == ".safetensors" and name not in _FILES:
            raise ModelError(f"{folder}: {name} does not belong to a bundle; valid: {ADAPTER}, {CRITIC}")
    if MANIFEST not in entries:
        raise ModelError(f"{folder}: no {MANIFEST}: not a bundle")
    for name in (*_FILES, MANIFEST):
        if name in entries and not stat.S_ISREG(entries[name]):
            raise ModelError(f"{folder}: {name} is not a plain file")
    _check_size(folder, sum(found[name].st_size for name in (*_FILES, MANIFEST) if name in found), max_bytes)


def _check_size(folder: Path, size: int, most: int) -> None:
    if size > most:
        raise ModelError(f"{folder}: a bundle of {size} bytes; valid: at most {most}")


def _checked_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, str]:
    """The files' hashes, the manifest being of this format and listing exactly the files of a bundle that are there."""
    where = folder / MANIFEST
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{where}: format is {manifest.get('format')!r}, not {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise ModelError(f"{where}: version is {manifest.get('version')!r}; this program reads version {VERSION}")
    hashes = manifest.get("files")
    if not isinstance(hashes, dict) or set(hashes) not in ({CRITIC}, set(_FILES)):
        listed = ", ".join(sorted(map(str, hashes))) if isinstance(hashes, dict) else repr(hashes)
        raise ModelError(f"{where}: lists the files {listed}; valid: {CRITIC} alone, or {', '.join(_FILES)}")
    for name in _FILES:
        there = (folder / name).exists()
        if there != (name in hashes):
            raise ModelError(f"{folder}: {name} is {'there but not listed' if there else 'listed but missing'}")
    _checked_meta(where, manifest.get("meta"))
    return hashes


def _read_file(path: Path, limit: int) -> bytes:
    try:
        # Opened without following links: the check on the folder's entries was a moment ago.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ModelError(f"{path.parent}: {path.name} is larger than {limit} bytes")
            return file.read(size)  # of one that grows meanwhile the hash is another
    except OSError as error:
        raise ModelError(f"{path.parent}: {path.name} cannot be read: {error.strerror}") from error


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def _tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not safetensors: {error}") from error
    _check_finite(path, tensors)
    return tensors
