"""Gymnasium environments as text: the observation is a scene, the action an index into a list of phrases."""

from __future__ import annotations

import re
import string
from collections import deque
from typing import Any, Protocol, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.perception.arm import ArmPerception
from llmagent_ros.perception.description import EnvironmentDescription, action_of
from llmagent_ros.perception.mirror import Mirror, description_mirror, robot_mirror
from llmagent_ros.perception.numbers import SceneNumbers
from llmagent_ros.perception.perception import Perception
from llmagent_ros.perception.text import clean_instruction
from llmagent_ros.types import CameraImage, JointState, LaserScan, Odometry

ROBOT_TEMPERATURE = 0.5  # launch/include/agent.launch.xml says the same for learn:=false
_LONGEST_SCENE = 4000
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "


class TextEnvironment(gym.Wrapper[str, Any, Any, Any]):
    """What every wrapper here is: `reset` and `step` give scene texts, `step` takes the index of a phrase.

    Info has, once an episode ended, `success`, and where it is known `reason`.

    Attributes:
        phrases: the closed vocabulary, by index. task: the present instruction.
        contract_name: of the robot contract, or what stands for one: skills of one contract do not act on another.
        observation: the last one as numbers, for policies and teachers that do not read; of `numeric_space`.
        reward_scale: by which the learner multiplies rewards.
        temperature: at which a policy is measured here, see `policy.text_policy.draw`.
        mirror: of its scenes, where it has the same on both sides.
        contract: of the robot, where it has one.
        said: what the robot was told to do the last phrase, where that was another one; else empty.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        phrases: tuple[str, ...],
        reward_scale: float,
        mirror: Mirror | None,
        contract_name: str,
    ) -> None:
        super().__init__(env)
        self.contract_name = contract_name
        self.phrases, self.reward_scale, self.mirror = phrases, reward_scale, mirror
        self.contract: RobotContract | None = None
        self.said = ""
        self.task = ""
        self.observation: Any = None
        self.temperature = 0.0
        self.numeric_space: gym.Space[Any] = env.observation_space
        self.observation_space = gym.spaces.Text(_LONGEST_SCENE, min_length=1, charset=_CHARACTERS)
        self.action_space = gym.spaces.Discrete(len(phrases))

    @property
    def wording(self) -> str:
        """The present instruction, whichever object it is about: what a skill is found by."""
        return self.task

    @property
    def sayable(self) -> NDArray[np.bool_]:
        """Which phrases can be chosen now, (phrases,)."""
        return np.ones(len(self.phrases), bool)


class DescribedText(TextEnvironment):
    """Any environment whose observations are numbers, said as its description tells.

    Attributes:
        hold: steps of the environment that one phrase lasts; their rewards add up.

    Raises:
        ConfigError: the description does not fit the environment; `origin` names it.
    """

    def __init__(self, env: gym.Env[Any, Any], description: EnvironmentDescription, origin: str = "it") -> None:
        description.check(env, origin)
        mirror, name = description_mirror(description), re.sub(r"\W+", "_", description.environment.lower())
        super().__init__(env, description.actions, description.reward_scale, mirror, f"gymnasium_{name}")
        self.description = description
        self.task = description.task
        self.hold = description.hold
        self._done: deque[str] = deque(maxlen=description.history)
        self._return = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._done.clear()
        self._return = 0.0
        return self._say(observation), info

    def step(self, action: Any) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        inner, total = action_of(int(action), self.env.action_space), 0.0
        for _ in range(self.hold):
            observation, reward, terminated, truncated, info = self.env.step(inner)
            total += float(reward)
            if terminated or truncated:
                break
        self._done.append(self.phrases[int(action)])
        self._return += total
        if terminated or truncated:
            least = self.description.success_return
            reason = "truncated" if truncated else "terminated"
            info = {"reason": reason, **info, "success": least is not None and self._return >= least}
        return self._say(observation), total, bool(terminated), bool(truncated), info

    def _say(self, observation: Any) -> str:
        self.observation = observation
        return self.description.say(observation, self.env.observation_space, tuple(self._done))


class _Readings(Protocol):
    @property
    def scan(self) -> LaserScan: ...
    @property
    def odometry(self) -> Odometry: ...
    @property
    def image(self) -> CameraImage: ...


class _Instructed(Protocol):
    @property
    def instruction(self) -> str: ...


class _Robot(_Instructed, Protocol):
    """What `RobotText` needs of the environment inside."""

    contract: MobileContract

    @property
    def symmetric(self) -> bool: ...
    @property
    def readings(self) -> _Readings: ...


class _Perceived(TextEnvironment):
    """A simulated body whose scenes perception says, as in the graph.

    Args:
        body: the environment inside. contract: its own. perception: of that body; `_see` feeds it.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        body: _Instructed,
        contract: MobileContract | ArmContract,
        perception: Perception | ArmPerception,
        mirror: Mirror | None,
    ) -> None:
        super().__init__(env, contract.phrases, 1.0, mirror, contract.robot)
        self.temperature = ROBOT_TEMPERATURE
        self._body, self.contract, self._builder = body, contract, perception

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        _, info = self.env.reset(seed=seed, options=options)
        self.task = clean_instruction(self._body.instruction)
        self._builder.start_episode(self.task)
        return self._see(), info

    def step(self, action: Any) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        self._builder.note_action(self.phrases[int(action)])
        _, reward, terminated, truncated, info = self.env.step(np.int64(action))
        return self._see(), float(reward), bool(terminated), bool(truncated), info

    @property
    def wording(self) -> str:
        assert self.contract is not None
        return self.contract.generalised(self.task)

    def _see(self) -> str:
        """Feeds the readings of now to perception; the scene."""
        raise NotImplementedError


