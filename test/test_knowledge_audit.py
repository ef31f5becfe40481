"""The log of changes, and stores of version 1: they open, keep everything, and say so."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from knowledge_support import OLD_LESSONS, HashEmbedder, make_bundle, make_version_1

from llmagent_ros.errors import ConfigError, StoreError, UnknownNameError
from llmagent_ros.knowledge.audit import MAX_DATA, Cause
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.skill import MAX_TEXT, Skill
from llmagent_ros.types import Lesson

BALL = Skill("drive to the ball", ("fetch",), "sim", (Lesson("keep left", 3, 1),), 4, 3)


@pytest.fixture
def knowledge(tmp_path: Path):
    with Knowledge(tmp_path / "k", HashEmbedder()) as opened:
        yield opened


def events(knowledge: Knowledge, skill_id: str | None = None) -> list[str]:
    return [entry.event for entry in reversed(knowledge.audit(skill_id))]


def test_each_change_is_told_with_who_why_and_what(knowledge: Knowledge, tmp_path: Path) -> None:
    digest = make_bundle(tmp_path / "b")
    ball = knowledge.store(BALL, cause=Cause("first try", "a person", {"run": "r1"}))
    knowledge.store(replace(ball, attempts=5, lessons=()), tmp_path / "b", cause=Cause("more", "learner"))
    knowledge.store(Skill("other"))
    knowledge.delete(ball.id, cause=Cause("worn out", "a person"))
    assert events(knowledge) == ["stored", "updated", "adapter replaced", "evidence", "stored", "deleted"]
    assert events(knowledge, ball.id) == ["stored", "updated", "adapter replaced", "evidence", "deleted"]
    deleted, evidence, replaced, updated, stored = knowledge.audit(ball.id)
    assert (stored.actor, stored.reason) == ("a person", "first try")
    assert stored.data == {
        "description": BALL.description, "attempts": 4, "successes": 3, "digest": "", "lessons": 1,
        "given": {"run": "r1"},
    }  # fmt: skip
    assert updated.data == {"attempts": [4, 5]}
    assert replaced.data == {"digest": ["", digest]}
    assert evidence.data == {"lessons": [["keep left", 2.4, 0.8]], "dropped": []}
    assert (deleted.reason, deleted.data["description"], deleted.data["digest"]) == (
        "worn out", BALL.description, digest,
    )  # fmt: skip
    assert deleted.id > evidence.id > replaced.id > updated.id > stored.id
    assert deleted.time >= stored.time > 1.6e9
    assert [entry.event for entry in knowledge.audit(limit=1)] == ["deleted"]
    assert knowledge.audit("nobody") == []


def test_the_log_outlives_the_store_being_closed(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder()) as knowledge:
        ball = knowledge.store(BALL)
        knowledge.delete(ball.id)
        told = knowledge.audit()
    with Knowledge(tmp_path, HashEmbedder()) as knowledge:
        assert knowledge.audit() == told and len(told) == 2


def test_a_change_that_fails_leaves_no_line(knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    ball = knowledge.store(BALL)
    with pytest.raises(UnknownNameError):
        knowledge.delete("nobody")
    with pytest.raises(UnknownNameError):
        knowledge.store_many([Skill("a"), Skill("b", id="nobody")])

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("llmagent_ros.knowledge.rows.count_change", fail)  # the last step of a transaction
    for change in (lambda: knowledge.store(BALL), lambda: knowledge.delete(ball.id)):
        with pytest.raises(StoreError, match="disk I/O"):
            change()
    monkeypatch.undo()
    assert events(knowledge) == ["stored"] and knowledge.skills() == [ball]
    assert knowledge.verify() == []


def test_another_model_is_told(tmp_path: Path) -> None:
    with Knowledge(tmp_path, HashEmbedder()) as knowledge:
        knowledge.store(BALL)
    with Knowledge(tmp_path, HashEmbedder(16, "other")) as knowledge:
        (entry,) = [entry for entry in knowledge.audit() if not entry.skill]
        assert (entry.event, entry.data) == ("embedded anew", {"embedder": ["hash-16-", "hash-16-other"]})
        again = knowledge.store(replace(knowledge.skills()[0], lessons=(Lesson("keep left", 1),)))
        assert len(again.lessons) == 1, "lessons have the new model's vectors, too"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reason": "x" * (MAX_TEXT + 1)}, "reason: at most"),
        ({"actor": "a\0b"}, "actor: contains a NUL"),
        ({"data": {"x": object()}}, "data of a change: not JSON"),
        ({"data": {"x": float("nan")}}, "data of a change: not JSON"),
        ({"data": {"x": "\ud800"}}, "data of a change: not JSON"),
        ({"data": {"x": "y" * MAX_DATA}}, "data of a change: at most"),
    ],
)
def test_what_the_log_cannot_hold_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cause(**values)  # type: ignore[arg-type]


def test_a_limit_is_at_least_one(knowledge: Knowledge) -> None:
    with pytest.raises(ConfigError, match="limit: at least 1"):
        knowledge.audit(limit=0)


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    make_version_1(tmp_path, HashEmbedder())
    return tmp_path


def test_a_store_of_version_1_keeps_everything_and_says_so(version_1: Path) -> None:
    with Knowledge(version_1, HashEmbedder()) as knowledge:
        assert knowledge.stats().opened.startswith("database brought up from version 1, index built anew")
        lessons = (
            Lesson("clear ahead under 0.3: not forward", 4, 2),
            Lesson("keep (a bit) left", 1),
            Lesson("odd (failed 7 of 2)", 1),
        )
        red = Skill("go red", ("do",), "sim", lessons, 4, 3, created=1.5, updated=2.5, parents=("p",), id="red")
        assert knowledge.skills() == [
            red,
            replace(red, description="go blue", lessons=(), attempts=8, successes=6, id="blue"),
        ]
        stats = knowledge.stats()
        assert (stats.skills, stats.vectors, stats.attempts, stats.successes) == (2, 4, 12, 9)
        assert [hit.skill.id for hit in knowledge.retrieve("go blue", k=1, min_success_rate=0.75)] == ["blue"]
        (entry,) = knowledge.audit()
        assert (entry.event, entry.data) == ("migrated", {"versions": [1, 2], "skills": 2, "lessons": 3})
        again = knowledge.store(replace(red, lessons=(lessons[0],)))
        assert again.lessons[0] == Lesson(lessons[0].text, pytest.approx(0.8 * 4 + 4), pytest.approx(0.8 * 2 + 2))
        assert knowledge.verify() == []
    with Knowledge(version_1, HashEmbedder()) as knowledge:
        assert knowledge.stats().opened == "loaded" and len(knowledge.skills()) == 2


def test_a_migration_that_fails_changes_nothing(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("llmagent_ros.knowledge.audit.write", fail)  # its last step
    with pytest.raises(StoreError, match="disk is full"):
        Knowledge(version_1, HashEmbedder())
    monkeypatch.undo()
    with closing(sqlite3.connect(version_1 / "skills.sqlite")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT lessons FROM skills WHERE id = 'red'").fetchone() == (json.dumps(OLD_LESSONS),)
    with Knowledge(version_1, HashEmbedder()) as knowledge:
        assert knowledge.count() == 2
