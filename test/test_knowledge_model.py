"""Any history of stores, updates, deletes, searches and reopenings agrees with a plain dict and brute force."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from knowledge_support import HashEmbedder

from llmagent_ros.knowledge.index import IndexConfig
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.search import POOL
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import Lesson

texts = st.one_of(
    st.sampled_from(["go", "stop", "push", "drive to the red ball"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(
        str.strip
    ),
)
skills = st.builds(
    lambda description, instructions, contract, lessons, tried, share: Skill(
        description, tuple(instructions), contract, tuple(lessons), attempts=tried, successes=int(tried * share)
    ),
    texts,
    st.lists(texts, max_size=4),
    st.sampled_from(["", "sim", "husky"]),
    st.lists(st.builds(Lesson, texts, st.floats(1, 9), st.floats(0, 9)), max_size=2),
    st.integers(0, 20),
    st.floats(0, 1),
)


class KnowledgeMachine(RuleBasedStateMachine):
    """`self.known` is what must be there."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.embedder = HashEmbedder(8)
        self.known: dict[str, Skill] = {}

    @initialize(exact_limit=st.sampled_from([0, 5, 10_000]), save_every=st.sampled_from([1, 3, 1000]))
    def configure(self, exact_limit: int, save_every: int) -> None:
        # The graph of so few vectors is searched whole (its beam is wider), so that it must be exact too.
        index = IndexConfig(exact_limit=exact_limit, dead_share=0.3)
        self.config = KnowledgeConfig(index=index, save_every=save_every, max_candidates=40, batch=2)
        self.knowledge = Knowledge(self.folder, self.embedder, self.config)

    def teardown(self) -> None:
        if hasattr(self, "knowledge"):
            assert self.knowledge.verify() == []
            self.knowledge.close()
        shutil.rmtree(self.folder)

    @rule(target=ids, skill=skills)
    def store(self, skill: Skill) -> str:
        stored = self.knowledge.store(skill)
        assert stored.id not in self.known
        self.known[stored.id] = stored
        return stored.id

    @rule(target=ids, new=st.lists(skills, min_size=1, max_size=5))
    def store_many(self, new: list[Skill]) -> MultipleResults[str]:
        before = self.knowledge.stats().generation
        ids = self.knowledge.store_many(new)
        assert self.knowledge.stats().generation == before + -(-len(new) // self.config.batch)
        for skill_id, skill in zip(ids, new, strict=True):
            assert skill_id not in self.known
            stored = self.known[skill_id] = self.knowledge.get(skill_id)
            assert (stored.texts, stored.contract, stored.attempts) == (skill.texts, skill.contract, skill.attempts)
        return multiple(*ids)

    @rule(skill_id=ids, skill=skills)
    def update(self, skill_id: str, skill: Skill) -> None:
        stored = self.knowledge.store(replace(skill, id=skill_id))
        assert stored.created == self.known[skill_id].created
        self.known[skill_id] = stored

    @rule(skill_id=consumes(ids))
    def delete(self, skill_id: str) -> None:
        self.knowledge.delete(skill_id)
        del self.known[skill_id]

    @rule()
    def reopen(self) -> None:
        self.knowledge.close()
        self.knowledge = Knowledge(self.folder, self.embedder, self.config)

    @rule(text=texts, k=st.integers(1, 6), contract=st.sampled_from(["", "sim", "husky", "none"]), rate=st.floats(0, 1))
    def retrieve(self, text: str, k: int, contract: str, rate: float) -> None:
        hits = self.knowledge.retrieve(text, k, contract, rate)
        query = self.embedder.embed([text])[0]
        passing = [
            skill
            for skill in self.known.values()
            if contract in {"", skill.contract} and (rate == 0 or (skill.attempts and skill.success_rate >= rate))
        ]
        near = sorted(passing, key=lambda skill: (-self._similarity(skill, query), skill.id))[: max(k, POOL)]
        scores = sorted((self._score(skill, query) for skill in near), reverse=True)[:k]
        # Two that are as near as each other but for rounding may change places at the edge of the pool.
        assert [self._score(hit.skill, query) for hit in hits] == pytest.approx(scores, abs=1e-3)
        assert len({hit.skill.id for hit in hits}) == len(hits)
        for hit in hits:
            assert hit.skill in passing
            assert hit.similarity == pytest.approx(self._similarity(hit.skill, query), abs=1e-5)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "knowledge"):
            assert {skill.id: skill for skill in self.knowledge.skills()} == self.known
            assert self.knowledge.count() == len(self.known)
            assert self.knowledge.stats().vectors == sum(len(skill.texts) for skill in self.known.values())

    def _similarity(self, skill: Skill, query: np.ndarray) -> float:
        return float(max(self.embedder.embed(skill.texts) @ query))

    def _score(self, skill: Skill, query: np.ndarray) -> float:
        nearest = self._similarity(skill, query)
        return nearest + (1 - nearest) ** 2 * float(np.mean(self.embedder.embed(skill.texts) @ query))


TestKnowledge = KnowledgeMachine.TestCase
TestKnowledge.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
