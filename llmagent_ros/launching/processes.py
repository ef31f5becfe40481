"""Starting and stopping processes with everything that they have started themselves."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable

import psutil

from llmagent_ros.launching.process import ProcessSpec

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies, so that `descendants` goes on seeing them (Linux)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own: Collection[int]) -> None:
    """Let adopted processes that have ended go; those in `own` are left, for their `Popen` reads the exit code."""
    if _libc is None:
        return
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # looks without reaping
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:  # one of its own has just ended: SIGCHLD brings the next look
            return
        os.waitpid(ended.si_pid, os.WNOHANG)


def start(spec: ProcessSpec, split_errors: bool) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C reaches it only through the launch, in order.

    Call from a single-threaded process: code runs between fork and exec.

    Args:
        split_errors: give standard error a pipe of its own instead of that of standard output.

    Raises:
        OSError: the file cannot be executed.
    """
    return subprocess.Popen(
        spec.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if split_errors else subprocess.STDOUT,
        env={"PYTHONUNBUFFERED": "1", **spec.environment},
        cwd=spec.cwd,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def descendants() -> list[psutil.Process]:
    """Every living process below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def signal_group(group: int, number: signal.Signals) -> bool:
    """Signal a process group; False when nothing is left of it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True


def signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal processes that may be gone already."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def describe_exit(code: int) -> str:
    """A return code in words: "exit code 3", "killed by SIGSEGV"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def shell_code(code: int) -> int:
    """A return code as a shell gives it: 128 + n for death by signal n."""
    return code if code >= 0 else 128 - code


def die_with_parent() -> None:
    """In a child, before exec: be interrupted when the parent is killed without a chance to stop its processes (Linux).
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