class RobotText(_Perceived):
    """A simulated robot, perceived as the perception node does it: scan, odometry and camera in, scene out.

    A scene tells a part of the world. Where that is so, a policy without memory that always does the same in the same
    scene can go to and fro for ever, and one that draws can be better than any that does not (Singh, Jaakkola & Jordan
    1994). So the temperature is not 0.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._robot: _Robot = env.unwrapped  # type: ignore[assignment]
        contract = self._robot.contract
        self._perception = Perception(contract)
        mirror = robot_mirror(contract) if self._robot.symmetric else None
        super().__init__(env, self._robot, contract, self._perception, mirror)
        self._numbers = SceneNumbers(contract)
        self.numeric_space = gym.spaces.Box(-np.inf, np.inf, (self._numbers.size,), np.float32)

    def _see(self) -> str:
        readings = self._robot.readings
        self._perception.on_scan(readings.scan)
        self._perception.on_odometry(readings.odometry)
        self._perception.on_image(readings.image)
        scene = self._perception.scene(readings.scan.stamp).text
        self.observation = self._numbers(scene)
        return scene


class _ArmReadings(Protocol):
    @property
    def joints(self) -> JointState: ...
    @property
    def image(self) -> CameraImage: ...


class _Arm(_Instructed, Protocol):
    """What `ArmText` needs of the environment inside."""

    contract: ArmContract

    @property
    def readings(self) -> _ArmReadings: ...


class ArmText(_Perceived):
    """A simulated arm, perceived as the perception node does it: joint states and camera in, scene out."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._arm: _Arm = env.unwrapped  # type: ignore[assignment]
        contract = self._arm.contract
        self._perception = ArmPerception(contract)
        super().__init__(env, self._arm, contract, self._perception, None)
        self.numeric_space = gym.spaces.Box(-np.inf, np.inf, self._perception.numbers(0.0).shape, np.float32)

    def _see(self) -> str:
        readings = self._arm.readings
        self._perception.on_joints(readings.joints)
        self._perception.on_image(readings.image)
        scene = self._perception.scene(readings.joints.stamp).text
        self.observation = self._perception.numbers(readings.joints.stamp)
        return scene


class NumericObservations(gym.Wrapper[Any, Any, Any, Any]):
    """A text environment whose observations are the numbers that its text says, for peers that do not read."""

    env: TextEnvironment

    def __init__(self, env: TextEnvironment) -> None:
        super().__init__(env)
        self.observation_space = env.numeric_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = self.env.reset(seed=seed, options=options)
        return self.env.observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = self.env.step(action)
        return self.env.observation, reward, terminated, truncated, info
