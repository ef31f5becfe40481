"""The facade: store, retrieve and delete skills. The database is the truth; the index is made from it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from llmagent_ros.bundle import MAX_BYTES, Bundle, load_bundle
from llmagent_ros.errors import ConfigError, ModelError, StoreError
from llmagent_ros.knowledge import lessons
from llmagent_ros.knowledge.audit import AuditEntry, Cause
from llmagent_ros.knowledge.bundles import BundleFiles
from llmagent_ros.knowledge.database import BUNDLES
from llmagent_ros.knowledge.embedding import Embedder
from llmagent_ros.knowledge.index import IndexConfig, SkillIndex
from llmagent_ros.knowledge.kept_index import KeptIndex
from llmagent_ros.knowledge.lessons import LessonConfig
from llmagent_ros.knowledge.schema import Filter
from llmagent_ros.knowledge.search import POOL, nearest, ranked
from llmagent_ros.knowledge.skill import Found, Skill, check_id, check_skill, check_text
from llmagent_ros.knowledge.store import Entry, SkillStore
from llmagent_ros.types import FloatArray


@config_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class KnowledgeConfig:
    """Bounds of the knowledge store.

    Attributes:
        max_results: the largest k that may be asked for.
        max_candidates: vectors that a filtered search looks at before it compares all that pass the filter.
        max_bundle_bytes: of a bundle; a larger one is neither stored nor read.
        save_every, save_share: changes after which the index is saved, at least so many and at least so large a share
            of its size; an older one is caught up when the store is opened.
        batch: skills that `store_many` writes in one transaction.
        lessons: which lessons are one, and which stay.
    """

    index: IndexConfig = Field(default_factory=IndexConfig)
    max_results: Annotated[int, Field(ge=1)] = 100
    max_candidates: Annotated[int, Field(ge=1)] = 4096
    max_bundle_bytes: Annotated[int, Field(ge=1)] = MAX_BYTES
    save_every: Annotated[int, Field(ge=1)] = 1000
    save_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1000
    lessons: LessonConfig = Field(default_factory=LessonConfig)


@dataclass(frozen=True)
class KnowledgeStats:
    """The store in figures. index: "exact" or "hnsw". opened: how database and index came to be when it was opened."""

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

    Args:
        vocabulary: words and phrases that make a difference between two lessons, such as a robot's action phrases.

    Raises:
        StoreError: the folder is open elsewhere, damaged, full, or has bundles but no database.
        ModelError: the embedder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        embedder: Embedder,
        config: KnowledgeConfig | None = None,
        vocabulary: Collection[str] = (),
    ) -> None:
        self.folder = folder
        self.config = config or KnowledgeConfig()
        self._embedder = embedder
        self._vocabulary = tuple(vocabulary)
        self._writing = threading.Lock()
        self._store = SkillStore(folder)
        try:
            self._bundles = BundleFiles(folder / BUNDLES, self.config.max_bundle_bytes)
            self._bundles.sweep(self._store.digests())
            if self._store.meta("embedder") != embedder.digest:
                self._store.re_embed(embedder.digest, self._embed)
            self._store.embed_lessons(self._embed)
            saving = self.config.save_every, self.config.save_share
            self._kept = KeptIndex(folder, self._store, embedder, self.config.index, *saving)
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> Knowledge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def index(self) -> SkillIndex:
        """What is searched; for who measures it."""
        return self._kept.index

    def store(self, skill: Skill, bundle: Path | None = None, *, cause: Cause | None = None) -> Skill:
        """Stores a skill, or updates the one that has its id. On the disk when this returns.

        Args:
            skill: its digest, path and times are the store's to set. Its lessons are evidence: of an update they are
                added to what is left of the stored ones (`lessons.merge`).
            bundle: folder of its bundle, copied; None keeps what the skill has.
            cause: for the log of changes.

        Returns:
            The skill as stored, with id, digest, path, times and merged lessons.

        Raises:
            ConfigError: a field is wrong. UnknownNameError: no skill has this id. ModelError: the bundle is not sound.
        """
        return self._put(skill, bundle, cause or Cause(), restored=False)

    def restore(self, skill: Skill, bundle: Path | None = None, *, cause: Cause | None = None) -> Skill:
        """Stores a skill of another store as it is: with its id, which must be free, its lessons and its age.

        Raises:
            StoreError: a skill has this id. ConfigError, ModelError: as `store`.
        """
        check_id(skill.id)
        return self._put(skill, bundle, cause or Cause(), restored=True)

    def store_many(
        self, skills: Iterable[Skill], vectors: FloatArray | None = None, *, cause: Cause | None = None
    ) -> list[str]:
        """Stores or updates many skills without bundles, `batch` of them in a transaction.

        Args:
            vectors: of all their texts in order, unit norm, shape (texts, d), if they are known already; it may be
                mapped into memory, and may hold more.

        Returns:
            Their ids. An error leaves the batches before it stored.

        Raises:
            ConfigError: a skill is wrong, or there are too few vectors. UnknownNameError: no skill has this id.
        """
        ids: list[str] = []
        used, because = 0, cause or Cause()
        for batch in _batches(skills, self.config.batch):
            for skill in batch:
                check_skill(skill)
            texts = [text for skill in batch for text in skill.texts]
            rows = self._embed(texts) if vectors is None else self._given(vectors[used : used + len(texts)], len(texts))
            used += len(texts)
            ends = list(itertools.accumulate(len(skill.texts) for skill in batch))
            parts = [rows[end - len(skill.texts) : end] for skill, end in zip(batch, ends, strict=True)]
            with self._writing:
                entries = [self._entry(skill, part) for skill, part in zip(batch, parts, strict=True)]
                ids += [skill.id for skill in self._write(entries, because)]
        return ids

    def delete(self, skill_id: str, *, cause: Cause | None = None) -> None:
        """Deletes a skill, and its bundle if no other skill has it. What the log says of it stays.

        Raises:
            UnknownNameError: no skill has this id.
        """
        with self._writing:
            change = self._store.delete(skill_id, cause or Cause())
            self._kept.apply([change], [np.zeros((0, self._embedder.dimension), np.float32)])
            if change.unused_digest:
                self._bundles.remove(change.unused_digest)

    def get(self, skill_id: str) -> Skill:
        """The skill with this id.

        Raises:
            UnknownNameError: there is none.
        """
        return self._located(self._store.get(skill_id))

    def skills(self) -> list[Skill]:
        """Every skill, in the order they were stored."""
        return list(self.iterate())

    def iterate(self) -> Iterator[Skill]:
        """The same, a few in memory at a time."""
        return map(self._located, self._store.skills())

    def bundle(self, skill: Skill) -> Bundle:
        """The bundle of a skill, every file checked against its hash.

        Raises:
            StoreError: it has none. ModelError: it is damaged.
        """
        if not skill.digest:
            raise StoreError(f"skill {skill.id}: has no bundle")
        bundle = load_bundle(self._bundles.path(skill.digest), self.config.max_bundle_bytes)
        if bundle.digest != skill.digest:
            raise ModelError(f"{self._bundles.path(skill.digest)}: damaged: its digest is {bundle.digest}")
        return bundle

    def retrieve(self, text: str, k: int = 5, contract: str = "", min_success_rate: float = 0.0) -> list[Found]:
        """The k skills that are nearest to a text, best first (`search.ranked`); fewer if fewer pass.

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
        query, passing = self._embed([text])[0], Filter(contract, min_success_rate)
        best = nearest(self.index, self._store, query, max(k, POOL), passing, self.config.max_candidates)
        chosen = ranked(self.index, self._store, query, best, k)
        skills = {skill.id: self._located(skill) for skill in self._store.skills(chosen)}
        return [Found(skills[skill_id], best[skill_id]) for skill_id in chosen if skill_id in skills]

    def audit(self, skill_id: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """The log of changes, newest first: of one skill, deleted or not, or of all.

        Raises:
            ConfigError: the limit is below 1.
        """
        if limit < 1:
            raise ConfigError(f"limit: at least 1 (got {limit})")
        return self._store.audit(skill_id, limit)

    def count(self) -> int:
        """How many skills there are; at once, however many."""
        return self._store.totals()[0]

    def stats(self) -> KnowledgeStats:
        """The store in figures."""
        skills, vectors, attempts, successes = self._store.totals()
        generation, bundles = int(self._store.meta("generation")), len(self._store.digests())
        migrated = self._store.database.migrated_from
        opened = (f"database brought up from version {migrated}, index " if migrated else "") + self._kept.opened
        index = self.index.kind, opened, self._kept.save_error
        return KnowledgeStats(skills, vectors, bundles, attempts, successes, generation, *index)

    def verify(self) -> list[str]:
        """Everything that is wrong: database, bundles, and index against database. Reads the whole store."""
        with self._writing:
            problems = self._store.problems()
            for digest in sorted(self._store.digests()):
                if not self._bundles.sound(digest):
                    problems.append(f"bundle {digest}: missing or damaged")
            if not np.array_equal(self.index.ids, self._store.vector_ids()):
                problems.append("index: not the vectors of the database")
            for ids, vectors in self._store.vectors():
                wrong = ~np.isclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
                problems += [f"vector {vector}: not of unit norm" for vector in ids[wrong].tolist()]
        return problems

    def save(self) -> None:
        """Saves the index, if it changed."""
        with self._writing:
            self._kept.save()

    def close(self) -> None:
        """Saves the index where it pays, and lets another process open the folder; a second call does nothing."""
        with self._writing:
            try:
                if not self._store.closed:
                    self._kept.close()
            finally:
                self._store.close()

    def _put(self, skill: Skill, bundle: Path | None, cause: Cause, *, restored: bool) -> Skill:
        check_skill(skill)
        vectors = self._embed(skill.texts)
        with self._writing:
            expected = skill.digest if restored else ""
            digest = self._bundles.put(bundle, expected) if bundle else None
            entry = self._entry(skill, vectors, digest, restored=restored)
            (stored,) = self._write([entry], cause)
        return stored

    def _entry(self, skill: Skill, vectors: FloatArray, digest: str | None = None, *, restored: bool = False) -> Entry:
        """With what its lessons become."""
        if not skill.id and not skill.lessons:
            return Entry(skill, vectors, vectors[:0], digest)
        new = self._embed([lesson.text for lesson in skill.lessons])
        if restored:
            return Entry(skill, vectors, new, digest, restored=True)
        old, blobs = self._store.lessons(skill.id) if skill.id else ((), [])
        old_vectors = np.stack([np.frombuffer(blob, "<f4") for blob in blobs]) if blobs else new[:0]
        merged, rows = lessons.merge(old, old_vectors, skill.lessons, new, self.config.lessons, self._vocabulary)
        return Entry(replace(skill, lessons=tuple(merged)), vectors, rows, digest)

    def _write(self, entries: Sequence[Entry], cause: Cause) -> list[Skill]:
        """Database first, then what follows from it."""
        changes = self._store.put(entries, cause)
        self._kept.apply(changes, [entry.vectors for entry in entries])
        for change in changes:
            if change.unused_digest:
                self._bundles.remove(change.unused_digest)
        return [self._located(change.skill) for change in changes]

    def _embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of unit norm, shape (texts, d).

        Raises:
            ModelError: the embedder gave something else.
        """
        vectors = self._embedder.embed(texts)
        if vectors.shape != (len(texts), self._embedder.dimension):
            raise ModelError(f"embedder: gave vectors of shape {vectors.shape} for {len(texts)} texts")
        if not _unit(vectors):
            raise ModelError("embedder: gave a vector that is not of unit norm")
        return vectors

    def _given(self, vectors: FloatArray, count: int) -> FloatArray:
        """Vectors that a caller gave for so many texts, in memory and sound.

        Raises:
            ConfigError: they are not.
        """
        if vectors.shape != (count, self._embedder.dimension):
            raise ConfigError(f"vectors: need shape {(count, self._embedder.dimension)} (got {vectors.shape})")
        if not _unit(vectors):
            raise ConfigError("vectors: not of unit norm")
        return np.array(vectors, np.float32)

    def _located(self, skill: Skill) -> Skill:
        return replace(skill, path=self._bundles.path(skill.digest)) if skill.digest else skill


def _unit(vectors: FloatArray) -> bool:
    return not len(vectors) or bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3))


def _batches(skills: Iterable[Skill], size: int) -> Iterator[list[Skill]]:
    source = iter(skills)
    while batch := list(itertools.islice(source, size)):
        yield batch
