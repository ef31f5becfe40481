"""Named objects from colour, with distance from the scan or from apparent size, remembered by odometry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import CameraSensor, ObjectAppearance, wrap_angle
from llmagent_ros.geometry import CENTRE, Mount
from llmagent_ros.perception.scan import range_at
from llmagent_ros.types import CameraImage, LaserScan, Odometry, SeenObject

MIN_PIXELS = 6
_AGREEMENT = 0.35  # share by which scan and apparent size may differ and still mean the same body


@dataclass(frozen=True)
class _Blob:
    bearing: float  # rad from the camera axis, left positive
    half_width: float  # rad
    height: float  # pixels
    cut: bool  # touches the image's upper or lower border: the height says nothing


def hue_saturation_value(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    """Hue in degrees 0..360, saturation and value 0..1, each of shape rgb.shape[:-1]."""
    colour = rgb.astype(np.float32) / 255.0
    high, low = colour.max(axis=-1), colour.min(axis=-1)
    spread = high - low
    safe = np.where(spread > 0, spread, 1.0)
    red, green, blue = colour[..., 0], colour[..., 1], colour[..., 2]
    hue = np.where(
        high == red,
        ((green - blue) / safe) % 6.0,
        np.where(high == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hue = np.where(spread > 0, hue * 60.0, 0.0)
    saturation = np.where(high > 0, spread / np.where(high > 0, high, 1.0), 0.0)
    return hue.astype(np.float32), saturation.astype(np.float32), high.astype(np.float32)


class ObjectFinder:
    """Finds the contract's objects in camera images and remembers where they were.

    One object of each name is assumed, as in the contract. Positions are kept in the odometry frame, so that an
    object out of view still has a bearing and a distance; one that should be in view and is not is forgotten.

    Args:
        memory: s. mount: of the scanner.
    """

    def __init__(
        self,
        appearances: Mapping[str, ObjectAppearance],
        camera: CameraSensor | None,
        memory: float,
        mount: Mount = CENTRE,
    ) -> None:
        self._appearances = appearances
        self._camera = camera
        self._memory = memory
        self._mount = mount
        self._places: dict[str, tuple[float, float, float]] = {}  # x, y in odom (m), stamp (s)
        self._newest: float | None = None  # stamp of the last image, s

    def forget(self) -> None:
        """Drops every remembered object, e.g. when the world was reset."""
        self._places.clear()
        self._newest = None

    def see(self, image: CameraImage, scan: LaserScan | None, odometry: Odometry) -> None:
        """Updates the places of all objects from one image and the readings that belong to it."""
        if self._camera is None:
            return
        self._newest = image.stamp
        channels = hue_saturation_value(image.rgb)
        for name, look in self._appearances.items():
            blob = _largest_blob(colour_mask(channels, look), image)
            if blob is not None:
                self._place(name, blob, look, image, scan, odometry)
            elif name in self._places and self._should_see(name, image, scan, odometry):
                del self._places[name]

    def objects(self, odometry: Odometry, now: float) -> list[SeenObject]:
        """Every object seen within the memory, nearest first, relative to the base at `odometry`.

        What was placed by the last image is in view, however long ago (s) that was taken: its age is 0.
        """
        seen = []
        for name, (x, y, stamp) in self._places.items():
            age = 0.0 if stamp == self._newest else now - stamp
            if age > self._memory:
                continue
            bearing, distance = _relative(x, y, odometry)
            surface = max(0.0, distance - self._appearances[name].radius)
            seen.append(SeenObject(name, bearing, surface, max(0.0, age)))
        return sorted(seen, key=lambda item: item.distance)

    def _place(
        self,
        name: str,
        blob: _Blob,
        look: ObjectAppearance,
        image: CameraImage,
        scan: LaserScan | None,
        odometry: Odometry,
    ) -> None:
        assert self._camera is not None
        # the size in the image gives the depth along the optical axis, z = fy h / v; the range is z / cos(bearing)
        by_size = None if blob.cut else image.fy * look.height / max(blob.height, 1.0) / math.cos(blob.bearing)
        axis = blob.bearing + math.radians(self._camera.yaw)
        # The camera stands ahead of the base centre: turn its bearing into the base's with a first distance.
        rough = by_size if by_size is not None else 1.0
        bearing = math.atan2(rough * math.sin(axis), self._camera.x + rough * math.cos(axis))
        by_scan = range_at(scan, bearing, blob.half_width / 2, self._mount) if scan is not None else None
        distance = _fuse(by_scan, by_size)
        if distance is None:
            return
        reach = distance + look.radius
        self._places[name] = (
            odometry.x + reach * math.cos(odometry.yaw + bearing),
            odometry.y + reach * math.sin(odometry.yaw + bearing),
            image.stamp,
        )

    def _should_see(self, name: str, image: CameraImage, scan: LaserScan | None, odometry: Odometry) -> bool:
        """Whether an object at its remembered place would be well inside the view with nothing in front of it."""
        assert self._camera is not None
        x, y, _ = self._places[name]
        bearing, distance = _relative(x, y, odometry)
        half_view = math.atan2(image.rgb.shape[1] / 2, image.fx)
        if abs(wrap_angle(bearing - math.radians(self._camera.yaw))) > 0.7 * half_view:
            return False
        in_front = range_at(scan, bearing, 0.1, self._mount) if scan is not None else None
        return in_front is not None and in_front > distance + 0.3


def colour_mask(channels: tuple[NDArray[np.float32], ...], look: ObjectAppearance) -> NDArray[np.bool_]:
    """Which pixels have an object's colour, (height, width), from what `hue_saturation_value` gives."""
    hue, saturation, value = channels
    start, end = look.hue
    width = (end - start) % 360.0
    inside: NDArray[np.bool_] = (hue - start) % 360.0 <= width
    return inside & (saturation >= look.min_saturation) & (value >= look.min_value)


