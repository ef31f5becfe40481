"""Driving a base by its action phrases, so that what a person shows is what the policy can do."""

from __future__ import annotations

from llmagent_ros.contract import MobileContract
from llmagent_ros.types import Velocity


class PhraseDrive:
    """Says what a person wants by the nearest action phrase, which is chosen anew with each scene, as the policy's is,
    and holds until the next. Times are s of one monotonic clock.

    A velocity between two phrases that is learned from as one of them shows what that phrase does not do: "forward"
    that comes around an obstacle. Zero acts at once.
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
        if wanted is None or wanted == Velocity():
            self._held = None
            return wanted
        if self._held is None or now >= self._until:
            phrase = self._contract.nearest_phrase(wanted)
            self._held = Velocity() if phrase is None else self._contract.command(phrase)
            self._until = now + 1.5 * self._contract.control_period  # where no scenes come they end by themselves
        return self._held
