"""The facade: store, retrieve and delete skills. The database is the truth; the index is made from it."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from llmagent_ros.bundle import Bundle, load_bundle
from llmagent_ros.errors import ConfigError, ModelError, StoreError
from llmagent_ros.knowledge.bundles import BundleFiles
from llmagent_ros.knowledge.embedding import Embedder
from llmagent_ros.knowledge.index import IndexConfig, IndexOrigin, SkillIndex
from llmagent_ros.knowledge.schema import Filter
from llmagent_ros.knowledge.skill import Found, Skill, check_skill, check_text
from llmagent_ros.knowledge.store import Change, SkillStore
from llmagent_ros.types import FloatArray


@config_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class KnowledgeConfig:
    """Bounds of the knowledge store.

    Attributes:
        max_results: the largest k that may be asked for.
        max_candidates: vectors that a filtered search looks at before it reads the filtered ones from the database.
        max_bundle_bytes: the largest bundle that is stored.
        save_every: changes after which the index is saved; an older one is caught up when the store is opened.
    """

    index: IndexConfig = Field(default_factory=IndexConfig)
    max_results: Annotated[int, Field(ge=1)] = 100
    max_candidates: Annotated[int, Field(ge=1)] = 4096
    max_bundle_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    save_every: Annotated[int, Field(ge=1)] = 1000


@dataclass(frozen=True)
class KnowledgeStats:
    """The store in figures. index: "exact" or "hnsw". opened: how the index came to be when the store was opened."""

    skills: int
    vectors: int
    bundles: int
    attempts: int
    successes: int
    generation: int
    index: str
    opened: str
    save_error: str


class Knowledge:
    """Skills in a folder, found by language. Any number of threads may read while one writes.

    Raises:
        StoreError: the folder is open elsewhere, damaged, or full. ModelError: the embedder cannot be used.
    """

    def __init__(self, folder: Path, embedder: Embedder, config: KnowledgeConfig | None = None) -> None:
        self.folder = folder
        self.config = config or KnowledgeConfig()
        self._embedder = embedder
        self._writing = threading.Lock()
        self._unsaved = 0
        self._save_error = ""
        self._store = SkillStore(folder)
        try:
            self._bundles = BundleFiles(folder / "bundles")
            self._bundles.sweep(self._store.digests())
            self._index, self._opened = self._open_index()
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> Knowledge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def store(self, skill: Skill, bundle: Path | None = None) -> Skill:
        """Stores a skill, or updates the one that has its id. On the disk when this returns.

        Args:
            skill: its digest, path and times are the store's to set.
            bundle: folder of its bundle, copied; None keeps what the skill has.

        Returns:
            The skill as stored, with id, digest, path and times.

        Raises:
            ConfigError: a field is wrong. UnknownNameError: no skill has this id. ModelError: the bundle is not sound.
        """
        check_skill(skill)
        vectors = self._embed(skill.texts)
        with self._writing:
            digest = self._bundles.put(bundle, self.config.max_bundle_bytes) if bundle else None
            change = self._store.put(skill, digest, vectors)
            self._apply(change, vectors)
        return self._located(change.skill)

    def delete(self, skill_id: str) -> None:
        """Deletes a skill, and its bundle if no other skill has it.

        Raises:
            UnknownNameError: no skill has this id.
        """
        with self._writing:
            self._apply(self._store.delete(skill_id), None)

    def get(self, skill_id: str) -> Skill:
        """The skill with this id.

        Raises:
            UnknownNameError: there is none.
        """
        return self._located(self._store.get(skill_id))

    def skills(self) -> list[Skill]:
        """Every skill, in the order they were stored."""
        return [self._located(skill) for skill in self._store.skills()]

    def bundle(self, skill: Skill) -> Bundle:
        """The bundle of a skill, every file checked against its hash.

        Raises:
            StoreError: it has none. ModelError: it is damaged.
        """
        if not skill.digest:
            raise StoreError(f"skill {skill.id}: has no bundle")
        bundle = load_bundle(self._bundles.path(skill.digest))
        if bundle.digest != skill.digest:
            raise ModelError(f"{self._bundles.path(skill.digest)}: damaged: its digest is {bundle.digest}")
        return bundle

    def retrieve(self, text: str, k: int = 5, contract: str = "", min_success_rate: float = 0.0) -> list[Found]:
        """The k skills with the nearest text, best first; fewer if fewer pass.

        Args:
            contract: only skills of this contract; empty for any.
            min_success_rate: only skills that were tried and succeeded in at least this share; 0 for any.

        Raises:
            ConfigError: the text is empty or too long, or k or the rate is out of range.
        """
        check_text("text", text)
        if not 1 <= k <= self.config.max_results:
            raise ConfigError(f"k: 1 to {self.config.max_results} (got {k})")
        if not 0.0 <= min_success_rate <= 1.0:  # also refuses NaN
            raise ConfigError(f"min_success_rate: 0 to 1 (got {min_success_rate})")
        best = self._nearest(self._embed([text])[0], k, Filter(contract, min_success_rate))
        ranked = sorted(best, key=lambda skill_id: (-best[skill_id], skill_id))[:k]
        skills = {skill.id: self._located(skill) for skill in self._store.skills(ranked)}
        return [Found(skills[skill_id], best[skill_id]) for skill_id in ranked if skill_id in skills]

    def stats(self) -> KnowledgeStats:
        """The store in figures."""
        skills, vectors, attempts, successes = self._store.totals()
        generation, bundles = int(self._store.meta("generation")), len(self._store.digests())
        index = self._index.kind, self._opened, self._save_error
        return KnowledgeStats(skills, vectors, bundles, attempts, successes, generation, *index)

    def verify(self) -> list[str]:
        """Everything that is wrong: database, bundles, and index against database. Reads the whole store."""
        with self._writing:
            problems = self._store.problems()
            for digest in sorted(self._store.digests()):
                if not self._bundles.sound(digest):
                    problems.append(f"bundle {digest}: missing or damaged")
            if self._index.ids != self._store.vector_ids():
                problems.append("index: not the vectors of the database")
            for ids, vectors in self._store.vectors():
                wrong = ~np.isclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
                problems += [f"vector {vector}: not of unit norm" for vector in ids[wrong].tolist()]
        return problems

    def save(self) -> None:
        """Saves the index, if it changed."""
        with self._writing:
            self._save()

    def close(self) -> None:
        """Saves the index and lets another process open the folder; a second call does nothing."""
        with self._writing:
            try:
                if not self._store.closed:
                    self._save()
            finally:
                self._store.close()

    def _nearest(self, query: FloatArray, k: int, passing: Filter) -> dict[str, float]:
        """Skill id to the similarity of its nearest text, the k best at least where there are as many."""
        count = max(32, 4 * k)
        while True:
            ids, scores = self._index.search(query, count)
            owners = self._store.owners(ids.tolist(), passing)
            best: dict[str, float] = {}
            for vector, score in zip(ids.tolist(), scores.tolist(), strict=True):
                if vector in owners:
                    best.setdefault(owners[vector], score)  # best first
            if len(best) >= k or count >= len(self._index):
                return best
            if count >= self.config.max_candidates:
                return self._scan(query, passing)
            count *= 4

    def _scan(self, query: FloatArray, passing: Filter) -> dict[str, float]:
        """The same from the database, exact: for filters that so few skills pass that the index meets none."""
        best: dict[str, float] = {}
        for ids, vectors in self._store.vectors(passing):
            scores = dict(zip(ids.tolist(), (vectors @ query).tolist(), strict=True))
            for vector, skill_id in self._store.owners(ids.tolist(), passing).items():
                best[skill_id] = max(best.get(skill_id, -math.inf), scores[vector])
        return best

    def _apply(self, change: Change, vectors: FloatArray | None) -> None:
        self._index.remove(change.removed)
        if change.added and vectors is not None:
            self._index.add(change.added, vectors[list(change.added.values())])
        if change.unused_digest:
            self._bundles.remove(change.unused_digest)
        self._unsaved += 1
        if self._unsaved % self.config.save_every == 0:
            try:
                self._save()
            except StoreError as error:
                # The change itself is on the disk: it must not look as if it had failed. An older index is caught up.
                self._save_error = str(error)

    def _save(self) -> None:
        if self._unsaved:
            self._index.save(self.folder, self._origin())
            self._unsaved, self._save_error = 0, ""

    def _origin(self) -> IndexOrigin:
        store = self._store
        return IndexOrigin(store.meta("store"), store.meta("embedder"), int(store.meta("generation")))

    def _open_index(self) -> tuple[SkillIndex, str]:
        """The saved index, caught up with the database, or a new one; and which of these, in words."""
        known = self._store.meta("embedder")
        if known != self._embedder.digest:
            self._store.re_embed(self._embedder.digest, self._embed)
        origin = self._origin()
        opened = "loaded"
        try:
            index, saved = SkillIndex.load(self.folder, self._embedder.dimension, self.config.index)
            if (saved.store, saved.embedder) != (origin.store, origin.embedder):
                raise StoreError("the saved index belongs to another store or embedder")
        except StoreError as error:
            index, opened = SkillIndex(self._embedder.dimension, self.config.index), f"built anew: {error}"
            saved = None
        if saved != origin:
            self._catch_up(index)
            opened = opened if saved is None else "caught up"
            self._unsaved = 1
        return index, opened

    def _catch_up(self, index: SkillIndex) -> None:
        wanted = self._store.vector_ids()
        index.remove(index.ids - wanted)
        missing = wanted - index.ids
        if missing:
            for ids, vectors in self._store.vectors(only=None if len(missing) == len(wanted) else missing):
                index.add(ids.tolist(), vectors)

    def _embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of unit norm, shape (texts, d).

        Raises:
            ModelError: the embedder gave something else.
        """
        vectors = self._embedder.embed(texts)
        if vectors.shape != (len(texts), self._embedder.dimension):
            raise ModelError(f"embedder: gave vectors of shape {vectors.shape} for {len(texts)} texts")
        if len(texts) and not bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)):
            raise ModelError("embedder: gave a vector that is not of unit norm")
        return vectors

    def _located(self, skill: Skill) -> Skill:
        return replace(skill, path=self._bundles.path(skill.digest)) if skill.digest else skill
