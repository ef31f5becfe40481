"""The one writer of a launch: lines of every process with its name before them, to the screen and to a log file."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from llmagent_ros.errors import ConfigError

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # cyan, yellow, magenta, green, blue, and their bright forms
_MAX_LINE = 65536
_KEPT_LINES = 20


class LineBuffer:
    """Bytes in, whole lines out; a line without an end is let go at 64 KiB."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without their ends."""
        self._rest += self._decoder.decode(data)
        *lines, self._rest = self._rest.split("\n")
        if len(self._rest) > _MAX_LINE:
            lines.append(self._rest)
            self._rest = ""
        return [line.removesuffix("\r") for line in lines]

    def flush(self) -> list[str]:
        """What is left when the stream has ended."""
        rest = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        return [rest] if rest else []


class Writer:
    """Writes lines, one at a time.

    Args:
        screen: where the launch writes. log: a file that lines of output "log", "both" … also go to, or None; when it
            can no longer be written, the screen says so once.
        colour: whether each process gets a colour of its own.
    """

    def __init__(self, screen: TextIO, log: Path | None = None, colour: bool = False) -> None:
        if isinstance(screen, io.TextIOWrapper):
            screen.reconfigure(errors="replace")  # a screen that is not UTF-8 must not end the launch
        self._screen = screen
        self._log = log.open("a", encoding="utf-8", errors="replace", buffering=1) if log else None
        self._colour = colour
        self._colours: dict[str, int] = {}
        self._hidden: dict[str, deque[str]] = {}
        self.log_path = log
        self.broken = False

    def line(self, name: str, text: str, output: str, error: bool) -> None:
        """One line of a process.

        Args:
            output: as in `ProcessSpec`. error: whether it came from standard error.
        """
        if output in ("screen", "both", "full") or (output == "log" and error):
            self._show(f"[{name}] ", text, self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)]))
        else:
            self._hidden.setdefault(name, deque(maxlen=_KEPT_LINES)).append(text)
        if output != "screen":
            self._record(f"[{name}] {text}")

    def say(self, text: str, problem: bool = False) -> None:
        """One line of the launch itself."""
        self._show("[launch] ", text, 31 if problem else 2)
        self._record(f"[launch] {text}")

    def reveal(self, name: str) -> None:
        """Show the last lines of a process that were not shown; for when it died."""
        for text in self._hidden.pop(name, ()):
            self._show(f"[{name}] ", text, self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)]))

    def close(self) -> None:
        if self._log:
            try:
                self._log.close()
            except OSError as error:
                self._do_without_log(error)

    def _show(self, prefix: str, text: str, colour: int) -> None:
        if self.broken:
            return
        painted = f"\x1b[{colour}m{prefix}\x1b[0m{text}" if self._colour else f"{prefix}{text}"
        try:
            print(painted, file=self._screen, flush=True)
        except OSError:  # the reader has gone, as in `llmagent launch … | head`, or the terminal
            self.broken = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._screen.fileno())

    def _record(self, text: str) -> None:
        if self._log:
            try:
                print(f"{time.time():.6f} {text}", file=self._log)
            except OSError as error:
                self._do_without_log(error)

    def _do_without_log(self, error: OSError) -> None:
        """Say once that the log cannot be written, as when the disk is full, and go on."""
        log, self._log = self._log, None
        if log:
            with contextlib.suppress(OSError):  # it tries again to write what it still holds
                log.close()
            self._show("[launch] ", f"{self.log_path} cannot be written: {error.strerror}; going on without it", 31)


def log_file(environment: Mapping[str, str]) -> Path:
    """A new launch.log where ROS keeps its logs: ROS_LOG_DIR, else ROS_HOME/log, else ~/.ros/log.

    Raises:
        ConfigError: the folder cannot be made.
    """
    home = environment.get("ROS_HOME") or "~/.ros"
    base = Path(environment.get("ROS_LOG_DIR") or f"{home}/log").expanduser()
    folder = base / f"{time.strftime('%Y-%m-%d-%H-%M-%S')}-{socket.gethostname()}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "launch.log").touch()
    except OSError as error:
        raise ConfigError(f"log folder {folder} cannot be made: {error.strerror}; set ROS_LOG_DIR") from error
    return folder / "launch.log"


def wants_colour(screen: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return screen.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
