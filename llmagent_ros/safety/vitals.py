"""What must keep coming while the policy drives."""

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

    def lose(self, later_than: float = -math.inf) -> None:
        """Forgets what was seen later than this, s."""
        if self.seen > later_than:
            self.seen = -math.inf

    def problem(self, now: float) -> str | None:
        if math.isinf(self.seen):
            return self.missing
        return self.stale if now - self.seen > self.timeout else None


class Vitals:
    """Odometry by its stamps, heartbeats by the steady time of their arrival.

    The machines need not agree on the time for a heartbeat, then; what a link holds back and delivers late is seen by
    the stamps of the commands themselves.
    """

    def __init__(self, contract: RobotContract, config: GuardConfig) -> None:
        self._lockstep = config.lockstep
        self._odometry: Vital | None = None
        if isinstance(contract, MobileContract) and config.watches_odometry:
            self._odometry = Vital(NO_ODOM, STALE_ODOM, contract.sensors.odom.timeout)
        self._beats = {
            name: Vital(NO_HEARTBEAT, STALE_HEARTBEAT, config.heartbeat_timeout) for name in config.heartbeats
        }

    @property
    def lacks_odometry(self) -> bool:
        """Whether it is needed, and none is known."""
        return self._odometry is not None and math.isinf(self._odometry.seen)

    def on_odometry(self, at: float) -> None:
        if self._odometry is None:
            return
        if self._lockstep:  # a world that was reset may begin anew at 0
            self._odometry.lose(later_than=at)
        self._odometry.see(at)

    def on_heartbeat(self, name: str, steady: float) -> None:
        if name in self._beats:
            self._beats[name].see(steady)

    def lose_odometry(self, later_than: float = -math.inf) -> None:
        """Forgets the odometry of later than this, s."""
        if self._odometry is not None:
            self._odometry.lose(later_than)

    def problem(self, now: float, steady: float) -> str | None:
        """Why the policy may not drive: the first thing that is missing or stale."""
        found: Iterable[str | None] = (beat.problem(steady) for beat in self._beats.values())
        if self._odometry is not None:
            found = (self._odometry.problem(now), *found)
        return next((reason for reason in found if reason is not None), None)
