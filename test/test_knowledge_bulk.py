"""Many skills: in batches, with vectors that are known, found quickly, with an index that is not saved in vain."""

from __future__ import annotations

import errno
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from disk_support import files_of_at_most
from knowledge_support import HashEmbedder

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.knowledge.index import HEADER, IndexConfig, IndexOrigin, SkillIndex
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.schema import Filter
from llmagent_ros.knowledge.skill import Skill

SMALL = KnowledgeConfig(batch=10, save_every=7)


def skills(count: int) -> list[Skill]:
    return [
        Skill(f"skill {n}", (f"do {n}",), "rare" if n == 3 else f"robot_{n % 4}", attempts=n % 5, successes=n % 5 // 2)
        for n in range(count)
    ]


def test_many_are_stored_as_one_by_one(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    with Knowledge(tmp_path / "many", embedder, SMALL) as many, Knowledge(tmp_path / "one", embedder) as one:
        ids = many.store_many(iter(skills(25)))
        assert len(set(ids)) == 25 and [skill.id for skill in many.skills()] == ids
        for skill in skills(25):
            one.store(skill)
        for query in ("skill 7", "do 20", "anything"):
            expected = [(hit.skill.description, hit.similarity) for hit in one.retrieve(query, 10)]
            assert [(hit.skill.description, hit.similarity) for hit in many.retrieve(query, 10)] == expected
        assert many.stats().generation == 1 + 3, "three transactions"
        assert len(many.audit(limit=100)) == 25
        assert many.verify() == []


def test_known_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    texts = [text for skill in skills(25) for text in skill.texts]
    np.save(tmp_path / "vectors.npy", embedder.embed(texts))
    vectors = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    with Knowledge(tmp_path / "k", embedder, SMALL) as knowledge:
        calls = embedder.calls
        knowledge.store_many(skills(25), vectors)
        assert embedder.calls == calls
        assert knowledge.retrieve("do 24", 1)[0].skill.description == "skill 24"
        for wrong, message in (
            (vectors[:10], "vectors: need shape"),
            (vectors[:, :4], "vectors: need shape"),
            (2 * vectors, "not of unit norm"),
        ):
            with pytest.raises(ConfigError, match=message):
                knowledge.store_many(skills(25), wrong)
        assert knowledge.verify() == []


def test_an_error_leaves_the_batches_before_it(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder(), SMALL) as knowledge:
        with pytest.raises(ConfigError, match="description: is empty"):
            knowledge.store_many([*skills(12), Skill("")])
        assert knowledge.count() == 10 and knowledge.verify() == []
        assert knowledge.store_many([]) == []


def test_many_may_be_updates_even_of_one_skill_twice(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder(), SMALL) as knowledge:
        ids = knowledge.store_many(skills(3))
        changed = Skill("other", ("words",), id=ids[1])
        assert knowledge.store_many([changed, replace(changed, instructions=("more",))]) == [ids[1], ids[1]]
        assert knowledge.get(ids[1]).texts == ("other", "more")
        assert knowledge.retrieve("words", 1)[0].similarity < 0.99
        assert knowledge.verify() == []


def test_the_index_is_saved_after_a_share_of_its_size(tmp_path: Path) -> None:
    config = KnowledgeConfig(save_every=10, save_share=0.5, batch=5)
    saved: list[int] = []
    with Knowledge(tmp_path, HashEmbedder(), config) as knowledge:
        before = b""
        for n in range(0, 150, 5):
            knowledge.store_many([Skill(f"skill {each}") for each in range(n, n + 5)])
            header = (tmp_path / HEADER).read_bytes() if (tmp_path / HEADER).exists() else b""
            if header != before:
                saved.append(n + 5)
                before = header
    assert saved == [10, 20, 40, 80], "at 10 by the count, and then whenever half of it is new"


def test_few_changes_of_a_large_store_are_caught_up_and_not_saved(tmp_path: Path) -> None:
    config = KnowledgeConfig(index=IndexConfig(exact_limit=100))
    with Knowledge(tmp_path, HashEmbedder(), config) as knowledge:
        knowledge.store_many(skills(1500))
    with Knowledge(tmp_path, HashEmbedder(), config) as knowledge:
        assert knowledge.stats().opened == "loaded"
        stored = knowledge.store(Skill("late"))
        knowledge.delete(knowledge.skills()[5].id)
        time_saved = (tmp_path / HEADER).stat().st_mtime_ns
    assert (tmp_path / HEADER).stat().st_mtime_ns == time_saved, "two of three thousand"
    with Knowledge(tmp_path, HashEmbedder(), config) as knowledge:
        assert knowledge.stats().opened == "caught up"
        assert knowledge.retrieve("late", 1)[0].skill.id == stored.id
        assert knowledge.verify() == []


def test_a_large_index_that_was_built_anew_is_saved_at_once(tmp_path: Path) -> None:
    config = KnowledgeConfig(index=IndexConfig(exact_limit=100))
    with Knowledge(tmp_path, HashEmbedder(), config) as knowledge:
        knowledge.store_many(skills(200))
    (tmp_path / HEADER).unlink()
    with Knowledge(tmp_path, HashEmbedder(), config) as knowledge:
        assert knowledge.stats().opened.startswith("built anew") and (tmp_path / HEADER).exists()


def index_files(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.glob("index*"))


def test_a_large_index_without_room_fails_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    config = KnowledgeConfig(index=IndexConfig(exact_limit=100, neighbours=128), save_every=1)
    with Knowledge(tmp_path, HashEmbedder(), config) as knowledge:
        knowledge.store_many(skills(200))
    assert index_files(tmp_path) == ["index", "index.json"]
    knowledge = Knowledge(tmp_path, HashEmbedder(), config)
    with files_of_at_most(200_000):  # enough for the log of SQLite, and less than half of the index
        stored = knowledge.store_many([Skill("late"), *(Skill(f"more {n}") for n in range(25))])[0]
        assert "cannot be saved" in knowledge.stats().save_error
        assert index_files(tmp_path) == ["index", "index.json"], "those of before"
        with pytest.raises(StoreError, match="cannot be saved"):
            knowledge.save()
        knowledge.close()
    for path in tmp_path.glob("index*"):
        path.unlink()
    with files_of_at_most(200_000):
        knowledge = Knowledge(tmp_path, HashEmbedder(), config)
        stats = knowledge.stats()
        assert stats.opened.startswith("built anew") and "cannot be saved" in stats.save_error
        assert knowledge.retrieve("late", 1)[0].skill.id == stored and index_files(tmp_path) == []
    knowledge.store_many(Skill(f"later {n}") for n in range(30))
    assert knowledge.stats().save_error == "" and index_files(tmp_path) == ["index", "index.json"]
    knowledge.close()


def test_vectors_whose_header_finds_no_room_go_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, origin = SkillIndex(16), IndexOrigin("store", "embedder", 1)
    index.add([1], HashEmbedder().embed(["a"]))
    index.save(tmp_path, origin)
    saved = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    index.add([2], HashEmbedder().embed(["b"]))

    def write_a_part(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text[:10].encode(encoding))
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_a_part)
        with pytest.raises(StoreError, match="No space left"):
            index.save(tmp_path, origin)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == saved
    left = [tmp_path / name for name in ("index.faiss.tmp", "index.json.tmp", "index-0123456789abcdef.faiss")]
    for path in left:
        path.write_bytes(b"as a kill leaves it")
    with Knowledge(tmp_path, HashEmbedder()):
        assert not any(path.exists() for path in left)


def test_an_index_whose_last_bytes_find_no_room_is_not_saved(tmp_path: Path) -> None:
    index, origin = SkillIndex(16), IndexOrigin("store", "embedder", 1)
    index.add(range(100), HashEmbedder().embed([str(n) for n in range(100)]))
    index.save(tmp_path, origin)
    saved = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    index.add([100], HashEmbedder().embed(["more"]))
    with files_of_at_most(max(map(len, saved.values()))), pytest.raises(StoreError, match="File too large"):
        index.save(tmp_path, origin)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == saved


def test_an_index_without_an_older_vector_is_not_of_this_database(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder()) as knowledge:
        knowledge.store_many(skills(20))
        knowledge.index.remove([3])  # as if it had lost it
        knowledge.save()
    with closing(sqlite3.connect(tmp_path / "skills.sqlite")) as database, database:
        database.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
    with Knowledge(tmp_path, HashEmbedder()) as knowledge:
        assert knowledge.stats().opened == "built anew: the saved index lacks vectors of the database"
        assert knowledge.verify() == []


@pytest.mark.parametrize("exact_limit", [10_000, 0])
@pytest.mark.parametrize("max_candidates", [16, 4096])
def test_filters_find_the_same_as_a_comparison_with_all(tmp_path: Path, exact_limit: int, max_candidates: int) -> None:
    """Few that pass are compared; of many the index is asked; should it meet too few, all that pass are compared."""
    config = KnowledgeConfig(index=IndexConfig(exact_limit=exact_limit), max_candidates=max_candidates)
    embedder = HashEmbedder()
    with Knowledge(tmp_path, embedder, config) as knowledge:
        knowledge.store_many(skills(3000))
        everything = knowledge.skills()
        for contract, rate, k in (
            ("robot_1", 0.0, 5),
            ("rare", 0.0, 5),
            ("", 0.5, 20),
            ("robot_2", 0.5, 3),
            ("none", 0, 1),
        ):
            query = embedder.embed(["a query"])[0]
            passing = [
                skill
                for skill in everything
                if contract in ("", skill.contract) and (not rate or skill.success_rate >= rate)
            ]
            best = sorted((float(max(embedder.embed(skill.texts) @ query)) for skill in passing), reverse=True)
            hits = knowledge.retrieve("a query", k, contract, rate)
            assert len(hits) == min(k, len(passing))
            found = sorted((hit.similarity for hit in hits), reverse=True)
            assert found[0] == pytest.approx(best[0], abs=1e-5) if best else not found
            assert all(hit.skill in passing for hit in hits)


def test_filters_go_by_the_indices_of_the_database(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder()) as knowledge, knowledge._store.database.reading() as database:
        for passing, index in (
            (Filter("sim"), "skills_contract (contract=?)"),
            (Filter("sim", 0.5), "skills_contract (contract=? AND rate>?)"),
            (Filter("", 0.5), "skills_rate (rate>?)"),
        ):
            query = f"SELECT vector FROM skills s CROSS JOIN texts ON skill = s.row WHERE {passing.condition} LIMIT 5"
            plan = " ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}", passing.values))
            assert index in plan and "SCAN" not in plan, plan
        query = "SELECT vector, s.id FROM texts CROSS JOIN skills s ON s.row = skill WHERE vector IN (1, 2)"
        plan = " ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "SCAN" not in plan, plan


