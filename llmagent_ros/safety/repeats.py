"""A scanner that says the same again and again with fresh stamps: odometry tells that the robot has moved."""

from __future__ import annotations

import math

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import MobileContract, Positive
from llmagent_ros.safety.reckoning import ORIGIN, Pose, joined
from llmagent_ros.types import LaserScan, Odometry

_FASTER = 2.0  # times its limits: what a robot may really move, downhill or pushed
_SMALL = 0.5  # of the distance or angle: a step that counts however short the time was, since stamps jitter


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class RepeatsConfig:
    """How far a robot may have moved since the first of equal scans for the next one to be believed.

    Attributes:
        distance: m, as the crow flies. angle: rad.
    """

    distance: Positive = 0.1
    angle: Positive = 0.1


class ScanRepeats:
    """Whether a scan is one of before that is sent again.

    Ranges that are equal to the bit, NaN to NaN, repeat. That may be so for ever while the robot stands; noise makes it
    impossible for one that moves. Scans that measure no distance at all (+inf everywhere, in an open field) are equal
    wherever the robot is, and never count as repeated.

    What the robot has moved is the sum of the steps between readings of odometry, each in the frame of the base, so
    that an odometry that is reset takes nothing away and adds nothing: a step that is faster than twice the robot's
    limits, or after a pause longer than the contract's time-out, is a jump of the pose and no motion.

    It knows no clock: `forget_stamps` is for one that jumped, and a scanner that was frozen stays so.
    """

    def __init__(self, contract: MobileContract, config: RepeatsConfig) -> None:
        self._limits = contract.limits
        self._pause = contract.sensors.odom.timeout
        self._config = config
        self._first: LaserScan | None = None  # of the equal ones
        self._moved = ORIGIN
        self._far = False
        self.forget_stamps()

    @property
    def moved(self) -> Pose:
        """From where the first of the equal scans came to where the robot is now."""
        return self._moved

    def forget_stamps(self) -> None:
        """Stamps of before do not compare with those that come."""
        self._newest = -math.inf  # stamp of a scan
        self._last: Odometry | None = None

    def on_odometry(self, reading: Odometry) -> None:
        """Takes a reading of finite values; one that is not newer than the last does not count."""
        last = self._last
        if last is not None and reading.stamp <= last.stamp:
            return
        self._last = reading
        if last is None:
            return
        x, y = reading.x - last.x, reading.y - last.y
        cos, sin = math.cos(last.yaw), math.sin(last.yaw)
        step = cos * x + sin * y, cos * y - sin * x, math.remainder(reading.yaw - last.yaw, 2 * math.pi)
        if self._is_motion(step, reading.stamp - last.stamp):
            self._moved = joined(self._moved, step)
            way, turned = math.hypot(*self._moved[:2]), abs(self._moved[2])
            self._far = self._far or way > self._config.distance or turned > self._config.angle

    def _is_motion(self, step: Pose, elapsed: float) -> bool:
        limits, config = self._limits, self._config
        way = _FASTER * limits.linear * elapsed + _SMALL * config.distance
        turned = _FASTER * limits.angular * elapsed + _SMALL * config.angle
        return elapsed <= self._pause and math.hypot(*step[:2]) <= way and abs(step[2]) <= turned

    def repeats(self, scan: LaserScan) -> bool:
        """Takes a scan with at least one ray; whether it is an old one with a fresh stamp."""
        same = self._first is not None and np.array_equal(scan.ranges, self._first.ranges, equal_nan=True)
        if scan.stamp >= self._newest:  # one that comes late is no sign of what the scanner says now
            self._newest = scan.stamp
            if not same or not _measures(scan):
                self._first, self._moved, self._far = scan, ORIGIN, False
        return same and self._far


def _measures(scan: LaserScan) -> bool:
    """Whether any ray has met something; some drivers say range_max where it has not."""
    ranges = np.asarray(scan.ranges, np.float32)
    met = (ranges >= np.float32(scan.range_min)) & (ranges < np.float32(scan.range_max))
    return bool(met.any())
