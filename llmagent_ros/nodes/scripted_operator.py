"""A scripted person at a joystick, for benchmarks of what demonstrations are worth.

    python -m llmagent_ros.nodes.scripted_operator --ros-args -p task:=navigate -p seed:=0

holds the dead-man of teleop and drives the robot of `sim_node` to the target of each episode. It draws the worlds of
the simulator's seed again, and knows by the odometry of a new episode in which of them the robot stands. What is to be
reached it looks for with the robot's camera all the same, before it drives there, as one does who is not in the room:
it watches all readings, not only those that the robot decides on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from nav_msgs.msg import Odometry
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Joy

from llmagent_interfaces.msg import Task
from llmagent_ros.contract import load_mobile_contract
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire.sensors import MESSAGES
from llmagent_ros.perception import intake
from llmagent_ros.perception.numbers import SceneNumbers, where_to_look
from llmagent_ros.simulation.driving import Pose, ScriptedOperator
from llmagent_ros.simulation.simulator import world_of_episode
from llmagent_ros.simulation.task import load_task
from llmagent_ros.simulation.world import load_world
from llmagent_ros.teleop.joystick import JoystickConfig
from llmagent_ros.types import Place, Velocity

_NEAR = 0.3  # m from a world's start within which a robot at the beginning of an episode stands in it
_AHEAD = 3  # worlds beyond the next one that are looked at
_AXES, _BUTTONS = 8, 11  # of an Xbox pad


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class ScriptedOperatorConfig:
    """Parameters.

    Attributes:
        robot, task, seed: those of the simulator. rate: Hz at which the sticks are moved.
        unsteadiness: standard deviation of the sticks' deflections. teach: that of teleop.
        view: robot: they look for what they are to reach through its camera. room: they see it from where they stand.
    """

    robot: str = "sim_diffdrive"
    task: str = "navigate"
    seed: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(ge=5, le=100)] = 20.0
    unsteadiness: Annotated[float, Field(ge=0, le=1)] = 0.05
    teach: bool = False
    view: Literal["robot", "room"] = "robot"


class ScriptedOperatorNode(Node):
    """Subscribes task, odometry and, with the robot's view, all that perception does; publishes joy."""

    def __init__(self) -> None:
        super().__init__("scripted_operator", automatically_declare_parameters_from_overrides=True)
        self._config = parameters(self, ScriptedOperatorConfig)
        self._contract = load_mobile_contract(self._config.robot)
        self._task = load_task(self._config.task)
        self._world_config = load_world(self._task.world)
        self._pad = JoystickConfig()
        self._rng = np.random.default_rng(self._config.seed)
        self._next_world = 0
        self._task_id = ""
        self._pose: Pose | None = None
        self._operator: ScriptedOperator | None = None
        self._intake = intake.SensorIntake(self._contract, "realtime")
        self._numbers = SceneNumbers(self._contract)
        self._look: Place | None = None
        self._publisher = self.create_publisher(Joy, "joy", qos.COMMAND)
        self.create_subscription(Task, "task", self._on_task, qos.LATEST)
        if self._config.view == "robot":
            for topic in intake.sensor_topics(self._contract):
                self.create_subscription(MESSAGES[topic.type], topic.topic, self._taker(topic.type), qos.SENSOR)
        self.create_subscription(Odometry, self._contract.sensors.odom.topic, self._on_odometry, qos.SENSOR)
        self.create_timer(1.0 / self._config.rate, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_task(self, message: Task) -> None:
        if message.id != self._task_id:
            self._task_id, self._operator, self._pose, self._look = message.id, None, None, None
            self._intake.begin(message.instruction)

    def _taker(self, type_name: str) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            arrival = self._intake.take(type_name, message)
            if arrival is not None and arrival.sensor == "camera" and self._task_id:
                numbers = self._numbers(self._intake.scene(arrival.stamp).text)
                self._look = where_to_look(numbers, self._contract.scene.max_clearance)

        return take

    def _on_odometry(self, message: Odometry) -> None:
        place, turned = message.pose.pose.position, message.pose.pose.orientation
        self._pose = (place.x, place.y, 2.0 * math.atan2(turned.z, turned.w))

    def _tick(self) -> None:
        """Without a task or a world that fits, the sticks stay in the middle."""
        velocity = Velocity()
        if self._pose is not None and self._task_id:
            self._operator = self._operator or self._look_around(self._pose)
            if self._operator is not None:
                velocity = self._operator.velocity(self._pose, self._look)
        self._publisher.publish(self._held(velocity))

    def _look_around(self, pose: Pose) -> ScriptedOperator | None:
        for number in range(self._next_world, self._next_world + 1 + _AHEAD):
            world, _ = world_of_episode(
                self._contract, self._task, self._world_config, self._config.seed, number
            )
            if math.dist(world.start[:2], pose[:2]) < _NEAR:
                self._next_world = number + 1
                place = self._contract, self._task, self._world_config, world
                return ScriptedOperator(*place, by_phrases=self._config.teach)
        return None

    def _held(self, velocity: Velocity) -> Joy:
        """The dead-man held, and the sticks where teleop makes this velocity of them, about."""
        axes, buttons = [0.0] * _AXES, [0] * _BUTTONS
        buttons[self._pad.dead_man] = 1
        full = self._contract.fastest() if self._config.teach else self._contract.limits
        wanted = {
            self._pad.linear_axis: velocity.linear / full.linear,
            self._pad.angular_axis: velocity.angular / full.angular,
        }
        for axis, share in wanted.items():
            if share:
                zone = self._pad.dead_zone
                deflection = math.copysign(zone + abs(share) * (1.0 - zone), share)
                axes[axis] = float(np.clip(deflection + self._rng.normal(0.0, self._config.unsteadiness), -1.0, 1.0))
        message = Joy(axes=axes, buttons=buttons)
        message.header.stamp = self.get_clock().now().to_msg()
        return message


def main() -> None:
    process.main(ScriptedOperatorNode)


if __name__ == "__main__":
    main()
