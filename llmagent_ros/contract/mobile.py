"""The contract of a base that drives in the plane."""

from __future__ import annotations

import cmath
import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros.contract.footprint import Polygon, circle
from llmagent_ros.contract.robot import RobotContract, SimulatedCamera
from llmagent_ros.contract.topics import (
    CommandQos,
    Sensor,
    TopicSpec,
    camera_specs,
    read_spec,
    refuse_shared_topics,
)
from llmagent_ros.contract.values import (
    NAMED,
    STRICT,
    Angle,
    Finite,
    Frame,
    NotNegative,
    Phrase,
    Positive,
    Topic,
    Words,
)
from llmagent_ros.geometry import Mount
from llmagent_ros.types import Velocity

ScenePart = Literal["task", "objects", "scan", "free", "motion", "history"]
SCENE_PARTS: tuple[ScenePart, ...] = ("task", "objects", "scan", "free", "motion", "history")
VelocityType = Literal["TwistStamped", "Twist"]
_SLOWEST = 0.25  # of a phrase's speed, at which a velocity is still said by it
_ACROSS = 1.57  # rad, as an angle between ways, from which on they are not alike at all
_ROUNDING = 1e-3  # m by which a footprint may stick out of its circle


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ScanSensor(Sensor):
    """The laser scanner, see `Sensor`.

    Attributes:
        x, y: where its centre is in the base frame, m. yaw: direction of its zero, degrees, counter-clockwise.
    """

    topic: Topic = "scan"
    x: Finite = 0.0
    y: Finite = 0.0
    yaw: Angle = 0.0

    @property
    def mount(self) -> Mount:
        """Where it stands."""
        return Mount(self.x, self.y, self.yaw)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class OdometrySensor(Sensor):
    """Wheel odometry, see `Sensor`."""

    topic: Topic = "odom"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CameraSensor(Sensor):
    """A forward camera, see `Sensor`.

    Attributes:
        x: its distance ahead of the base centre, m. yaw: of its axis, degrees.
        required: whether the robot cannot work without it; else objects read as unknown while it is not there.
    """

    topic: Topic = "camera/image_raw"
    info_topic: Topic = "camera/camera_info"
    x: Finite = 0.0
    yaw: Angle = 0.0
    required: bool = True


@dataclass(config=STRICT, frozen=True)
class Sensors:
    """The sensors that the robot has; a robot without a camera says `camera: null`."""

    scan: ScanSensor = Field(default_factory=ScanSensor)
    odom: OdometrySensor = Field(default_factory=OdometrySensor)
    camera: CameraSensor | None = Field(default_factory=CameraSensor)

    @model_validator(mode="after")
    def _own_topics(self) -> Sensors:
        topics = {"scan.topic": self.scan.topic, "odom.topic": self.odom.topic}
        if self.camera is not None:
            topics |= {"camera.topic": self.camera.topic, "camera.info_topic": self.camera.info_topic}
        refuse_shared_topics(topics.items())
        return self


@dataclass(config=STRICT, frozen=True)
class FullSpeed:
    """What a robot's full speed reads as, forwards and turning: the m/s and rad/s of `sim_diffdrive`."""

    linear: Positive = 0.5
    angular: Positive = 1.3


