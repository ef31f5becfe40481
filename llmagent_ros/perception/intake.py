"""Sensor messages into perception, by the topics of the robot contract: the one way in, live and from recordings.

Fed with the same messages in the same order of each topic, it says the same scenes to the byte. How messages of
different topics interleave makes no difference, as long as every scene is asked for when the readings that it names
have come (`SensorIntake.stamps`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llmagent_ros import messages
from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.contract.topics import TopicSpec
from llmagent_ros.errors import ConfigError
from llmagent_ros.messages import Message
from llmagent_ros.perception.arm import ArmPerception
from llmagent_ros.perception.perception import LATE, Perception
from llmagent_ros.types import Scene

Mode = Literal["lockstep", "realtime"]
SCAN, ODOMETRY, JOINTS, IMAGE, INFO = (
    "sensor_msgs/msg/LaserScan",
    "nav_msgs/msg/Odometry",
    "sensor_msgs/msg/JointState",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CameraInfo",
)


@dataclass(frozen=True)
class Arrival:
    """A reading that was taken. stamp: ns. jumped: time stepped back, so that all readings before are void."""

    sensor: str
    stamp: int
    jumped: bool = False
    problem: str = ""


def sensor_topics(contract: RobotContract) -> tuple[TopicSpec, ...]:
    """The topics that perception reads on this robot."""
    return tuple(spec for spec in contract.topics if spec.key.startswith("sensors."))


def sensor_of(spec: TopicSpec) -> str:
    """Which sensor of the contract a topic belongs to: "camera" for the images and for their intrinsics."""
    return spec.key.split(".")[1]


def _perception(contract: RobotContract, late: float) -> Perception | ArmPerception:
    if isinstance(contract, MobileContract):
        return Perception(contract, late=late)
    assert isinstance(contract, ArmContract)
    return ArmPerception(contract, late=late)


class SensorIntake:
    """Takes messages of `sensor_topics`, tasks and actions, and says scenes. Not thread-safe.

    Args:
        mode: in lockstep nothing overtakes, so an older reading is that of a world that began anew; in real time one
            that is a little older came late.
    """

    def __init__(self, contract: RobotContract, mode: Mode) -> None:
        self._perception = _perception(contract, 0.0 if mode == "lockstep" else LATE)
        self._info: Message | None = None
        self._image: Message | None = None
        self._takers: dict[str, Callable[[Message], Arrival | None]] = {
            SCAN: self._take_scan,
            ODOMETRY: self._take_odometry,
            JOINTS: self._take_joints,
            IMAGE: self._take_image,
            INFO: self._take_info,
        }
        self.sensors = frozenset(map(sensor_of, sensor_topics(contract)))
        self.stamps: dict[str, int] = {}
        """Stamp of the newest reading of each sensor, ns."""
        self.decisions = 0
        """How many decisions of the task are known."""

    def begin(self, instruction: str) -> None:
        """A new task: what was done and remembered before does not count."""
        self._perception.start_episode(instruction)
        self.decisions = 0

    def note(self, action: str) -> None:
        """The action that was just decided on."""
        self._perception.note_action(action)
        self.decisions += 1

    def take(self, type_name: str, message: Message) -> Arrival | None:
        """Takes a message of one of the sensor topics; None where it was too old, or waits for its other half.

        Args:
            type_name: of the message, as in `TopicSpec`.
        """
        arrival = self._takers[type_name](message)
        if arrival is None:
            return None
        jumped = arrival.stamp < self.stamps.get(arrival.sensor, 0)  # and it was taken
        if jumped:
            self.stamps.clear()
        self.stamps[arrival.sensor] = arrival.stamp
        return Arrival(arrival.sensor, arrival.stamp, jumped, arrival.problem)

    def complete(self) -> int | None:
        """The one stamp that the newest readings of all sensors bear, ns, or None."""
        stamps = set(self.stamps.values())
        return stamps.pop() if len(stamps) == 1 and set(self.stamps) == self.sensors else None

    def scene(self, now: int) -> Scene:
        """What is known at `now`, ns."""
        return self._perception.scene(now * 1e-9)

    def said(self, now: int) -> dict[str, str]:
        """The words of each part of the scene at `now`, ns."""
        return self._perception.said(now * 1e-9)

    def _take_scan(self, message: Message) -> Arrival | None:
        assert isinstance(self._perception, Perception), "an arm has no such topic"
        taken = self._perception.on_scan(messages.scan_from_message(message))
        return Arrival("scan", messages.key(message.header.stamp)) if taken else None

    def _take_joints(self, message: Message) -> Arrival | None:
        assert isinstance(self._perception, ArmPerception), "a base has no such topic"
        taken = self._perception.on_joints(messages.joints_from_message(message))
        return Arrival("joints", messages.key(message.header.stamp)) if taken else None

    def _take_odometry(self, message: Message) -> Arrival | None:
        assert isinstance(self._perception, Perception), "an arm has no such topic"
        taken = self._perception.on_odometry(messages.odometry_from_message(message))
        return Arrival("odom", messages.key(message.header.stamp)) if taken else None

    def _take_info(self, message: Message) -> Arrival | None:
        self._info = message
        return self._take_pair()

    def _take_image(self, message: Message) -> Arrival | None:
        self._image = message
        return self._take_pair()

    def _take_pair(self) -> Arrival | None:
        """Image and intrinsics come on two topics: the pair counts when both are of one moment."""
        if self._image is None or self._info is None:
            return None
        stamp = messages.key(self._image.header.stamp)
        if stamp != messages.key(self._info.header.stamp):
            return None
        image, self._image = self._image, None
        try:
            if not self._perception.on_image(messages.image_from_messages(image, self._info)):
                return None
        except ConfigError as error:  # the camera then reads as unknown
            return Arrival("camera", stamp, problem=str(error))
        return Arrival("camera", stamp)
