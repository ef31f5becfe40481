"""Forward and inverse kinematics of the serial chain of a URDF, for arms.

Only what end-effector steps need: the pose of the tip, its Jacobian, and joint positions near the present ones that
move it. Of the libraries, Pinocchio (C++, 100 MB) does far more, and ikpy needs SymPy and gives no Jacobian.
"""

from __future__ import annotations

import functools
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmagent_ros import config
from llmagent_ros.errors import ConfigError, UnknownNameError

Array = NDArray[np.float64]
_MOVING = {"revolute", "continuous", "prismatic"}
_ITERATIONS = 30
_POSITION_TOLERANCE, _DIRECTION_TOLERANCE = 1e-4, 1e-3  # m; sine of the angle
_DAMPING = 0.005  # m and rad alike: keeps steps small near singular configurations
_DIRECTION_WEIGHT = 0.2  # m per rad: position goes before direction
_LARGEST_STEP, _SMALLEST_STEP = 0.3, 1e-6  # rad or m in one iteration; below, nothing gets better


@dataclass(frozen=True)
class Joint:
    """A joint of a URDF: origin, (4, 4), in its parent's frame; axis, (3,), a unit vector in its own.

    lower, upper: rad or m, as the URDF says; infinite without limits.
    """

    name: str
    kind: str
    parent: str
    child: str
    origin: Array
    axis: Array
    lower: float
    upper: float

    @property
    def moves(self) -> bool:
        return self.kind in _MOVING


class Chain:
    """The joints from a base link to a tip link, in that order.

    Attributes:
        names: of the joints that move. joints: the same with all that the URDF says.
    """

    def __init__(self, joints: Sequence[Joint]) -> None:
        self._all = tuple(joints)
        self.joints = tuple(joint for joint in joints if joint.moves)
        self.names = tuple(joint.name for joint in self.joints)

    def pose(self, positions: Mapping[str, float]) -> Array:
        """The tip's frame in the base's, (4, 4). positions: of every joint in `names`, rad or m."""
        return self._frames([positions[name] for name in self.names])[-1]

    def solve(
        self,
        start: Mapping[str, float],
        point: Array,
        limits: Mapping[str, tuple[float, float]],
        approach: Array | None = None,
    ) -> dict[str, float]:
        """Joint positions that bring the tip to a point, by damped least squares from `start` (Wampler 1986):

            dq = J^T (J J^T + damping^2 I)^-1 e

        Where the point is out of reach, those that bring it near.

        Args:
            point: in the base frame, m, (3,). limits: lower and upper of each joint.
            approach: where the tip's z axis is to point in the base frame, a unit vector, (3,); None: anywhere.
        """
        q = np.array([start[name] for name in self.names])
        lower, upper = (np.array([limits[name][side] for name in self.names]) for side in (0, 1))
        for _ in range(_ITERATIONS):
            frames = self._frames(q)
            tip = frames[-1]
            error, jacobian = point - tip[:3, 3], self._jacobian(frames)
            turn = np.zeros(3) if approach is None else np.cross(tip[:3, 2], approach)
            if np.linalg.norm(error) < _POSITION_TOLERANCE and np.linalg.norm(turn) < _DIRECTION_TOLERANCE:
                break
            if approach is None:
                jacobian = jacobian[:3]
            else:
                error = np.concatenate([error, _DIRECTION_WEIGHT * turn])
                tilting = np.eye(3) - np.outer(tip[:3, 2], tip[:3, 2])  # turning about the axis itself changes nothing
                jacobian = np.concatenate([jacobian[:3], _DIRECTION_WEIGHT * tilting @ jacobian[3:]])
            square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(len(jacobian))
            step = jacobian.T @ np.linalg.solve(square, error)
            before, most = q, max(float(np.abs(step).max()), 1e-12)
            q = np.clip(q + step * min(1.0, _LARGEST_STEP / most), lower, upper)
            if np.abs(q - before).max() < _SMALLEST_STEP:
                break
        return dict(zip(self.names, q.tolist(), strict=True))

    def _frames(self, q: Sequence[float] | Array) -> list[Array]:
        """The frame of each joint that moves, after its motion, then the tip's, each (4, 4)."""
        frame, frames, values = np.eye(4), [], iter(q)
        for joint in self._all:
            frame = frame @ joint.origin
            if joint.moves:
                frame = frame @ _motion(joint, float(next(values)))
                frames.append(frame)
        return [*frames, frame]

    def _jacobian(self, frames: list[Array]) -> Array:
        """Velocity and angular velocity of the tip by each joint's velocity, (6, joints)."""
        tip = frames[-1][:3, 3]
        columns = []
        for joint, frame in zip(self.joints, frames, strict=False):
            axis = frame[:3, :3] @ joint.axis
            turning = joint.kind != "prismatic"
            linear = np.cross(axis, tip - frame[:3, 3]) if turning else axis
            columns.append(np.concatenate([linear, axis if turning else np.zeros(3)]))
        return np.array(columns).T


