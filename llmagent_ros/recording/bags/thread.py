"""Recording beside an executor that must not wait: a bounded queue and one thread that writes."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from llmagent_ros.errors import StoreError
from llmagent_ros.recording.bags.recorder import EpisodeRecorder, Role
from llmagent_ros.recording.bags.topics import BagMessage

_PERIOD = 0.2  # s between two ticks when nothing comes
_PATIENCE = 20.0  # s that closing waits for what is in the queue


@dataclass(frozen=True)
class QueueLimits:
    """What may wait to be written: messages and their bytes."""

    messages: int = 20_000
    nbytes: int = 64 << 20


class BagThread:
    """Feeds an `EpisodeRecorder`. `put` never waits; what finds the queue full is dropped and counted.

    Attributes:
        dropped: messages that found the queue full.
        failure: a defect that ended the thread; whoever owns it must raise it.
    """

    def __init__(self, recorder: EpisodeRecorder, limits: QueueLimits | None = None) -> None:
        self.recorder = recorder
        self.dropped = 0
        self.failure: Exception | None = None
        self._limits = limits or QueueLimits()
        self._waiting: deque[tuple[BagMessage, Role]] = deque()
        self._nbytes = 0
        self._changed = threading.Condition()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="bags", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return len(self._waiting)

    def put(self, message: BagMessage, role: Role) -> bool:
        """Hands a message over; False where it was dropped."""
        with self._changed:
            full = len(self._waiting) >= self._limits.messages or self._nbytes >= self._limits.nbytes
            if full or self._stop or self.failure is not None:
                self.dropped += 1
                return False
            self._waiting.append((message, role))
            self._nbytes += len(message.data)
            if len(self._waiting) == 1:
                self._changed.notify()
            return True

    def close(self) -> None:
        """Writes what is in the queue, finishes the open bags and ends the thread.

        Raises:
            StoreError: it takes too long; the bags are mended at the next start.
        """
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise StoreError(f"{self.recorder.folder}: still being written after {_PATIENCE:.0f} s")

    def _run(self) -> None:
        try:
            while self._work():
                pass
        except Exception as error:
            self.failure = error

    def _work(self) -> bool:
        """One round; False after the last."""
        with self._changed:
            if not self._waiting and not self._stop:
                self._changed.wait(_PERIOD)
            batch, self._waiting, self._nbytes = self._waiting, deque(), 0
            stop = self._stop
        for message, role in batch:
            self.recorder.take(message, role)
        if stop:
            self.recorder.close()
        else:
            self.recorder.tick()
        return not stop
