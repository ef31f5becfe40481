"""llmagent skills: what it prints, for a person and as JSON, and how it refuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from knowledge_support import make_bundle, make_version_1

from llmagent_ros.cli import skills
from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError
from llmagent_ros.knowledge.audit import Cause
from llmagent_ros.knowledge.embedding import SentenceEmbedder
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import Lesson

BALL = Skill("drive to the red ball", ("go to the red ball",), "sim", (Lesson("keep left", 3, 1),), 10, 7)
WALL = Skill("follow the wall", contract="husky", attempts=4, successes=4)


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder()


@pytest.fixture
def store(tmp_path: Path, embedder: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The one store of a folder of runs, which is the working folder; the ids of its skills."""
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "b")
    with Knowledge(tmp_path / "runs" / "s0" / "knowledge", embedder) as knowledge:
        ball = knowledge.store(BALL, tmp_path / "b", cause=Cause("learned", "the test"))
        return {"ball": ball.id, "wall": knowledge.store(WALL).id}


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["skills", *words]) == code
    captured = capsys.readouterr()
    assert code == 2 or captured.err == ""
    return captured.err if code == 2 else captured.out


def test_list_and_show(store: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    head, rule, ball, wall = said(capsys, "list").splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "id", "skill", "contract", "succeeded", "lessons", "updated",
    ]  # fmt: skip
    assert set(rule) == {"|", "-"} and len({len(line) for line in (head, rule, ball, wall)}) == 1
    assert store["ball"] in ball and "7 of 10" in ball and store["wall"] in wall
    assert said(capsys, "list", "--limit", "1").splitlines()[-1] == "1 more; --limit shows them"
    listed = json.loads(said(capsys, "list", "--json"))
    assert [one["id"] for one in listed] == [store["ball"], store["wall"]]
    assert listed[0]["lessons"] == [{"text": "keep left", "support": 3.0, "against": 1.0}]
    shown = said(capsys, "show", store["ball"])
    assert "keep left (3 of 4)" in shown and "7 of 10" in shown and "go to the red ball" in shown
    assert json.loads(said(capsys, "show", store["wall"], "--json"))["success_rate"] == 1.0


def test_search(store: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "search", "head for the crimson sphere", "--json"))
    assert [one["id"] for one in found] == [store["ball"], store["wall"]] and found[0]["similarity"] > 0.3
    first = said(capsys, "search", "head for the crimson sphere", "-k", "1").splitlines()[2:]
    assert len(first) == 1 and store["ball"] in first[0]
    assert store["ball"] not in said(capsys, "search", "ball", "--min-success", "0.9")
    assert store["wall"] not in said(capsys, "search", "wall", "--contract", "sim")
    for words, problem in (
        (("search", ""), "text: is empty"),
        (("search", "x", "-k", "0"), "k: 1 to 100"),
        (("search", "x", "--min-success", "2"), "min_success_rate: 0 to 1"),
    ):
        assert problem in said(capsys, *words, code=2)


def test_export_delete_import_log_verify(store: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "exported: red" in said(capsys, "export", store["ball"], "red")
    assert "already exists" in said(capsys, "export", store["ball"], "red", code=2)
    assert "has it already, with the same content" in said(capsys, "import", "red", code=2)
    assert "give --yes" in said(capsys, "delete", store["ball"], code=2), "pytest has no terminal"
    assert "deleted: drive" in said(capsys, "delete", store["ball"], "--yes", "--reason", "old | worn")
    assert f"unknown skill {store['ball']!r}" in said(capsys, "show", store["ball"], code=2)
    taken = json.loads(said(capsys, "import", "red", "--json", "--reason", "back"))
    assert taken["id"] == store["ball"]
    assert json.loads(said(capsys, "import", "red", "--as-new", "--json"))["id"] != store["ball"]
    log = json.loads(said(capsys, "log", "--skill", store["ball"], "--json"))
    assert [(line["event"], line["actor"], line["reason"]) for line in log] == [
        ("imported", "llmagent skills import", "back"),
        ("deleted", "llmagent skills delete", "old | worn"),
        ("stored", "the test", "learned"),
    ]
    table = said(capsys, "log", "--limit", "3").splitlines()
    assert len(table) == 5 and "old / worn" in table[4], "a cell cannot break the row"
    assert said(capsys, "verify").startswith("sound: 3 skills, 5 vectors, 1 bundles")
    (bundle,) = Path("runs/s0/knowledge/bundles").iterdir()
    (bundle / "critic.safetensors").write_bytes(b"rot")
    assert said(capsys, "verify", code=1) == f"bundle {bundle.name}: missing or damaged\n"
    assert json.loads(said(capsys, "verify", "--json", code=1))["problems"]
    for action in ("list", "log"):
        for limit in ("0", "99999999999999999999"):
            assert f"--limit {limit}; valid: 1 to 1,000,000,000" in said(capsys, action, "--limit", limit, code=2)


def test_import_into_a_new_store_and_of_a_plain_bundle(
    store: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "export", store["ball"], "red")
    assert "imported: drive" in said(capsys, "import", "red", "--store", "fresh")
    assert "with a description" in said(capsys, "import", "b", "--store", "fresh", code=2)
    assert "imported: dock" in said(capsys, "import", "b", "--store", "fresh", "--description", "dock")
    assert "not a bundle" in said(capsys, "import", "runs", "--store", "fresh", code=2)
    assert len(json.loads(said(capsys, "list", "--store", "fresh", "--json"))) == 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("nothere",), "nothere: neither skill.json nor bundle.json"),
        (("b",), "with a description"),
        (("b", "--description", "x" * 2001), "at most 2000"),
        (("large", "--description", "x"), "large: a bundle of "),
    ],
)
def test_an_import_that_is_refused_makes_no_store(
    store: dict[str, str], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], problem: str
) -> None:
    make_bundle(Path("large"))
    os.truncate("large/critic.safetensors", 1 << 30)  # sparse
    assert problem in said(capsys, "import", *words, "--store", "fresh", code=2)
    assert not Path("fresh").exists()


