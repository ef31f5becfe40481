"""What must keep coming while the policy drives, and a person's dead-man."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from llmagent_ros.contract import MobileContract, RobotContract
from llmagent_ros.safety.config import GuardConfig
from llmagent_ros.safety.reasons import NO_HEARTBEAT, NO_ODOM, STALE_HEARTBEAT, STALE_ODOM


@dataclass
class Vital:
    """One thing that must keep coming.

    Attributes:
        missing, stale: the reasons for a stop. timeout: s after which it is stale. seen: when it came last, s.
    """

    missing: str
    stale: str
    timeout: float
    seen: float = -math.inf

    def see(self, at: float) -> None:
        self.seen = max(self.seen, at)

    def lose(self) -> None:
        self.seen = -math.inf

    def problem(self, now: float) -> str | None:
        if math.isinf(self.seen):
            return self.missing
        return self.stale if now - self.seen > self.timeout else None


class Vitals:
    """Odometry by its stamps, heartbeats and dead-man by the steady time of their arrival.

    The machines need not agree on the time for a heartbeat, then; what a link holds back and delivers late is seen by
    the stamps of the commands themselves.
    """

    def __init__(self, contract: RobotContract, config: GuardConfig) -> None:
        self._timeout = config.teleop_timeout
        self._needs_hand = config.dead_man
        self._held = -math.inf  # steady time when the dead-man was last said to be held
        self._odometry: Vital | None = None
        if isinstance(contract, MobileContract) and config.watches_odometry:
            self._odometry = Vital(NO_ODOM, STALE_ODOM, contract.sensors.odom.timeout)
        self._beats = {
            name: Vital(NO_HEARTBEAT, STALE_HEARTBEAT, config.heartbeat_timeout) for name in config.heartbeats
        }

    def on_odometry(self, at: float) -> None:
        if self._odometry is not None:
            self._odometry.see(at)

    def on_heartbeat(self, name: str, steady: float) -> None:
        if name in self._beats:
            self._beats[name].see(steady)

    def on_dead_man(self, held: bool, steady: float) -> None:
        self._held = steady if held else -math.inf

    def lose_odometry(self) -> None:
        if self._odometry is not None:
            self._odometry.lose()

    def problem(self, now: float, steady: float) -> str | None:
        """Why the policy may not drive: the first thing that is missing or stale."""
        found: Iterable[str | None] = (beat.problem(steady) for beat in self._beats.values())
        if self._odometry is not None:
            found = (self._odometry.problem(now), *found)
        return next((reason for reason in found if reason is not None), None)

    def holds(self, steady: float) -> bool:
        """Whether a person's commands count: they need no dead-man, or it is held."""
        return not self._needs_hand or steady - self._held <= self._timeout
