"""The simulated arm as a Gymnasium environment, registered as "llmagent/Arm-v0".

    gymnasium.make("llmagent_ros.simulation.arm.env:llmagent/Arm-v0", robot="sim_arm", task="reach")

Gymnasium imports the module before the colon, and that registers the environment.
"""

from __future__ import annotations

import string
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import ArmContract, load_contract
from llmagent_ros.contract.steps import Stepper
from llmagent_ros.errors import ConfigError
from llmagent_ros.simulation.arm.physics import ArmReadings
from llmagent_ros.simulation.arm.simulator import ArmSimulator
from llmagent_ros.simulation.arm.task import load_arm_task

ENV_ID = "llmagent/Arm-v0"
Observation = dict[str, Any]


class ArmEnv(gym.Env[Observation, np.int64]):
    """Do with the arm what the instruction says about the thing that it names.

    Observation (raw sensors, as the ROS topics carry them):
        joints: (joints,) float32, rad. image: (height, width, 3) uint8. instruction: text.
    Action: index into the robot contract's phrases, a step that takes one control period.
    Reward, end of episode: the task file (config/tasks). Truncated by the task's max_steps.
    Info: once an episode ended, `success` and `reason`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5.0}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, robot: str = "sim_arm", task: str = "reach", render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}; valid: None, {self.metadata['render_modes']}")
        self.render_mode = render_mode
        contract = load_contract(robot)
        if not isinstance(contract, ArmContract):
            raise ConfigError(f"task {task} is for an arm; robot {contract.robot} is none")
        self.contract = contract
        self.simulator = ArmSimulator(contract, load_arm_task(task))
        self._stepper = Stepper(contract)
        self._readings: ArmReadings | None = None
        form = contract.simulation
        characters = string.ascii_letters + string.digits + string.punctuation + " "
        self.observation_space = gym.spaces.Dict(
            {
                "joints": gym.spaces.Box(-np.inf, np.inf, (len(contract.joints),), np.float32),
                "image": gym.spaces.Box(0, 255, (form.image_height, form.image_width, 3), np.uint8),
                "instruction": gym.spaces.Text(200, min_length=1, charset=characters),
            }
        )
        self.action_space = gym.spaces.Discrete(len(contract.phrases))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new table; with a seed, the first of that seed's sequence."""
        super().reset(seed=seed)
        self._readings = self.simulator.reset(seed)
        self._stepper.forget()
        return self._observation(self._readings), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Makes the step of one action phrase."""
        target = self._stepper.target(self.contract.phrases[int(action)], self.readings.joints.positions)
        self._readings, outcome = self.simulator.step(target)
        info: dict[str, Any] = {"success": outcome.success, "reason": outcome.reason} if outcome.ended else {}
        return self._observation(self._readings), outcome.reward, outcome.terminated, outcome.truncated, info

    @property
    def readings(self) -> ArmReadings:
        """The last readings as value types, for perception."""
        assert self._readings is not None, "reset first"
        return self._readings

    @property
    def instruction(self) -> str:
        """What the arm is to do at this table."""
        return self.simulator.instruction

    def render(self) -> NDArray[np.uint8] | None:
        """The camera's image ("rgb_array")."""
        return self._readings.image.rgb if self.render_mode == "rgb_array" and self._readings else None

    def close(self) -> None:
        self.simulator.close()

    def _observation(self, readings: ArmReadings) -> Observation:
        return {
            "joints": np.array(list(readings.joints.positions.values()), np.float32),
            "image": readings.image.rgb,
            "instruction": self.simulator.instruction,
        }


def register() -> None:
    """Makes the environment known to `gymnasium.make`; a second call does nothing."""
    if ENV_ID not in gym.registry:
        gym.register(ENV_ID, entry_point="llmagent_ros.simulation.arm.env:ArmEnv")


register()
