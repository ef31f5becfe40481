"""Sensor messages to and from value types."""

from __future__ import annotations

import array
import math

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry as OdometryMessage
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import JointState as JointStateMessage
from sensor_msgs.msg import LaserScan as LaserScanMessage

from llmagent_ros.messages import (
    image_from_messages,
    joints_from_message,
    odometry_from_message,
    scan_from_message,
    velocity_from_message,
)
from llmagent_ros.nodes.wire.stamps import header
from llmagent_ros.perception import intake
from llmagent_ros.types import CameraImage, JointState, LaserScan, Odometry, Velocity

__all__ = [
    "MESSAGES",
    "image_from_messages",
    "image_to_messages",
    "joints_from_message",
    "joints_to_message",
    "odometry_from_message",
    "odometry_to_message",
    "scan_from_message",
    "scan_to_message",
    "velocity_from_message",
    "velocity_to_message",
]

MESSAGES = {
    intake.SCAN: LaserScanMessage,
    intake.ODOMETRY: OdometryMessage,
    intake.JOINTS: JointStateMessage,
    intake.IMAGE: Image,
    intake.INFO: CameraInfo,
}
"""By the name of its type, each message that perception takes."""


def scan_to_message(scan: LaserScan, frame: str) -> LaserScanMessage:
    message = LaserScanMessage(header=header(scan.stamp, frame))
    message.angle_min = scan.angle_min
    message.angle_increment = scan.angle_increment
    message.angle_max = scan.angle_min + scan.angle_increment * (len(scan.ranges) - 1)
    message.range_min, message.range_max = scan.range_min, scan.range_max
    message.ranges = array.array("f", scan.ranges.tobytes())
    return message


def odometry_to_message(odometry: Odometry, frame: str, child_frame: str) -> OdometryMessage:
    message = OdometryMessage(header=header(odometry.stamp, frame), child_frame_id=child_frame)
    message.pose.pose.position.x, message.pose.pose.position.y = odometry.x, odometry.y
    message.pose.pose.orientation.z = math.sin(odometry.yaw / 2)
    message.pose.pose.orientation.w = math.cos(odometry.yaw / 2)
    message.twist.twist.linear.x, message.twist.twist.angular.z = odometry.linear, odometry.angular
    return message


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


def joints_to_message(joints: JointState) -> JointStateMessage:
    message = JointStateMessage(header=header(joints.stamp), name=list(joints.positions))
    message.position = array.array("d", joints.positions.values())
    return message


def velocity_to_message(velocity: Velocity, stamp: float, frame: str) -> TwistStamped:
    message = TwistStamped(header=header(stamp, frame))
    message.twist.linear.x, message.twist.angular.z = float(velocity.linear), float(velocity.angular)
    return message
