"""`llmagent evolve`: real workers, a real kill -9, Ctrl-C, and what is wrong said in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from evolution_support import ALL, ENVIRONMENT, GENES, MEMBER, evolve, make_base, outcome

from llmagent_ros.cli.main import main


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an evolution gives that nothing interrupts, its jobs done one after another."""
    out = tmp_path_factory.mktemp("whole") / "out"
    evolve(base, out, **ALL)
    return outcome(out) | {"out": out}


def command(base: Path, out: Path, workers: int) -> list[str]:
    """The same evolution from the command line."""
    words = [sys.executable, "-m", "llmagent_ros.cli.main", "evolve", str(base / "corridor.yaml"), "--out", str(out)]
    config = base / "member.yaml"
    config.write_text(yaml.safe_dump(MEMBER))
    words += ["--config", str(config), "--model", str(base / "tiny"), "--workers", str(workers), "--slice", "30"]
    words += ["--population", "4", "--keep", "2", "--generations", "2", "--genes", *GENES]
    return [*words, "--set", "race.block=2", "--set", "race.rounds=2", "--set", "mixture=1", "--seed", str(ALL["seed"])]


def test_a_real_kill_and_any_number_of_workers(base: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    """Two processes, kill -9 after a few results, and on with one: as if one had done it without a break."""
    out = tmp_path / "out"
    first = subprocess.Popen(command(base, out, 2), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    until = time.monotonic() + 300
    while not len(list(out.glob("results/00*/*.json"))) >= 3:
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    assert not (out / "summary.json").exists()
    again = subprocess.run(
        command(base, out, 1), capture_output=True, text=True, timeout=300, check=True, env=ENVIRONMENT
    )
    assert "known" in again.stdout and "ended by generations" in again.stdout
    assert re.search(r"^\| member +\| fitness +\| episodes \|", again.stdout, re.MULTILINE)
    assert outcome(out) == {key: value for key, value in whole.items() if key != "out"}


def test_ctrl_c_says_how_to_go_on(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = subprocess.Popen(
        command(base, out, 1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=ENVIRONMENT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    until = time.monotonic() + 300
    while not list(out.glob("results/000/*.json")):
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of them
    said, complained = running.communicate(timeout=60)
    assert running.returncode == 130 and f"the same command goes on with {out}" in said
    assert "Traceback" not in complained


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--population", "0"], "population: Input should be greater than or equal to 2 (got 0)"),
        (["--population", "4", "--keep", "4"], "keep 4 of a population of 4; valid: fewer, or 0"),
        (["--genes", "learner.bet"], "unknown gene 'learner.bet'; valid: all, learner.actor_every"),
        (["--steps", "100"], "steps 100: less than one generation's 16000"),
        (["--backend", "cloud"], "backend: Input should be 'processes' or 'ray' (got 'cloud')"),
        (["--memory-mb", "20"], "memory 20 MB; a worker needs 300"),
        (["--minutes", "-1"], "--minutes -1.0; valid: at least 0"),
        (["--set", "race.blocks=3"], "unknown key 'race.blocks'; valid: block, error, rounds"),
        (["--set", "learner.bet=3"], "unknown key 'learner.bet'; valid: actor_batch"),
        (["--set", "seed=3"], "settings: seed: not for members; valid: learner, model, prompt"),
        (["--start", "/no/such/run"], "--start /no/such/run: neither a bundle nor the folder of a run"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(["evolve", "FrozenLake-v1", "--out", str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err.strip()
    assert problem in said and "\n" not in said
    assert not (tmp_path / "out").exists()
