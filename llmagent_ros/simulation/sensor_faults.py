"""What worse sensors make of readings."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from llmagent_ros.simulation.variation import Variation
from llmagent_ros.types import CameraImage, LaserScan


class SensorFaults:
    """Those of one robot in one episode.

    Args:
        period: s between two readings of a robot that refreshes them each time. seed: of the noise.
    """

    def __init__(self, variation: Variation, period: float, seed: int) -> None:
        self._variation = variation
        self._lasts = (variation.refreshed - 1) * period + 1e-6  # s for which a reading is told
        self._rng = np.random.default_rng(seed)
        self._told: tuple[LaserScan, CameraImage] | None = None

    def worsen(self, scan: LaserScan, image: CameraImage) -> tuple[LaserScan, CameraImage]:
        """What is told in place of a scan and an image of one time."""
        if self._told is not None and scan.stamp - self._told[0].stamp <= self._lasts:
            old_scan, old_image = self._told
            return dataclasses.replace(old_scan, stamp=scan.stamp), dataclasses.replace(old_image, stamp=image.stamp)
        self._told = self._scan(scan), image
        return self._told

    def _scan(self, scan: LaserScan) -> LaserScan:
        v = self._variation
        ranges = scan.ranges
        if v.scan_turned:  # what lies at bearing b is told at b - turned
            ranges = np.roll(ranges, -round(math.radians(v.scan_turned) / scan.angle_increment))
        if v.scan_noise:
            noisy = ranges + self._rng.normal(0.0, v.scan_noise, len(ranges)).astype(np.float32)
            ranges = np.where(np.isfinite(ranges), np.maximum(noisy, scan.range_min), ranges)
        if v.blind is not None:
            bearings = np.degrees(scan.angle_min + scan.angle_increment * np.arange(len(ranges)))
            start, width = v.blind[0], (v.blind[1] - v.blind[0]) % 360
            ranges = np.where((bearings - start) % 360 <= width, np.float32(np.inf), ranges)
        return dataclasses.replace(scan, ranges=ranges.astype(np.float32))
