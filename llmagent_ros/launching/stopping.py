"""When, in a shutdown, which process is told to stop, and when to insist."""

from __future__ import annotations

import math
import signal
import time

TURN = 0.4  # s that one process may take to stop before the next in order is told to
TURNS = 1.6  # s for the turns of all
TERMINATE_AFTER = 2.6  # s after which those still there get SIGTERM
KILL_AFTER = 3.8  # s after which they get SIGKILL
GIVE_UP_AFTER = 4.8  # s after which one that even SIGKILL does not end (it hangs in the kernel) is left behind


class Stop:
    """The clock of a shutdown: whose turn it is, and when to become more insistent."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.told: list[str] = []
        self._turn = 0.0
        self._turn_ends = 0.0
        self._due: list[tuple[float, signal.Signals]] = []

    def begin(self, count: int) -> None:
        """Start the clock for `count` running processes."""
        self.began = self._turn_ends = time.monotonic()
        self._turn = min(TURN, TURNS / max(count, 1))
        self._due = [(self.began + TERMINATE_AFTER, signal.SIGTERM), (self.began + KILL_AFTER, signal.SIGKILL)]

    def expired(self) -> bool:
        """Whether what is still there is left behind."""
        return self.began is not None and time.monotonic() > self.began + GIVE_UP_AFTER

    def turn_over(self, now: float) -> bool:
        return now >= self._turn_ends

    def next_turn(self, now: float) -> None:
        self._turn_ends = now + self._turn

    def end_turn(self, now: float) -> None:
        """The one whose turn it is has stopped already."""
        self._turn_ends = min(self._turn_ends, now)

    def end_turns(self) -> None:
        """All have been told."""
        self._turn_ends = math.inf

    def hurry(self) -> None:
        """Another signal: go one step further at once."""
        if self._due:
            self._due[0] = (time.monotonic(), self._due[0][1])

    def escalation(self, now: float) -> list[signal.Signals]:
        """The signals that are due now, each once."""
        due = [number for when, number in self._due if when <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        return due

    def deadlines(self) -> list[float]:
        if self.began is None:
            return []
        return [self._turn_ends, *(when for when, _ in self._due), self.began + GIVE_UP_AFTER]