@dataclass(config=STRICT, frozen=True)
class SceneFormat:
    """What the text says and how it is rounded.

    Attributes:
        parts: in this order, from `SCENE_PARTS`.
        sectors: name to (from, to) bearing in degrees, counter-clockwise; from > to wraps through 180.
        max_clearance: m; beyond it a sector or object reads as this distance.
        lookahead: m; how much of the way of a phrase is looked at for its free distance.
        bearing_step: degrees, bearings are rounded to it.
        history: how many of the last actions are said.
        effects: whether each of them is said with the motion that came of it.
        full_speed: what the fastest phrase reads as; all speeds are said on this scale, so that a policy reads the
            motions of a slow robot as those of a fast one. None: m/s and rad/s.
        max_objects: how many objects are said; those that the task names come first, then the nearest.
        memory: s for which an object out of view is remembered by odometry, and how long a look there counts.
        search: whether of an object that the task names and that is not seen is said where the camera has not looked.
    """

    sectors: Annotated[dict[Words, tuple[Angle, Angle]], Field(min_length=1)]
    parts: Annotated[tuple[ScenePart, ...], Field(min_length=1)] = SCENE_PARTS
    max_clearance: Positive = 5.0
    lookahead: Annotated[Positive, Field(le=20)] = 2.0
    bearing_step: Annotated[Positive, Field(le=180)] = 10.0
    history: Annotated[int, Field(ge=0, le=16)] = 3
    effects: bool = False
    full_speed: FullSpeed | None = Field(default_factory=FullSpeed)
    max_objects: Annotated[int, Field(ge=0, le=16)] = 2
    memory: NotNegative = 30.0
    search: bool = False

    @field_validator("parts")
    @classmethod
    def _each_once(cls, parts: tuple[ScenePart, ...]) -> tuple[ScenePart, ...]:
        refuse_repeated(parts, SCENE_PARTS)
        return parts


