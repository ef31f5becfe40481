"""The scene builder of an arm: keeps the newest joint states and image, and says them in words."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import ArmContract
from llmagent_ros.perception import text as say
from llmagent_ros.perception.order import Order, Stamps
from llmagent_ros.perception.perception import CLOCK_TOLERANCE, LATE
from llmagent_ros.perception.table import PlacedObject, TableFinder
from llmagent_ros.types import CameraImage, FloatArray, JointState, Scene

Position = NDArray[np.float64]
_DECIMETRES = 10.0  # to a metre; a number with one decimal then tells centimetres
_REACH = 10.0  # dm, about what an arm reaches: scales numbers
_OBJECT_NUMBERS = 4


class ArmPerception:
    """Builds scenes from joint states and images, as the robot contract says; as `Perception` does for a base.

    Objects are said from the tip, in the directions that the contract names: where to go is what the model must know.
    """

    def __init__(self, contract: ArmContract, *, late: float = LATE) -> None:
        self._contract = contract
        self._stamps = Stamps(late)
        self._joints: JointState | None = None
        self._image: CameraImage | None = None
        self._finder = TableFinder(contract.objects, contract.sensors.camera, contract.scene.memory)
        self._image_seen = -math.inf
        self._actions: deque[str] = deque(maxlen=contract.scene.history)
        self._task = ""
        self._parts: dict[str, Callable[[float], str]] = {
            "task": lambda now: say.say_task(self._task),
            "objects": self._say_objects,
            "tool": self._say_tool,
            "joints": self._say_joints,
            "history": lambda now: say.say_history(list(self._actions)),
        }

    def start_episode(self, instruction: str) -> None:
        """A new task: what was done and remembered before does not count."""
        self._task = say.clean_instruction(instruction)
        self._actions.clear()
        self._forget_places()

    def on_joints(self, joints: JointState) -> bool:
        """Whether it was taken; one with a position that is not finite counts as missing. One that does not tell of
        every joint of the contract is not taken."""
        if not set(self._contract.joints) <= set(joints.positions) or not self._in_order("joints", joints.stamp):
            return False
        finite = all(math.isfinite(joints.positions[name]) for name in self._contract.joints)
        self._joints = joints if finite else None
        return True

    def on_image(self, image: CameraImage) -> bool:
        """Whether it was taken; one that is no colour image or has no finite intrinsics counts as missing."""
        if not self._in_order("camera", image.stamp):
            return False
        intrinsics = (image.fx, image.fy, image.cx, image.cy)
        colour = image.rgb.ndim == 3 and image.rgb.shape[-1] == 3 and image.rgb.size > 0
        usable = colour and all(map(math.isfinite, intrinsics)) and image.fx > 0 and image.fy > 0
        self._image = image if usable else None
        return True

    def note_action(self, phrase: str) -> None:
        """The action that was just decided."""
        self._actions.append(phrase)

    def scene(self, now: float) -> Scene:
        """The text of what is known at `now` (s); a part that is stale or missing reads as unknown."""
        said = self.said(now)
        unknown = tuple(part for part, words in said.items() if part != "task" and f" {say.UNKNOWN}" in words)
        stamps = [reading.stamp for reading in (self._joints, self._image) if reading and reading.stamp <= now]
        return Scene(max(stamps, default=now), " ".join(said.values()), self._task, unknown)

    def said(self, now: float) -> dict[str, str]:
        """The words of each part of the scene at `now` (s), in their order."""
        self._look(now)
        return {part: self._parts[part](now) for part in self._contract.scene.parts}

    def numbers(self, now: float) -> FloatArray:
        """The same as numbers within about [-1, 1], for policies that do not read, (size,).

        In this order: for each of `max_objects` objects: known, and from the tip along x, y and z; the tip; the joints
        over pi; for each of the last `history` actions, newest last, one 1 among as many numbers as there are phrases.
        """
        contract, tip = self._contract, self._tip(now)
        found = self._found(now) if tip is not None else None
        names = self._order(found or {})
        values: list[float] = []
        for name in names[: contract.scene.max_objects]:
            thing = (found or {}).get(name)
            away = np.zeros(3) if thing is None or tip is None else _DECIMETRES * (thing.position - tip) / _REACH
            values += [float(thing is not None), *away.tolist()]
        values += [0.0] * (_OBJECT_NUMBERS * contract.scene.max_objects - len(values))
        values += [0.0] * 3 if tip is None else (_DECIMETRES * tip / _REACH).tolist()
        joints = self._fresh_joints(now)
        values += [0.0 if joints is None else joints.positions[name] / math.pi for name in contract.joints]
        done = [""] * (contract.scene.history - len(self._actions)) + list(self._actions)
        values += [float(phrase == each) for each in done for phrase in contract.phrases]
        return np.array(values, np.float32)

    def _in_order(self, sensor: str, stamp: float) -> bool:
        order = self._stamps.take(sensor, stamp)
        if order is Order.BACK:
            self._joints = self._image = None
            self._forget_places()
        return order is not Order.LATE

    def _forget_places(self) -> None:
        self._finder.forget()
        self._image_seen = -math.inf

    def _look(self, now: float) -> None:
        """Lets the finder see each image once."""
        image = self._fresh_image(now)
        if image is not None and image.stamp > self._image_seen:
            self._finder.see(image)
            self._image_seen = image.stamp

    def _found(self, now: float) -> dict[str, PlacedObject] | None:
        """What lies on the table; None where the camera or the arm's own place is not known."""
        known = self._fresh_image(now) is not None and self._fresh_joints(now) is not None
        return self._finder.objects(now) if known else None

    def _order(self, found: Mapping[str, PlacedObject]) -> list[str]:
        """Those that the task names, seen or not, then the others."""
        wanted = [name for name in self._contract.objects if name.lower() in self._task.lower()]
        return wanted + [name for name in found if name not in wanted]

    def _say_objects(self, now: float) -> str:
        found, tip = self._found(now), self._tip(now)
        if found is None or tip is None:
            names = self._order({})
            return " ".join(f"{name} {say.UNKNOWN}." for name in names) or f"objects {say.UNKNOWN}."
        said = []
        for name in self._order(found)[: self._contract.scene.max_objects]:
            thing = found.get(name)
            if thing is None:
                said.append(f"{name} not seen.")
            else:
                before = " before" if thing.age > 0 else ""
                said.append(f"{name} {say_place(thing.position - tip, self._contract.scene.directions)}{before}.")
        return " ".join(said) if said else "no object."

    def _say_tool(self, now: float) -> str:
        tip = self._tip(now)
        return f"tool {say.UNKNOWN if tip is None else say_place(tip, self._contract.scene.directions)}."

    def _say_joints(self, now: float) -> str:
        joints = self._fresh_joints(now)
        if joints is None:
            return f"joints {say.UNKNOWN}."
        said = (f"{name} {say.say_signed(joints.positions[name])}" for name in self._contract.joints)
        return f"joints {' '.join(said)}."

    def _tip(self, now: float) -> Position | None:
        joints = self._fresh_joints(now)
        return None if joints is None else self._contract.tip(joints.positions)

    def _fresh_joints(self, now: float) -> JointState | None:
        timeout = self._contract.sensors.joints.timeout
        return self._joints if self._joints is not None and _fresh(self._joints.stamp, now, timeout) else None

    def _fresh_image(self, now: float) -> CameraImage | None:
        camera = self._contract.sensors.camera
        fresh = camera is not None and self._image is not None and _fresh(self._image.stamp, now, camera.timeout)
        return self._image if fresh else None


def say_place(metres: Position, directions: Sequence[str]) -> str:
    """A vector in the base frame as "forward 0.3 left 1.2 down 0.5", decimetres. directions: see `ArmSceneFormat`."""
    said = []
    for axis, value in enumerate(metres):
        rounded = round(float(value) * _DECIMETRES, 1)
        said.append(f"{directions[2 * axis + (rounded < 0)]} {abs(rounded):.1f}")
    return " ".join(said)


def _fresh(stamp: float, now: float, timeout: float) -> bool:
    return math.isfinite(stamp) and -CLOCK_TOLERANCE <= now - stamp <= timeout