def test_texts_of_strangers_do_not_steer_the_terminal(
    embedder: SentenceEmbedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "go \x1b]0;title\x07to the \x1b[31mred\x9b2J ball\u202e"
    with Knowledge(tmp_path / "k", embedder) as knowledge:
        skill = knowledge.store(Skill(bad, (bad,), lessons=(Lesson(bad, 1),)), cause=Cause(bad, bad))
    where, exported = ("--store", str(tmp_path / "k")), str(tmp_path / "exported")
    for words in (("list",), ("show", skill.id), ("search", "ball"), ("log",)):
        plain, as_json = (said(capsys, *words, *where, *more) for more in ((), ("--json",)))
        assert not set(plain + as_json) & set("\x1b\x07\x9b\u202e") and "go to the red ball" in plain
        assert json.dumps(bad) in json.dumps(json.loads(as_json))
    said(capsys, "export", skill.id, exported, *where)
    for words in (("delete", skill.id, "--yes"), ("import", exported)):
        assert said(capsys, *words, *where).endswith("ed: go to the red ball\n")


def test_which_store_is_meant(store: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert skills.store_folder(None) == Path("runs/s0/knowledge")
    assert "no store of skills" in said(capsys, "list", "--store", "nowhere", code=2)
    assert not Path("nowhere").exists(), "nothing is made by looking"
    other = Path("runs/s1/knowledge")
    other.mkdir(parents=True)
    (other / "skills.sqlite").touch()
    assert "valid: runs/s0/knowledge, runs/s1/knowledge" in said(capsys, "list", code=2)
    with pytest.raises(ConfigError, match="none below elsewhere"):
        skills.store_folder(None, Path("elsewhere"))


def test_an_open_store_says_who_answers(
    store: dict[str, str], embedder: SentenceEmbedder, capsys: pytest.CaptureFixture[str]
) -> None:
    with Knowledge(Path("runs/s0/knowledge"), embedder):
        for words in (("list",), ("search", "x"), ("delete", store["ball"], "--yes"), ("verify",)):
            error = said(capsys, *words, code=2)
            assert "has this store open" in error and "delete_skill" in error
            assert len(error.splitlines()) == 1


def test_a_store_of_another_model_is_not_embedded_anew(
    store: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect("runs/s0/knowledge/skills.sqlite")) as database, database:
        database.execute("UPDATE meta SET value = 'other' WHERE key = 'embedder'")
    assert "made with another model" in said(capsys, "search", "x", code=2)
    assert len(json.loads(said(capsys, "list", "--json"))) == 2, "no model is needed for that"


@pytest.mark.parametrize("words", [("show", "red"), ("search", "go blue")])
def test_a_store_of_an_older_version_is_brought_up_and_it_says_so(
    tmp_path: Path, embedder: SentenceEmbedder, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    make_version_1(tmp_path / "old", embedder)
    assert main(["skills", *words, "--store", str(tmp_path / "old")]) == 0
    told = capsys.readouterr()
    assert "the store was of version 1" in told.err
    assert "keep (a bit) left (1 of 1)" in told.out if words[0] == "show" else "go blue" in told.out
    assert "version" not in said(capsys, "verify", "--store", str(tmp_path / "old"))


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1), ("\x04", 1)])
def test_delete_asks_on_a_terminal(store: dict[str, str], answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "llmagent_ros.cli.main", "skills", "delete", store["ball"]]
    with os.fdopen(ours, "wb", buffering=0) as terminal:
        process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        os.close(theirs)
        terminal.write(f"{answer}\n".encode())
        told, _ = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert f"delete {store['ball']}, 'drive to the red ball'? [y/N]" in told
    assert "Traceback" not in told and ("not deleted" in told) == (code == 1)