def _largest_blob(mask: NDArray[np.bool_], image: CameraImage) -> _Blob | None:
    """The widest run of columns that hold the colour; objects stand upright, so columns separate them."""
    columns = mask.sum(axis=0)
    if columns.sum() < MIN_PIXELS:
        return None
    filled = np.concatenate([[0], (columns > 0).astype(np.int8), [0]])
    starts, ends = np.flatnonzero(np.diff(filled) == 1), np.flatnonzero(np.diff(filled) == -1)
    weights = [int(columns[a:b].sum()) for a, b in zip(starts, ends, strict=True)]
    best = int(np.argmax(weights))
    if weights[best] < MIN_PIXELS:
        return None
    left, right = int(starts[best]), int(ends[best])
    rows = np.flatnonzero(mask[:, left:right].any(axis=1))
    centre = (np.arange(left, right) + 0.5) @ columns[left:right] / weights[best]
    return _Blob(
        bearing=math.atan2(image.cx - centre, image.fx),
        half_width=(math.atan2(right - image.cx, image.fx) - math.atan2(left - image.cx, image.fx)) / 2,
        height=float(rows[-1] - rows[0] + 1),
        cut=bool(rows[0] == 0 or rows[-1] == mask.shape[0] - 1),
    )


def _fuse(by_scan: float | None, by_size: float | None) -> float | None:
    """Range to the surface, m: the scan's where it means the same body, else from the size in the image."""
    if by_scan is None or not math.isfinite(by_scan):
        return by_size
    if by_size is None or abs(by_scan - by_size) <= _AGREEMENT * by_size:
        return by_scan
    return by_size


def _relative(x: float, y: float, odometry: Odometry) -> tuple[float, float]:
    """Bearing (rad) and distance (m) of a point in the odom frame, seen from the base."""
    dx, dy = x - odometry.x, y - odometry.y
    return wrap_angle(math.atan2(dy, dx) - odometry.yaw), math.hypot(dx, dy)
