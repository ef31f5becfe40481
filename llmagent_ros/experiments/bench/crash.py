"""kill -9 at random moments of everything that a knowledge store writes: what was acknowledged is there, whole.

    python -m llmagent_ros.experiments.bench.crash FOLDER KILLS SEED

prints {"crashes": …, "acknowledged": …, "in_flight": …, "lost": …, "corrupt": …}. Writers are forked, so this must be
a process of its own, with a single thread (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from llmagent_ros.bundle import save_bundle
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.knowledge.audit import Cause
from llmagent_ros.knowledge.exchange import export_skill, import_skill
from llmagent_ros.knowledge.index import IndexConfig
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import FloatArray, Lesson

# Saved often, a graph from the ninth vector on, several transactions for many skills.
CONFIG = KnowledgeConfig(save_every=3, batch=2, index=IndexConfig(exact_limit=8))
_MANY = 5  # skills that are stored at once
_FULL = 30  # skills above which none are added
_LINES = 8  # of a writer's report, before it is killed: at most; a line comes right before or after a write
_WAIT = 0.01  # s after the last of them, at most
_LOG = 10_000  # lines of the log, more than a writer can make
Known = dict[str, list[Any]]  # id to description, digest, lessons


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


class Writer:
    """Writes for ever. Announces each operation before it ("try") and acknowledges it after ("done"), a line each."""

    def __init__(self, folder: Path, inputs: Path, known: Known, seed: int, out: int) -> None:
        self._knowledge = Knowledge(folder, HashEmbedder(), CONFIG)
        self._bundles = [inputs / "a", inputs / "b", None]
        self._exported = inputs / "exported"
        self._known, self._seed, self._out = known, seed, out
        self._rng = random.Random(seed)

    def run(self) -> None:
        for number in range(100_000):
            tag = f"{self._seed} {number}"
            new: list[Callable[[str], None]] = [self._store, self._many, self._import]
            old: list[Callable[[str], None]] = [self._update, self._update, self._delete]
            full = len(self._known) > _FULL
            self._rng.choice(old if full else [*new, *old] if self._known else new)(tag)

    def _store(self, tag: str) -> None:
        self._say("try", tag, "put", "", f"skill {tag}")
        self._put(Skill(f"skill {tag}", (f"do {tag}",), lessons=self._lessons()), tag)

    def _update(self, tag: str) -> None:
        target = self._rng.choice(sorted(self._known))
        self._say("try", tag, "put", target, f"skill {tag}")
        self._put(Skill(f"skill {tag}", (f"do {tag}",), id=target, attempts=9, lessons=self._lessons()), tag)

    def _put(self, skill: Skill, tag: str) -> None:
        self._done(tag, [self._knowledge.store(skill, self._rng.choice(self._bundles), cause=Cause(tag))])

    def _lessons(self) -> tuple[Lesson, ...]:
        said = self._rng.sample(range(6), self._rng.randrange(4))
        return tuple(Lesson(f"lesson {each}", float(self._rng.randint(1, 9)), 1.0) for each in said)

    def _many(self, tag: str) -> None:
        descriptions = [f"skill {tag} {each}" for each in range(_MANY)]
        self._say("try", tag, "many", "", descriptions)
        skills = [Skill(description, (f"do {description}",)) for description in descriptions]
        ids = self._knowledge.store_many(skills, cause=Cause(tag))
        self._done(tag, [self._knowledge.get(each) for each in ids])

    def _import(self, tag: str) -> None:
        self._say("try", tag, "put", "", "exported")
        self._done(tag, [import_skill(self._knowledge, self._exported, as_new=True, reason=tag)])

    def _delete(self, tag: str) -> None:
        target = self._rng.choice(sorted(self._known))
        self._say("try", tag, "delete", target, "")
        self._knowledge.delete(target, cause=Cause(tag))
        del self._known[target]
        self._say("done", tag, {target: None})

    def _done(self, tag: str, stored: list[Skill]) -> None:
        told = {skill.id: record(skill) for skill in stored}
        self._known |= told
        self._say("done", tag, told)

    def _say(self, *line: object) -> None:
        os.write(self._out, (json.dumps(line) + "\n").encode())


def record(skill: Skill) -> list[Any]:
    """What of a skill is compared, as JSON gives it back."""
    lessons = [[lesson.text, lesson.support, lesson.against] for lesson in skill.lessons]
    return [skill.description, skill.digest, lessons]


def run(folder: Path, kills: int, seed: int, say: Callable[[str], None] | None = None) -> dict[str, int]:
    """Kills so many writers, one after the other, on one store; what was counted.

    Returns:
        crashes: writers that were killed; acknowledged: operations; in_flight: of the crashes those that hit one;
        lost: operations whose effect or line of the log is not there, or that were done by halves; corrupt: problems
        that `Knowledge.verify` finds, and bundles that cannot be read.
    """
    rng = random.Random(seed)
    inputs, store = folder / "in", folder / "store"
    _prepare(inputs)
    known: Known = {}
    figures = dict.fromkeys(("crashes", "acknowledged", "in_flight", "lost", "corrupt"), 0)
    for turn in range(kills):
        process, report = _fork(store, inputs, known, seed * 1_000_000 + turn)
        with os.fdopen(report, "rb") as lines:
            said = [lines.readline() for _ in range(rng.randrange(_LINES))]
            time.sleep(rng.uniform(0.0, _WAIT))
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            told = [json.loads(line) for line in said + lines.read().splitlines()]
        figures["crashes"] += os.WIFSIGNALED(status)
        _check(store, known, told, figures)
        if say is not None and (turn + 1) % 100 == 0:
            say(f"{turn + 1} of {kills} crashes: {figures}")
    return figures


def _prepare(inputs: Path) -> None:
    for value, name in enumerate("ab"):
        critic = {"w": torch.full((4, 4), float(value))}
        save_bundle(inputs / name, adapter=None, adapter_config={}, critic=critic, meta={"base_digest": "test"})
    with Knowledge(inputs / "store", HashEmbedder()) as knowledge:
        skill = knowledge.store(Skill("exported", lessons=(Lesson("of another robot", 3.0, 1.0),)), inputs / "a")
        export_skill(knowledge, skill.id, inputs / "exported")


def _fork(store: Path, inputs: Path, known: Known, seed: int) -> tuple[int, int]:
    """A forked writer: (process id, read end of its report)."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        _write_for_ever(store, inputs, known, seed, reading, writing)
    os.close(writing)
    return process, reading


