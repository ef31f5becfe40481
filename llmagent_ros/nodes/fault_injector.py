"""A link between a simulator and the graph that spoils what goes over it, for the fault benchmark.

    python -m llmagent_ros.nodes.fault_injector

passes what the simulator says on `raw/scan`, `raw/odom`, `raw/camera/…` and `raw/clock` on to where a robot's drivers
say it, until a JSON line on its standard input names a fault:

    {"fault": "nan", "of": "scan"}          what of the readings is spoilt, until the next line; "none": nothing
    {"fault": "flood"}                      floods cmd_vel_policy
    {"fault": "person"}                     holds a joystick for teleop
    {"fault": "adapter", "path": …, "digest": …, "base": …, "wording": …}     announces a bundle

Each line is answered by one: `at` and `clock` (s of the monotonic clock and of the simulator's), when the last sound
reading of each sensor was acquired (`sound`, s of the simulator's clock), and when the clock was last passed on
(`clock_at`). With an empty standard input it ends.
"""

from __future__ import annotations

import array
import copy
import json
import math
import queue
import random
import sys
import threading
import time
from collections import deque
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, Joy, LaserScan

from llmagent_interfaces.msg import Adapter

LATE = 1.5  # s
FUTURE = 5.0  # s
JUMP = 5.0  # s by which the clock jumps
FLOOD = 0.001  # s between two commands
PERSON = 0.05  # s between two messages of the joystick
CLOCK = 0.01  # s between two messages of the clock
RECENT = 1.0  # s of which the fastest way of the clock is taken
TICK = 0.1  # s between two ticks of the simulator
_OFFSETS = 100  # clock messages over which the way of the fastest is taken
_SENSORS = {
    "scan": ((LaserScan, "scan"),),
    "odom": ((Odometry, "odom"),),
    "camera": ((Image, "camera/image_raw"), (CameraInfo, "camera/camera_info")),
}
_RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Injector(Node):
    """Passes messages on, or not, or others."""

    def __init__(self) -> None:
        super().__init__("fault_injector")
        self._fault: dict[str, Any] = {"fault": "none"}
        self._asked: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=100)
        self._sound: dict[str, float] = {}
        self._last: dict[str, Any] = {}  # by topic, as it was passed on
        self._held: dict[str, Any] = {}  # by topic, what the next one overtakes
        self._late: deque[tuple[float, Any, Any]] = deque(maxlen=1000)  # when it is due, publisher, message
        self._offsets: deque[tuple[float, float]] = deque(maxlen=_OFFSETS)  # when, monotonic clock less the simulator's
        self._time, self._time_at, self._told, self._clock_at = 0.0, 0.0, 0.0, 0.0
        self._joy_at = 0.0
        self._rng = random.Random(0)
        for name, topics in _SENSORS.items():
            for kind, topic in topics:
                publisher = self.create_publisher(kind, topic, _RELIABLE)
                self.create_subscription(kind, f"raw/{topic}", self._passer(name, topic, publisher), _RELIABLE)
        self._clock_publisher = self.create_publisher(Clock, "/clock", _RELIABLE)
        self.create_subscription(Clock, "/raw/clock", self._on_clock, _RELIABLE)
        self._commands = self.create_publisher(TwistStamped, "cmd_vel_policy", _RELIABLE)
        self._joystick = self.create_publisher(Joy, "joy", _RELIABLE)
        self._adapters = self.create_publisher(Adapter, "adapter", _LATEST)

    def ask(self, line: str) -> None:
        """From the thread that reads."""
        self._asked.put(json.loads(line), timeout=10.0)

    def work(self) -> None:
        """What is due now; called often."""
        while not self._asked.empty():
            self._take(self._asked.get_nowait())
        while self._late and self._late[0][0] <= time.monotonic():
            _, publisher, message = self._late.popleft()
            publisher.publish(message)
        if self._fault["fault"] == "flood":
            self._flood()
        if self._fault["fault"] == "person" and time.monotonic() - self._joy_at > PERSON:
            self._joy_at = time.monotonic()
            self._joystick.publish(_driving())
        if time.monotonic() - self._clock_at > CLOCK:
            self._pass_clock()

    def _take(self, fault: dict[str, Any]) -> None:
        self._held.clear()
        if fault["fault"] == "adapter":
            self._announce(fault)
        else:
            self._fault = fault
        now = time.monotonic()
        recent = [offset for at, offset in self._offsets if now - at < RECENT]  # between episodes its clock stands
        clock = now - min(recent, default=self._offsets[-1][1] if self._offsets else 0.0)
        told = {"at": now, "clock": clock, "sound": self._sound, "clock_at": self._clock_at}
        print(json.dumps(told), flush=True)

    def _passer(self, sensor: str, topic: str, publisher: Any) -> Any:
        def on_message(message: Any) -> None:
            fault = self._fault["fault"] if self._fault.get("of") == sensor else "none"
            if fault == "none":
                self._sound[sensor] = _seconds(message.header.stamp)
                self._last[topic] = message
                publisher.publish(message)
            else:
                self._spoil(fault, topic, publisher, message)

        return on_message

    def _spoil(self, fault: str, topic: str, publisher: Any, message: Any) -> None:
        if fault == "frozen":
            if topic in self._last:
                publisher.publish(self._last[topic])
        elif fault == "repeated":
            if topic in self._last:
                old = copy.deepcopy(self._last[topic])
                old.header.stamp = message.header.stamp
                publisher.publish(old)
        elif fault == "reordered":
            held = self._held.pop(topic, None)
            if held is None:
                self._held[topic] = message
            else:
                publisher.publish(message)
                publisher.publish(held)
        elif fault == "late":
            self._late.append((time.monotonic() + LATE, publisher, message))
        elif fault != "silent":
            publisher.publish(_spoilt(fault, message))

    def _on_clock(self, message: Clock) -> None:
        self._time, self._time_at = _seconds(message.clock), time.monotonic()
        self._offsets.append((self._time_at, self._time_at - self._time))
        self._pass_clock()

    def _pass_clock(self) -> None:
        """The simulator's clock, running on between two of its ticks as a robot's does, but no further."""
        now, fault = time.monotonic(), self._fault["fault"]
        since = now - self._time_at
        if fault == "clock stops" or not self._offsets or (since > TICK and self._clock_at > self._time_at + TICK):
            return
        shift = {"clock jumps ahead": JUMP, "clock jumps back": -JUMP}.get(fault, 0.0)
        told = max(0.0, self._time + min(since, TICK) + shift)
        if not 0.0 < self._told - told < JUMP / 2:  # a tick that came early must not take the clock back
            self._told = told
            self._clock_publisher.publish(Clock(clock=_stamp(told)))
            self._clock_at = now

    def _flood(self) -> None:
        message = TwistStamped()
        stamp = self._time + self._rng.choice([0.0, 0.0, 0.0, -0.1, 0.15])
        message.header.stamp = _stamp(stamp)
        wild = [0.6, -0.6, 3.0, -1e9, math.nan, math.inf, self._rng.uniform(-1.0, 1.0)]
        message.twist.linear.x, message.twist.angular.z = self._rng.choice(wild), self._rng.choice(wild)
        self._commands.publish(message)

    def _announce(self, told: dict[str, Any]) -> None:
        message = Adapter(name=told["name"], path=told["path"], digest=told["digest"], base=told["base"])
        message.wording, message.updates = told["wording"], 1_000_000
        self._adapters.publish(message)


