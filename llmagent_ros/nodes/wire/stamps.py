"""Times on the wire: seconds as float inside, builtin_interfaces/Time outside."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from std_msgs.msg import Header


def to_seconds(stamp: Time) -> float:
    """Seconds since the epoch of the clock; exact to a microsecond for any realistic time."""
    return stamp.sec + stamp.nanosec * 1e-9


def to_time(seconds: float) -> Time:
    """The nearest nanosecond, rounded so that equal floats give equal stamps."""
    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def header(seconds: float, frame: str = "") -> Header:
    return Header(stamp=to_time(seconds), frame_id=frame)


def key(stamp: Time) -> int:
    """A stamp as nanoseconds: what messages of one moment are matched by."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
