"""The PyBullet side: bodies, wheels, laser scanner, camera and wheel odometry of one robot in one world."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import MobileContract
from llmagent_ros.simulation.body import LEFT, RIGHT, body_of
from llmagent_ros.simulation.quiet import quiet
from llmagent_ros.simulation.variation import Variation
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import CameraImage, LaserScan, Odometry, Velocity

with quiet():  # it prints when it was built
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

PHYSICS_RATE = 240.0  # Hz, Bullet's recommended step for wheeled contact
_WALL_HEIGHT, _WALL_THICKNESS = 0.6, 0.1
_GREY, _WALL_COLOUR = (0.55, 0.55, 0.55, 1.0), (0.75, 0.75, 0.72, 1.0)
COLOURS = {
    "red": (0.9, 0.08, 0.08, 1.0),
    "yellow": (0.9, 0.85, 0.05, 1.0),
    "green": (0.08, 0.75, 0.08, 1.0),
    "blue": (0.1, 0.2, 0.9, 1.0),
}


@dataclass(frozen=True)
class Readings:
    """What the robot's sensors say at one time."""

    scan: LaserScan
    odometry: Odometry
    image: CameraImage


class Physics:
    """One robot in one world at a time.

    Args:
        gui: opens PyBullet's window; needs a display.
    """

    def __init__(self, contract: MobileContract, *, gui: bool = False) -> None:
        self._contract = contract
        self._sensors = contract.simulation
        self._body_model = body_of(contract)
        self._noise = np.random.default_rng(0)
        with quiet():
            self._bullet: Any = BulletClient(connection_mode=pybullet.GUI if gui else pybullet.DIRECT)
        self._robot = -1
        self._wheels = (0, 1)
        self._centre_of_mass = (0.0, 0.0)  # in the base frame, m
        self._variation = Variation()
        self._bodies: dict[str, tuple[int, Body]] = {}
        self._solid: list[int] = []
        self._odometry = np.zeros(3)  # x, y, yaw as the wheels count them
        self._wheel_angles = np.zeros(2)
        fov = math.radians(self._sensors.horizontal_fov)
        camera = contract.sensors.camera
        self._camera_yaw = 0.0 if camera is None else camera.yaw  # degrees
        self._focal = self._sensors.image_width / 2 / math.tan(fov / 2)
        bearings = self._bearings()
        self._first_bearing, self._bearing_step = float(bearings[0]), _step(bearings, self._sensors.field_of_view)
        self._ray_directions = np.stack([np.cos(bearings), np.sin(bearings)], axis=1)

    def load(self, config: WorldConfig, world: World, variation: Variation | None = None) -> None:
        """Empties the simulator and builds `world` with the robot, as varied, at its start."""
        bullet = self._bullet
        self._variation = variation or Variation()
        self._noise = np.random.default_rng(round(1e6 * abs(world.start[0])))  # the same in the same world
        bullet.resetSimulation()
        bullet.setTimeStep(1.0 / PHYSICS_RATE)
        bullet.setGravity(0, 0, -9.81)
        plane = bullet.createCollisionShape(pybullet.GEOM_PLANE)
        floor = bullet.createMultiBody(0, plane)
        bullet.changeDynamics(floor, -1, lateralFriction=1.0)
        self._solid = [self._wall(config, side) for side in range(4)]
        self._solid += [self._cylinder(b, config.obstacles.height, _GREY) for b in world.obstacles]
        self._bodies = {body.name: (self._object(body), body) for body in world.objects}
        self._spawn_robot(world.start)

    def drive(self, command: Velocity, duration: float) -> bool:
        """Holds a velocity command for `duration` s; True as soon as the robot has hit something."""
        body = self._body_model
        left = (command.linear - command.angular * body.wheel_separation / 2) / body.wheel_radius
        right = (command.linear + command.angular * body.wheel_separation / 2) / body.wheel_radius
        if self._variation.length != 1.0:  # else to the bit as told
            left, right = self._less_apart(left, right)
        left, right = self._variation.wheels(left, right)
        self._bullet.setJointMotorControlArray(
            self._robot,
            self._wheels,
            pybullet.VELOCITY_CONTROL,
            targetVelocities=[left, right],
            forces=[body.torque] * 2,
        )
        for step in range(round(duration * PHYSICS_RATE)):
            self._bullet.stepSimulation()
            if step % 8 == 7:
                self._integrate_odometry()
                if self.touching():
                    return True
        self._integrate_odometry()
        return self.touching()

    def _less_apart(self, left: float, right: float) -> tuple[float, float]:
        """Wheel speeds that turn this body as those given turn one whose wheels are further apart."""
        mean, half = (left + right) / 2, (right - left) / 2 / self._variation.length
        return mean - half, mean + half

    def touching(self) -> bool:
        """Whether the robot touches a wall, an obstacle or an object."""
        others = {*self._solid, *(body for body, _ in self._bodies.values())}
        return any(point[2] in others for point in self._bullet.getContactPoints(bodyA=self._robot))

    def gap(self, name: str) -> float | None:
        """True distance from the robot's edge to the surface of a named object, m; None if it is not here."""
        if name not in self._bodies:
            return None
        body = self._bodies[name][1]
        x, y, _ = self.pose()
        return math.hypot(body.x - x, body.y - y) - body.radius - self._contract.footprint_radius

    def bearing(self, name: str) -> float | None:
        """True bearing of a named object's centre, rad in [-pi, pi], left positive; None if it is not here."""
        if name not in self._bodies:
            return None
        body = self._bodies[name][1]
        x, y, yaw = self.pose()
        return math.remainder(math.atan2(body.y - y, body.x - x) - yaw, math.tau)

    def pose(self) -> tuple[float, float, float]:
        """True pose: x, y in m and yaw in rad. For rewards and tests, never for perception."""
        (x, y, _), orientation = self._bullet.getBasePositionAndOrientation(self._robot)
        yaw = self._bullet.getEulerFromQuaternion(orientation)[2]
        ahead, left = self._centre_of_mass  # which is what Bullet tells the position of
        return (
            x - (ahead * math.cos(yaw) - left * math.sin(yaw)),
            y - (ahead * math.sin(yaw) + left * math.cos(yaw)),
            yaw,
        )

    def read(self, stamp: float) -> Readings:
        """All sensors now."""
        return Readings(self._scan(stamp), self._read_odometry(stamp), self._image(stamp))

    def close(self) -> None:
        """Disconnects from the physics server; a second call does nothing."""
        if self._bullet.isConnected():
            self._bullet.disconnect()

    def _scan(self, stamp: float) -> LaserScan:
        x, y, yaw = self.pose()
        body = self._body_model
        forward, left = body.scan_forward, body.scan_left
        origin = (
            x + forward * math.cos(yaw) - left * math.sin(yaw),
            y + forward * math.sin(yaw) + left * math.cos(yaw),
            body.scan_up,
        )
        yaw += body.scan_yaw
        turn = np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]])
        directions = self._ray_directions @ turn
        start = np.full((self._sensors.rays, 3), origin)
        end = start.copy()
        end[:, :2] += directions * self._sensors.range_max
        hits = self._bullet.rayTestBatch(start.tolist(), end.tolist())
        fraction = np.array([hit[2] for hit in hits])
        missed = np.array([hit[0] < 0 for hit in hits])
        measured = fraction * self._sensors.range_max
        if self._sensors.scan_noise:
            measured = np.maximum(measured + self._noise.normal(0.0, self._sensors.scan_noise, len(measured)), 0.0)
        ranges = np.where(missed, np.inf, measured).astype(np.float32)
        return LaserScan(
            stamp, self._first_bearing, self._bearing_step, ranges, 0.05, self._sensors.range_max
        )

    def _bearings(self) -> NDArray[np.float64]:
        """Bearing of each ray, rad, (rays,), counter-clockwise."""
        rays, view = self._sensors.rays, self._sensors.field_of_view
        if view == 360.0:
            return np.arange(rays) * 2 * math.pi / rays - math.pi
        return np.radians(np.linspace(-view / 2, view / 2, rays))

    def _image(self, stamp: float) -> CameraImage:
        x, y, yaw = self.pose()
        width, height = self._sensors.image_width, self._sensors.image_height
        forward, up = self._body_model.camera_forward, self._body_model.camera_up
        eye = (x + forward * math.cos(yaw), y + forward * math.sin(yaw), up)
        yaw += math.radians(self._camera_yaw + self._variation.camera_turned)
        ahead = (eye[0] + math.cos(yaw), eye[1] + math.sin(yaw), up)
        vertical_fov = math.degrees(2 * math.atan(height / 2 / self._focal))
        _, _, rgba, _, _ = self._bullet.getCameraImage(
            width,
            height,
            self._bullet.computeViewMatrix(eye, ahead, (0, 0, 1)),
            self._bullet.computeProjectionMatrixFOV(vertical_fov, width / height, 0.03, 12.0),
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            shadow=0,
        )
        rgb = np.ascontiguousarray(np.asarray(rgba, np.uint8).reshape(height, width, 4)[..., :3])
        return CameraImage(stamp, rgb, self._focal, self._focal, width / 2, height / 2)

    def _read_odometry(self, stamp: float) -> Odometry:
        rates = np.array([self._bullet.getJointState(self._robot, wheel)[1] for wheel in self._wheels])
        body = self._body_model
        linear = body.wheel_radius * float(rates.sum()) / 2
        angular = self._variation.length * body.wheel_radius * float(rates[1] - rates[0]) / body.wheel_separation
        x, y, yaw = self._odometry.tolist()
        return Odometry(stamp, x, y, math.atan2(math.sin(yaw), math.cos(yaw)), linear, angular)

    def _integrate_odometry(self) -> None:
        """Dead reckoning from the wheel angles, as a real base does it; slip makes it drift."""
        angles = np.array([self._bullet.getJointState(self._robot, wheel)[0] for wheel in self._wheels])
        left, right = (angles - self._wheel_angles) * self._body_model.wheel_radius
        self._wheel_angles = angles
        distance = (left + right) / 2
        turned = self._variation.length * (right - left) / self._body_model.wheel_separation  # as it reckons
        heading = self._odometry[2] + turned / 2
        self._odometry += (distance * math.cos(heading), distance * math.sin(heading), turned)

    def _spawn_robot(self, start: tuple[float, float, float]) -> None:
        bullet = self._bullet
        orientation = bullet.getQuaternionFromEuler((0, 0, start[2]))
        place = (start[0], start[1], 0.002)
        model = self._body_model
        self._robot = bullet.loadURDF(str(model.urdf), place, orientation, globalScaling=model.scale)
        links = {
            bullet.getJointInfo(self._robot, j)[1].decode(): j for j in range(bullet.getNumJoints(self._robot))
        }
        self._wheels = (links[LEFT], links[RIGHT])
        for name, joint in links.items():
            friction = self._variation.friction if "wheel" in name else 0.0
            bullet.changeDynamics(self._robot, joint, lateralFriction=friction)
        bullet.changeDynamics(self._robot, -1, lateralFriction=0.0)
        self._centre_of_mass = tuple(bullet.getDynamicsInfo(self._robot, -1)[3][:2])
        if self._variation.load != 1.0:  # Bullet makes the inertia anew from the shape when it is given a mass
            mass = self._variation.load * bullet.getDynamicsInfo(self._robot, -1)[0]
            bullet.changeDynamics(self._robot, -1, mass=mass)
        self._odometry = np.array(start, dtype=float)
        self._wheel_angles = np.array([bullet.getJointState(self._robot, wheel)[0] for wheel in self._wheels])
        self.drive(Velocity(), 0.1)  # settle on the wheels

    def _wall(self, config: WorldConfig, side: int) -> int:
        width, depth = config.size
        along_x = side < 2
        half = (width / 2 + _WALL_THICKNESS, _WALL_THICKNESS / 2) if along_x else (_WALL_THICKNESS / 2, depth / 2)
        sign = 1 if side % 2 == 0 else -1
        offset = _WALL_THICKNESS / 2
        centre = (0.0, sign * (depth / 2 + offset)) if along_x else (sign * (width / 2 + offset), 0.0)
        extents = (*half, _WALL_HEIGHT / 2)
        return self._body(pybullet.GEOM_BOX, {"halfExtents": extents}, (*centre, _WALL_HEIGHT / 2), _WALL_COLOUR)

    def _cylinder(self, body: Body, height: float, colour: tuple[float, ...]) -> int:
        shape = {"radius": body.radius, "height": height}
        return self._body(pybullet.GEOM_CYLINDER, shape, (body.x, body.y, height / 2), colour)

    def _object(self, body: Body) -> int:
        height = self._contract.objects[body.name].height
        colour = next((rgba for word, rgba in COLOURS.items() if word in body.name), _GREY)
        if "ball" in body.name:
            centre = (body.x, body.y, body.radius)
            return self._body(pybullet.GEOM_SPHERE, {"radius": body.radius}, centre, colour)
        if "box" in body.name:
            # the circle that the placement uses touches the middle of the sides
            extents = (body.radius, body.radius, height / 2)
            return self._body(pybullet.GEOM_BOX, {"halfExtents": extents}, (body.x, body.y, height / 2), colour)
        return self._cylinder(body, height, colour)

    def _body(self, kind: int, shape: dict[str, Any], centre: tuple[float, ...], colour: tuple[float, ...]) -> int:
        collision = self._bullet.createCollisionShape(kind, **shape)
        visual_shape = {("length" if key == "height" else key): value for key, value in shape.items()}
        visual = self._bullet.createVisualShape(kind, rgbaColor=colour, **visual_shape)
        return int(self._bullet.createMultiBody(0, collision, visual, centre))


def _step(bearings: NDArray[np.float64], field_of_view: float) -> float:
    """rad between two rays."""
    rays = len(bearings)
    return 2 * math.pi / rays if field_of_view == 360.0 else math.radians(field_of_view) / (rays - 1)
