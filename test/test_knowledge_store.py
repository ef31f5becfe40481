"""Storing, finding, deleting; bundles; damage; every refusal."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from knowledge_support import HashEmbedder, make_bundle

from llmagent_ros.errors import ConfigError, ModelError, StoreError, UnknownNameError
from llmagent_ros.knowledge.index import HEADER, IndexConfig, SkillIndex
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.skill import MAX_TEXT, MAX_TEXTS, Skill, wilson_lower_bound
from llmagent_ros.types import Lesson

RED = Skill(
    "reach red things", ("drive to the red ball", "go to the red ball"), "sim", (Lesson("keep left", 3.0, 1.0),), 10, 7
)
BLUE = Skill("reach blue things", ("drive to the blue cone",), "husky", (), 4, 4)


@pytest.fixture
def knowledge(tmp_path: Path):
    with Knowledge(tmp_path / "k", HashEmbedder()) as opened:
        yield opened


def reopened(folder: Path, embedder: HashEmbedder | None = None, config: KnowledgeConfig | None = None) -> Knowledge:
    return Knowledge(folder, embedder or HashEmbedder(), config)


def found(knowledge: Knowledge, text: str, **options: object) -> list[str]:
    return [hit.skill.description for hit in knowledge.retrieve(text, **options)]  # type: ignore[arg-type]


def test_every_field_comes_back_after_reopening(tmp_path: Path) -> None:
    skill = replace(RED, parents=("p1", "p2"), description="Überfahre „rot“ 红球\n🚀")
    with reopened(tmp_path) as knowledge:
        stored = knowledge.store(skill)
    assert stored.id
    assert stored.created == stored.updated > 1.6e9
    with reopened(tmp_path) as knowledge:
        assert knowledge.get(stored.id) == stored == replace(skill, **_given(stored))
        assert knowledge.skills() == [stored]


def _given(skill: Skill) -> dict[str, object]:
    return {"id": skill.id, "created": skill.created, "updated": skill.updated}


def test_found_by_its_best_text_once(knowledge: Knowledge) -> None:
    knowledge.store(RED)
    knowledge.store(BLUE)
    for text in RED.texts:
        hits = knowledge.retrieve(text, k=5)
        assert [hit.skill.description for hit in hits] == [RED.description, BLUE.description]
        assert hits[0].similarity == pytest.approx(1.0, abs=1e-5)
        assert hits[1].similarity < 0.9


def test_of_the_same_words_the_one_that_was_stored_last_comes_first(knowledge: Knowledge) -> None:
    stored = [knowledge.store(Skill("go to the object", ("go to the red ball",) * (n % 2), "sim")).id for n in range(5)]
    knowledge.store(Skill("go to the object, quickly", contract="sim"))
    hits = knowledge.retrieve("go to the object", k=6)
    assert [hit.skill.id for hit in hits][:5] == stored[::-1]


def test_filters(knowledge: Knowledge) -> None:
    knowledge.store(RED)
    knowledge.store(BLUE)
    knowledge.store(Skill("never tried", contract="sim"))
    assert set(found(knowledge, "x")) == {RED.description, BLUE.description, "never tried"}
    assert set(found(knowledge, "x", contract="sim")) == {RED.description, "never tried"}
    assert found(knowledge, "x", min_success_rate=0.8) == [BLUE.description]
    assert found(knowledge, "x", contract="sim", min_success_rate=0.7) == [RED.description]
    assert found(knowledge, "x", contract="sim", min_success_rate=0.71) == []
    assert found(knowledge, "x", contract="mars") == []


def test_a_filter_that_few_pass_is_exact(tmp_path: Path) -> None:
    config = KnowledgeConfig(max_candidates=32)
    with reopened(tmp_path, config=config) as knowledge:
        for n in range(300):
            knowledge.store(Skill(f"skill {n}", contract="rare" if n in {7, 150} else "common"))
        assert set(found(knowledge, "anything", contract="rare", k=2)) == {"skill 7", "skill 150"}
        assert found(knowledge, "skill 150", contract="rare", k=1) == ["skill 150"]


def test_update_replaces_texts_and_keeps_identity(knowledge: Knowledge) -> None:
    first = knowledge.store(RED)
    second = knowledge.store(replace(first, instructions=("drive to the red ball", "fetch"), attempts=11, successes=8))
    assert (second.id, second.created) == (first.id, first.created)
    assert knowledge.get(first.id).attempts == 11
    assert knowledge.stats().vectors == 3
    assert knowledge.retrieve("fetch")[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert knowledge.retrieve("go to the red ball")[0].similarity < 0.99
    assert knowledge.verify() == []


def test_delete(knowledge: Knowledge) -> None:
    red, blue = knowledge.store(RED), knowledge.store(BLUE)
    knowledge.delete(red.id)
    assert found(knowledge, RED.description) == [BLUE.description]
    with pytest.raises(UnknownNameError, match=blue.id):  # says what ids there are
        knowledge.delete(red.id)
    with pytest.raises(UnknownNameError):
        knowledge.get(red.id)
    with pytest.raises(UnknownNameError):
        knowledge.store(red)  # an update of what is gone is no new skill
    assert knowledge.verify() == []


def test_empty_store_finds_nothing(knowledge: Knowledge) -> None:
    assert knowledge.retrieve("anything") == []
    assert knowledge.stats().skills == 0


def test_stats(knowledge: Knowledge, tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    knowledge.store(RED, tmp_path / "b")
    knowledge.store(BLUE)
    stats = knowledge.stats()
    assert (stats.skills, stats.vectors, stats.bundles, stats.attempts, stats.successes) == (2, 5, 1, 14, 11)
    assert (stats.generation, stats.index, stats.save_error) == (3, "exact", "")  # 3: the first embedder, two stores


def test_bundles_are_content_addressed_and_shared(knowledge: Knowledge, tmp_path: Path) -> None:
    digest = make_bundle(tmp_path / "a")
    assert make_bundle(tmp_path / "b") == digest
    one, two = knowledge.store(RED, tmp_path / "a"), knowledge.store(BLUE, tmp_path / "b")
    assert one.digest == two.digest == digest
    assert one.path == knowledge.folder / "bundles" / digest
    assert knowledge.bundle(one).critic["w"].shape == (4, 4)
    knowledge.delete(one.id)
    assert knowledge.bundle(two).digest == digest
    other = make_bundle(tmp_path / "c", 2.0)
    two = knowledge.store(two, tmp_path / "c")
    assert two.digest == other
    assert [path.name for path in (knowledge.folder / "bundles").iterdir()] == [other]
    assert knowledge.store(replace(two, attempts=9, successes=9)).digest == other  # kept without a new one
    with pytest.raises(StoreError, match="no bundle"):
        knowledge.bundle(knowledge.store(RED))


def test_unsound_bundles_are_refused_and_nothing_is_stored(knowledge: Knowledge, tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    (tmp_path / "b" / "critic.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"critic\.safetensors"):
        knowledge.store(RED, tmp_path / "b")
    make_bundle(tmp_path / "c")
    (tmp_path / "c" / "adapter_model.bin").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match=r"adapter_model\.bin"):
        knowledge.store(RED, tmp_path / "c")
    with pytest.raises(ModelError):
        knowledge.store(RED, tmp_path / "nowhere")
    assert knowledge.skills() == []
    assert list((knowledge.folder / "bundles").iterdir()) == []


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "file", "none"])
def test_a_path_that_cannot_be_read_is_named(knowledge: Knowledge, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be read as a bundle") as refused:
        knowledge.store(RED, bundle=tmp_path / name)
    assert name in str(refused.value)


def test_a_bundle_that_is_pruned_at_that_moment_is_refused(
    knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle(tmp_path / "b")
    scan = os.scandir

    def prune(folder: Path) -> Iterator[os.DirEntry[str]]:
        entries = list(scan(folder))
        for entry in entries:
            Path(entry).unlink()
        return iter(entries)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", prune)
        with pytest.raises(ModelError, match="cannot be read as a bundle"):
            knowledge.store(RED, bundle=tmp_path / "b")


def test_a_bundle_that_changes_while_it_is_copied_is_refused(
    knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle(tmp_path / "b")

    def copy_and_change(source: Path, target: Path, **_: object) -> None:
        target.write_bytes(source.read_bytes() + b" ")

    monkeypatch.setattr("shutil.copyfile", copy_and_change)
    with pytest.raises(ModelError):
        knowledge.store(RED, tmp_path / "b")
    monkeypatch.undo()

    make_bundle(tmp_path / "other", 2.0)  # sound, but not what was checked
    monkeypatch.setattr(
        "shutil.copyfile",
        lambda source, target, **_: target.write_bytes((tmp_path / "other" / source.name).read_bytes()),
    )
    with pytest.raises(ModelError, match="changed while"):
        knowledge.store(RED, tmp_path / "b")
    assert list((knowledge.folder / "bundles").iterdir()) == []
    assert knowledge.skills() == []


def test_a_bundle_too_large_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    with (
        reopened(tmp_path / "k", config=KnowledgeConfig(max_bundle_bytes=100)) as knowledge,
        pytest.raises(ModelError, match="at most 100"),
    ):
        knowledge.store(RED, tmp_path / "b")


def test_a_damaged_stored_bundle_is_seen_and_mended_by_storing_again(knowledge: Knowledge, tmp_path: Path) -> None:
    digest = make_bundle(tmp_path / "b")
    skill = knowledge.store(RED, tmp_path / "b")
    (knowledge.folder / "bundles" / digest / "critic.safetensors").write_bytes(b"rot")
    assert any(digest in problem for problem in knowledge.verify())
    with pytest.raises(ModelError):
        knowledge.bundle(skill)
    knowledge.store(skill, tmp_path / "b")
    assert knowledge.verify() == []


def test_a_digest_is_no_way_out_of_the_store(knowledge: Knowledge) -> None:
    for digest in ("../../etc", "a" * 63 + "/", "", "A" * 64):
        with pytest.raises(StoreError):
            knowledge.bundle(replace(RED, digest=digest))


def test_leftovers_are_swept_at_opening(tmp_path: Path) -> None:
    reopened(tmp_path).close()
    for name in (".x.tmp", "ab" * 32):
        (tmp_path / "bundles" / name).mkdir()
    reopened(tmp_path).close()
    assert list((tmp_path / "bundles").iterdir()) == []


@pytest.mark.parametrize("loss", ["gone", "empty", "of another store"])
def test_bundles_without_their_database_are_not_swept(tmp_path: Path, loss: str) -> None:
    digest = make_bundle(tmp_path / "b")
    with reopened(tmp_path / "k") as knowledge:
        skill = knowledge.store(RED, tmp_path / "b")
    database = tmp_path / "k" / "skills.sqlite"
    kept = database.read_bytes()
    database.unlink()
    if loss == "empty":
        database.touch()
    elif loss == "of another store":  # SQLite's own, without a table of ours
        with closing(sqlite3.connect(database)) as other:
            other.execute("PRAGMA journal_mode = WAL")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"skills\.sqlite: missing or empty, while .*bundles still holds bundles"):
            reopened(tmp_path / "k")
    assert database.exists() == (loss != "gone"), "none is made"
    assert [path.name for path in (tmp_path / "k" / "bundles").iterdir()] == [digest]
    database.write_bytes(kept)
    with reopened(tmp_path / "k") as knowledge:
        assert knowledge.get(skill.id) == skill and knowledge.verify() == []


def damage_cut(folder: Path) -> None:
    path = next(folder.glob("index-*.faiss"))
    path.write_bytes(path.read_bytes()[:50])


def damage_flip(folder: Path) -> None:
    path = next(folder.glob("index-*.faiss"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        damage_cut,
        damage_flip,
        lambda folder: next(folder.glob("index-*.faiss")).unlink(),
        lambda folder: (folder / HEADER).unlink(),
        lambda folder: (folder / HEADER).write_text("{"),
        lambda folder: (folder / HEADER).write_text("[]"),
        lambda folder: (folder / HEADER).write_bytes(b"\xff\xfe"),
        lambda folder: (folder / HEADER).write_text('{"version": 99}'),
    ],
)
def test_a_damaged_index_is_built_anew(tmp_path: Path, damage) -> None:
    with reopened(tmp_path) as knowledge:
        knowledge.store(RED)
        knowledge.store(BLUE)
    with reopened(tmp_path) as knowledge:
        assert knowledge.stats().opened == "loaded"
    damage(tmp_path)
    embedder = HashEmbedder()
    with reopened(tmp_path, embedder) as knowledge:
        assert knowledge.stats().opened.startswith("built anew")
        assert embedder.calls == 0  # from the vectors in the database
        assert found(knowledge, BLUE.description, k=1) == [BLUE.description]
        assert knowledge.verify() == []
    with reopened(tmp_path) as knowledge:
        assert knowledge.stats().opened == "loaded"


def test_an_older_index_is_caught_up(tmp_path: Path) -> None:
    with reopened(tmp_path) as knowledge:
        red = knowledge.store(RED)
        knowledge.store(Skill("stays"))
    saved = {path.name: path.read_bytes() for path in tmp_path.glob("index*")}
    with reopened(tmp_path) as knowledge:
        knowledge.delete(red.id)
        knowledge.store(BLUE)
    for path in tmp_path.glob("index*"):
        path.unlink()
    for name, data in saved.items():
        (tmp_path / name).write_bytes(data)
    with reopened(tmp_path) as knowledge:
        assert knowledge.stats().opened == "caught up"
        assert knowledge.verify() == []
        assert set(found(knowledge, "x")) == {BLUE.description, "stays"}


def test_an_index_of_another_store_is_not_used(tmp_path: Path) -> None:
    for name, skill in (("a", RED), ("b", BLUE)):
        with reopened(tmp_path / name) as knowledge:
            knowledge.store(skill)
    for path in (tmp_path / "a").glob("index*"):
        path.unlink()
    for path in (tmp_path / "b").glob("index*"):
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    with reopened(tmp_path / "a") as knowledge:
        assert "another store" in knowledge.stats().opened
        assert knowledge.verify() == []


@pytest.mark.parametrize("other", [HashEmbedder(16, "other"), HashEmbedder(24)])
def test_another_embedder_embeds_everything_again(tmp_path: Path, other: HashEmbedder) -> None:
    with reopened(tmp_path) as knowledge:
        knowledge.store(RED)
        knowledge.store(BLUE)
    with reopened(tmp_path, other) as knowledge:
        assert other.calls == 2  # texts, lessons
        assert knowledge.retrieve(RED.description)[0].similarity == pytest.approx(1.0, abs=1e-5)
        assert knowledge.verify() == []


class Failing(HashEmbedder):
    def embed(self, texts):
        if self.calls:
            raise ModelError("out of memory")
        return super().embed(texts)


def test_another_embedder_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    with reopened(tmp_path) as knowledge:
        for n in range(300):  # more than one batch
            knowledge.store(Skill(f"skill {n}"))
    with pytest.raises(ModelError, match="out of memory"):
        reopened(tmp_path, Failing(16, "other"))
    embedder = HashEmbedder()
    with reopened(tmp_path, embedder) as knowledge:
        assert knowledge.stats().opened == "loaded"
        vectors = np.concatenate([rows for _, rows in knowledge._store.vectors()])
        np.testing.assert_array_equal(vectors, embedder.embed([f"skill {n}" for n in range(300)]))


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    reopened(tmp_path).close()
    (tmp_path / "skills.sqlite").write_bytes(b"not a database" * 400)
    with pytest.raises(StoreError, match=r"skills\.sqlite"):
        reopened(tmp_path)
    (tmp_path / "skills.sqlite").unlink()
    reopened(tmp_path).close()  # the failed opening left no lock behind


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    reopened(tmp_path).close()
    database = sqlite3.connect(tmp_path / "skills.sqlite")
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(StoreError, match="version 7"):
        reopened(tmp_path)


def test_damaged_vectors_in_the_database_are_named(tmp_path: Path) -> None:
    with reopened(tmp_path) as knowledge:
        knowledge.store(RED)
    database = sqlite3.connect(tmp_path / "skills.sqlite")
    with database:
        database.execute("UPDATE texts SET embedding = x'00' WHERE vector = 1")
    database.close()
    (tmp_path / HEADER).unlink()
    with pytest.raises(StoreError, match="vectors are damaged"):
        reopened(tmp_path)


def test_a_second_instance_is_refused(knowledge: Knowledge) -> None:
    with pytest.raises(StoreError, match="has this store open") as refused:
        reopened(knowledge.folder)
    assert str(knowledge.folder) in str(refused.value)


def test_closed_store_says_so(tmp_path: Path) -> None:
    knowledge = reopened(tmp_path)
    knowledge.close()
    knowledge.close()
    with pytest.raises(StoreError, match="closed"):
        knowledge.store(RED)
    with pytest.raises(StoreError, match="closed"):
        knowledge.get("x")


def test_a_full_disk_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with reopened(tmp_path) as knowledge:
        first = knowledge.store(RED)
        database = knowledge._store.database.writer
        assert database is not None
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            for n in range(200):
                knowledge.store(Skill(f"{n} " + "long " * 300))
        database.execute("PRAGMA max_page_count = 1000000")
        assert knowledge.get(first.id) == first
        assert knowledge.verify() == []
        knowledge.store(BLUE)
        assert knowledge.verify() == []


def test_an_index_that_cannot_be_saved_does_not_fail_the_store(tmp_path: Path, monkeypatch) -> None:
    with reopened(tmp_path, config=KnowledgeConfig(save_every=1)) as knowledge:
        with monkeypatch.context() as patch:
            patch.setattr("faiss.write_index", _no_space)
            stored = knowledge.store(RED)
            assert "no space" in knowledge.stats().save_error
        assert knowledge.get(stored.id) == stored
        knowledge.store(BLUE)
        assert knowledge.stats().save_error == ""


def _no_space(*_: object) -> None:
    raise OSError(28, "no space")


@pytest.mark.parametrize(
    ("skill", "message"),
    [
        (Skill(""), "description: is empty"),
        (Skill(" \n"), "description: is empty"),
        (Skill("x" * (MAX_TEXT + 1)), f"at most {MAX_TEXT}"),
        (Skill("x\0y"), "NUL"),
        (Skill("x\ud800"), "surrogate"),
        (Skill("x", instructions=("",)), "skill instructions: is empty"),
        (Skill("x", lessons=(Lesson("y", 1),) * (MAX_TEXTS + 1)), f"skill lessons: at most {MAX_TEXTS}"),
        (Skill("x", contract="../evil"), "skill contract"),
        (Skill("x", attempts=1, successes=2), "successes"),
        (Skill("x", attempts=-1), "attempts"),
        (Skill("x", attempts=2**32), "attempts"),
    ],
)
def test_bad_skills_are_refused(knowledge: Knowledge, skill: Skill, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        knowledge.store(skill)
    assert knowledge.skills() == []


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "text: is empty"),
        ("x" * 10_000_000, {}, "at most"),
        ("x", {"k": 0}, "k: 1 to 100"),
        ("x", {"k": -3}, "k: 1 to 100"),
        ("x", {"k": 101}, "k: 1 to 100"),
        ("x", {"min_success_rate": -0.1}, "min_success_rate"),
        ("x", {"min_success_rate": float("nan")}, "min_success_rate"),
    ],
)
def test_bad_queries_are_refused(knowledge: Knowledge, text: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        knowledge.retrieve(text, **options)  # type: ignore[arg-type]


def test_sql_in_texts_is_only_text(knowledge: Knowledge) -> None:
    evil = "'); DROP TABLE skills; --"
    knowledge.store(Skill(evil, (evil + "2",)))
    assert found(knowledge, evil, k=1) == [evil]
    assert found(knowledge, evil, contract=evil) == []
    assert knowledge.verify() == []


class Lying(HashEmbedder):
    def embed(self, texts):
        return super().embed(texts)[:, :-1] if self.salt == "short" else 3 * super().embed(texts)


@pytest.mark.parametrize("salt", ["short", "long"])
def test_an_embedder_of_another_shape_or_norm_is_refused(tmp_path: Path, salt: str) -> None:
    with reopened(tmp_path, Lying(16, salt)) as knowledge:
        with pytest.raises(ModelError, match="embedder"):
            knowledge.store(RED)
        assert knowledge.skills() == []


def test_many_readers_beside_a_writer(tmp_path: Path) -> None:
    config = KnowledgeConfig(index=IndexConfig(exact_limit=40))  # crosses into the graph while they read
    with reopened(tmp_path, config=config) as knowledge:
        anchor = knowledge.store(Skill("anchor"))
        done, failures, reads = threading.Event(), [], [0] * 4

        def read(n: int) -> None:
            while not done.is_set():
                hits = knowledge.retrieve("anchor", k=3)
                if not hits or hits[0].skill.id != anchor.id or knowledge.get(anchor.id) != anchor:
                    failures.append(hits)
                reads[n] += 1

        threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        ids = [knowledge.store(Skill(f"skill {n}")).id for n in range(80)]
        for skill_id in ids[:60]:
            knowledge.delete(skill_id)
        while min(reads) == 0 and not failures and all(thread.is_alive() for thread in threads):
            threads[0].join(0.01)  # each has its turn, however late it gets one
        done.set()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert min(reads) > 0
        assert knowledge.verify() == []


def test_wilson_lower_bound_by_hand() -> None:
    assert wilson_lower_bound(0, 0) == 0.0
    assert wilson_lower_bound(0, 10) == 0.0
    # 1 of 1, z = 1.96: (1 + 1.9208 - 1.96 * sqrt(0.9604)) / (1 + 3.8416) = 1 / 4.8416
    assert wilson_lower_bound(1, 1) == pytest.approx(1 / 4.8416)
    # 8 of 10: (0.8 + 0.19208 - 1.96 * sqrt(0.016 + 0.009604)) / 1.38416
    assert wilson_lower_bound(8, 10) == pytest.approx((0.99208 - 1.96 * 0.025604**0.5) / 1.38416)
    assert wilson_lower_bound(80, 100) > wilson_lower_bound(8, 10) > wilson_lower_bound(1, 1)
    with pytest.raises(ConfigError):
        wilson_lower_bound(3, 2)


def test_graph_recall_deletion_and_rebuild(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = SkillIndex(32, IndexConfig(exact_limit=100, dead_share=0.5))
    for start in range(0, 3000, 50):
        index.add(range(start, start + 50), vectors[start : start + 50])
    assert index.kind == "hnsw"
    index.remove(range(1000))
    hits = 0
    for query in vectors[:200]:
        ids, scores = index.search(query, 5)
        assert len(ids) == 5
        assert min(ids) >= 1000
        assert (np.diff(scores) <= 0).all()
        exact = 1000 + np.argsort(-(vectors[1000:] @ query))[:5]
        hits += len(set(ids.tolist()) & set(exact.tolist()))
    assert hits / 1000 >= 0.95
    index.remove(range(1000, 2980))  # more dead than alive: built anew, and exact again as so few are left
    assert (index.kind, len(index)) == ("exact", 20)
    assert set(index.search(vectors[0], 50)[0].tolist()) == set(range(2980, 3000))


def test_index_refuses_wrong_shapes_and_used_ids() -> None:
    index = SkillIndex(4)
    index.add([1], np.eye(4, dtype=np.float32)[:1])
    with pytest.raises(StoreError, match="shape"):
        index.add([2], np.zeros((1, 5), np.float32))
    with pytest.raises(StoreError, match="shape"):
        index.search(np.zeros(5, np.float32), 1)
    with pytest.raises(StoreError, match="twice"):
        index.add([1], np.eye(4, dtype=np.float32)[:1])
    assert index.search(np.eye(4, dtype=np.float32)[0], 3)[0].tolist() == [1]