def refuse_repeated(parts: tuple[str, ...], valid: tuple[str, ...]) -> None:
    """Raises ValueError where a scene part stands twice."""
    repeated = sorted({part for part in parts if parts.count(part) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands there twice; valid: each of {', '.join(valid)} once")


@dataclass(config=STRICT, frozen=True)
class ActionCommand:
    """The velocity an action phrase becomes: linear m/s, angular rad/s, held for one control period."""

    linear: Finite = 0.0
    angular: Finite = 0.0


@dataclass(config=STRICT, frozen=True)
class Limits:
    """What the guard lets through: m/s, rad/s, m/s^2, rad/s^2; of speeding up m/s^3, rad/s^3, None: any."""

    linear: Positive
    angular: Positive
    linear_acceleration: Positive
    angular_acceleration: Positive
    linear_jerk: Positive | None = None
    angular_jerk: Positive | None = None


@dataclass(config=STRICT, frozen=True)
class Frames:
    """REP-105 frame names. base: also the child frame of the odometry."""

    base: Frame = "base_link"
    odom: Frame = "odom"
    scan: Frame = "base_scan"
    camera: Frame = "camera_link"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VelocityCommand:
    """What the driver takes: geometry_msgs messages of this type on this topic."""

    type: VelocityType = "TwistStamped"
    topic: Topic = "cmd_vel"
    qos: CommandQos = Field(default_factory=CommandQos)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SimulatedSensors(SimulatedCamera):
    """What the simulator gives the robot.

    Attributes:
        urdf: its body, a file of sim/urdf or a path; empty: diffdrive.urdf, scaled to the footprint_radius.
        rays: of the scan, equally spaced over its field_of_view. range_max: of the scanner, m. scan_noise: standard
            deviation of a range, m. field_of_view: degrees about straight ahead; 360: all around.
    """

    urdf: str = ""
    rays: Annotated[int, Field(ge=8, le=2000)] = 180
    range_max: Annotated[Positive, Field(le=50)] = 5.0
    scan_noise: NotNegative = 0.0
    field_of_view: Annotated[Positive, Field(le=360)] = 360.0


@dataclass(config=NAMED, frozen=True, kw_only=True)
class MobileContract(RobotContract):
    """A base that drives in the plane.

    Attributes:
        footprint_radius: of the smallest circle about the base centre that holds the robot, m.
        footprint: corners of its outline in the base frame, m, counter-clockwise; None: the circle.
        command_interface: the key `command`: what the driver takes.
    """

    footprint_radius: Positive
    scene: SceneFormat
    actions: dict[Phrase, ActionCommand]
    limits: Limits
    footprint: Polygon | None = None
    frames: Frames = Field(default_factory=Frames)
    sensors: Sensors = Field(default_factory=Sensors)
    command_interface: VelocityCommand = Field(default_factory=VelocityCommand, alias="command")
    simulation: SimulatedSensors = Field(default_factory=SimulatedSensors)

    @model_validator(mode="after")
    def _consistent(self) -> MobileContract:
        self._check_vocabulary()
        for phrase, command in self.actions.items():
            if abs(command.linear) > self.limits.linear or abs(command.angular) > self.limits.angular:
                raise ValueError(f"actions.{phrase}: beyond limits.linear or limits.angular")
        if self.objects and self.sensors.camera is None:
            raise ValueError("objects: need sensors.camera")
        for number, corner in enumerate(self.footprint or (), start=1):
            if math.hypot(*corner) > self.footprint_radius + _ROUNDING:
                raise ValueError(
                    f"footprint_radius: {self.footprint_radius:g} m does not hold corner {number} of footprint, "
                    f"which is {math.hypot(*corner):.3f} m away"
                )
        return self

    def footprint_polygon(self) -> NDArray[np.float64]:
        """The outline on the floor in the base frame, m, (corners, 2), counter-clockwise; it holds the whole robot."""
        return np.array(self.footprint) if self.footprint else circle(self.footprint_radius)

    @property
    def base_frame(self) -> str:
        return self.frames.base

    @property
    def topics(self) -> tuple[TopicSpec, ...]:
        scan, odom, camera, frames = self.sensors.scan, self.sensors.odom, self.sensors.camera, self.frames
        driver = self.command_interface
        specs = [
            read_spec("scan", scan, scan.topic, "sensor_msgs/msg/LaserScan", frames.scan),
            read_spec("odom", odom, odom.topic, "nav_msgs/msg/Odometry", frames.odom, frames.base),
        ]
        if camera is not None:
            specs += camera_specs(camera, camera.topic, camera.info_topic, frames.camera, required=camera.required)
        command = TopicSpec("command", driver.topic, f"geometry_msgs/msg/{driver.type}", "command", driver.qos)
        return (*specs, command, self._outcomes())

    def nearest_phrase(self, velocity: Velocity) -> str | None:
        """The action phrase that goes the way of a velocity, each axis measured by its fastest phrase; of those that go
        the same way the one whose speed is nearest.

        Where the velocity has less than a quarter of its speed, or no phrase goes that way: the phrase that stands
        still, or None.
        """
        fastest = self.fastest()
        ways = {phrase: complex(*self._effect(phrase)) for phrase in self.actions}
        wanted = complex(velocity.linear / fastest.linear, velocity.angular / fastest.angular)
        still = next((phrase for phrase, way in ways.items() if not way), None)
        if not 0.0 < abs(wanted) < math.inf:
            return still

        def apart(phrase: str) -> tuple[float, float]:
            return round(abs(cmath.phase(wanted / ways[phrase])), 6), abs(wanted - ways[phrase])

        nearest = min(filter(ways.__getitem__, ways), key=apart, default=None)
        if nearest is None or apart(nearest)[0] > _ACROSS or abs(wanted) < _SLOWEST * abs(ways[nearest]):
            return still
        return nearest

    def command(self, phrase: str) -> Velocity:
        """The velocity of an action phrase.

        Raises:
            UnknownNameError: the phrase is not in the vocabulary.
        """
        action: ActionCommand = self._action(phrase)
        return Velocity(action.linear, action.angular)

    def as_said(self, linear: float, angular: float) -> tuple[float, float]:
        """A velocity, m/s and rad/s, on the scale of `scene.full_speed`."""
        full, fastest = self.full_speed_as_said(), self.fastest()
        return linear * (full[0] / fastest.linear), angular * (full[1] / fastest.angular)

    def full_speed_as_said(self) -> tuple[float, float]:
        """What the fastest phrases read as, forwards and turning."""
        full = self.scene.full_speed
        if full is not None:
            return full.linear, full.angular
        fastest = self.fastest()
        return fastest.linear, fastest.angular

    def _effect(self, phrase: str) -> tuple[float, ...]:
        fastest, action = self.fastest(), self.actions[phrase]
        return action.linear / fastest.linear, action.angular / fastest.angular

    def fastest(self) -> Velocity:
        """Of all phrases, each axis by itself; the limit where no phrase moves that way."""
        actions = self.actions.values()
        return Velocity(
            max(abs(action.linear) for action in actions) or self.limits.linear,
            max(abs(action.angular) for action in actions) or self.limits.angular,
        )
