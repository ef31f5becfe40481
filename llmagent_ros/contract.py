"""The robot contract: which topics become which parts of the scene, which action phrases exist, what each becomes.

One YAML file for one robot (config/robots/*.yaml); docs/contract.md describes it key by key.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.errors import UnknownNameError
from llmagent_ros.types import Velocity

_STRICT = ConfigDict(extra="forbid")


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, not {value} (YAML reads yes, no, on, off so)")
    return value


Finite = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Hue = Annotated[Finite, Field(ge=0, le=360)]  # degrees
Angle = Annotated[Finite, Field(ge=-360, le=360)]  # degrees
Words = Annotated[str, Field(pattern=r"^\S+( \S+)*$", max_length=40)]
Topic = Annotated[str, Field(pattern=r"^(~/|/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$", max_length=200)]
Phrase = Annotated[str, Field(pattern=r"^[a-z][a-z ]*[a-z]$", max_length=40)]

ScenePart = Literal["task", "objects", "scan", "free", "motion", "history"]
SCENE_PARTS: tuple[ScenePart, ...] = ("task", "objects", "scan", "free", "motion", "history")


@dataclass(config=_STRICT, frozen=True)
class ScanSensor:
    """The laser scanner. timeout: s after which its last reading is stale."""

    topic: Topic = "scan"
    timeout: Positive = 0.6


@dataclass(config=_STRICT, frozen=True)
class OdometrySensor:
    """Wheel odometry. timeout: s."""

    topic: Topic = "odom"
    timeout: Positive = 0.6


@dataclass(config=_STRICT, frozen=True)
class CameraSensor:
    """A forward camera. timeout: s. x: its distance ahead of the base centre, m. yaw: of its axis, degrees."""

    topic: Topic = "camera/image_raw"
    info_topic: Topic = "camera/camera_info"
    timeout: Positive = 0.6
    x: Finite = 0.0
    yaw: Angle = 0.0


@dataclass(config=_STRICT, frozen=True)
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
        of: dict[str, str] = {}
        for key, topic in topics.items():
            other = of.setdefault(topic.removeprefix("/"), key)
            if other != key:
                raise ValueError(f"{other} and {key} are both {topic!r}: they are of different types")
        return self


@dataclass(config=_STRICT, frozen=True)
class ObjectAppearance:
    """How an object that has a name looks.

    Attributes:
        hue: from and to, degrees 0..360; from > to wraps through 0.
        min_saturation, min_value: 0..1, below which a pixel has no colour.
        height, radius: of the object, m: height gives the distance from its size in the image where the
            scanner does not see it.
    """

    hue: tuple[Hue, Hue]
    min_saturation: Share = 0.5
    min_value: Share = 0.2
    height: Positive = 0.5
    radius: Positive = 0.15


@dataclass(config=_STRICT, frozen=True)
class SceneFormat:
    """What the text says and how it is rounded.

    Attributes:
        parts: in this order, from `SCENE_PARTS`.
        sectors: name to (from, to) bearing in degrees, counter-clockwise; from > to wraps through 180.
        max_clearance: m; beyond it a sector or object reads as this distance.
        lookahead: m; how much of the way of a phrase is looked at for its free distance.
        bearing_step: degrees, bearings are rounded to it.
        history: how many of the last actions are said.
        max_objects: how many objects are said; those that the task names come first, then the nearest.
        memory: s for which an object out of view is remembered by odometry.
    """

    sectors: Annotated[dict[Words, tuple[Angle, Angle]], Field(min_length=1)]
    parts: Annotated[tuple[ScenePart, ...], Field(min_length=1)] = SCENE_PARTS
    max_clearance: Positive = 5.0
    lookahead: Annotated[Positive, Field(le=20)] = 2.0
    bearing_step: Annotated[Positive, Field(le=180)] = 10.0
    history: Annotated[int, Field(ge=0, le=16)] = 3
    max_objects: Annotated[int, Field(ge=0, le=16)] = 2
    memory: NotNegative = 30.0

    @field_validator("parts")
    @classmethod
    def _each_once(cls, parts: tuple[ScenePart, ...]) -> tuple[ScenePart, ...]:
        repeated = sorted({part for part in parts if parts.count(part) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} stands there twice; valid: each of {', '.join(SCENE_PARTS)} once")
        return parts


@dataclass(config=_STRICT, frozen=True)
class ActionCommand:
    """The velocity an action phrase becomes: linear m/s, angular rad/s, held for one control period."""

    linear: Finite = 0.0
    angular: Finite = 0.0


@dataclass(config=_STRICT, frozen=True)
class Limits:
    """What the guard lets through: m/s, rad/s, m/s^2, rad/s^2."""

    linear: Positive
    angular: Positive
    linear_acceleration: Positive
    angular_acceleration: Positive


@dataclass(config=_STRICT, frozen=True)
class Frames:
    """REP-105 frame names."""

    base: str = "base_link"
    odom: str = "odom"
    scan: str = "base_scan"
    camera: str = "camera_link"


@dataclass(config=_STRICT, frozen=True)
class SimulatedSensors:
    """What the simulator gives the robot.

    Attributes:
        rays: of the scan, all around. range_max: of the scanner, m. scan_noise: standard deviation of a range, m.
        image_width, image_height: pixels. horizontal_fov: of the camera, degrees.
    """

    rays: Annotated[int, Field(ge=8, le=2000)] = 180
    range_max: Annotated[Positive, Field(le=50)] = 5.0
    scan_noise: NotNegative = 0.0
    image_width: Annotated[int, Field(ge=16, le=1000)] = 96
    image_height: Annotated[int, Field(ge=16, le=1000)] = 64
    horizontal_fov: Annotated[Positive, Field(le=150)] = 100.0


@dataclass(config=_STRICT, frozen=True)
class RobotContract:
    """One robot. See the module and docs/contract.md.

    Attributes:
        footprint_radius: m. control_period: s between two decisions, 0.02 to 60.
    """

    robot: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    footprint_radius: Positive
    control_period: Annotated[Finite, Field(ge=0.02, le=60)]
    scene: SceneFormat
    actions: dict[Phrase, ActionCommand]
    limits: Limits
    description: str = ""
    frames: Frames = Field(default_factory=Frames)
    sensors: Sensors = Field(default_factory=Sensors)
    objects: dict[Words, ObjectAppearance] = Field(default_factory=dict)
    simulation: SimulatedSensors = Field(default_factory=SimulatedSensors)

    @model_validator(mode="after")
    def _consistent(self) -> RobotContract:
        if len(self.actions) < 2:
            raise ValueError("actions: at least two phrases are needed to choose from")
        for phrase, command in self.actions.items():
            if abs(command.linear) > self.limits.linear or abs(command.angular) > self.limits.angular:
                raise ValueError(f"actions.{phrase}: beyond limits.linear or limits.angular")
        if self.objects and self.sensors.camera is None:
            raise ValueError("objects: need sensors.camera")
        return self

    def nearest_phrase(self, velocity: Velocity) -> str | None:
        """The action phrase whose command is nearest to a velocity, each axis measured by its limit.

        None where no phrase says it: standing still is nearer than all of them.
        """

        def distance(action: ActionCommand) -> float:
            linear = (action.linear - velocity.linear) / self.limits.linear
            return math.hypot(linear, (action.angular - velocity.angular) / self.limits.angular)

        nearest = min(self.actions, key=lambda phrase: distance(self.actions[phrase]))
        return nearest if distance(self.actions[nearest]) <= distance(ActionCommand()) else None

    def meaning(self, other: RobotContract) -> dict[str, str]:
        """Of each phrase of another contract, in its order, the phrase here that does the same on this robot.

        Speeds are compared as shares of the fastest phrase of each robot, so that a slow robot's "ahead" means a fast
        one's "forward".
        """
        own = {phrase: self._effect(phrase) for phrase in self.actions}
        return {
            phrase: min(own, key=lambda known: math.dist(own[known], other._effect(phrase))) for phrase in other.actions
        }

    def _effect(self, phrase: str) -> tuple[float, float]:
        actions = self.actions.values()
        fastest = max(abs(action.linear) for action in actions), max(abs(action.angular) for action in actions)
        action = self.actions[phrase]
        return action.linear / (fastest[0] or 1.0), action.angular / (fastest[1] or 1.0)

    def refusal(self, instruction: str) -> str:
        """Why the robot cannot carry out an instruction; empty when it can. A robot without objects takes any."""
        if not instruction:
            return "it is empty"
        if self.objects and not any(name.lower() in instruction.lower() for name in self.objects):
            return f"it names nothing that {self.robot} knows; valid: {', '.join(self.objects)}"
        return ""

    def generalised(self, instruction: str) -> str:
        """An instruction with "object" for the names of objects: what it asks for, whichever object it is about."""
        for name in sorted(self.objects, key=len, reverse=True):
            instruction = re.sub(re.escape(name), "object", instruction, flags=re.IGNORECASE)
        return instruction

    @property
    def phrases(self) -> tuple[str, ...]:
        """The closed vocabulary, in file order."""
        return tuple(self.actions)

    def command(self, phrase: str) -> Velocity:
        """The velocity of an action phrase.

        Raises:
            UnknownNameError: the phrase is not in the vocabulary.
        """
        if phrase not in self.actions:
            raise UnknownNameError("action phrase", phrase, self.actions)
        action = self.actions[phrase]
        return Velocity(action.linear, action.angular)


def in_sector(bearing_deg: float, sector: tuple[float, float]) -> bool:
    """Whether a bearing lies in [from, to) counter-clockwise, all in degrees."""
    start, end = sector
    width = (end - start) % 360.0 or 360.0
    return (bearing_deg - start) % 360.0 % 360.0 < width  # twice: the remainder of -1e-20 is 360.0


def wrap_angle(angle: float) -> float:
    """An angle in (-pi, pi], rad."""
    wrapped = -((-angle + math.pi) % (2.0 * math.pi) - math.pi)
    return math.pi if wrapped <= -math.pi else wrapped  # the remainder rounds up to 2 pi just beyond pi


def load_contract(name: str) -> RobotContract:
    """The contract of a shipped robot ("sim_diffdrive") or of a path to a YAML file.

    Raises:
        ConfigError: unknown, unreadable or invalid.
    """
    folder = config.share_dir() / "config" / "robots"
    return config.load(RobotContract, config.named_file("robot contract", name, folder))


def contract_path(name: str) -> Path:
    """The file that `load_contract` reads."""
    return config.named_file("robot contract", name, config.share_dir() / "config" / "robots")
