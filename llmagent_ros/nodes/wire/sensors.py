"""Sensor messages to and from value types."""

from __future__ import annotations

import array
import math

import numpy as np
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry as OdometryMessage
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import LaserScan as LaserScanMessage

from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes.wire.stamps import header, to_seconds
from llmagent_ros.types import CameraImage, LaserScan, Odometry, Velocity

# Bytes per pixel and the order of red, green, blue in them.
_ENCODINGS = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0))}


def scan_to_message(scan: LaserScan, frame: str) -> LaserScanMessage:
    message = LaserScanMessage(header=header(scan.stamp, frame))
    message.angle_min = scan.angle_min
    message.angle_increment = scan.angle_increment
    message.angle_max = scan.angle_min + scan.angle_increment * (len(scan.ranges) - 1)
    message.range_min, message.range_max = scan.range_min, scan.range_max
    message.ranges = array.array("f", scan.ranges.tobytes())
    return message


def scan_from_message(message: LaserScanMessage) -> LaserScan:
    return LaserScan(
        stamp=to_seconds(message.header.stamp),
        angle_min=message.angle_min,
        angle_increment=message.angle_increment,
        ranges=np.array(message.ranges, np.float32),
        range_min=message.range_min,
        range_max=message.range_max,
    )


def odometry_to_message(odometry: Odometry, frame: str, child_frame: str) -> OdometryMessage:
    message = OdometryMessage(header=header(odometry.stamp, frame), child_frame_id=child_frame)
    message.pose.pose.position.x, message.pose.pose.position.y = odometry.x, odometry.y
    message.pose.pose.orientation.z = math.sin(odometry.yaw / 2)
    message.pose.pose.orientation.w = math.cos(odometry.yaw / 2)
    message.twist.twist.linear.x, message.twist.twist.angular.z = odometry.linear, odometry.angular
    return message


def odometry_from_message(message: OdometryMessage) -> Odometry:
    position, q = message.pose.pose.position, message.pose.pose.orientation
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
    twist = message.twist.twist
    return Odometry(to_seconds(message.header.stamp), position.x, position.y, yaw, twist.linear.x, twist.angular.z)


def image_to_messages(image: CameraImage, frame: str) -> tuple[Image, CameraInfo]:
    height, width, _ = image.rgb.shape
    message = Image(header=header(image.stamp, frame), height=height, width=width, encoding="rgb8", step=width * 3)
    message.data = array.array("B", image.rgb.tobytes())
    info = CameraInfo(header=message.header, height=height, width=width, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = [image.fx, 0.0, image.cx, 0.0, image.fy, image.cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [image.fx, 0.0, image.cx, 0.0, 0.0, image.fy, image.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message, info


def image_from_messages(message: Image, info: CameraInfo) -> CameraImage:
    """An image with its intrinsics.

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
    return CameraImage(to_seconds(message.header.stamp), rgb, info.k[0], info.k[4], info.k[2], info.k[5])


def velocity_to_message(velocity: Velocity, stamp: float, frame: str) -> TwistStamped:
    message = TwistStamped(header=header(stamp, frame))
    message.twist.linear.x, message.twist.angular.z = float(velocity.linear), float(velocity.angular)
    return message


def velocity_from_message(message: TwistStamped) -> Velocity:
    return Velocity(message.twist.linear.x, message.twist.angular.z)
