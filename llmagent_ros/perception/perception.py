"""The scene builder: keeps the newest readings and says them in words."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Reversible
from typing import TypeVar

import numpy as np

from llmagent_ros.contract import MobileContract
from llmagent_ros.perception import text as say
from llmagent_ros.perception.coverage import CameraCoverage
from llmagent_ros.perception.free_path import free_paths
from llmagent_ros.perception.objects import ObjectFinder
from llmagent_ros.perception.scan import full_circle, is_blind, sector_clearances
from llmagent_ros.types import CameraImage, LaserScan, Odometry, Scene

CLOCK_TOLERANCE = 0.1  # s by which a reading may be ahead of now before it counts as wrong
HISTORY = 256  # odometry readings kept for images that come late: 0.6 s of a drive that tells 400 times a second
SCANS = 32  # scans kept for the same
JUMP = 1.0  # m in one control period that no robot drives: the odometry was reset, memory is void

LATE = 1.0  # s by which a reading may be older than the last of its sensor and only be late; more: time stepped back

_Motion = tuple[float, float]  # forward and to the left, on the scale of the contract's full_speed
_Reading = TypeVar("_Reading", LaserScan, Odometry)


class Perception:
    """Builds scenes from sensor readings alone, as the robot contract says.

    Feed readings as they come, then ask for the scene at a time. A reading that is older than the last of its sensor
    is dropped (the `on_` methods return False); one that is older by more than `late` s means that time stepped back,
    and every reading and place from before is forgotten. Not thread-safe.
    """

    def __init__(self, contract: MobileContract, *, late: float = LATE) -> None:
        self._contract = contract
        self._late = late
        self._stamps: dict[str, float] = {}  # newest of each sensor, s
        self._scan: LaserScan | None = None
        self._odometry: Odometry | None = None
        self._image: CameraImage | None = None
        self._odometries: deque[Odometry] = deque(maxlen=HISTORY)
        self._scans: deque[LaserScan] = deque(maxlen=SCANS)
        self._mount = contract.sensors.scan.mount
        self._finder = ObjectFinder(contract.objects, contract.sensors.camera, contract.scene.memory, self._mount)
        self._coverage = _coverage(contract)
        self._image_seen = -math.inf
        self._actions: deque[tuple[str, _Motion | None]] = deque(maxlen=contract.scene.history)  # and what came of it
        self._task = ""
        self._parts: dict[str, Callable[[float], str]] = {
            "task": lambda now: say.say_task(self._task),
            "objects": self._say_objects,
            "scan": self._say_scan,
            "free": self._say_free,
            "motion": self._say_motion,
            "history": self._say_history,
        }

    def start_episode(self, instruction: str) -> None:
        """A new task: what was done and remembered before does not count."""
        self._task = say.clean_instruction(instruction)
        self._actions.clear()
        self._forget_places()

    def on_scan(self, scan: LaserScan) -> bool:
        """Whether it was taken."""
        if not self._in_order("scan", scan.stamp):
            return False
        self._scan = scan = full_circle(scan)
        if math.isfinite(scan.stamp):
            self._scans.append(scan)
        return True

    def on_odometry(self, odometry: Odometry) -> bool:
        """Whether it was taken; a reading with a value that is not finite counts as missing."""
        if not self._in_order("odom", odometry.stamp):
            return False
        values = (odometry.x, odometry.y, odometry.yaw, odometry.linear, odometry.angular)
        if not all(map(math.isfinite, values)):
            self._odometry = None
            return True
        last, self._odometry = self._odometry, odometry
        if last is not None and math.hypot(odometry.x - last.x, odometry.y - last.y) > JUMP:
            self._forget_map()
            self._odometries.clear()
        if math.isfinite(odometry.stamp):
            self._odometries.append(odometry)
        return True

    def on_image(self, image: CameraImage) -> bool:
        """Whether it was taken; one that is no colour image or has no finite intrinsics counts as missing."""
        if not self._in_order("camera", image.stamp):
            return False
        intrinsics = (image.fx, image.fy, image.cx, image.cy)
        colour = image.rgb.ndim == 3 and image.rgb.shape[-1] == 3 and image.rgb.size > 0
        usable = colour and all(map(math.isfinite, intrinsics))
        self._image = image if usable and image.fx > 0 and image.fy > 0 else None
        return True

    def note_action(self, phrase: str) -> None:
        """The action that was just decided."""
        self._actions.append((phrase, None))

    def scene(self, now: float) -> Scene:
        """The text of what is known at `now` (s); a part that is stale or missing reads as unknown."""
        said = self.said(now)
        unknown = tuple(part for part, words in said.items() if part != "task" and f" {say.UNKNOWN}" in words)
        stamps = [r.stamp for r in (self._scan, self._odometry, self._image) if r is not None and r.stamp <= now]
        return Scene(max(stamps, default=now), " ".join(said.values()), self._task, unknown)

    def said(self, now: float) -> dict[str, str]:
        """The words of each part of the scene at `now` (s), in their order."""
        self._look(now)
        return {part: self._parts[part](now) for part in self._contract.scene.parts}

    def _in_order(self, sensor: str, stamp: float) -> bool:
        """Whether a reading is not older than the last of its sensor, or all from before is void."""
        if not math.isfinite(stamp):
            return True  # it will read as unknown
        behind = self._stamps.get(sensor, -math.inf) - stamp
        if 0 < behind <= self._late:
            return False
        if behind > self._late:
            self._forget_readings()
        self._stamps[sensor] = stamp
        return True

    def _forget_readings(self) -> None:
        self._scan = self._odometry = self._image = None
        self._scans.clear()
        self._odometries.clear()
        self._stamps.clear()
        self._forget_places()

    def _forget_places(self) -> None:
        self._forget_map()
        self._image_seen = -math.inf

    def _forget_map(self) -> None:
        self._finder.forget()
        if self._coverage is not None:
            self._coverage.forget()

    def _look(self, now: float) -> None:
        """Lets the object finder see each image once, with the odometry and the scan nearest to it in time."""
        image = self._fresh_image(now)
        if image is None or self._fresh_odometry(now) is None or image.stamp <= self._image_seen:
            return
        scan = _nearest(self._scans, image.stamp) if self._fresh_scan(now) is not None else None
        odometry = _nearest(self._odometries, image.stamp)
        self._finder.see(image, scan, odometry)
        if self._coverage is not None and scan is not None and not is_blind(scan):
            self._coverage.look(image, scan, odometry)
        self._image_seen = image.stamp

    def _say_objects(self, now: float) -> str:
        odometry, form = self._fresh_odometry(now), self._contract.scene
        if odometry is None or self._fresh_image(now) is None:
            objects = unseen = None
        else:
            objects = self._finder.objects(odometry, now)
            unseen = self._coverage.unseen(odometry) if self._coverage is not None else None
        return say.say_objects(
            objects,
            unseen,
            task=self._task,
            names=tuple(self._contract.objects),
            bearing_step=form.bearing_step,
            limit=form.max_clearance,
            most=form.max_objects,
        )

    def _say_scan(self, now: float) -> str:
        scan, form = self._usable_scan(now), self._contract.scene
        if scan is None:
            return say.say_scan(None)
        radius = self._contract.footprint_radius
        return say.say_scan(sector_clearances(scan, form.sectors, radius, form.max_clearance, self._mount))

    def _say_free(self, now: float) -> str:
        scan, contract = self._usable_scan(now), self._contract
        if scan is None:
            return say.say_free(None)
        lookahead = contract.scene.lookahead
        return say.say_free(free_paths(scan, contract.actions, contract.footprint_radius, lookahead, self._mount))

    def _say_motion(self, now: float) -> str:
        odometry = self._fresh_odometry(now)
        return say.say_motion(*((None, None) if odometry is None else self._motion(odometry)))

    def _say_history(self, now: float) -> str:
        """What the last action led to is the motion that is said in the first scene after it."""
        odometry = self._fresh_odometry(now)
        told = self._contract.scene.effects and odometry is not None
        if told and self._actions and self._actions[-1][1] is None:
            assert odometry is not None
            self._actions[-1] = (self._actions[-1][0], self._motion(odometry))
        return say.say_history([say.say_action(*action) for action in self._actions])

    def _motion(self, odometry: Odometry) -> _Motion:
        return self._contract.as_said(odometry.linear, odometry.angular)

    def _usable_scan(self, now: float) -> LaserScan | None:
        scan = self._fresh_scan(now)
        return None if scan is None or len(scan.ranges) == 0 or is_blind(scan) else scan

    def _fresh_scan(self, now: float) -> LaserScan | None:
        sensor = self._contract.sensors.scan
        return self._scan if self._scan is not None and _fresh(self._scan.stamp, now, sensor.timeout) else None

    def _fresh_odometry(self, now: float) -> Odometry | None:
        sensor = self._contract.sensors.odom
        fresh = self._odometry is not None and _fresh(self._odometry.stamp, now, sensor.timeout)
        return self._odometry if fresh else None

    def _fresh_image(self, now: float) -> CameraImage | None:
        sensor = self._contract.sensors.camera
        fresh = sensor is not None and self._image is not None and _fresh(self._image.stamp, now, sensor.timeout)
        return self._image if fresh else None


def _coverage(contract: MobileContract) -> CameraCoverage | None:
    camera, form = contract.sensors.camera, contract.scene
    if camera is None or not form.search:
        return None
    return CameraCoverage(camera, form.max_clearance, form.memory, contract.sensors.scan.mount)


def _nearest(readings: Reversible[_Reading], stamp: float) -> _Reading:
    return min(reversed(readings), key=lambda reading: abs(reading.stamp - stamp))


def _fresh(stamp: float, now: float, timeout: float) -> bool:
    return bool(np.isfinite(stamp)) and -CLOCK_TOLERANCE <= now - stamp <= timeout
