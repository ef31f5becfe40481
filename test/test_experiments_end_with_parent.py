"""Nothing works on for a command that is gone: `kill -9` of the command ends its workers too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

PATIENCE = 120.0  # s


@pytest.mark.parametrize(
    ("words", "at_work"),
    [
        (["pretrain", "out", "--environments", "explore", "--log-steps", "20000"], "out.logs/*"),
        (
            ["bench", "cartpole", "--only", "llmagent", "--seeds", "2", "--json", "r.json", "--scratch", "scratch"],
            "scratch/*/replay.sqlite",
        ),
    ],
    ids=["pretrain", "bench"],
)
def test_workers_end_with_a_command_that_is_killed(tmp_path: Path, words: list[str], at_work: str) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "llmagent_ros.cli.main", *words],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    workers: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + PATIENCE
        while len(list(tmp_path.glob(at_work))) < 2:
            assert command.poll() is None and time.monotonic() < deadline, "both workers should be at work"
            time.sleep(0.05)
        workers = psutil.Process(command.pid).children(recursive=True)
        assert len(workers) >= 2
        command.kill()
        command.wait(PATIENCE)
        _, left = psutil.wait_procs(workers, timeout=PATIENCE)
        assert left == []
    finally:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.wait(PATIENCE)
