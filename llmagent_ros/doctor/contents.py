"""Whether the data of a sensor message can be used; messages are told by their fields, see `llmagent_ros.messages`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from llmagent_ros import messages
from llmagent_ros.contract import ArmContract, RobotContract
from llmagent_ros.errors import ConfigError
from llmagent_ros.geometry import direction_problem
from llmagent_ros.messages import Message


def data_problem(contract: RobotContract, kind: str, message: Message) -> str:
    """What is wrong with a message's data; empty for nothing. kind: its type, as in `TopicSpec`."""
    look = _LOOKS.get(kind)
    return look(contract, message) if look is not None else ""


def _scan(contract: RobotContract, message: Message) -> str:
    scan = messages.scan_from_message(message)
    if not len(scan.ranges):
        return "has no ranges"
    measured = np.isinf(scan.ranges) | ((scan.ranges >= scan.range_min) & (scan.ranges <= scan.range_max))
    if not measured.any():
        return f"none of {len(scan.ranges)} ranges is a measurement"
    return direction_problem(scan)


def _odometry(contract: RobotContract, message: Message) -> str:
    odometry = messages.odometry_from_message(message)
    values = {name: getattr(odometry, name) for name in ("x", "y", "yaw", "linear", "angular")}
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    return f"{', '.join(wrong)}: not finite" if wrong else ""


def _joints(contract: RobotContract, message: Message) -> str:
    assert isinstance(contract, ArmContract)
    told = messages.joints_from_message(message).positions
    missing = [name for name in contract.joints if name not in told]
    if missing:
        return f"nothing of joint {', '.join(missing)}; told: {', '.join(message.name) or 'none'}"
    wrong = [name for name in contract.joints if not math.isfinite(told[name])]
    return f"position of {', '.join(wrong)}: not finite" if wrong else ""


def _image(contract: RobotContract, message: Message) -> str:
    try:
        image = messages.image_from_messages(message, _Unit)
    except ConfigError as error:
        return str(error)
    if not image.rgb.size:
        return "has no pixels"
    return "every pixel is black" if not image.rgb.any() else ""


def _intrinsics(contract: RobotContract, message: Message) -> str:
    fx, fy = message.k[0], message.k[4]
    usable = math.isfinite(fx) and math.isfinite(fy) and fx > 0 and fy > 0
    return "" if usable else f"focal lengths {fx:g}, {fy:g}: the camera is not calibrated"


class _Unit:
    """Intrinsics of any camera."""

    k = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


_LOOKS: dict[str, Callable[[RobotContract, Message], str]] = {
    "sensor_msgs/msg/LaserScan": _scan,
    "nav_msgs/msg/Odometry": _odometry,
    "sensor_msgs/msg/JointState": _joints,
    "sensor_msgs/msg/Image": _image,
    "sensor_msgs/msg/CameraInfo": _intrinsics,
}
