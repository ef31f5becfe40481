"""The contract of an arm that stands still."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros.contract.arm_keys import (
    Arm,
    ArmAction,
    ArmFrames,
    ArmSceneFormat,
    ArmSensors,
    JointCommand,
    JointLimits,
)
from llmagent_ros.contract.kinematics import Array, Chain, load_chain
from llmagent_ros.contract.robot import RobotContract, SimulatedCamera
from llmagent_ros.contract.topics import TopicSpec, camera_specs, read_spec
from llmagent_ros.contract.values import NAMED, Name, Phrase
from llmagent_ros.errors import ConfigError
from llmagent_ros.types import JointTarget

_MESSAGES = {"JointTrajectory": "trajectory_msgs/msg", "Float64MultiArray": "std_msgs/msg"}
_NONE: Mapping[str, float] = MappingProxyType({})
_STILL = 1e-3  # m in a control period, up to which the way of a tip tells nothing


@dataclass(config=NAMED, frozen=True, kw_only=True)
class ArmContract(RobotContract):
    """An arm that stands still and is steered by joint positions.

    Attributes:
        limits: of each joint that is commanded, in the order of the command.
        command_interface: the key `command`: what the controller takes.
    """

    arm: Arm
    sensors: ArmSensors
    actions: dict[Phrase, ArmAction]
    limits: Annotated[dict[Name, JointLimits], Field(min_length=1)]
    scene: ArmSceneFormat = Field(default_factory=ArmSceneFormat)
    frames: ArmFrames = Field(default_factory=ArmFrames)
    command_interface: JointCommand = Field(default_factory=JointCommand, alias="command")
    simulation: SimulatedCamera = Field(default_factory=SimulatedCamera)

    @model_validator(mode="after")
    def _consistent(self) -> ArmContract:
        self._check_vocabulary()
        if self.objects and self.sensors.camera is None:
            raise ValueError("objects: need sensors.camera")
        try:
            chain = self.chain
        except ConfigError as error:
            raise ValueError(f"arm: {error}") from error
        self._check_names("limits", self.limits, chain.names, complete=True)
        self._check_names("arm.home", self.arm.home, self.limits, complete=True)
        for joint in chain.joints:
            limits = self.limits[joint.name]
            if limits.lower < joint.lower or limits.upper > joint.upper:
                said = f"{limits.lower:g}..{limits.upper:g} is beyond {joint.lower:g}..{joint.upper:g}"
                raise ValueError(f"limits.{joint.name}: {said} of {self.arm.urdf}")
            if not limits.lower <= self.arm.home[joint.name] <= limits.upper:
                raise ValueError(f"arm.home.{joint.name}: not within {limits.lower:g}..{limits.upper:g}")
        for phrase, action in self.actions.items():
            self._check_names(f"actions.{phrase}.joints", action.joints, self.limits)
            for name, change in action.joints.items():
                if abs(change) > self.longest_step(name):
                    raise ValueError(f"actions.{phrase}: beyond what limits.{name} allows in one control period")
        return self

    @staticmethod
    def _check_names(
        key: str, given: Mapping[str, object], valid: Iterable[str], *, complete: bool = False
    ) -> None:
        names = list(valid)
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"{key}: unknown joint {unknown[0]!r}; valid: {', '.join(names)}")
        missing = [name for name in names if complete and name not in given]
        if missing:
            raise ValueError(f"{key}: joint {missing[0]!r} is needed, and not given")

    @property
    def base_frame(self) -> str:
        return self.frames.base

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints that are commanded, in the order of the command."""
        return tuple(self.limits)

    @property
    def chain(self) -> Chain:
        """The joints from the base to the tip."""
        return load_chain(self.arm.urdf, self.arm.base, self.arm.tip)

    @property
    def topics(self) -> tuple[TopicSpec, ...]:
        joints, camera, controller = self.sensors.joints, self.sensors.camera, self.command_interface
        specs = [read_spec("joints", joints, joints.topic, "sensor_msgs/msg/JointState", "")]
        if camera is not None:
            specs += camera_specs(
                camera, camera.topic, camera.info_topic, self.frames.camera, required=camera.required
            )
        kind = f"{_MESSAGES[controller.type]}/{controller.type}"
        return (*specs, TopicSpec("command", controller.topic, kind, "command", controller.qos), self._outcomes())

    def longest_step(self, joint: str) -> float:
        """rad that a joint may be sent from where it is measured."""
        limits = self.limits[joint]
        return limits.step or limits.velocity * self.control_period

    def tip(self, positions: Mapping[str, float]) -> Array:
        """Where the tip is in the base frame, m, (3,)."""
        return self.chain.pose(positions)[:3, 3]

    def target(self, phrase: str, positions: Mapping[str, float]) -> JointTarget:
        """The joint positions that an action phrase leads to from those given (rad), within position limits.

        Raises:
            UnknownNameError: the phrase is not in the vocabulary.
        """
        action: ArmAction = self._action(phrase)
        reached = self.stepped(positions, (action.x, action.y, action.z), action.joints)
        return JointTarget(self.joints, tuple(reached.values()), self.control_period)

    def stepped(
        self,
        positions: Mapping[str, float],
        tip: Sequence[float] = (0.0, 0.0, 0.0),
        joints: Mapping[str, float] = _NONE,
    ) -> dict[str, float]:
        """The joint positions that a step leads to from those given, within position limits, rad.

        Args:
            tip: along x, y and z of the base frame, m; it does not leave the workspace. joints: changes besides, rad.
        """
        bounds = {name: (limit.lower, limit.upper) for name, limit in self.limits.items()}
        wanted = dict(positions)
        if any(tip):
            point = self.arm.workspace.clamp(self.tip(positions) + np.array(tip))
            approach = None if self.arm.approach is None else np.array(self.arm.approach)
            if approach is not None:
                approach = approach / np.linalg.norm(approach)
            wanted = self.chain.solve(positions, point, bounds, approach)
        changed = {name: wanted[name] + joints.get(name, 0.0) for name in self.joints}
        return {name: min(max(changed[name], bounds[name][0]), bounds[name][1]) for name in self.joints}

    def nearest_phrase(self, positions: Mapping[str, float], change: Mapping[str, float]) -> str | None:
        """The action phrase whose step is nearest to a change of joint positions in one control period, both rad.

        A step of the tip is compared with the way of the tip; one of joints with the change of each joint, measured by
        its longest step, and with the way of the tip as well, as a step of the tip turns joints too. None where no
        phrase says it: standing still is nearer than all of them.
        """

        def way_of(change: Mapping[str, float]) -> list[float]:
            moved = {name: positions[name] + change.get(name, 0.0) for name in self.joints}
            return [float(part) for part in self.tip(moved) - self.tip(positions)]

        way = way_of(change)
        steps = {name: self.longest_step(name) for name in self.joints}

        def unlike(action: ArmAction) -> float:
            """0: the same; 1: as unlike it as standing still."""
            if not action.joints:
                return _unlike(way, [action.x, action.y, action.z])
            turned = [change.get(name, 0.0) / step for name, step in steps.items()]
            meant = [action.joints.get(name, 0.0) / step for name, step in steps.items()]
            moves = math.hypot(*way) > _STILL
            return max(_unlike(turned, meant), _unlike(way, way_of(action.joints)) if moves else 0.0)

        nearest = min(self.actions, key=lambda phrase: unlike(self.actions[phrase]))
        return nearest if unlike(self.actions[nearest]) <= 1.0 else None

    def _effect(self, phrase: str) -> tuple[float, ...]:
        """Along x, y and z of the tip, as shares of the longest step; joint steps count by what they do at home."""
        steps = {name: self._tip_step(name) for name in self.actions}
        longest = max(math.hypot(*step) for step in steps.values()) or 1.0
        return tuple(float(part) / longest for part in steps[phrase])

    def _tip_step(self, phrase: str) -> tuple[float, ...]:
        action = self.actions[phrase]
        if not action.joints:
            return action.x, action.y, action.z
        moved = {name: self.arm.home[name] + action.joints.get(name, 0.0) for name in self.joints}
        return tuple(float(part) for part in self.tip(moved) - self.tip(self.arm.home))


def _unlike(done: Sequence[float], meant: Sequence[float]) -> float:
    apart, still = math.dist(done, meant), math.hypot(*done)
    return apart / still if still else math.inf if apart else 1.0
