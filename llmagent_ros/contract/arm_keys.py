"""The keys of an arm's contract below its top."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros.contract.kinematics import Array
from llmagent_ros.contract.mobile import refuse_repeated
from llmagent_ros.contract.topics import CommandQos, Sensor, refuse_shared_topics
from llmagent_ros.contract.values import STRICT, Angle, Finite, Frame, Name, NotNegative, Phrase, Point, Positive, Topic

ArmScenePart = Literal["task", "objects", "tool", "joints", "history"]
ARM_SCENE_PARTS: tuple[ArmScenePart, ...] = ("task", "objects", "tool", "joints", "history")


def _range(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"[from, to] with from below to, not {list(bounds)}")
    return bounds


Range = Annotated[tuple[Finite, Finite], AfterValidator(_range)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class JointSensor(Sensor):
    """The joint states, see `Sensor`. What is stale stops the arm."""

    topic: Topic = "joint_states"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ArmCamera(Sensor):
    """A camera that stands still and looks at the table, see `Sensor`.

    Attributes:
        position: of its optical frame in the base frame, m. orientation: roll, pitch and yaw of that frame (REP-103: z
            looks out, x to the right in the image, y down) in the base frame, degrees.
        required: whether the arm cannot work without it; else objects read as unknown while it is not there.
    """

    topic: Topic = "camera/image_raw"
    info_topic: Topic = "camera/camera_info"
    position: Point
    orientation: tuple[Angle, Angle, Angle]
    required: bool = True


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ArmSensors:
    """The sensors of an arm; one without a camera says `camera: null`."""

    joints: JointSensor = Field(default_factory=JointSensor)
    camera: ArmCamera | None

    @model_validator(mode="after")
    def _own_topics(self) -> ArmSensors:
        topics = {"joints.topic": self.joints.topic}
        if self.camera is not None:
            topics |= {"camera.topic": self.camera.topic, "camera.info_topic": self.camera.info_topic}
        refuse_shared_topics(topics.items())
        return self


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ArmSceneFormat:
    """What the text says. Lengths are said in decimetres with one decimal, so that a centimetre shows.

    Attributes:
        parts: in this order, from `ARM_SCENE_PARTS`.
        directions: what the six directions are called: towards +x, -x, +y, -y, +z and -z of the base frame.
        history: how many of the last actions are said. max_objects: how many objects; those that the task names first.
        memory: s for which an object that is hidden is remembered where it was.
    """

    parts: Annotated[tuple[ArmScenePart, ...], Field(min_length=1)] = ARM_SCENE_PARTS
    directions: tuple[Phrase, Phrase, Phrase, Phrase, Phrase, Phrase] = (
        *("forward", "back", "left", "right", "up", "down"),
    )
    history: Annotated[int, Field(ge=0, le=16)] = 3
    max_objects: Annotated[int, Field(ge=0, le=16)] = 2
    memory: NotNegative = 30.0

    @field_validator("parts")
    @classmethod
    def _each_once(cls, parts: tuple[ArmScenePart, ...]) -> tuple[ArmScenePart, ...]:
        refuse_repeated(parts, ARM_SCENE_PARTS)
        return parts


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ArmAction:
    """The step an action phrase becomes, made in one control period; without any number it is to stay.

    Attributes:
        joints: changes of joint positions, rad (prismatic: m).
        x, y, z: of the tip in the base frame, m.
    """

    joints: dict[Name, Finite] = Field(default_factory=dict)
    x: Finite = 0.0
    y: Finite = 0.0
    z: Finite = 0.0

    @model_validator(mode="after")
    def _one_kind(self) -> ArmAction:
        if self.joints and any((self.x, self.y, self.z)):
            raise ValueError("a step is one of joints, or one of the tip by x, y, z; not both")
        return self


@dataclass(config=STRICT, frozen=True, kw_only=True)
class JointLimits:
    """What the guard lets a joint do: rad, rad/s and rad/s^2 (prismatic: m).

    Attributes:
        lower, upper: of its position. velocity, acceleration: of the commanded motion.
        step: how far from where it is measured it may be sent at once; None: velocity times the control period.
    """

    lower: Finite
    upper: Finite
    velocity: Positive
    acceleration: Positive
    step: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> JointLimits:
        if self.lower >= self.upper:
            raise ValueError(f"lower {self.lower:g} is not below upper {self.upper:g}")
        return self


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Workspace:
    """A box in the base frame that steps of the tip do not leave, m."""

    x: Range = (-10.0, 10.0)
    y: Range = (-10.0, 10.0)
    z: Range = (-10.0, 10.0)

    def clamp(self, point: Array) -> Array:
        """The point of the box that is nearest, (3,)."""
        lower, upper = np.array([self.x, self.y, self.z]).T
        return np.clip(point, lower, upper)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Arm:
    """The kinematics.

    Attributes:
        urdf: a file of sim/urdf, or a path. base, tip: links between which the chain is.
        home: joint positions of rest, rad.
        approach: where the tip's z axis points while the tip steps, in the base frame; None: anywhere.
        tolerance: rad. The next step begins where the last one was to end, unless a joint is measured farther away than
            this; so what a controller leaves to gravity does not add up, and after a push or a stop nothing jumps.
    """

    urdf: str
    tip: Name
    home: dict[Name, Finite]
    base: Name = "base_link"
    approach: Point | None = None
    workspace: Workspace = Field(default_factory=Workspace)
    tolerance: Positive = 0.05

    @field_validator("approach")
    @classmethod
    def _some_direction(cls, approach: Point | None) -> Point | None:
        if approach is not None and not any(approach):
            raise ValueError("a direction is needed, not [0, 0, 0]")
        return approach


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ArmFrames:
    """Frame names. camera: the optical frame."""

    base: Frame = "base_link"
    camera: Frame = "camera_optical_frame"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class JointCommand:
    """What the controller takes: joint positions by name (JointTrajectory, one point) or in the order of `limits`
    (Float64MultiArray), on this topic."""

    type: Literal["JointTrajectory", "Float64MultiArray"] = "JointTrajectory"
    topic: Topic = "joint_trajectory_controller/joint_trajectory"
    qos: CommandQos = Field(default_factory=CommandQos)
