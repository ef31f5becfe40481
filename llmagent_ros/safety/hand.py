"""The hand of a person who drives: the dead-man, and what comes of letting it go."""

from __future__ import annotations

import math

from llmagent_ros.safety.config import GuardConfig


class Hand:
    """Whether a person's commands count, and whether they have just let go. Times are s of a steady clock.

    Who lets go of a dead-man wants the robot to stand: the policy must not drive on from there at once.
    """

    def __init__(self, config: GuardConfig) -> None:
        self._needed, self._timeout = config.dead_man, config.teleop_timeout
        self._held = -math.inf  # when the dead-man was last said to be held
        self._let_go = -math.inf  # when it was found that a person who drove does not hold it any more
        self._drove = False  # at the last look

    def on_dead_man(self, held: bool, steady: float) -> None:
        """It is said to be held, or not."""
        self._held = steady if held else -math.inf

    def drives(self, commanded: bool, steady: float) -> bool:
        """Whether the person drives. commanded: whether they have said where to."""
        held = not self._needed or steady - self._held <= self._timeout
        if commanded and not held and self._drove:
            self._let_go = steady
        self._drove = commanded and held
        return self._drove

    def has_let_go(self, steady: float) -> bool:
        """Whether the robot is to stand since a person who drove has let go."""
        return steady - self._let_go <= self._timeout