def test_totals_are_kept_and_checked(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder(), SMALL) as knowledge:
        ids = knowledge.store_many(skills(12))
        knowledge.delete(ids[4])
        knowledge.store(Skill("new words", id=ids[5], attempts=100, successes=1))
        stats = knowledge.stats()
        counted = knowledge.skills()
        assert (stats.skills, stats.vectors) == (11, sum(len(skill.texts) for skill in counted))
        assert (stats.attempts, stats.successes) == (
            sum(skill.attempts for skill in counted), sum(skill.successes for skill in counted),
        )  # fmt: skip
        with closing(sqlite3.connect(tmp_path / "skills.sqlite")) as database, database:
            database.execute("UPDATE totals SET vectors = 1")
        assert any("totals are (11, 1," in problem for problem in knowledge.verify())


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder()) as knowledge:
        anchor = knowledge.store(Skill("anchor"))
        with knowledge._store.database.transaction() as database:
            database.execute("DELETE FROM skills")
            found: list[str] = []
            reader = threading.Thread(target=lambda: found.append(knowledge.retrieve("anchor", 1)[0].skill.id))
            reader.start()
            reader.join(10)
            assert found == [anchor.id], "what was there before, and at once"
            database.execute("ROLLBACK")
            database.execute("BEGIN")
        assert knowledge.get(anchor.id) == anchor


def test_index_scores_are_exact_and_of_what_is_there() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for limit in (1000, 0):
        index = SkillIndex(8, IndexConfig(exact_limit=limit, dead_share=1.0))
        index.add(range(10, 210), vectors)
        index.remove([10, 50])
        ids, scores = index.scores(vectors[7], np.array([209, 10, 17, 3, 999, 50, 11]))
        assert ids.tolist() == [209, 17, 11]
        np.testing.assert_allclose(scores, vectors[[199, 7, 1]] @ vectors[7], atol=1e-6)
        assert index.ids.tolist() == [n for n in range(11, 210) if n != 50] and index.last == 209
        with pytest.raises(StoreError, match="shape"):
            index.scores(vectors[0][:3], np.array([11]))
        with pytest.raises(StoreError, match="do not rise"):
            index.add([300, 299], vectors[:2])
        assert len(index) == 198
    assert index.scores(vectors[0], np.zeros(0, np.int64))[0].tolist() == []
