"""The calibration between the graph, which speaks of the robot, and the policy, which knows the contract's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmagent_interfaces.msg import Scene
from llmagent_ros.contract import RobotContract
from llmagent_ros.messages import key
from llmagent_ros.perception.calibration import Calibration
from llmagent_ros.types import Command, Decision, Source, Velocity


class CalibratedScenes:
    """Scenes as the policy reads them, and decisions with what is said to the robot. Not thread-safe.

    Args:
        calibrate: False leaves both as they are.

    Raises:
        ConfigError: the contract's scenes do not tell what came of a phrase.
    """

    def __init__(self, contract: RobotContract, *, calibrate: bool) -> None:
        self._calibration = Calibration(contract) if calibrate else None
        self._heard = (-1, "")  # the last scene: stamp, ns, and its text as the policy reads it
        self._sent: Velocity | None = None  # what the guard has let through since the last phrase was said

    def start_episode(self) -> None:
        self._heard, self._sent = (-1, ""), None
        if self._calibration is not None:
            self._calibration.start_episode()

    def hear(self, message: Scene) -> None:
        """Puts the text in the policy's words; of a scene that came again in the same ones."""
        if self._calibration is None:
            return
        stamp = key(message.header.stamp)
        if stamp != self._heard[0]:
            if self._sent is None:
                self._calibration.ignore()
            else:
                self._calibration.sent(self._sent.linear, self._sent.angular)
            self._heard = (stamp, self._calibration.hear(message.text))
        message.text = self._heard[1]

    def on_command(self, command: Command) -> None:
        """The guard has sent it to the robot. The last one before a scene is what the robot's motion there came of: it
        may be slower than what was said, or nobody's phrase.
        """
        if isinstance(command, Velocity):
            self._sent = command

    def say(self, decision: Decision) -> Decision:
        """With the phrase that the robot is told."""
        if self._calibration is None:
            return decision
        said, self._sent = self._calibration.say(decision.action), None
        return decision if said == decision.action else replace(decision, said=said)

    def done(self, decision: Decision, *, executed: bool) -> Decision:
        """After it is known who drives: what a person said to the robot in the words of the policy.

        Args:
            executed: whether the robot does it, as far as is known; else what comes of it says nothing of the robot.
        """
        if self._calibration is None:
            return decision
        if not executed:
            self._calibration.ignore()
        elif decision.source is Source.HUMAN:
            known = self._calibration.did(decision.action)
            return replace(decision, action=known, said="" if known == decision.action else decision.action)
        return decision

    def interrupted(self) -> None:
        """Somebody else drives than when the last phrase was said."""
        if self._calibration is not None:
            self._calibration.ignore()

    @property
    def sayable(self) -> NDArray[np.bool_] | None:
        """See `TextPolicy.decide`."""
        return None if self._calibration is None else self._calibration.sayable

    @property
    def told(self) -> str:
        """What is said in place of what, for a person; empty where nothing is."""
        return "" if self._calibration is None else self._calibration.told()
