"""Processes of a graph that a benchmark starts, in a ROS domain of their own; none outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from llmagent_ros.experiments.bench.domain import own_domain
from llmagent_ros.launching.processes import die_with_parent

_END = 20.0  # s for all of them to end by themselves
_LOOK = 0.05  # s between two looks at what has come
_LINES = 15  # of a log that an error tells


class GraphProcesses:
    """As a context it leaves nothing behind; where the process that has it is killed, those it started are interrupted.

    Args:
        folder: for logs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._environment = {**os.environ, **own_domain(), "ROS_LOG_DIR": str(folder / "log"), "PYTHONUNBUFFERED": "1"}
        self._environment.pop("LLMAGENT_TTY", None)
        self._processes: list[subprocess.Popen[str]] = []

    def run(
        self, name: str, *words: object, before: Sequence[str] = (), talks: bool = False
    ) -> subprocess.Popen[str]:
        """Starts Python with these arguments; what it says on standard error is kept in NAME.log.

        Args:
            before: the command that runs it, such as one that changes its network. talks: its standard input and output
                are pipes.
        """
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*before, sys.executable, *map(str, words)],
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                env=self._environment,
                text=True,
                preexec_fn=die_with_parent,
            )
        self._processes.append(process)
        return process

    def last_words(self, name: str) -> str:
        """The end of NAME.log, for an error."""
        path = self.folder / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"{path} ends with: {' | '.join(lines[-_LINES:])}"

    def wait(self, condition: Callable[[], Any], seconds: float, every: float = _LOOK) -> bool:
        """Whether it comes true in that time (s), looked at so often."""
        limit = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > limit:
                return False
            time.sleep(every)
        return True

    def __enter__(self) -> GraphProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process, what the launch has started too."""
        started = [(process, processes_below(process.pid)) for process in reversed(self._processes)]
        for process, below in started:
            for child in below:  # a stopped one would not hear of the end
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGCONT)
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        limit = time.monotonic() + _END
        for process, below in started:
            try:
                process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for child in below:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        self._processes.clear()


def processes_below(pid: int) -> list[psutil.Process]:
    """Its children and theirs; of a process that is gone none."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
