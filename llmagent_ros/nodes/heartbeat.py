"""Says that a node lives, for a guard on another machine.

A std_msgs/String with the node's name: who lives must be said, since several may have to, and nothing else is needed. A
stamp would be of another machine's clock; the guard goes by when it comes.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import String

from llmagent_ros.nodes import qos

HEARTBEAT = "heartbeat"
PERIOD = 0.1  # s of wall time


class Heartbeat:
    """Publishes a node's name on `heartbeat`, from its executor: one that hangs falls silent.

    Args:
        ready: whether it can do what it is there for; while it cannot, it says nothing.
    """

    def __init__(self, node: Node, ready: Callable[[], bool] = lambda: True) -> None:
        self._message, self._ready = String(data=node.get_name()), ready
        self._publisher = node.create_publisher(String, HEARTBEAT, qos.SENSOR)
        node.create_timer(PERIOD, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _beat(self) -> None:
        if self._ready():
            self._publisher.publish(self._message)
