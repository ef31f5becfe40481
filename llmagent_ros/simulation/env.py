"""The simulated robot as a Gymnasium environment, registered as "llmagent/Navigate-v0".

    gymnasium.make("llmagent_ros.simulation.env:llmagent/Navigate-v0", robot="sim_diffdrive", task="navigate")

Gymnasium imports the module before the colon, and that registers the environment.
"""

from __future__ import annotations

import itertools
import math
import string
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import load_mobile_contract
from llmagent_ros.simulation.physics import Readings
from llmagent_ros.simulation.route import Route
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task

ENV_ID = "llmagent/Navigate-v0"
Observation = dict[str, Any]


class NavigateEnv(gym.Env[Observation, np.int64]):
    """Do what the instruction says about the object that it names: drive to it, unless the task has another goal.

    Observation (raw sensors, as the ROS topics carry them):
        scan: (rays,) float32 m from the scanner, range_max where nothing is in reach, first ray to the back, then
            counter-clockwise. image: (height, width, 3) uint8. odometry: (5,) float32, x, y in m, yaw in rad,
            linear in m/s, angular in rad/s. instruction: text.
    Action: index into the robot contract's phrases, held for one control period.
    Reward, end of episode: the task file (config/tasks). Truncated by the task's max_steps.
    Info: once an episode ended, `success`, `reason`, and `spl`, the success weighted by path length of Anderson et al.
        (2018): length of the shortest way over that of the path, at most 1; 0 without success, absent where the goal is
        not to reach.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2.5}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self, robot: str = "sim_diffdrive", task: str = "navigate", render_mode: str | None = None
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}; valid: None, {self.metadata['render_modes']}")
        self.render_mode = render_mode
        self.contract = load_mobile_contract(robot)
        sensors = self.contract.simulation
        self.simulator = Simulator(self.contract, load_task(task))
        self._readings: Readings | None = None
        self._path: list[tuple[float, float]] = []  # true positions, m
        size = (sensors.image_height, sensors.image_width, 3)
        characters = string.ascii_letters + string.digits + string.punctuation + " "
        self.observation_space = gym.spaces.Dict(
            {
                "scan": gym.spaces.Box(0.0, sensors.range_max, (sensors.rays,), np.float32),
                "image": gym.spaces.Box(0, 255, size, np.uint8),
                "odometry": gym.spaces.Box(-np.inf, np.inf, (5,), np.float32),
                "instruction": gym.spaces.Text(200, min_length=1, charset=characters),
            }
        )
        self.action_space = gym.spaces.Discrete(len(self.contract.phrases))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new world; with a seed, the first of that seed's sequence."""
        super().reset(seed=seed)
        self._readings = self.simulator.reset(seed)
        self._path = [self.simulator.pose()[:2]]
        return self._observation(self._readings), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Holds one action phrase for a control period."""
        phrase = self.contract.phrases[int(action)]
        self._readings, outcome = self.simulator.step(self.contract.command(phrase))
        self._path.append(self.simulator.pose()[:2])
        info: dict[str, Any] = {}
        if outcome.ended:
            info = {"success": outcome.success, "reason": outcome.reason}
            if self.simulator.task.goal == "reach":
                info["spl"] = self._spl(outcome.success)
        return self._observation(self._readings), outcome.reward, outcome.terminated, outcome.truncated, info

    def _spl(self, success: bool) -> float:
        if not success:
            return 0.0
        world, task = self.simulator.world, self.simulator.task
        assert world is not None
        route = Route(self.simulator.world_config, world, self.contract.footprint_radius, task.reach)
        shortest = route.length(*self._path[0])
        driven = sum(math.dist(a, b) for a, b in itertools.pairwise(self._path))
        return min(1.0, shortest / max(driven, 1e-6))

    @property
    def symmetric(self) -> bool:
        """Whether body and task are the same seen in a mirror."""
        return self.simulator.task.variation.symmetric

    @property
    def readings(self) -> Readings:
        """The last readings as value types, for `Perception`."""
        assert self._readings is not None, "reset first"
        return self._readings

    @property
    def instruction(self) -> str:
        """What the robot is to do in this world."""
        return self.simulator.instruction

    def render(self) -> NDArray[np.uint8] | None:
        """The robot's camera image ("rgb_array")."""
        return self._readings.image.rgb if self.render_mode == "rgb_array" and self._readings else None

    def close(self) -> None:
        self.simulator.close()

    def _observation(self, readings: Readings) -> Observation:
        odometry = readings.odometry
        values = (odometry.x, odometry.y, odometry.yaw, odometry.linear, odometry.angular)
        return {
            "scan": np.minimum(readings.scan.ranges, np.float32(readings.scan.range_max)),
            "image": readings.image.rgb,
            "odometry": np.array(values, np.float32),
            "instruction": self.simulator.instruction,
        }


def register() -> None:
    """Makes the environments known to `gymnasium.make`; a second call does nothing."""
    if ENV_ID not in gym.registry:
        gym.register(ENV_ID, entry_point="llmagent_ros.simulation.env:NavigateEnv")


register()
