"""Driving a base by its action phrases, so that what a person shows is what the policy can do."""

from __future__ import annotations

from dataclasses import replace

from llmagent_ros.contract import MobileContract
from llmagent_ros.teleop.joystick import JoystickConfig, JoystickTeleop
from llmagent_ros.teleop.keys import KeysConfig, KeyTeleop
from llmagent_ros.types import Velocity


class PhraseDrive:
    """Says what a person wants by the nearest action phrase, which is chosen anew with each scene, as the policy's is,
    and holds until the next. Times are s of the clock that scenes come by.

    A velocity between two phrases that is learned from as one of them shows what that phrase does not do: "forward"
    that comes around an obstacle. What is too slow for any phrase is to stand still, and that acts at once.
    """

    def __init__(self, contract: MobileContract) -> None:
        self._contract = contract
        self._held: Velocity | None = None  # that of the phrase that is said
        self._until = 0.0  # when it ends without a scene

    def on_scene(self) -> None:
        """The phrase that was said has ended."""
        self._held = None

    def velocity(self, wanted: Velocity | None, now: float) -> Velocity | None:
        """The command for what the person asks for, None where that is nothing."""
        phrase = None if wanted is None else self._contract.nearest_phrase(wanted)
        command = Velocity() if phrase is None else self._contract.command(phrase)
        if command == Velocity():
            self._held = None
            return None if wanted is None else command
        if self._held is None or now >= self._until:
            self._held = command
            self._until = now + 1.5 * self._contract.control_period  # where no scenes come they end by themselves
        return self._held


def deflections(
    contract: MobileContract, keys: KeysConfig, joystick: JoystickConfig
) -> tuple[KeyTeleop, JoystickTeleop]:
    """Keys and a joystick that choose among phrases: full is the fastest phrase of each axis, whatever share of the
    robot's limits they are set to; so a diagonal is the curve between two phrases, of any robot.
    """
    fastest = contract.fastest()
    limits = replace(contract.limits, linear=fastest.linear, angular=fastest.angular)
    full = replace(joystick, linear=_sign(joystick.linear), angular=_sign(joystick.angular))
    return KeyTeleop(limits, replace(keys, linear=1.0, angular=1.0)), JoystickTeleop(limits, full)


def _sign(factor: float) -> float:
    return float((factor > 0) - (factor < 0))