def _driving() -> Joy:
    """An Xbox pad, its dead-man held, that asks for a slow arc."""
    pad = Joy(axes=[0.0] * 8, buttons=[0] * 11)
    pad.buttons[4], pad.axes[1], pad.axes[3] = 1, 0.4, 0.4
    return pad


def _spoilt(fault: str, message: Any) -> Any:
    spoilt = copy.deepcopy(message)
    if fault == "future":
        spoilt.header.stamp.sec += int(FUTURE)
    elif isinstance(spoilt, LaserScan):
        spoilt.ranges = array.array("f", [] if fault == "empty" else [math.nan] * len(spoilt.ranges))
    elif isinstance(spoilt, Odometry):
        spoilt.pose.pose.position.x = spoilt.twist.twist.linear.x = math.nan
    elif isinstance(spoilt, CameraInfo):
        spoilt.k[0] = math.nan if fault == "nan" else 0.0
    elif fault == "empty":
        spoilt.height = spoilt.width = spoilt.step = 0
        spoilt.data = array.array("B")
    return spoilt


def _seconds(stamp: Any) -> float:
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def _stamp(seconds: float) -> Time:
    return Time(sec=int(seconds), nanosec=int(1e9 * (seconds % 1.0)))


def main() -> None:
    rclpy.init(args=sys.argv)
    node = Injector()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    over = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            node.ask(line)
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    while not over.is_set() and rclpy.ok():
        executor.spin_once(timeout_sec=FLOOD)
        node.work()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
