"""The replay: everything the robot went through, on disk for good, sampled from compact arrays.

What is where:

    replay.sqlite               the transitions; all that counts (replay_store.py)
    replay.sqlite.lock          held by the one process that may write (store_lock.py)
    replay.sqlite.*.features    features of the texts under the frozen base; may be deleted (feature_file.py)
    in memory                   31 bytes a transition and 1 byte a text (5 with mirror images), with up to 25 % to spare
                                (replay_index.py)

The store itself is the replay's state: positions are the order of arrival and nothing else is kept, so a batch depends
on the stored transitions and the generator that is passed in, and on nothing else. A learner that restores its
generator's state and finds the transitions of `state()` draws the batches it would have drawn.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.learning.rl.feature_file import FeatureFile, remove_features
from llmagent_ros.learning.rl.mirror_images import MirrorImages
from llmagent_ros.learning.rl.replay_index import TERMINATED, TRUNCATED, ReplayIndex
from llmagent_ros.learning.rl.replay_rows import check_transition
from llmagent_ros.learning.rl.replay_store import EpisodeSummary, TransitionStore
from llmagent_ros.learning.rl.sampling import NStepBatch, check_sampling, draw_positions, gather, n_step_batch
from llmagent_ros.locking import FileLock, lock_beside
from llmagent_ros.types import FloatArray, Transition

_MAX_ACTIONS = 1 << 15  # int16 in the index


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class ReplayConfig:
    """max_bytes: limit of the database on disk; an append beyond it fails as on a full disk (about 0.5 kB a step)."""

    max_bytes: Annotated[int, Field(ge=1 << 17)] = 1 << 34


class Replay:
    """Transitions on disk, appended by one process, sampled by it or by readers. Safe to use from several threads.

    Sampling never waits for the disk: an `append` in another thread holds the arrays only after its commit.

    Args:
        path: the SQLite file; it and its folder are made if missing.
        vocabulary: the action phrases, which give `NStepBatch.action` its indices. Empty: the phrases in the order in
            which they arrived in the store, and any phrase may be appended.
        read_only: for a second process: no lock; `refresh` brings in what was appended meanwhile.
        features: folder in which a second process keeps features of its own; beside the store where there is none.

    Raises:
        StoreError: damaged, of another kind, in use by another writer (its process id is named), or holding an action
            outside the vocabulary. ConfigError: the vocabulary has a phrase twice.
    """

    def __init__(
        self,
        path: Path,
        vocabulary: Sequence[str] = (),
        config: ReplayConfig | None = None,
        *,
        read_only: bool = False,
        features: Path | None = None,
    ) -> None:
        if len(set(vocabulary)) != len(vocabulary) or len(vocabulary) > _MAX_ACTIONS:
            raise ConfigError(f"vocabulary: phrases must differ and be at most {_MAX_ACTIONS}")
        self.path = path
        self._closed_vocabulary = tuple(vocabulary)
        self._actions = {phrase: number for number, phrase in enumerate(vocabulary)}
        self._features: FeatureFile | None = None
        self._features_beside = None if read_only and features is None else (features or path.parent) / path.name
        self._images: MirrorImages | None = None
        self._index = ReplayIndex()
        self._store_lock = threading.RLock()  # the database and the feature file
        self._index_lock = threading.Lock()  # the arrays; taken after _store_lock, never before it
        self._open = False
        self._lock = None if read_only else self._claim(path)
        try:
            self._store = TransitionStore(path, read_only=read_only, max_bytes=(config or ReplayConfig()).max_bytes)
            self._open = True
            self.refresh()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _claim(path: Path) -> FileLock:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent}: cannot be made: {error.strerror}") from error
        return lock_beside(path)

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file for another writer; calling it again does nothing."""
        with self._store_lock:
            try:
                if self._features is not None:
                    self._features.close()
            finally:
                self._features = None
                if self._open:
                    self._store.close()
                self._open = False
                if self._lock is not None:
                    self._lock.release()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The action phrases by index."""
        return self._closed_vocabulary or tuple(self._actions)

    @property
    def demonstrations(self) -> int:
        """How many transitions a person or a script made."""
        return len(self._index.demonstrations)

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take; everything else is on disk."""
        others = (each.nbytes for each in (self._features, self._images) if each is not None)
        return self._index.nbytes + sum(others)

    def append(self, transitions: Sequence[Transition]) -> int:
        """Stores transitions and returns when they are safe on disk.

        A key (run, episode, step) that is stored already is left as it is, so sending again is harmless.

        Returns:
            How many were new.

        Raises:
            ConfigError: one of them is malformed (see `check_transition`). StoreError: full, damaged or read-only.
            After either nothing of `transitions` is stored, and what was stored before still is.
        """
        for transition in transitions:
            check_transition(transition, self._closed_vocabulary)
        with self._store_lock:
            self._check_open()
            if self._lock is None:
                raise StoreError(f"{self.path}: opened read-only, cannot append")
            stored = self._store.append(transitions)
            rows = [s.row(self._action(s.transition.action)) for s in stored]
            pairs = [(s.previous, s.position) for s in stored if s.previous >= 0]
            pairs += [(s.position, s.following) for s in stored if s.following >= 0]
            with self._index_lock:
                self._index.extend(rows)
                self._index.link(pairs)
            return len(stored)

    def rewind(self, transitions: int) -> int:
        """Forgets all but the first `transitions` to arrive, for good; returns how many that were. What was kept of
        their texts goes with them, so that it is made again in the same order, to the last digit.

        For an experiment that goes on from a checkpoint exactly and makes them again. A robot's experience is not
        made again: there nothing calls this.

        Raises:
            StoreError: read-only, or not written.
        """
        with self._store_lock:
            self._check_open()
            if self._lock is None:
                raise StoreError(f"{self.path}: opened read-only, cannot rewind")
            before = len(self._index)
            if before <= transitions:
                return 0
            texts = self._store.texts_of(transitions)
            if self._features is None:
                remove_features(self.path)
            else:
                self._features.forget(texts)  # first: features must never be there for a text that is not
            if self._images is not None:
                self._images.forget(texts)
            self._store.truncate(transitions, texts)
            with self._index_lock:
                self._index = ReplayIndex()
            self.refresh()
            return before - len(self._index)

    def refresh(self) -> int:
        """Brings in what a writing process appended since; returns how many. For readers; a writer is never behind."""
        with self._store_lock:
            self._check_open()
            before = len(self._index)
            with self._store.snapshot():
                if self._store.transitions == before:
                    return 0
                with self._index_lock:
                    for chunk in self._store.columns(before):
                        self._index.extend([(*row[:3], self._stored_action(row[3]), *row[4:]) for row in chunk])
                    self._check_complete()
                    self._index.link_all(self._store.keys())
            return len(self._index) - before

    def sample(
        self,
        batch_size: int,
        n_step: int,
        gamma: float,
        rng: np.random.Generator,
        demo_share: float | None = None,
    ) -> NStepBatch:
        """Draws transitions uniformly, with replacement, each with the up to n_step steps that follow it.

        Args:
            demo_share: share of the batch from demonstrations and interventions (see `draw_positions`).

        Raises:
            StoreError: nothing is stored. ConfigError: an argument is out of range.
        """
        check_sampling(batch_size, n_step, gamma, demo_share)
        with self._index_lock:
            positions = draw_positions(self._index, batch_size, rng, demo_share)
            return n_step_batch(gather(self._index, positions, n_step), gamma)

    def at(self, positions: ArrayLike, n_step: int, gamma: float) -> NStepBatch:
        """The batch of chosen positions (B,), each in 0..len-1: for evaluation, and for samplers of one's own."""
        chosen = np.atleast_1d(np.asarray(positions, np.int64))
        check_sampling(len(chosen), n_step, gamma, None)
        with self._index_lock:
            if chosen.min() < 0 or chosen.max() >= len(self._index):
                raise ConfigError(f"positions {chosen.min()}..{chosen.max()}; valid: 0..{len(self._index) - 1}")
            return n_step_batch(gather(self._index, chosen, n_step), gamma)

    def recent(self, count: int) -> list[Transition]:
        """The last `count` transitions to arrive, oldest first."""
        with self._reading() as store:
            return store.recent(count)

    def episode(self, run: str, episode: int) -> list[Transition]:
        """The stored steps of one episode in order of step; empty when there are none."""
        with self._reading() as store:
            return store.episode(run, episode)

    def episodes(self, last: int = 1000) -> list[EpisodeSummary]:
        """The `last` episodes by the arrival of their newest step, oldest first. Reads the whole table."""
        with self._reading() as store:
            return store.episodes(last)

    def endings(self) -> tuple[int, int]:
        """How many episodes the policy has ended, and how many of them well. Those whose last step a person or a script
        did say nothing of it.

        An episode ended well when its last step terminated with a reward above 0; with one below 0 it failed, which is
        what `distil_lessons` counts. A truncated one is neither.
        """
        with self._index_lock:
            own = self._index.own
            flags, reward = self._index.flags[own], self._index.reward[own]
            terminated = flags & TERMINATED != 0
            return int((terminated | (flags & TRUNCATED != 0)).sum()), int((terminated & (reward > 0)).sum())

    def tasks(self, most: int) -> list[str]:
        """The `most` instructions with the most transitions, those first; an empty one is none."""
        with self._reading() as store:
            with self._index_lock:
                counts = np.bincount(self._index.task)
            labels = (store.label(int(task)) for task in np.argsort(-counts, kind="stable") if counts[task])
            return list(itertools.islice(filter(None, labels), most))

    def texts(self, text_ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """Scene texts of ids, in their order."""
        with self._reading() as store:
            return store.scenes([int(text_id) for text_id in text_ids])

    def task(self, label_id: int) -> str:
        """The instruction that `NStepBatch.task` stands for."""
        with self._reading() as store:
            return store.label(int(label_id))

    def use_base(self, base_digest: str, width: int) -> None:
        """Says which frozen base the features are of; those of another base, or of another width, are dropped.

        Raises:
            StoreError: the file cannot be made, or the replay is read-only and has no folder for them.
            ConfigError: an empty digest or width.
        """
        with self._reading() as store:
            if self._features_beside is None:
                raise StoreError(f"{self.path}: opened read-only, has no features")
            if self._features is not None:
                self._features.close()
                self._features = None
            self._features = FeatureFile(self._features_beside, store.identity, base_digest, width)

    def put_features(self, text_ids: ArrayLike, features: ArrayLike) -> None:
        """Keeps features, (k, width), of texts, (k,), as float16.

        Raises:
            ConfigError: unknown ids or another width. ModelError: not finite in float16. StoreError: disk full.
        """
        with self._reading() as store:
            ids = np.asarray(text_ids, np.int64).reshape(-1)
            self._feature_file().put(ids, np.asarray(features), store.texts)

    def features(self, text_ids: ArrayLike) -> FloatArray:
        """Features of texts of any shape, float32, (*shape, width).

        Raises:
            StoreError: one of them has none yet (see `missing_features`).
        """
        return self._feature_file().get(text_ids)  # without the lock: an append may be waiting for the disk with it

    def missing_features(self, limit: int) -> list[tuple[int, str]]:
        """Up to `limit` (text id, text) without features under the base in use, oldest first."""
        with self._reading() as store:
            ids = [int(text_id) for text_id in self._feature_file().missing(limit, store.texts)]
            return list(zip(ids, store.scenes(ids), strict=True))

    def use_mirror(self, rule: str) -> None:
        """Says by which rule mirror images of texts are made; those of another rule are forgotten.

        Raises:
            StoreError: the replay is read-only, or not written.
        """
        with self._reading() as store:
            if self._lock is None:
                raise StoreError(f"{self.path}: opened read-only, takes no mirror images")
            self._images = MirrorImages()
            self._images.note(store.use_mirror(rule))

    def missing_images(self, limit: int) -> list[tuple[int, str]]:
        """Up to `limit` (text id, text) whose mirror image nobody has put yet, oldest first."""
        with self._reading() as store:
            ids = self._mirror_images().unseen(limit, store.texts)
            return list(zip(ids, store.scenes(ids), strict=True))

    def put_images(self, text_ids: Sequence[int], images: Sequence[str | None]) -> None:
        """Keeps the mirror images of texts, None where a text has none. They become texts like others.

        Raises:
            StoreError: full, damaged or read-only.
        """
        with self._reading() as store:
            self._mirror_images().note(store.put_images(text_ids, images))

    def images(self, text_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of the mirror images of texts of any shape, below 0 where there is none (yet)."""
        return self._mirror_images().get(text_ids)  # without the lock, as for features

    def sync(self) -> None:
        """Makes durable what was put and could be computed again; all else is durable at once."""
        with self._store_lock:
            if self._features is not None:
                self._features.sync()

    def state(self) -> dict[str, str | int]:
        """What a checkpoint keeps of the replay: which store, and how much was in it."""
        with self._reading() as store:
            return {"identity": store.identity, "transitions": len(self._index)}

    def check_state(self, state: Mapping[str, str | int]) -> None:
        """Raises StoreError unless this is the store of a checkpoint, with at least what was in it then."""
        now = self.state()
        if state.get("identity") != now["identity"]:
            raise StoreError(f"{self.path}: not the replay that the checkpoint was made with")
        if int(state.get("transitions", 0)) > int(now["transitions"]):
            raise StoreError(
                f"{self.path}: holds {now['transitions']} transitions, the checkpoint saw {state['transitions']}"
            )

    @contextmanager
    def _reading(self) -> Iterator[TransitionStore]:
        with self._store_lock:
            self._check_open()
            yield self._store

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.path}: the replay is closed")

    def _feature_file(self) -> FeatureFile:
        if self._features is None:
            raise StoreError(f"{self.path}: no base in use: call use_base first")
        return self._features

    def _mirror_images(self) -> MirrorImages:
        if self._images is None:
            raise StoreError(f"{self.path}: no mirror in use: call use_mirror first")
        return self._images

    def _action(self, phrase: str) -> int:
        if phrase not in self._actions:
            if self._closed_vocabulary:
                valid = ", ".join(self._closed_vocabulary)
                raise StoreError(f"{self.path}: holds the action {phrase!r}, which is not in the vocabulary: {valid}")
            self._actions[phrase] = len(self._actions)
        return self._actions[phrase]

    def _stored_action(self, label_id: int) -> int:
        return self._action(self._store.label(label_id))

    def _check_complete(self) -> None:
        if len(self._index) != self._store.transitions:
            raise StoreError(
                f"{self.path}: damaged: {len(self._index)} transitions, the last is number {self._store.transitions}"
            )