def _write_for_ever(store: Path, inputs: Path, known: Known, seed: int, reading: int, writing: int) -> NoReturn:
    try:
        os.close(reading)
        Writer(store, inputs, dict(known), seed, writing).run()
    finally:
        os._exit(1)


def _check(store: Path, known: Known, told: list[list[Any]], figures: dict[str, int]) -> None:
    """Compares the store with what was acknowledged; the operation in flight may have happened or not.

    Args:
        known: what was there before; what is there now when this returns.
    """
    pending = told[-1] if told and told[-1][0] == "try" else None
    done = [line for line in told if line[0] == "done"]
    for _, _, changed in done:
        known |= changed
    expected = {skill_id: what for skill_id, what in known.items() if what is not None}
    figures["acknowledged"] += len(done)
    figures["in_flight"] += pending is not None
    with Knowledge(store, HashEmbedder(), CONFIG) as knowledge:
        figures["corrupt"] += len(knowledge.verify())
        there: Known = {}
        for skill in knowledge.iterate():
            there[skill.id] = record(skill)
            figures["corrupt"] += not _readable(knowledge, skill)
            best = knowledge.retrieve(skill.texts[-1], k=CONFIG.max_results)  # imported ones have the same texts
            figures["lost"] += skill.id not in {each.skill.id for each in best}
        logged = {entry.reason for entry in knowledge.audit(limit=_LOG)}
    differ = {each: there.get(each) for each in expected.keys() | there.keys() if expected.get(each) != there.get(each)}
    figures["lost"] += sum(tag not in logged for _, tag, _ in done)
    if pending is None:
        figures["lost"] += len(differ)
    else:
        figures["lost"] += not _explained(pending, expected, differ) or (pending[1] in logged) != bool(differ)
    known.clear()
    known.update(there)


def _readable(knowledge: Knowledge, skill: Skill) -> bool:
    try:
        return not skill.digest or knowledge.bundle(skill).digest == skill.digest
    except LlmAgentError:
        return False


def _explained(pending: list[Any], expected: Known, differ: dict[str, list[Any] | None]) -> bool:
    """Whether the differences are what the operation in flight does, the whole of it or, of many, whole batches."""
    _, _, what, target, description = pending
    if not differ:
        return True
    if what == "many":
        new = sorted(after[0] for each, after in differ.items() if after is not None and each not in expected)
        whole = len(new) % CONFIG.batch == 0 or len(new) == _MANY
        return len(new) == len(differ) and whole and new == sorted(description[: len(new)])
    ((skill_id, after),) = differ.items() if len(differ) == 1 else (("", None),)
    if what == "delete":
        return skill_id == target and after is None
    return (
        after is not None and after[0] == description and (target == skill_id if target else skill_id not in expected)
    )


def main() -> None:
    folder, kills, seed = sys.argv[1:]

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    print(json.dumps(run(Path(folder), int(kills), int(seed), say)))


if __name__ == "__main__":
    main()
