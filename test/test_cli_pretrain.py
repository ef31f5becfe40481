"""`llmagent pretrain`: what is wrong is told before the work begins, and Ctrl-C ends it at once."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from llmagent_ros.cli.main import main
from llmagent_ros.errors import StoreError, UnknownNameError
from llmagent_ros.policy.logs import LoggedStep, write_log


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--robot", "nope"],
            "unknown robot contract 'nope'; valid: husky, sim_arm, sim_diffdrive, sim_scout, turtlebot3_burger",
        ),
        (
            ["--environments", "explore", "nope"],
            "unknown environment 'nope'; valid: Acrobot-v1, CartPole-v1, FrozenLake-firm, FrozenLake-v1, "
            "LunarLander-v3, Taxi-v4, any id of Gymnasium, explore, face, leave, navigate, navigate_delayed, "
            "navigate_dense, navigate_hall, navigate_swapped, navigate_worn, push, reach",
        ),
    ],
)
def test_unknown_names(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str) -> None:
    assert main(["pretrain", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err.strip() == f"llmagent: {problem}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--workers", "--steps", "--log-steps"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_counts_below_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(tmp_path / "out"), f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: {value!r} is not a whole number above 0" in capsys.readouterr().err


def test_out_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["pretrain", str(tmp_path / "file")]) == 2
    assert main(["pretrain", str(tmp_path)]) == 2
    assert main(["pretrain", str(tmp_path / "file" / "model")]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "is a file" in first and "is not empty" in second and "nothing can be written in" in third
    assert (tmp_path / "file").read_text() == "mine"


def test_ctrl_c_while_it_logs(tmp_path: Path) -> None:
    """To the whole process group, as a terminal sends it."""
    words = [sys.executable, "-m", "llmagent_ros.cli.main", "pretrain", str(tmp_path / "out"), "--log-steps", "20000"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, bufsize=1,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = process.stdout.readline()  # that it begins
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert re.match("logging 160,000 steps", said)
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_crosses_processes() -> None:
    for choices in ([], ["b", "a, or c"]):
        error = UnknownNameError("task", "nope", choices)
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and (again.kind, again.name) == ("task", "nope")


def test_a_log_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_log([LoggedStep("a", "b", "c", "d")], tmp_path / "file" / "log.jsonl")
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_log([LoggedStep("a", "b", "c", "d")], tmp_path / "log.jsonl")
    assert not (tmp_path / "log.jsonl.partial").exists()
