"""The PyBullet side of an arm: its joints, the table, what lies on it, and the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmagent_ros.contract import ArmContract, ObjectAppearance
from llmagent_ros.contract.kinematics import rotation, urdf_path
from llmagent_ros.simulation.arm.table import FLAT, Table
from llmagent_ros.simulation.physics import COLOURS, PHYSICS_RATE
from llmagent_ros.simulation.quiet import quiet
from llmagent_ros.types import CameraImage, JointState, JointTarget

with quiet():  # it prints when it was built
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

_GREY, _TABLE_COLOUR = (0.55, 0.55, 0.55, 1.0), (0.75, 0.75, 0.72, 1.0)
_MASS, _FRICTION = 0.1, 0.5  # kg, Coulomb's coefficient, of what lies on the table
_EFFORT = 40.0  # N m, of a joint without a limit
_NEAR, _FAR = 0.05, 5.0  # m, what the camera sees


@dataclass(frozen=True)
class ArmReadings:
    """What the arm's sensors say at one time."""

    joints: JointState
    image: CameraImage


class ArmPhysics:
    """One arm at one table at a time; its base is at the world's origin, the table's top is at z = 0.

    Args:
        gui: opens PyBullet's window; needs a display.
    """

    def __init__(self, contract: ArmContract, *, gui: bool = False) -> None:
        self._contract = contract
        with quiet():
            self._bullet: Any = BulletClient(connection_mode=pybullet.GUI if gui else pybullet.DIRECT)
        self._arm = self._table = -1
        self._joints: dict[str, int] = {}
        self._efforts: dict[str, float] = {}
        self._setpoint: dict[str, float] = {}
        self._bodies: dict[str, int] = {}
        camera = contract.simulation
        self._focal = camera.image_width / 2 / math.tan(math.radians(camera.horizontal_fov) / 2)
        self._look = self._camera_matrices()

    def load(self, table: Table) -> None:
        """Empties the simulator and builds a table, with the arm at its start."""
        bullet = self._bullet
        bullet.resetSimulation()
        bullet.setTimeStep(1.0 / PHYSICS_RATE)
        bullet.setGravity(0, 0, -9.81)
        self._table = bullet.createMultiBody(0, bullet.createCollisionShape(pybullet.GEOM_PLANE))
        bullet.changeDynamics(self._table, -1, lateralFriction=1.0)
        bullet.changeVisualShape(self._table, -1, rgbaColor=_TABLE_COLOUR)
        self._bodies = {
            name: self._object(name, self._contract.objects[name], place) for name, place in table.places.items()
        }
        self._arm = bullet.loadURDF(str(urdf_path(self._contract.arm.urdf)), useFixedBase=True)
        infos = [bullet.getJointInfo(self._arm, number) for number in range(bullet.getNumJoints(self._arm))]
        self._joints = {info[1].decode(): info[0] for info in infos}
        self._efforts = {info[1].decode(): info[10] or _EFFORT for info in infos}
        self._setpoint = dict(table.start)
        for name, position in table.start.items():
            bullet.resetJointState(self._arm, self._joints[name], position)
        self.drive(JointTarget(), 0.1)  # what lies there comes to rest

    def drive(self, target: JointTarget, duration: float) -> bool:
        """Brings the joints to a target evenly, in its duration, and holds them; True as soon as the arm has touched
        the table. duration: s that pass."""
        start, end = dict(self._setpoint), dict(self._setpoint)
        end.update(zip(target.joints, target.positions, strict=True))
        lasts = max(target.duration, 1.0 / PHYSICS_RATE)
        for step in range(round(duration * PHYSICS_RATE)):
            share = min(1.0, (step + 1) / PHYSICS_RATE / lasts)
            self._setpoint = {name: at + share * (end[name] - at) for name, at in start.items()}
            self._control()
            self._bullet.stepSimulation()
            if step % 8 == 7 and self.touching():
                return True
        return self.touching()

    def touching(self) -> bool:
        """Whether a moving part of the arm touches the table."""
        contacts = self._bullet.getContactPoints(bodyA=self._arm, bodyB=self._table)
        return any(point[3] >= 0 for point in contacts)  # the base stands on it

    def joints(self) -> dict[str, float]:
        """Joint positions, rad."""
        numbers = [self._joints[name] for name in self._contract.joints]
        states = self._bullet.getJointStates(self._arm, numbers)
        return {name: float(state[0]) for name, state in zip(self._contract.joints, states, strict=True)}

    def position(self, name: str) -> np.ndarray | None:
        """Where the middle of a named thing is, m, (3,); None if it is not here. For rewards and tests only."""
        if name not in self._bodies:
            return None
        return np.array(self._bullet.getBasePositionAndOrientation(self._bodies[name])[0])

    def read(self, stamp: float) -> ArmReadings:
        """All sensors now."""
        return ArmReadings(JointState(stamp, self.joints()), self._image(stamp))

    def close(self) -> None:
        """Disconnects from the physics server; a second call does nothing."""
        if self._bullet.isConnected():
            self._bullet.disconnect()

    def _control(self) -> None:
        names = list(self._setpoint)
        self._bullet.setJointMotorControlArray(
            self._arm,
            [self._joints[name] for name in names],
            pybullet.POSITION_CONTROL,
            targetPositions=[self._setpoint[name] for name in names],
            positionGains=[0.3] * len(names),
            forces=[self._efforts[name] for name in names],
        )

    def _object(self, name: str, look: ObjectAppearance, place: tuple[float, float]) -> int:
        """A cube, a ball or a cylinder, as its name says; a mark is a picture on the table."""
        bullet, height = self._bullet, look.height
        colour = next((rgba for word, rgba in COLOURS.items() if word in name), _GREY)
        kind: int = pybullet.GEOM_CYLINDER
        shape: dict[str, Any] = {"radius": look.radius, "height": height}
        if "ball" in name:
            kind, shape, height = pybullet.GEOM_SPHERE, {"radius": look.radius}, 2 * look.radius
        elif "cube" in name or "box" in name:
            kind, shape = pybullet.GEOM_BOX, {"halfExtents": (look.radius, look.radius, height / 2)}
        visual_shape = {("length" if key == "height" else key): value for key, value in shape.items()}
        visual = bullet.createVisualShape(kind, rgbaColor=colour, **visual_shape)
        middle = (*place, height / 2)
        if look.height < FLAT:
            return int(bullet.createMultiBody(0, -1, visual, middle))
        body = int(bullet.createMultiBody(_MASS, bullet.createCollisionShape(kind, **shape), visual, middle))
        bullet.changeDynamics(body, -1, lateralFriction=_FRICTION, rollingFriction=0.001, spinningFriction=0.001)
        return body

    def _camera_matrices(self) -> tuple[Any, Any] | None:
        camera, form = self._contract.sensors.camera, self._contract.simulation
        if camera is None:
            return None
        turn = rotation(np.radians(camera.orientation))
        eye = np.array(camera.position)
        vertical = math.degrees(2 * math.atan(form.image_height / 2 / self._focal))
        aspect = form.image_width / form.image_height
        return (
            pybullet.computeViewMatrix(eye.tolist(), (eye + turn[:, 2]).tolist(), (-turn[:, 1]).tolist()),
            pybullet.computeProjectionMatrixFOV(vertical, aspect, _NEAR, _FAR),
        )

    def _image(self, stamp: float) -> CameraImage:
        width, height = self._contract.simulation.image_width, self._contract.simulation.image_height
        if self._look is None:
            black = np.zeros((height, width, 3), np.uint8)
            return CameraImage(stamp, black, self._focal, self._focal, width / 2, height / 2)
        _, _, rgba, _, _ = self._bullet.getCameraImage(
            width,
            height,
            *self._look,
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            shadow=0,
        )
        rgb = np.ascontiguousarray(np.asarray(rgba, np.uint8).reshape(height, width, 4)[..., :3])
        return CameraImage(stamp, rgb, self._focal, self._focal, width / 2, height / 2)
