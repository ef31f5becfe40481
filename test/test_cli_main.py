"""What a person gets wrong, or the machine does not let them do: one line, exit code 2, of every subcommand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from decisions_support import record

from llmagent_ros.cli._json import json_text
from llmagent_ros.cli._settings import of_learner
from llmagent_ros.cli._table import table
from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError
from llmagent_ros.recording.decision_rows import DECISIONS
from llmagent_ros.recording.decisions import DecisionLog
from llmagent_ros.types import RetrievedSkill


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that is said."""
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("llmagent: ")
    return line.removeprefix("llmagent: ")


COMMANDS = [
    ("explain", "{}"),
    ("skills", "list", "--store", "{}"),
    ("skills", "import", "{}", "--store", "new"),
    ("outcomes", "show", "{}"),
    ("outcomes", "fit", "{}", "--out", "new"),
    ("compare", "{}"),
    ("eval", "{}"),
    ("doctor", "{}/robot.yaml"),
    ("offer", "{}", "new"),
    ("meta-train", "--runs", "{}/run"),
]


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything, and so acts as nobody meanwhile."""
    root = os.getuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_folder_that_may_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    Path("locked").mkdir()
    given = [word.format("locked") for word in words]
    refused(capsys, *given)  # nothing is in it; and all that has to be imported is
    Path("locked").chmod(0)
    with nobody():
        line = refused(capsys, *given)
    assert "locked" in line
    assert [path.name for path in tmp_path.iterdir()] == ["locked"]
    Path("locked").chmod(0o700)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_name_that_is_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *(word.format("x" * 300) for word in words))
    assert "x" * 300 in line
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_names_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, said in (
        (PermissionError(13, "Permission denied", "a\x1b[2J\nb"), "a[2J b: Permission denied"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ConfigError("x\x1b]0;title\x07"), "x]0;title"),
    ):

        def fail(words: list[str], error: Exception = error) -> int:
            raise error

        monkeypatch.setattr("llmagent_ros.cli.main._dispatch", fail)
        assert refused(capsys, "list") == said


@pytest.mark.parametrize("value", ["2024-13-45", "!!bool perhaps", '!!int ""', "[" * 3000])
def test_a_value_that_is_no_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file.yaml"
    file.write_text(f"a: {value}\n")
    problem = "nested too deeply" if value[0] == "[" else "not valid YAML: "
    for words in (("train", "leave"), ("evolve", "leave"), ("meta-train", "changes")):
        line = refused(capsys, *words, "--set", f"learner.beta={value}")
        assert line.startswith(f"--set 'learner.beta={value}': {problem}")
    for words in (("doctor", file), ("train", "leave", "--config", file), ("evolve", "leave", "--config", file)):
        assert refused(capsys, *words).startswith(f"{file}: {problem}")
    assert list(tmp_path.iterdir()) == [file]


def test_runs_to_learn_from_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    names = [str(tmp_path / name) for name in ("there", "tipo", "tipo2")]
    line = refused(capsys, "meta-train", "--runs", *names)
    assert line.startswith(f"--runs {names[1]}, {names[2]}: no such folder")
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not list((tmp_path / "there").iterdir())


def test_nothing_of_a_text_steers_the_terminal() -> None:
    bad = "a\x1b]0;title\x07\x1b[2Jb\x9b1m\x00\u202e\ud800 | ä🚀"
    for shown in (table(("x",), [(bad,)]), json_text({"x": [bad, "\n\t"]})):
        assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\ud800" for c in shown)
        assert "ä🚀" in shown
    assert json.loads(json_text({"x": [bad, "\n\t", "\U000e0001"]})) == {"x": [bad, "\n\t", "\U000e0001"]}


def test_recorded_texts_do_not_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = "go \x1b]0;title\x07 to \x9b2J red"
    log = DecisionLog(tmp_path / DECISIONS)
    log.on_task("task 0", bad, (RetrievedSkill("5f0c", bad, 0.9),))
    log.put(record(0, task=bad, scene=bad, task_id="task 0"))
    log.close()
    for words in ((), ("0",), ("--json",), ("0", "--json")):
        assert main(["explain", str(tmp_path), *words]) == 0
        shown = capsys.readouterr().out
        assert not set(shown) & set("\x1b\x07\x9b") and "red" in shown
        if words == ("0", "--json"):
            assert json.loads(shown)["scene"] == bad


def test_settings_of_a_learners_parameter_file(tmp_path: Path) -> None:
    path = tmp_path / "learner.yaml"
    path.write_text(
        "/**:\n  ros__parameters: {rank: 4, model: a, keep: 3, rl.beta: 0.1, rl: {critic: {width: 8}}}\n"
        "/robot/learner:\n  ros__parameters: {model: b}\n/robot/policy:\n  ros__parameters: {rank: 9}\n"
    )
    assert of_learner(path) == {
        "model": {"rank": 4, "model": "b"},
        "learner": {"beta": 0.1, "critic": {"width": 8}},
    }
    path.write_text("learner: {rank: 4}\n")
    with pytest.raises(ConfigError, match="learner: no ros__parameters"):
        of_learner(path)
