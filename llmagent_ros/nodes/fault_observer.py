"""What the fault benchmark sees of a graph, as a process of its own that shares no code with what it watches.

    python -m llmagent_ros.nodes.fault_observer

prints one JSON line for each event: `kind`, `at` (s of the system's monotonic clock, on arrival) and what is below.

    cmd         linear, angular of a message on cmd_vel
    policy      stamp (s) of a command of the policy
    beat        a heartbeat
    odom        stamp (s), x, y, yaw and linear, angular as the simulator measures them
    outcome     reason, of one that ends an episode
    transition  run, episode, step
    decision    name of the adapter that acted
    guard       what it says of itself
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from llmagent_interfaces.msg import Decision, Outcome, Transition

_DEPTH = 2000
_EVERYTHING = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
_KEPT = QoSProfile(
    depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
_READING = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)


class Observer(Node):
    """Prints events to a stream."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__("fault_observer")
        self._write = write
        for kind, topic, callback, profile in (
            (TwistStamped, "cmd_vel", self._on_command, _EVERYTHING),
            (TwistStamped, "cmd_vel_policy", self._on_policy, _EVERYTHING),
            (String, "heartbeat", self._on_beat, _READING),
            (Odometry, "raw/odom", self._on_odometry, _READING),
            (Outcome, "outcome", self._on_outcome, _KEPT),
            (Transition, "transition", self._on_transition, _KEPT),
            (Decision, "decision", self._on_decision, _EVERYTHING),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, _EVERYTHING),
        ):
            self.create_subscription(kind, topic, callback, profile)

    def _say(self, kind: str, **values: Any) -> None:
        self._write(json.dumps({"kind": kind, "at": time.monotonic(), **values}) + "\n")

    def _on_command(self, message: TwistStamped) -> None:
        self._say("cmd", linear=message.twist.linear.x, angular=message.twist.angular.z)

    def _on_policy(self, message: TwistStamped) -> None:
        self._say("policy", stamp=message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)

    def _on_beat(self, message: String) -> None:
        self._say("beat", name=message.data)

    def _on_odometry(self, message: Odometry) -> None:
        pose, twist, stamp = message.pose.pose, message.twist.twist, message.header.stamp
        place = {"x": pose.position.x, "y": pose.position.y}
        place["yaw"] = 2.0 * math.atan2(pose.orientation.z, pose.orientation.w)
        speed = {"linear": twist.linear.x, "angular": twist.angular.z}
        self._say("odom", stamp=stamp.sec + 1e-9 * stamp.nanosec, **place, **speed)

    def _on_outcome(self, message: Outcome) -> None:
        if message.terminated or message.truncated:
            self._say("outcome", reason=message.reason)

    def _on_transition(self, message: Transition) -> None:
        self._say("transition", run=message.run, episode=message.episode, step=message.step)

    def _on_decision(self, message: Decision) -> None:
        self._say("decision", adapter=message.adapter)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.rsplit("/", 1)[-1] == "guard":
                self._say("guard", **{pair.key: pair.value for pair in status.values})


def main() -> None:
    rclpy.init(args=sys.argv)

    def write(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    node = Observer(write)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
