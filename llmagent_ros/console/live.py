"""Showing the state: a live screen on a terminal, one line at a time anywhere else."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TextIO

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rich.console import Console
from rich.live import Live

from llmagent_ros.console.state import ConsoleState
from llmagent_ros.console.view import render, status_line
from llmagent_ros.errors import StoreError


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class ConsoleConfig:
    """How often to show. frames_per_second: of the live screen, at most 8. plain_period: s between status lines."""

    frames_per_second: Annotated[float, Field(gt=0, le=8)] = 8.0
    plain_period: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0


class LiveConsole:
    """Call `update(state)` as often as you like, from one thread; it draws no more often than the config says.

    Nothing is drawn between calls: there is no thread, so the state needs no lock.

    Args:
        stream: where to show; stdout if None. Not a terminal: `status_line` at the end of each episode and every
            plain_period seconds instead of a screen.
        clock: s, monotonic.
    """

    def __init__(
        self,
        config: ConsoleConfig | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config or ConsoleConfig()
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._clock = clock
        self._drawn: float | None = None
        self._finished = 0
        self._live: Live | None = None

    @property
    def is_live(self) -> bool:
        """Whether this shows a screen rather than lines."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def start(self) -> None:
        """Take the terminal's alternate screen, if there is one."""
        if self.is_live and self._live is None:
            self._live = Live(console=self._console, screen=True, auto_refresh=False, transient=True,
                              redirect_stdout=False, redirect_stderr=False)  # fmt: skip
            self._live.start()

    def update(self, state: ConsoleState) -> bool:
        """Show `state` if it is time to; whether it was shown."""
        now = self._clock()
        waited = float("inf") if self._drawn is None else now - self._drawn
        ended = state.finished != self._finished
        if self._live is not None:
            if waited < 1.0 / self._config.frames_per_second:
                return False
            self._live.update(render(state), refresh=True)
        elif ended or waited >= self._config.plain_period:
            self._print(state)
        else:
            return False
        self._drawn, self._finished = now, state.finished
        return True

    def stop(self, state: ConsoleState | None = None) -> None:
        """Give the terminal back; with `state`, leave its status line behind. May be called twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if state is not None:
            self._print(state)

    def __enter__(self) -> LiveConsole:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _print(self, state: ConsoleState) -> None:
        self._console.file.write(status_line(state) + "\n")  # not through rich, which wraps at 80 columns in a pipe
        self._console.file.flush()


def save_picture(state: ConsoleState, path: Path, *, width: int = 112, height: int = 30) -> None:
    """Draws the live view as an SVG file of `width` by `height` characters.

    Raises:
        StoreError: the file cannot be written.
    """
    console = Console(file=io.StringIO(), record=True, width=width, height=height, force_terminal=True,
                      color_system="truecolor", highlight=False, markup=False, emoji=False)  # fmt: skip
    console.print(render(state), height=height)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(console.export_svg(title=state.title), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
