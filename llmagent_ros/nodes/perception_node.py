"""Sensor topics to scene text."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType

from llmagent_interfaces.msg import Decision, Scene, Task
from llmagent_ros.contract import load_contract
from llmagent_ros.messages import said_to_the_robot
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.sensors import MESSAGES
from llmagent_ros.nodes.wire.stamps import key, to_seconds
from llmagent_ros.perception.intake import Arrival, SensorIntake, sensor_topics

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
        self._intake = SensorIntake(self._contract, self._config.mode)
        self._task = Task()
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
        subscribe: Callable[..., object] = self.create_subscription
        for topic in sensor_topics(self._contract):
            # in lockstep one lost reading would halt the world
            profile = qos.RELIABLE_SENSOR if self._config.mode == "lockstep" else qos.of(topic.qos)
            subscribe(MESSAGES[topic.type], topic.topic, self._taker(topic.type), profile)
        subscribe(Task, "task", self._on_task, qos.LATEST)
        subscribe(Decision, "decision", self._on_decision, qos.COMMAND)

    # --- what comes in -----------------------------------------------------------------------------

    def _taker(self, type_name: str) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            arrival = self._intake.take(type_name, message)
            if arrival is not None:
                self._on_arrival(arrival)

        return take

    def _on_arrival(self, arrival: Arrival) -> None:
        if arrival.problem and arrival.problem != self._problem:  # once is enough to be told why
            self._problem = arrival.problem
            self.get_logger().error(self._problem)
        if arrival.jumped:
            self._said, self._decided, self._due = 0, 0, None
        if self._config.mode == "lockstep":
            self._say_if_complete()

    def _on_task(self, message: Task) -> None:
        again = bool(message.id) and message.id == self._task.id  # with what was found for it since
        self._task = message
        if again:
            return
        self._intake.begin(message.instruction)
        self._decided, self._due = 0, None
        stamp = self._intake.complete()
        if message.instruction and stamp is not None:
            self._say(stamp)

    def _on_decision(self, message: Decision) -> None:
        if message.task_id != self._task.id:
            return
        self._decided = key(message.header.stamp)
        self._intake.note(said_to_the_robot(message))
        if self._due is not None:
            self._say_if_complete()

    # --- when a scene is due -------------------------------------------------------------------------

    def _say_if_complete(self) -> None:
        stamp = self._intake.complete()
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
        scene, intake = self._intake.scene(stamp), self._intake
        self._scene = decisions.scene_to_message(
            scene,
            self._task,
            self._contract.base_frame,
            now=stamp,
            readings=intake.stamps,
            decisions=intake.decisions,
        )
        self._publisher.publish(self._scene)

    def _say_again(self) -> None:
        """The world repeats its readings because no command came: perhaps the scene was lost, or its command was."""
        if self._scene is not None and self._scene.task_id == self._task.id:
            self._publisher.publish(self._scene)

    def _report(self) -> None:
        now, stamps = to_seconds(self.get_clock().now().to_msg()), self._intake.stamps
        ages = {f"{sensor}_age": f"{now - stamp * 1e-9:.2f}" for sensor, stamp in stamps.items()}
        missing = ", ".join(sorted(self._intake.sensors - set(stamps)))
        self._diagnostics.publish(f"no readings of: {missing}" if missing else "all sensors seen", ages)


def main() -> None:
    process.main(PerceptionNode)


if __name__ == "__main__":
    main()
