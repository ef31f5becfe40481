"""Where coloured things lie on a table, from a camera that stands still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import ArmCamera, ObjectAppearance
from llmagent_ros.contract.kinematics import rotation
from llmagent_ros.perception.objects import MIN_PIXELS, colour_mask, hue_saturation_value
from llmagent_ros.types import CameraImage


@dataclass(frozen=True)
class PlacedObject:
    """A named thing. position: of its middle in the base frame, m, (3,). age: s since it was seen, 0 when in view."""

    name: str
    position: NDArray[np.float64]
    age: float = 0.0


class TableFinder:
    """Finds the contract's objects in images and keeps where they were.

    The pixels of an object's colour have a middle; the ray through it meets the plane at half the object's height. So
    the camera must be calibrated, and what it looks for must stand on the table. What is hidden stays where it was.
    """

    def __init__(self, appearances: Mapping[str, ObjectAppearance], camera: ArmCamera | None, memory: float) -> None:
        self._appearances, self._camera, self._memory = appearances, camera, memory
        self._places: dict[str, tuple[NDArray[np.float64], float]] = {}  # position and stamp, s
        self._newest: float | None = None  # stamp of the last image, s
        self._turn = np.eye(3) if camera is None else rotation(np.radians(camera.orientation))  # optical to base

    def forget(self) -> None:
        """Drops every remembered object."""
        self._places.clear()
        self._newest = None

    def see(self, image: CameraImage) -> None:
        """Updates the places of all objects that an image shows."""
        if self._camera is None:
            return
        self._newest = image.stamp
        channels = hue_saturation_value(image.rgb)
        for name, look in self._appearances.items():
            rows, columns = np.nonzero(colour_mask(channels, look))
            if len(rows) < MIN_PIXELS:
                continue
            middle = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
            position = self._on_plane(middle, image, look.height / 2)
            if position is not None:
                self._places[name] = position, image.stamp

    def objects(self, now: float) -> dict[str, PlacedObject]:
        """Every object that was seen within the memory."""
        found = {}
        for name, (position, stamp) in self._places.items():
            age = 0.0 if stamp == self._newest else max(0.0, now - stamp)
            if age <= self._memory:
                found[name] = PlacedObject(name, position, age)
        return found

    def _on_plane(
        self, pixel: tuple[float, float], image: CameraImage, height: float
    ) -> NDArray[np.float64] | None:
        """Where the ray through a pixel (column, row) meets z = height, m, (3,); None where it does not."""
        assert self._camera is not None
        ray = self._turn @ np.array([(pixel[0] - image.cx) / image.fx, (pixel[1] - image.cy) / image.fy, 1.0])
        eye = np.array(self._camera.position)
        way = (height - eye[2]) / ray[2] if ray[2] else -1.0
        return eye + way * ray if way > 0 else None
