"""What was seen of a running graph in some seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """A publisher or subscription.

    Attributes:
        node: its full name. type: of its messages. reliable: what it offers, or asks for.
        kept: whether its durability is transient local.
    """

    node: str
    type: str
    reliable: bool = True
    kept: bool = False


@dataclass(frozen=True)
class Arrival:
    """A message that came.

    Attributes:
        received: ROS time, s. stamp: of its header, s; None where its type has none.
        frame, child_frame: of its header, and of what it is about; empty where its type has none.
        problem: what is wrong with its data; empty for nothing.
    """

    received: float
    stamp: float | None = None
    frame: str = ""
    child_frame: str = ""
    problem: str = ""


@dataclass(frozen=True)
class TopicObservation:
    """Of one topic. arrivals: in the order they came."""

    publishers: tuple[Endpoint, ...] = ()
    subscriptions: tuple[Endpoint, ...] = ()
    arrivals: tuple[Arrival, ...] = ()


@dataclass(frozen=True)
class Observation:
    """Of a robot.

    Attributes:
        topics: by the key of the contract ("sensors.scan"). end: ROS time at the end, s. seconds: of wall time watched.
        simulated: whether ROS time comes from /clock. clock_moved: whether it went on meanwhile.
        guard: full name that the guard's node has, if it runs. types: of every topic of the graph.
    """

    topics: Mapping[str, TopicObservation]
    end: float
    seconds: float
    simulated: bool = False
    clock_moved: bool = True
    guard: str = "/guard"
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
