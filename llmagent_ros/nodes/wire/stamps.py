"""Times on the wire: seconds as float inside, builtin_interfaces/Time outside."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from llmagent_ros.messages import key, to_seconds

__all__ = ["header", "key", "to_seconds", "to_time"]


def to_time(seconds: float) -> Time:
    """The nearest nanosecond, rounded so that equal floats give equal stamps."""
    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def header(seconds: float, frame: str = "") -> Header:
    return Header(stamp=to_time(seconds), frame_id=frame)
