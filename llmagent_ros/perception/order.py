"""Whether a reading comes in order."""

from __future__ import annotations

import enum
import math


class Order(enum.Enum):
    """TAKEN: it is the newest of its sensor. LATE: it is a little older, and dropped. BACK: time has stepped back."""

    TAKEN = "taken"
    LATE = "late"
    BACK = "back"


class Stamps:
    """The newest stamp of each sensor, s. late: s by which a reading may be older than that and only be late."""

    def __init__(self, late: float) -> None:
        self._late = late
        self._newest: dict[str, float] = {}

    def forget(self) -> None:
        self._newest.clear()

    def take(self, sensor: str, stamp: float) -> Order:
        """Notes a reading. One whose stamp is not finite is taken: it will read as unknown."""
        if not math.isfinite(stamp):
            return Order.TAKEN
        behind = self._newest.get(sensor, -math.inf) - stamp
        if 0 < behind <= self._late:
            return Order.LATE
        if behind > 0:
            self._newest.clear()
        self._newest[sensor] = stamp
        return Order.BACK if behind > 0 else Order.TAKEN
