"""Which floor the camera has looked at, and where something that is not seen may therefore still be."""

from __future__ import annotations

import cmath
import math

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import CameraSensor, wrap_angle
from llmagent_ros.geometry import CENTRE, Mount, told_from_base
from llmagent_ros.types import CameraImage, LaserScan, Odometry, Place

CELL = 0.25  # m, of the grid in the odometry frame
_STEP = CELL / 2  # m between two places on a ray
_NEAR = 0.4  # m from the base centre: floor that is nearer hides nothing
_EDGE = 0.9  # share of the half view that counts: what stands at its border is cut
_BEFORE = 0.05  # m by which floor must lie before what its ray meets
_BLIND = 1.0  # m of floor that a ray without a measurement stands for
_BESIDE = math.radians(10) + 1e-6  # floor within this of a bearing is looked at together with it
_WORTH = 0.1  # m^2 of floor from which on it is worth a look
_TURN = 2.0  # m of way that half a turn counts as
_MOST_RAYS = 360  # that are looked along: what it takes grows with their square
_MOST_CELLS = 20_000  # that are remembered: 1250 m^2
_SIDE = 1 << 20  # cells from the origin of the odometry, 260 km, that keys tell apart

_Point = tuple[float, float]  # m, in the odometry frame
_Array = NDArray[np.float64]


class CameraCoverage:
    """Cells of floor that were in view with nothing in front of them, and a place to look at next.

    The scan says which floor lies open, the camera's view which part of it was looked at. As with the frontiers of
    Yamauchi (1997) the next place is at the border between both: where the most floor, m^2, can be seen for the least
    way. It stays the next one until it was in view: of two that are about as good, now this and now that is no help.

    Args:
        reach: m to which the camera recognises things. memory: s after which a look no longer counts.
        mount: of the scanner.
    """

    def __init__(self, camera: CameraSensor, reach: float, memory: float, mount: Mount = CENTRE) -> None:
        self._camera, self._memory, self._mount = camera, memory, mount
        self._along = np.arange(_NEAR, max(reach, _NEAR) + _STEP, _STEP)
        self.forget()

    def forget(self) -> None:
        """Nothing was looked at, as in a new world."""
        self._cells = np.empty(0, np.int64)
        self._stamps: _Array = np.empty(0)  # s, when each was last in view
        self._next: _Point | None = None
        self._since = -math.inf  # s, when it was chosen

    def look(self, image: CameraImage, scan: LaserScan, odometry: Odometry) -> None:
        """Notes what an image shows, with the readings that belong to it, and chooses anew what to look at next."""
        bearings, ranges = self._floor(scan)
        lying_open = self._along < ranges[:, None]
        cells = self._cells_along(bearings, odometry)
        places = self._along * np.exp(1j * bearings)[:, None]
        self._remember(np.unique(cells[lying_open & self._in_view(places, image)]), image.stamp)
        if self._is_done(image, bearings, ranges, odometry):
            unseen = lying_open & ~np.isin(cells, self._cells)
            self._next, self._since = self._choose(bearings, unseen, odometry), image.stamp

    def unseen(self, odometry: Odometry) -> Place | None:
        """Where to look next, from the base at `odometry`; None where all open floor was looked at."""
        if self._next is None:
            return None
        dx, dy = self._next[0] - odometry.x, self._next[1] - odometry.y
        return Place(wrap_angle(math.atan2(dy, dx) - odometry.yaw), math.hypot(dx, dy))

    def _floor(self, scan: LaserScan) -> tuple[_Array, _Array]:
        """Bearing of each ray, rad, and how far the floor along it lies open, m."""
        bearings, ranges = told_from_base(scan, self._mount, _BLIND)
        every = math.ceil(len(bearings) / _MOST_RAYS)
        bearings, ranges = bearings[::every], ranges[::every]
        return np.radians(bearings), np.where(np.isnan(ranges), _BLIND, ranges - _BEFORE)

    def _in_view(self, places: NDArray[np.complex128], image: CameraImage) -> NDArray[np.bool_]:
        """Which places of the base frame, x + iy, are in an image if nothing is in front of them."""
        from_camera = (places - self._camera.x) * np.exp(-1j * math.radians(self._camera.yaw))
        half_view = math.atan2(image.rgb.shape[1] / 2, image.fx)
        return np.abs(np.angle(from_camera)) <= _EDGE * half_view

    def _remember(self, cells: NDArray[np.int64], stamp: float) -> None:
        kept = ~np.isin(self._cells, cells) & (stamp - self._stamps <= self._memory)
        room = max(0, _MOST_CELLS - len(cells))
        older = np.flatnonzero(kept)[-room:] if room else np.empty(0, np.int64)  # in the order of their stamps
        self._cells = np.concatenate([self._cells[older], cells])
        self._stamps = np.concatenate([self._stamps[older], np.full(len(cells), stamp)])

    def _is_done(self, image: CameraImage, bearings: _Array, ranges: _Array, odometry: Odometry) -> bool:
        """Whether the next place was looked at, or is given up."""
        place = self.unseen(odometry)
        if place is None or image.stamp - self._since > self._memory:
            return True
        ray = int(np.argmin(np.abs(np.angle(np.exp(1j * (bearings - place.bearing))))))
        hidden = place.distance > ranges[ray] + CELL
        return not hidden and bool(self._in_view(np.array(cmath.rect(place.distance, place.bearing)), image))

    def _choose(self, bearings: _Array, unseen: NDArray[np.bool_], odometry: Odometry) -> _Point | None:
        """The nearest unseen place of the ray with the most unseen floor beside it for the way there; None: too little.

        Args:
            unseen: which places along the rays are, (rays, places).
        """
        area = np.where(unseen, self._along, 0.0).sum(1) * _STEP * math.tau / len(bearings)
        apart = np.abs(np.angle(np.exp(1j * (bearings[:, None] - bearings))))
        area = (apart <= _BESIDE) @ area
        nearest = self._along[unseen.argmax(1)]
        way = 1.0 + nearest + _TURN * np.abs(np.angle(np.exp(1j * bearings))) / math.pi
        worth = np.where(unseen.any(1) & (area >= _WORTH), area / way, 0.0).round(6)  # equal is equal
        best = int(np.argmax(worth))
        if not worth[best]:
            return None
        towards = odometry.yaw + bearings[best]
        return odometry.x + nearest[best] * math.cos(towards), odometry.y + nearest[best] * math.sin(towards)

    def _cells_along(self, bearings: _Array, odometry: Odometry) -> NDArray[np.int64]:
        """The cell of each place along each ray, (rays, places)."""
        towards = np.exp(1j * (bearings + odometry.yaw))
        points = odometry.x + 1j * odometry.y + self._along * towards[:, None]
        i, j = (np.floor(v / CELL).astype(np.int64) + _SIDE for v in (points.real, points.imag))
        return i * (2 * _SIDE) + j
