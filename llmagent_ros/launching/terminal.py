"""The terminal of a launch, put right after a process that had taken it was killed."""

from __future__ import annotations

import contextlib
import os
import termios
from collections.abc import Iterator

TERMINAL = "LLMAGENT_TTY"  # names the terminal to processes that draw on it
USERS = ("console_node", "teleop_node")  # executables that change its modes
PAINTER = "console_node"  # the one that takes the alternate screen
_NORMAL_SCREEN = b"\x1b[?1049l\x1b[?25h\x1b[0m"  # main screen, cursor shown, plain colours


class Terminal:
    """Remembers the modes of a terminal; with path None it does nothing."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._modes = None
        if path is not None:
            with self._open() as descriptor, contextlib.suppress(termios.error):
                if descriptor is not None:
                    self._modes = termios.tcgetattr(descriptor)

    def restore(self, painted: bool) -> None:
        """Set the modes back; `painted`: also leave the alternate screen."""
        with self._open() as descriptor:
            if descriptor is None or not _is_ours(descriptor):
                return
            with contextlib.suppress(termios.error, OSError):  # it has gone
                if self._modes is not None:
                    termios.tcsetattr(descriptor, termios.TCSANOW, self._modes)
                if painted:
                    os.write(descriptor, _NORMAL_SCREEN)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int | None]:
        descriptor: int | None = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                descriptor = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _is_ours(descriptor: int) -> bool:
    """Whether setting modes would not stop this process, as it does to one in the background."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # not the controlling terminal: there is no job control on it
        return True
