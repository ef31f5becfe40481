"""A tiny ament prefix with real executables, and `llmagent launch` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil

DEADLINE = 60.0  # s: only to fail instead of hanging
PATIENT = """
import sys, time
from llmagent_ros.cli.main import main
from llmagent_ros.launching import stopping

for name in ("TURN", "TURNS", "TERMINATE_AFTER", "KILL_AFTER", "GIVE_UP_AFTER"):
    setattr(stopping, name, 100.0 * getattr(stopping, name))
deadlines = stopping.Stop.deadlines
stopping.Stop.deadlines = lambda self: time.sleep(0.05) or deadlines(self)
sys.exit(main())
"""


class Workspace:
    """A package "dummy" in a prefix below a temporary folder; scripts in it write what they see to `seen`."""

    def __init__(self, root: Path) -> None:
        self.prefix = root / "prefix"
        self.seen = root / "seen"
        self.share = self.prefix / "share" / "dummy"
        self._executables = self.prefix / "lib" / "dummy"
        index = self.prefix / "share" / "ament_index" / "resource_index" / "packages"
        for folder in (self.seen, self.share, self._executables, index):
            folder.mkdir(parents=True)
        (index / "dummy").touch()
        self.environment = {
            **os.environ,
            "AMENT_PREFIX_PATH": str(self.prefix),
            "ROS_LOG_DIR": str(root / "log"),
            "SEEN": str(self.seen),
        }
        self.environment.pop("LLMAGENT_TTY", None)

    def script(self, name: str, body: str) -> Path:
        """An executable of the package, in Python; `say(word)` leaves a file of that name in `seen`."""
        path = self._executables / name
        head = f"""\
            #!{sys.executable}
            import os, signal, subprocess, sys, time
            from pathlib import Path
            def say(word, text=""):
                part = Path(os.environ["SEEN"], "." + word)
                part.write_text(text or str(os.getpid()))
                part.rename(Path(os.environ["SEEN"], word))
            """
        path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
        path.chmod(0o755)
        return path

    def launch_file(self, content: str, name: str = "test.launch.xml") -> Path:
        path = self.share / name
        path.write_text(f"<launch>{content}</launch>")
        return path

    def start(self, *words: object, patient: bool = False, **extra: str) -> subprocess.Popen[str]:
        """`llmagent launch words…`, running. patient: in a shutdown it waits for minutes, and stalls itself."""
        launch = ["-c", PATIENT] if patient else ["-m", "llmagent_ros.cli.main"]
        command = [sys.executable, *launch, "launch", *map(str, words)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**self.environment, **extra}
        )

    def run(self, *words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        """`llmagent launch words…` to its end."""
        process = self.start(*words, **extra)
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def wait(self, word: str) -> str:
        """What a script has left under a word, as soon as it is there."""
        path = self.seen / word
        wait_until(path.exists, f"no script said {word!r}")
        return path.read_text()


def wait_until(condition: Callable[[], bool], problem: str) -> None:
    limit = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < limit, problem
        time.sleep(0.005)


def running(pid: int | str) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
