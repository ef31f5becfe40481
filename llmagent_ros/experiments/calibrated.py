"""An environment that a policy meets through a calibration: it reads and says what it knows, whatever the robot is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.errors import ConfigError
from llmagent_ros.perception.calibration import Calibration
from llmagent_ros.perception.gymnasium_text import TextEnvironment

SeenAs = Callable[[TextEnvironment], TextEnvironment]
"""What stands between an environment and a policy that is measured in it."""


def seen_through(state: Mapping[str, Any] | None) -> SeenAs:
    """A calibration, each episode beginning with what was measured before."""
    return lambda env: CalibratedText(env, state, keep=False)


def can_calibrate(env: TextEnvironment) -> bool:
    """Whether there is a robot in an environment whose scenes tell what came of a phrase."""
    try:
        return env.contract is not None and bool(Calibration(env.contract))
    except ConfigError:
        return False


class CalibratedText(TextEnvironment):
    """Scenes and phrases of `env` as its calibration tells them.

    Args:
        env: of a robot. state: what was measured of it before; None: nothing.
        keep: whether what an episode tells of the robot counts in the next; else each begins with `state`.

    Raises:
        ConfigError: there is no robot in it, or one whose scenes do not tell what came of a phrase.
    """

    def __init__(self, env: TextEnvironment, state: Mapping[str, Any] | None = None, *, keep: bool = True) -> None:
        if env.contract is None:
            raise ConfigError(f"calibrate: there is no robot in {env.contract_name}")
        super().__init__(env, env.phrases, env.reward_scale, env.mirror, env.contract_name)
        self.contract, self.temperature, self.numeric_space = env.contract, env.temperature, env.numeric_space
        self.calibration = Calibration(env.contract)
        if state is not None:
            self.calibration.load_state(state)
        self._inner, self._begin = env, None if keep else self.calibration.state()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        if self._begin is not None:
            self.calibration.load_state(self._begin)
        self.calibration.start_episode()
        scene, info = self._inner.reset(seed=seed, options=options)
        self.task, self.observation = self._inner.task, self._inner.observation
        return self.calibration.hear(scene), info

    def step(self, action: Any) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        known = self.phrases[int(action)]
        spoken = self.calibration.say(known)
        self.said = "" if spoken == known else spoken
        scene, reward, terminated, truncated, info = self._inner.step(self.phrases.index(spoken))
        self.observation = self._inner.observation
        return self.calibration.hear(scene), reward, terminated, truncated, info

    @property
    def sayable(self) -> NDArray[np.bool_]:
        return self.calibration.sayable

    @property
    def wording(self) -> str:
        return self._inner.wording
