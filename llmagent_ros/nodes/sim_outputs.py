"""What the simulated robot's drivers publish."""

from __future__ import annotations

from typing import Any

from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState, LaserScan

from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import sensors
from llmagent_ros.simulation.arm.physics import ArmReadings
from llmagent_ros.simulation.making import AnyReadings
from llmagent_ros.types import CameraImage

SCAN, ODOM, JOINTS, IMAGE, INFO = (
    *("sensors.scan", "sensors.odom", "sensors.joints", "sensors.camera", "sensors.camera.info_topic"),
)
_SENSORS = {SCAN: LaserScan, ODOM: Odometry, JOINTS: JointState, IMAGE: Image, INFO: CameraInfo}


class SimOutputs:
    """Publishers of the sensors of a robot contract; they offer reliable, which every subscription matches."""

    def __init__(self, node: Node, contract: RobotContract) -> None:
        self._contract = contract
        self._publishers: dict[str, Any] = {}
        for spec in contract.topics:
            if spec.key in _SENSORS:
                kind = _SENSORS[spec.key]
                self._publishers[spec.key] = node.create_publisher(kind, spec.topic, qos.RELIABLE_SENSOR)

    def publish(self, readings: AnyReadings) -> None:
        """All sensors, the camera last."""
        contract = self._contract
        if isinstance(readings, ArmReadings):
            assert isinstance(contract, ArmContract)
            self._publishers[JOINTS].publish(sensors.joints_to_message(readings.joints))
            self._publish_image(readings.image, contract.frames.camera)
        else:
            assert isinstance(contract, MobileContract)
            frames = contract.frames
            odometry = sensors.odometry_to_message(readings.odometry, frames.odom, frames.base)
            self._publishers[ODOM].publish(odometry)
            self._publishers[SCAN].publish(sensors.scan_to_message(readings.scan, frames.scan))
            self._publish_image(readings.image, frames.camera)

    def _publish_image(self, image: CameraImage, frame: str) -> None:
        if IMAGE in self._publishers:
            message, info = sensors.image_to_messages(image, frame)
            self._publishers[INFO].publish(info)
            self._publishers[IMAGE].publish(message)
