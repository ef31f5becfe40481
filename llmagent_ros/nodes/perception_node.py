"""Sensor topics to scene text."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Literal

from nav_msgs.msg import Odometry
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo, Image, LaserScan

from llmagent_interfaces.msg import Decision, Scene, Task
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire import decisions, sensors
from llmagent_ros.nodes.wire.stamps import key, to_seconds
from llmagent_ros.perception.perception import LATE, Perception

REPORT_PERIOD = 1.0  # s of wall time between two diagnostics


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class PerceptionNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path.
        mode: lockstep: a scene for each complete set of readings of one stamp. realtime: one in each control period.
        decision_timeout: s of wall time that a scene waits in lockstep for the decision on the scene before it, whose
            action it tells; without a policy (teleoperation) none comes.
    """

    robot: str = "sim_diffdrive"
    mode: Literal["lockstep", "realtime"] = "lockstep"
    decision_timeout: Annotated[float, Field(gt=0)] = 0.2


class PerceptionNode(Node):
    """Publishes `scene`."""

    def __init__(self) -> None:
        super().__init__("perception", automatically_declare_parameters_from_overrides=True)
        self._config = parameters(self, PerceptionNodeConfig)
        self._contract = load_contract(self._config.robot)
        # in lockstep nothing overtakes: an older reading is that of a world that began anew
        late = 0.0 if self._config.mode == "lockstep" else LATE
        self._perception = Perception(self._contract, late=late)
        self._task = Task()
        self._stamps: dict[str, int] = {}  # newest reading of each sensor
        self._info: CameraInfo | None = None
        self._image: Image | None = None
        self._said = 0  # stamp of the last scene
        self._scene: Scene | None = None  # the last one
        self._decided = 0  # stamp of the last decision of this task
        self._due: float | None = None  # wall time until which a complete set waits for a decision
        self._problem = ""
        self._publisher = self.create_publisher(Scene, "scene", qos.COMMAND)
        self._diagnostics = Diagnostics(self)
        self._subscribe()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)
        if self._config.mode == "lockstep":
            self.create_timer(self._config.decision_timeout / 4, self._watch, clock=steady)
        else:
            # simulated time may run at any speed; when the system's steps back, its timers wait until it has caught up
            simulated = bool(self.get_parameter("use_sim_time").value)
            clock = self.get_clock() if simulated else steady
            self.create_timer(self._contract.control_period, self._say_now, clock=clock)

    def _subscribe(self) -> None:
        topics = self._contract.sensors
        subscribe: Callable[..., object] = self.create_subscription
        # in lockstep one lost reading would halt the world; a robot's drivers may offer best effort only
        sensor = qos.RELIABLE_SENSOR if self._config.mode == "lockstep" else qos.SENSOR
        subscribe(LaserScan, topics.scan.topic, self._on_scan, sensor)
        subscribe(Odometry, topics.odom.topic, self._on_odometry, sensor)
        self._sensors = {"scan", "odom"}
        if topics.camera is not None:
            subscribe(CameraInfo, topics.camera.info_topic, self._on_info, sensor)
            subscribe(Image, topics.camera.topic, self._on_image, sensor)
            self._sensors.add("camera")
        subscribe(Task, "task", self._on_task, qos.LATEST)
        subscribe(Decision, "decision", self._on_decision, qos.COMMAND)

    # --- what comes in -----------------------------------------------------------------------------

    def _on_scan(self, message: LaserScan) -> None:
        if self._perception.on_scan(sensors.scan_from_message(message)):
            self._arrived("scan", key(message.header.stamp))

    def _on_odometry(self, message: Odometry) -> None:
        if self._perception.on_odometry(sensors.odometry_from_message(message)):
            self._arrived("odom", key(message.header.stamp))

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message
        self._take_image()

    def _on_image(self, message: Image) -> None:
        self._image = message
        self._take_image()

    def _take_image(self) -> None:
        """Image and intrinsics come on two topics: the pair counts when both are of one moment."""
        if self._image is None or self._info is None or self._image.header.stamp != self._info.header.stamp:
            return
        image, self._image = self._image, None
        try:
            if not self._perception.on_image(sensors.image_from_messages(image, self._info)):
                return
        except ConfigError as error:
            if str(error) != self._problem:  # the camera then reads as unknown; once is enough to be told why
                self._problem = str(error)
                self.get_logger().error(self._problem)
        self._arrived("camera", key(image.header.stamp))

    def _on_task(self, message: Task) -> None:
        again = bool(message.id) and message.id == self._task.id  # with what was found for it since
        self._task = message
        if again:
            return
        self._perception.start_episode(message.instruction)
        self._decided, self._due = 0, None
        if message.instruction and self._complete() is not None:
            self._say(max(self._stamps.values()))

    def _on_decision(self, message: Decision) -> None:
        if message.task_id != self._task.id:
            return
        self._decided = key(message.header.stamp)
        self._perception.note_action(message.action)
        if self._due is not None:
            self._say_if_complete()

    # --- when a scene is due -------------------------------------------------------------------------

    def _arrived(self, sensor: str, stamp: int) -> None:
        if stamp < self._stamps.get(sensor, 0):  # and it was taken: time stepped back
            self._stamps.clear()
            self._said, self._decided, self._due = 0, 0, None
        self._stamps[sensor] = stamp
        if self._config.mode == "lockstep":
            self._say_if_complete()

    def _complete(self) -> int | None:
        """The one stamp that all newest readings bear, or None."""
        stamps = set(self._stamps.values())
        return stamps.pop() if len(stamps) == 1 and set(self._stamps) == self._sensors else None

    def _say_if_complete(self) -> None:
        stamp = self._complete()
        if stamp is None or stamp < self._said or not self._task.instruction:
            return
        if stamp == self._said:
            self._say_again()
            return
        waits_for_decision = self._said > 0 and self._decided < self._said
        if waits_for_decision:
            now = time.monotonic()
            self._due = self._due or now + self._config.decision_timeout
            if now < self._due:
                return
        self._say(stamp)

    def _watch(self) -> None:
        if self._due is not None:
            self._say_if_complete()

    def _say_now(self) -> None:
        if self._task.instruction:
            self._say(self.get_clock().now().nanoseconds)

    def _say(self, stamp: int) -> None:
        self._said, self._due = stamp, None
        scene = self._perception.scene(stamp * 1e-9)
        self._scene = decisions.scene_to_message(scene, self._task, self._contract.frames.base)
        self._publisher.publish(self._scene)

    def _say_again(self) -> None:
        """The world repeats its readings because no command came: perhaps the scene was lost, or its command was."""
        if self._scene is not None and self._scene.task_id == self._task.id:
            self._publisher.publish(self._scene)

    def _report(self) -> None:
        now = to_seconds(self.get_clock().now().to_msg())
        ages = {f"{sensor}_age": f"{now - stamp * 1e-9:.2f}" for sensor, stamp in self._stamps.items()}
        missing = ", ".join(sorted(self._sensors - set(self._stamps)))
        self._diagnostics.publish(f"no readings of: {missing}" if missing else "all sensors seen", ages)


def main() -> None:
    process.main(PerceptionNode)


if __name__ == "__main__":
    main()
