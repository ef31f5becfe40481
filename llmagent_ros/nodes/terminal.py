"""The terminal of the person who started the graph, also for a process whose own standard streams are pipes."""

from __future__ import annotations

import os
import sys

TERMINAL = "LLMAGENT_TTY"  # `llmagent launch` names its terminal here; its nodes run in sessions of their own


def open_terminal() -> int | None:
    """A descriptor of that terminal for reading and writing, or None when there is none.

    It does not become the controlling terminal: Ctrl-C goes to whoever started this process, in its order.
    """
    names = [os.environ.get(TERMINAL, ""), _own_output(), "/dev/tty"]
    for name in names:
        if not name:
            continue
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # gone, somebody else's, or no controlling terminal: the next may do
            continue
        if os.isatty(descriptor):
            return descriptor
        os.close(descriptor)
    return None


def _own_output() -> str:
    try:
        return os.ttyname(sys.stdout.fileno())
    except (OSError, ValueError):  # a pipe, a file, closed
        return ""
