"""Episodes: a world drawn from a seed, stepped one control period at a time, judged by its task."""

from __future__ import annotations

from collections import deque

import numpy as np

from llmagent_ros.contract import MobileContract
from llmagent_ros.simulation.physics import Physics, Readings
from llmagent_ros.simulation.sensor_faults import SensorFaults
from llmagent_ros.simulation.task import TaskConfig, judge, left_to_do, load_task
from llmagent_ros.simulation.world import World, WorldConfig, draw_world, load_world
from llmagent_ros.types import Command, Outcome, Velocity


class Simulator:
    """One simulated robot with its task. Time is simulated, in s, and never goes back.

    The world of episode n of a run is drawn from (seed, n) alone, so the same seed gives the same worlds whatever
    happened before.
    """

    def __init__(
        self,
        contract: MobileContract,
        task: TaskConfig,
        *,
        seed: int = 0,
        gui: bool = False,
    ) -> None:
        self._contract = contract
        self._physics = Physics(contract, gui=gui)
        self._seed = seed
        self._drawn = 0
        self.set_task(task)
        self.time = 0.0
        self.steps = 0
        self.world: World | None = None
        self.instruction = ""
        self._target = ""
        self._left: float | None = None
        self._collided = False
        self._faults = SensorFaults(task.variation, contract.control_period, 0)
        self._commanded: deque[tuple[float, Velocity]] = deque()  # when, what: from the one that acts now on

    def set_task(self, task: TaskConfig) -> None:
        """The task of the next episode."""
        self._world_config = load_world(task.world)
        self._task = task

    def set_task_by_name(self, name: str) -> None:
        """As `set_task`, of a file of config/tasks.

        Raises:
            ConfigError: there is none, or it is of an arm.
        """
        self.set_task(load_task(name))

    @property
    def world_config(self) -> WorldConfig:
        return self._world_config

    @property
    def task(self) -> TaskConfig:
        return self._task

    def reset(self, seed: int | None = None) -> Readings:
        """Draws the next world, or the first of a new sequence when a seed is given; returns its first readings."""
        if seed is not None:
            self._seed, self._drawn = seed, 0
        number, self._drawn = self._drawn, self._drawn + 1
        self.world, rng = world_of_episode(self._contract, self._task, self._world_config, self._seed, number)
        wording = self._task.instructions[int(rng.integers(len(self._task.instructions)))]
        self._physics.load(self._world_config, self.world, self._task.variation)
        self._commanded.clear()
        self.follow(wording.format(object=self.world.target))
        self._collided = False
        self.time += self._contract.control_period
        self._faults = SensorFaults(self._task.variation, self._contract.control_period, int(rng.integers(1 << 31)))
        return self._read()

    @property
    def episode(self) -> int:
        """Number of the current episode in its seed's sequence, from 0."""
        return max(self._drawn - 1, 0)

    def follow(self, instruction: str) -> bool:
        """Judges by this instruction from now on, and counts its control periods from here; False when this world
        holds nothing that it names."""
        self.instruction, self.steps = instruction, 0
        assert self.world is not None, "reset first"
        self._target = next((b.name for b in self.world.objects if b.name.lower() in instruction.lower()), "")
        self._left = self._left_to_do()
        return bool(self._target)

    def step(self, command: Command) -> tuple[Readings, Outcome]:
        """Advances one control period under a velocity command held throughout."""
        readings = self.advance(command, self._contract.control_period)
        return readings, self.judge()

    def advance(self, command: Command, duration: float) -> Readings:
        """Holds a command for `duration` s, or until the robot hits something; time passes all the same. What is no
        velocity stops it."""
        velocity = command if isinstance(command, Velocity) else Velocity()
        if not self._collided:
            self._collided = self._physics.drive(self._acting(velocity), duration)
        self.time += duration
        return self._read()

    def judge(self) -> Outcome:
        """The outcome of the control period that ends now."""
        self.steps += 1
        previous, self._left = self._left, self._left_to_do()
        return judge(
            self._task, left=self._left, previously_left=previous, collided=self._collided, steps=self.steps
        )

    def gap(self) -> float | None:
        """True distance to the target's surface, m; None without one."""
        return self._physics.gap(self._target)

    def pose(self) -> tuple[float, float, float]:
        """True pose, for tests and teachers: m, m, rad."""
        return self._physics.pose()

    def close(self) -> None:
        self._physics.close()

    def _read(self) -> Readings:
        readings = self._physics.read(self.time)
        scan, image = self._faults.worsen(readings.scan, readings.image)
        return Readings(scan, readings.odometry, image)

    def _acting(self, command: Velocity) -> Velocity:
        """What the body does now: the command of as long ago as its delay is."""
        self._commanded.append((self.time, command))
        due = self.time - self._task.variation.delay * self._contract.control_period + 1e-6
        while len(self._commanded) > 1 and self._commanded[1][0] <= due:
            self._commanded.popleft()
        began, acting = self._commanded[0]
        return acting if began <= due else Velocity()

    def _left_to_do(self) -> float | None:
        gap, bearing = self._physics.gap(self._target), self._physics.bearing(self._target)
        return None if gap is None or bearing is None else left_to_do(self._task, gap, bearing)


def world_of_episode(
    contract: MobileContract, task: TaskConfig, config: WorldConfig, seed: int, number: int
) -> tuple[World, np.random.Generator]:
    """The world of episode `number` of a seed, and what further is drawn from.

    Raises:
        ConfigError: no world can be drawn.
    """
    rng = np.random.default_rng([seed, number])
    return draw_world(config, contract, rng, away=task.away if task.goal == "leave" else 0.0), rng
