"""An archive of diverse good ones: the best of each cell of behaviours (MAP-Elites, Mouret & Clune 2015).

    DIR/archive.json       base, descriptors, and for each cell: member, fitness, behaviour, genes, lineage
    DIR/MEMBER/            its bundle

A change is a new archive.json, written whole: bundles come before it and go after it, so that whatever happens the file
names only what is there.
"""

from __future__ import annotations

import bisect
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmagent_ros.bundle import MANIFEST, bundle_files, load_bundle
from llmagent_ros.durable import make_folder, write_atomic, write_folder
from llmagent_ros.errors import ConfigError, ModelError, StoreError
from llmagent_ros.learning.evolution.genes import Genome
from llmagent_ros.learning.evolution.lineage import Lineage

INDEX, FORMAT, VERSION = "archive.json", "llmagent-archive", 1


@dataclass(frozen=True)
class Descriptor:
    """One dimension of behaviour. edges: ascending; n of them make n + 1 cells, the outer ones without an end."""

    name: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.edges or list(self.edges) != sorted(set(self.edges)):
            raise ConfigError(f"descriptor {self.name}: edges must ascend (got {list(self.edges)})")

    def cell(self, value: float) -> int:
        return bisect.bisect_right(self.edges, value)


@dataclass(frozen=True)
class Elite:
    """The best of a cell. folder: of its bundle."""

    name: str
    fitness: float
    behaviour: Mapping[str, float]
    genome: Genome
    lineage: Lineage
    folder: Path


class Archive:
    """See the module.

    Args:
        folder: made if missing. base_digest: of the base that all members are of.

    Raises:
        ModelError: the folder holds an archive of another base. ConfigError: of other descriptors.
        StoreError: it is damaged. Nothing was changed.
    """

    def __init__(self, folder: Path, base_digest: str, descriptors: Sequence[Descriptor]) -> None:
        if not descriptors or len({each.name for each in descriptors}) != len(descriptors):
            raise ConfigError("archive: needs descriptors of different names")
        self.folder, self.base_digest, self.descriptors = folder, base_digest, tuple(descriptors)
        self._elites: dict[tuple[int, ...], Elite] = {}
        if (folder / INDEX).exists():
            self._read()

    def __len__(self) -> int:
        return len(self._elites)

    def elites(self) -> list[Elite]:
        """The best first; equally good ones by name."""
        return sorted(self._elites.values(), key=lambda elite: (-elite.fitness, elite.name))

    def add(
        self, name: str, bundle: Path, fitness: float, behaviour: Mapping[str, float], genome: Genome, lineage: Lineage
    ) -> bool:
        """Takes a member in where its cell is empty or held by a worse one; returns whether it did.

        Of two that are equally good the earlier one stays.

        Raises:
            ModelError: its bundle is damaged or of another base. ConfigError: fitness or behaviour is not finite, or a
                descriptor is missing. StoreError: it cannot be written. The archive is as before.
        """
        cell = self._cell(name, fitness, behaviour)
        before = self._elites.get(cell)
        if before is not None and before.fitness >= fitness:
            return False
        base = load_bundle(bundle).base_digest
        if base != self.base_digest:
            raise ModelError(f"{bundle}: of base {base[:12]}; {self.folder} holds members of {self.base_digest[:12]}")
        kept = self.folder / name
        if any(elite.name == name for elite in self._elites.values()):
            raise ConfigError(f"archive {self.folder}: has a member {name!r} already")
        self._put(bundle, kept)
        changed = {**self._elites, cell: Elite(name, fitness, dict(behaviour), genome, lineage, kept)}
        self._write(changed)
        self._elites = changed
        if before is not None:
            shutil.rmtree(before.folder, ignore_errors=True)  # nothing names it any more
        return True

    # --- inside -------------------------------------------------------------------------------------------

    def _cell(self, name: str, fitness: float, behaviour: Mapping[str, float]) -> tuple[int, ...]:
        values = {each.name: behaviour.get(each.name, math.nan) for each in self.descriptors}
        wrong = sorted(key for key, value in {**values, "fitness": fitness}.items() if not math.isfinite(value))
        if wrong:
            raise ConfigError(f"archive: {name} has no finite {', '.join(wrong)}")
        return tuple(each.cell(values[each.name]) for each in self.descriptors)

    def _put(self, bundle: Path, kept: Path) -> None:
        make_folder(self.folder)
        try:
            if kept.exists():  # left over from an interrupted `add`
                shutil.rmtree(kept)
            write_folder(kept, bundle_files(bundle))
        except OSError as error:
            raise StoreError(f"{kept}: cannot be written: {error.strerror}") from error

    def _write(self, elites: Mapping[tuple[int, ...], Elite]) -> None:
        content = {
            "format": FORMAT,
            "version": VERSION,
            "base_digest": self.base_digest,
            "descriptors": self._described(),
            "elites": [
                {
                    "cell": list(cell),
                    "name": elite.name,
                    "fitness": elite.fitness,
                    "behaviour": dict(elite.behaviour),
                    "genes": elite.genome.plain(),
                    "lineage": elite.lineage.plain(),
                }
                for cell, elite in sorted(elites.items())
            ],
        }
        write_atomic(self.folder / INDEX, (json.dumps(content, indent=1) + "\n").encode())

    def _described(self) -> list[dict[str, Any]]:
        return [{"name": each.name, "edges": list(each.edges)} for each in self.descriptors]

    def _read(self) -> None:
        path = self.folder / INDEX
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            told = f"{content.get('format')!r} version {content.get('version')!r}"
            raise StoreError(f"{path}: is {told}, not {FORMAT!r} version {VERSION}")
        if content["base_digest"] != self.base_digest:
            theirs = str(content["base_digest"])
            raise ModelError(f"{path}: an archive of base {theirs[:12]}, not of {self.base_digest[:12]}")
        if content["descriptors"] != self._described():
            raise ConfigError(f"{path}: has descriptors {content['descriptors']}, not {self._described()}")
        try:
            self._elites = {tuple(each["cell"]): self._elite(each) for each in content["elites"]}
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path}: damaged: {error}") from error

    def _elite(self, plain: Mapping[str, Any]) -> Elite:
        folder = self.folder / plain["name"]
        if not (folder / MANIFEST).is_file():
            raise StoreError(f"{folder}: the archive names it, and it is not there")
        genome, lineage = Genome(plain["genes"]), Lineage.of(plain["lineage"])
        return Elite(plain["name"], float(plain["fitness"]), plain["behaviour"], genome, lineage, folder)
