"""The topics of a contract: what each must be, for subscriptions, for recordings and for `llmagent doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros.contract.values import STRICT, Positive, Topic

Reliability = Literal["best_effort", "reliable"]
Depth = Annotated[int, Field(ge=1, le=1000)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Qos:
    """Quality of service of a subscription, or of the command's publisher.

    Attributes:
        reliability: a subscription that asks for best effort matches every publisher; one that asks for reliable only
            those that offer it, and loses nothing then. A publisher that offers reliable matches every subscription.
        depth: messages that may wait.
    """

    reliability: Reliability = "best_effort"
    depth: Depth = 5


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CommandQos(Qos):
    """That of a command: reliable, so that every driver's subscription matches."""

    reliability: Reliability = "reliable"
    depth: Depth = 10


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Sensor:
    """What every sensor has.

    Attributes:
        timeout: s after which its last reading is stale.
        rate: Hz below which it counts as too slow; None: 1 / timeout, below which readings go stale in between.
        qos: of the subscriptions.
    """

    timeout: Positive = 0.6
    rate: Positive | None = None
    qos: Qos = Field(default_factory=Qos)

    @model_validator(mode="after")
    def _rate_within_timeout(self) -> Sensor:
        if self.rate is not None and self.rate * self.timeout < 1.0:
            raise ValueError(f"rate: {self.rate:g} Hz are fewer than one reading in the timeout of {self.timeout:g} s")
        return self

    @property
    def slowest(self) -> float:
        """Hz below which it is too slow."""
        return self.rate or 1.0 / self.timeout


@plain_dataclass(frozen=True)
class TopicSpec:
    """One topic of a robot as its contract says it.

    Attributes:
        key: of the contract, e.g. "sensors.scan". topic: its name, relative to the namespace unless it begins with "/".
        type: of its messages, e.g. "sensor_msgs/msg/LaserScan".
        direction: "read": drivers publish it. "command": the guard does, and nobody else.
        qos: of our end of it. rate: Hz, at least; 0: it may be silent. timeout: s, see `Sensor`; 0: none.
        frame, child_frame: that its messages must bear; empty: any.
        required: whether the robot cannot work without it.
    """

    key: str
    topic: str
    type: str
    direction: Literal["read", "command"]
    qos: Qos
    rate: float = 0.0
    timeout: float = 0.0
    frame: str = ""
    child_frame: str = ""
    required: bool = True


def read_spec(key: str, sensor: Sensor, topic: str, kind: str, frame: str, child_frame: str = "") -> TopicSpec:
    """That of a sensor that the robot must have."""
    name = f"sensors.{key}"
    return TopicSpec(name, topic, kind, "read", sensor.qos, sensor.slowest, sensor.timeout, frame, child_frame)


def camera_specs(
    sensor: Sensor, topic: str, info_topic: str, frame: str, *, required: bool = True
) -> list[TopicSpec]:
    """Images and their intrinsics."""
    images = read_spec("camera", sensor, topic, "sensor_msgs/msg/Image", frame)
    intrinsics = read_spec("camera.info_topic", sensor, info_topic, "sensor_msgs/msg/CameraInfo", frame)
    return [replace(spec, required=required) for spec in (images, intrinsics)]


def refuse_shared_topics(topics: Iterable[tuple[str, Topic]]) -> None:
    """Raises ValueError where two keys name one topic."""
    of: dict[str, str] = {}
    for key, topic in topics:
        other = of.setdefault(topic.removeprefix("/"), key)
        if other != key:
            raise ValueError(f"{other} and {key} are both {topic!r}: they are of different types")
