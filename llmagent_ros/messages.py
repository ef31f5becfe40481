"""ROS messages to value types, by the names of their fields alone.

A message that rclpy hands over and one that was decoded from a recording have the same fields, so that one code reads
both: nodes and replayed recordings go through these functions. The other direction is `nodes/wire`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.types import (
    CameraImage,
    Decision,
    JointState,
    LaserScan,
    Odometry,
    Outcome,
    Scene,
    Source,
    Transition,
    Velocity,
)

Message = Any  # of whatever library; its type is named in the docstring

ADAPTER = "adapter"  # the entry of Transition.extra that names the adapter version that acted
# Bytes per pixel and the order of red, green, blue in them.
_ENCODINGS = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0))}


def to_seconds(stamp: Message) -> float:
    """builtin_interfaces/Time as seconds since the epoch of the clock; exact to a microsecond."""
    return float(stamp.sec + stamp.nanosec * 1e-9)


def key(stamp: Message) -> int:
    """builtin_interfaces/Time as nanoseconds: what messages of one moment are matched by."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def scan_from_message(message: Message) -> LaserScan:
    """sensor_msgs/LaserScan."""
    return LaserScan(
        stamp=to_seconds(message.header.stamp),
        angle_min=message.angle_min,
        angle_increment=message.angle_increment,
        ranges=np.array(message.ranges, np.float32),
        range_min=message.range_min,
        range_max=message.range_max,
    )


def odometry_from_message(message: Message) -> Odometry:
    """nav_msgs/Odometry."""
    position, q = message.pose.pose.position, message.pose.pose.orientation
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
    twist = message.twist.twist
    return Odometry(to_seconds(message.header.stamp), position.x, position.y, yaw, twist.linear.x, twist.angular.z)


def image_from_messages(message: Message, info: Message) -> CameraImage:
    """sensor_msgs/Image with the intrinsics of its CameraInfo.

    Raises:
        ConfigError: an encoding that is not one of `_ENCODINGS`, or fewer bytes than the size says.
    """
    if message.encoding not in _ENCODINGS:
        valid = ", ".join(sorted(_ENCODINGS))
        raise ConfigError(f"camera image encoding {message.encoding!r} is not supported; valid: {valid}")
    channels, order = _ENCODINGS[message.encoding]
    step = message.step or message.width * channels
    data = np.frombuffer(message.data, np.uint8)
    if step < message.width * channels or data.size < step * message.height:
        raise ConfigError(f"camera image of {message.width}x{message.height}: only {data.size} bytes")
    rows = data[: step * message.height].reshape(message.height, step)[:, : message.width * channels]
    pixels = rows.reshape(message.height, message.width, channels)
    rgb = np.ascontiguousarray(pixels[..., list(order)])
    fx, fy, cx, cy = (float(info.k[at]) for at in (0, 4, 2, 5))
    return CameraImage(to_seconds(message.header.stamp), rgb, fx, fy, cx, cy)


def joints_from_message(message: Message) -> JointState:
    """sensor_msgs/JointState; joints without a position are left out."""
    positions = {name: float(at) for name, at in zip(message.name, message.position, strict=False)}
    return JointState(to_seconds(message.header.stamp), positions)


def velocity_from_message(message: Message) -> Velocity:
    """geometry_msgs/TwistStamped, or a Twist as older drivers publish it."""
    twist: Message = message.twist if hasattr(message, "twist") else message
    return Velocity(twist.linear.x, twist.angular.z)


def scene_from_message(message: Message) -> Scene:
    """llmagent_interfaces/Scene."""
    return Scene(to_seconds(message.header.stamp), message.text, message.task, tuple(message.unknown))


def decision_from_message(message: Message) -> Decision:
    """The choice in an llmagent_interfaces/Decision.

    Raises:
        ConfigError: its lists are not of one length, the action is not among the candidates,
            or its source is not one of `Source`.
    """
    candidates = tuple(message.candidates)
    probabilities, values = np.array(message.probabilities, np.float32), np.array(message.values, np.float32)
    if not len(candidates) == len(probabilities) == len(values):
        raise ConfigError(
            f"decision: {len(candidates)} candidates, {len(probabilities)} probabilities, {len(values)} values"
        )
    if message.action not in candidates:
        raise UnknownNameError("action phrase", message.action, candidates)
    source, adapter = _source(message.source), message.adapter
    said = said_to_the_robot(message)
    if said not in candidates:
        raise UnknownNameError("action phrase", said, candidates)
    said = "" if said == message.action else said
    return Decision(message.action, message.log_probability, candidates, probabilities, values, adapter, source, said)


def said_to_the_robot(message: Message) -> str:
    """The phrase of an llmagent_interfaces/Decision that became a command."""
    return getattr(message, "said", "") or str(message.action)  # recordings of before have no such field


def outcome_from_message(message: Message) -> Outcome:
    """llmagent_interfaces/Outcome."""
    return Outcome(message.reward, message.terminated, message.truncated, message.success, message.reason)


def transition_from_message(message: Message) -> Transition:
    """An llmagent_interfaces/Transition for the replay; the adapter's version is in `extra`.

    Raises:
        UnknownNameError: its source is not one of `Source`.
    """
    return Transition(
        run=message.run,
        episode=message.episode,
        step=message.step,
        task=message.task,
        scene=message.scene,
        action=message.action,
        reward=message.reward,
        next_scene=message.next_scene,
        terminated=message.terminated,
        truncated=message.truncated,
        source=_source(message.source),
        log_probability=message.log_probability,
        stamp=to_seconds(message.header.stamp),
        extra={ADAPTER: message.adapter} if message.adapter else {},
    )


def _source(name: str) -> Source:
    try:
        return Source(name)
    except ValueError as error:
        raise UnknownNameError("source of an action", name, [source.value for source in Source]) from error
