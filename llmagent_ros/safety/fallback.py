"""What a base does for a while instead of standing, when the policy is silent or unsure: it follows the clearances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import MobileContract, Positive
from llmagent_ros.geometry import Points
from llmagent_ros.types import Velocity

_DIRECTIONS = 36  # that are compared
_AHEAD = math.radians(25.0)  # within which it drives; else it turns first
FARTHEST = 2.0  # m; what is free beyond counts as this
_TURNING = 0.2  # of what is free, that a direction to the back is worth less than one ahead


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class FollowConfig:
    """How it follows the clearances.

    Attributes:
        linear: m/s. angular: rad/s. time: s after which it stops, until the policy has driven again.
        room: m that must be free in the best direction; else it stands.
    """

    linear: Positive = 0.1
    angular: Positive = 0.5
    time: Positive = 10.0
    room: Positive = 0.3


class ClearanceFollower:
    """Drives slowly in the direction in which most is free.

    Of directions all around, each is free as far as a strip as wide as the robot reaches until the first point, at most
    2 m; where the scanner measures nothing it is not free. The one ahead is preferred a little to one behind, so that
    it does not turn back and forth. It turns towards the best one, and drives while that is nearly ahead.
    """

    def __init__(self, contract: MobileContract, config: FollowConfig, margin: float) -> None:
        self._config, self._half = config, contract.footprint_radius + margin
        limits = contract.limits
        self._linear, self._angular = min(config.linear, limits.linear), min(config.angular, limits.angular)
        self._directions = 2 * math.pi / _DIRECTIONS * np.arange(_DIRECTIONS) - math.pi

    def command(self, points: Points, blind: NDArray[np.float64]) -> Velocity:
        """The velocity for now; zero where there is no room.

        Args:
            points: of the scan in the base frame, m, (n, 2). blind: bearings of rays that are no measurement, rad.
        """
        free = self._free(points)
        if len(blind):
            apart = np.abs(_wrapped(self._directions[:, None] - blind[None]))
            free[(apart < math.pi / _DIRECTIONS).any(axis=1)] = 0.0
        worth = free * (1.0 - _TURNING * np.abs(self._directions) / math.pi)
        best = int(np.argmax(worth))
        if free[best] < self._config.room:
            return Velocity()
        bearing = float(self._directions[best])
        turning = float(np.clip(2.0 * bearing, -1.0, 1.0)) * self._angular
        return Velocity(self._linear if abs(bearing) <= _AHEAD else 0.0, turning)

    def _free(self, points: Points) -> NDArray[np.float64]:
        """m until the footprint's circle meets a point on its way in each direction, at most `FARTHEST`."""
        cos, sin = np.cos(self._directions)[:, None], np.sin(self._directions)[:, None]
        along = points[:, 0] * cos + points[:, 1] * sin  # (directions, n)
        aside = np.abs(points[:, 1] * cos - points[:, 0] * sin)
        reached = along - np.sqrt(np.maximum(self._half**2 - aside**2, 0.0))
        reached = np.where((aside < self._half) & (along > 0.0), np.maximum(reached, 0.0), FARTHEST)
        return np.asarray(reached.min(axis=1, initial=FARTHEST))


def uncertainty(probabilities: Sequence[float]) -> float:
    """How undecided a choice was: the entropy of its distribution over that of the uniform one, 0..1.

    NaN where it is no distribution. It says that no phrase stands out, and not that the scene is unlike what was
    learned from: there a policy may be sure and wrong.
    """
    p = np.asarray(probabilities, np.float64)
    if len(p) < 2 or not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1.0) > 1e-3:
        return math.nan
    there = p[p > 0]
    return float(-(there * np.log(there)).sum() / math.log(len(p)))


def _wrapped(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((angles + math.pi) % (2 * math.pi) - math.pi)