def urdf_path(name: str) -> Path:
    """A file of sim/urdf, or a path.

    Raises:
        UnknownNameError: neither.
    """
    own = Path(name).expanduser()
    if own.suffix == ".urdf" and own.is_file():
        return own
    shipped = {path.name: path for path in (config.share_dir() / "sim" / "urdf").glob("*.urdf")}
    if name not in shipped:
        raise UnknownNameError("URDF", name, shipped)
    return shipped[name]


@functools.cache
def load_chain(urdf: str, base: str, tip: str) -> Chain:
    """The chain of a URDF (a file of sim/urdf, or a path).

    Raises:
        ConfigError: it cannot be read, or has no such links, or the tip does not hang on the base.
    """
    path = urdf_path(urdf)
    joints = read_joints(path)
    links = {link for joint in joints for link in (joint.parent, joint.child)}
    for link in (base, tip):
        if link not in links:
            raise UnknownNameError(f"link of {path.name}", link, links)
    above = {joint.child: joint for joint in joints}
    chain: list[Joint] = []
    link = tip
    while link != base:
        if link not in above:
            raise ConfigError(f"{path}: link {tip!r} does not hang on {base!r}")
        chain.insert(0, above[link])
        link = above[link].parent
    return Chain(chain)


def read_joints(path: Path) -> list[Joint]:
    """All joints of a URDF.

    Raises:
        ConfigError: it is not XML, or a number in it is none.
    """
    try:
        root = ET.parse(path).getroot()
        return [_read_joint(element) for element in root.findall("joint")]
    except (OSError, ET.ParseError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: not a URDF that can be read: {error}") from error


def _read_joint(element: ET.Element) -> Joint:
    origin, axis, limit = element.find("origin"), element.find("axis"), element.find("limit")
    place = _numbers(origin, "xyz", "0 0 0"), _numbers(origin, "rpy", "0 0 0")
    direction = _numbers(axis, "xyz", "1 0 0")
    parent, child = element.find("parent"), element.find("child")
    if parent is None or child is None:
        raise ValueError(f"joint {element.attrib['name']!r} lacks a parent or a child")
    bounded = element.attrib["type"] in {"revolute", "prismatic"} and limit is not None
    bounds = (float(limit.get("lower", 0)), float(limit.get("upper", 0))) if bounded and limit is not None else None
    return Joint(
        *(element.attrib["name"], element.attrib["type"], parent.attrib["link"], child.attrib["link"]),
        *(_transform(*place), direction / np.linalg.norm(direction)),
        *(bounds or (-math.inf, math.inf)),
    )


def _numbers(element: ET.Element | None, key: str, default: str) -> Array:
    values = np.array([float(word) for word in (default if element is None else element.get(key, default)).split()])
    if values.shape != (3,):
        raise ValueError(f"{key}: three numbers are needed")
    return values


def rotation(rpy: Sequence[float] | Array) -> Array:
    """Rz(yaw) Ry(pitch) Rx(roll), (3, 3), as URDF and REP-103 order them, rad."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def _transform(xyz: Array, rpy: Array) -> Array:
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = rotation(rpy), xyz
    return frame


def _motion(joint: Joint, value: float) -> Array:
    frame = np.eye(4)
    if joint.kind == "prismatic":
        frame[:3, 3] = joint.axis * value
        return frame
    k = _across(joint.axis)  # Rodrigues' formula
    frame[:3, :3] = np.eye(3) + math.sin(value) * k + (1 - math.cos(value)) * (k @ k)
    return frame


def _across(axis: Array) -> Array:
    """The matrix of the cross product with a vector, (3, 3)."""
    x, y, z = axis
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
