"""How one who sees the whole room drives to its target: what each velocity would lead to, and a person at a stick."""

from __future__ import annotations

import itertools
import math

from llmagent_ros.contract import MobileContract
from llmagent_ros.errors import ConfigError
from llmagent_ros.simulation.route import Route
from llmagent_ros.simulation.task import TaskConfig
from llmagent_ros.simulation.variation import Variation
from llmagent_ros.simulation.world import World, WorldConfig
from llmagent_ros.types import Velocity

Pose = tuple[float, float, float]  # in the world's frame: m, m, rad

MARGIN = 0.12  # m
TURN_COST = 0.25  # m of way that a radian off its direction counts as
DANGER_COST = 20.0  # m of way that a m closer to something than the margin counts as
_IMAGINED = 8  # pieces that two control periods are imagined in
_LOOKING = 10.0  # rad that a person turns in an episode to look for something, before they drive on
_LINEAR = (-0.5, 0.0, 0.3, 0.6, 0.85)  # of the contract's limits
_ANGULAR = (-0.8, -0.5, -0.2, 0.0, 0.2, 0.5, 0.8)


def check_drivable(task: TaskConfig) -> None:
    """Raises ConfigError for a task that is not to reach something with a body as the contract says."""
    if task.goal != "reach" or task.variation != Variation():
        raise ConfigError(f"task {task.task}: the teacher only knows how to reach things with an unchanged body")


class WayAhead:
    """What velocities are worth in one world, on the shortest way that keeps clear of everything.

    Raises:
        ConfigError: see `check_drivable`.
    """

    def __init__(self, contract: MobileContract, task: TaskConfig, config: WorldConfig, world: World) -> None:
        check_drivable(task)
        self._contract = contract
        reach = 0.8 * task.reach  # a bit further than it has to
        self._route = Route(config, world, contract.footprint_radius, reach, MARGIN)

    def cost(self, velocity: Velocity, pose: Pose) -> float:
        """m of way left after two periods of it, and what turning towards the way and coming close count."""
        (x, y, yaw), closest = pose, math.inf
        piece = self._contract.control_period * 2 / _IMAGINED
        for _ in range(_IMAGINED):
            yaw += velocity.angular * piece
            x, y = x + velocity.linear * piece * math.cos(yaw), y + velocity.linear * piece * math.sin(yaw)
            closest = min(closest, self._route.clearance(x, y))
        direction = self._route.direction(x, y)
        off = 0.0 if math.isnan(direction) else abs(math.remainder(direction - yaw, math.tau))
        return self._route.length(x, y) + TURN_COST * off + DANGER_COST * max(0.0, MARGIN - closest)


class ScriptedOperator:
    """A person who steers a base with a stick: of all velocities the one after which least is left to do (a dynamic
    window, Fox et al. 1997).

    Args:
        by_phrases: the robot only takes those of its action phrases, and the person knows that.
    """

    def __init__(
        self, contract: MobileContract, task: TaskConfig, config: WorldConfig, world: World, *, by_phrases: bool = False
    ) -> None:
        self._way = WayAhead(contract, task, config, world)
        limits = contract.limits
        shares = itertools.product(_LINEAR, _ANGULAR)
        self._velocities = [Velocity(v * limits.linear, w * limits.angular) for v, w in shares if v or w]
        if by_phrases:
            self._velocities = [contract.command(phrase) for phrase in contract.phrases]

        self._turns = [velocity for velocity in self._velocities if not velocity.linear]
        self._looked = 0.0  # rad
        self._yaw = math.nan  # at the last look, nan while driving

    def velocity(self, pose: Pose, look: float = 0.0) -> Velocity:
        """What to do at a pose.

        Args:
            look: bearing, rad, of where one should look who sees through the robot's camera and not yet what is to be
                reached; 0 for one who sees it, or needs not. First they turn there.
        """
        if look and self._looked < _LOOKING:
            if not math.isnan(self._yaw):
                self._looked += abs(math.remainder(pose[2] - self._yaw, math.tau))
            self._yaw = pose[2]
            return max(self._turns, key=lambda velocity: velocity.angular * math.copysign(1.0, look))
        self._yaw = math.nan
        return min(self._velocities, key=lambda velocity: self._way.cost(velocity, pose))
