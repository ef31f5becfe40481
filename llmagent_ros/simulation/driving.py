"""How one who knows the room drives to its target: what each velocity would lead to, and a person at a stick."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from llmagent_ros.contract import MobileContract
from llmagent_ros.errors import ConfigError
from llmagent_ros.simulation.route import Route
from llmagent_ros.simulation.task import TaskConfig
from llmagent_ros.simulation.variation import Variation
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import Place, Velocity

Pose = tuple[float, float, float]  # in the world's frame: m, m, rad

MARGIN = 0.12  # m
TURN_COST = 0.25  # m of way that a radian off its direction counts as
DANGER_COST = 20.0  # m of way that a m closer to something than the margin counts as
_IMAGINED = 8  # pieces that two control periods are imagined in
_LOOKING = 15.0  # rad and m together that a person moves in an episode to look for something
_BESIDE = 0.6  # rad to the side from which on a person turns to look at something
_ANOTHER = 0.5  # m from the place that a person goes to, from which on a place is another one
_LINEAR = (-0.5, 0.0, 0.3, 0.6, 0.85)  # of the contract's limits
_ANGULAR = (-0.8, -0.5, -0.2, 0.0, 0.2, 0.5, 0.8)


def check_drivable(task: TaskConfig) -> None:
    """Raises ConfigError for a task that is not to reach something with a body as the contract says."""
    if task.goal != "reach" or task.variation != Variation():
        raise ConfigError(f"task {task.task}: the teacher only knows how to reach things with an unchanged body")


class WayAhead:
    """What velocities are worth in one world, on the shortest way that keeps clear of everything.

    Args:
        target: where to, if not to what the task asks for.

    Raises:
        ConfigError: see `check_drivable`.
    """

    def __init__(
        self,
        contract: MobileContract,
        task: TaskConfig,
        config: WorldConfig,
        world: World,
        target: Body | None = None,
    ) -> None:
        check_drivable(task)
        self._contract = contract
        reach = 0.8 * task.reach  # a bit further than it has to
        self._route = Route(config, world, contract.footprint_radius, reach, MARGIN, target)

    @property
    def exists(self) -> bool:
        """Whether one can get there at all."""
        return self._route.exists

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
        self._known = (contract, task, config, world)
        self._way = WayAhead(*self._known)
        limits = contract.limits
        shares = itertools.product(_LINEAR, _ANGULAR)
        self._velocities = [Velocity(v * limits.linear, w * limits.angular) for v, w in shares if v or w]
        if by_phrases:
            self._velocities = [contract.command(phrase) for phrase in contract.phrases]

        self._turns = [velocity for velocity in self._velocities if not velocity.linear]
        self._looked = 0.0  # rad and m
        self._at: Pose | None = None  # at the last look, None while driving
        self._search: _Search | None = None

    def velocity(self, pose: Pose, look: Place | None = None) -> Velocity:
        """What to do at a pose.

        Args:
            look: where to look next for what is to be reached, of one who sees through the robot's camera and does not
                see it yet; None for one who sees it, or need not. First they turn to that place, then they go there.
        """
        if look is None or self._looked > _LOOKING:
            self._at = None
            return self._along(self._way, pose)
        if self._at is not None:
            turned = abs(math.remainder(pose[2] - self._at[2], math.tau))
            self._looked += turned + math.dist(pose[:2], self._at[:2])
        self._at = pose
        search = self._search_at(look, pose)
        if search.faced or abs(look.bearing) <= _BESIDE:
            search.faced = True  # there it was not, or one would see it
            way = search.way
            return self._along(way if way.exists else self._way, pose)
        return max(self._turns, key=lambda velocity: velocity.angular * math.copysign(1.0, look.bearing))

    def _along(self, way: WayAhead, pose: Pose) -> Velocity:
        return min(self._velocities, key=lambda velocity: way.cost(velocity, pose))

    def _search_at(self, look: Place, pose: Pose) -> _Search:
        towards = pose[2] + look.bearing
        x, y = pose[0] + look.distance * math.cos(towards), pose[1] + look.distance * math.sin(towards)
        if self._search is None or math.dist((x, y), (self._search.x, self._search.y)) > _ANOTHER:
            self._search = _Search(x, y, WayAhead(*self._known, Body(x, y, 0.0)))
        return self._search


@dataclass
class _Search:
    """A place, in the world's frame, that a person looks at, the way there, and whether they have turned to it."""

    x: float
    y: float
    way: WayAhead
    faced: bool = False
