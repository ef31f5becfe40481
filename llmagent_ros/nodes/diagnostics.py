"""What a node says about its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from llmagent_ros.nodes import qos


class Diagnostics:
    """Publishes the state of one component on /diagnostics as text key-values."""

    def __init__(self, node: Node, hardware: str = "") -> None:
        self._node = node
        self._hardware = hardware
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.COMMAND)

    def publish(self, message: str, values: Mapping[str, Any], *, level: bytes = DiagnosticStatus.OK) -> None:
        status = DiagnosticStatus(level=level, name=self._node.get_fully_qualified_name(), message=message)
        status.hardware_id = self._hardware
        status.values = [KeyValue(key=str(key), value=str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
