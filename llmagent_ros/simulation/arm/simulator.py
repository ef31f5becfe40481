"""Episodes of an arm: a table drawn from a seed, stepped one control period at a time, judged by its task."""

from __future__ import annotations

import numpy as np

from llmagent_ros.contract import ArmContract
from llmagent_ros.simulation.arm.physics import ArmPhysics, ArmReadings
from llmagent_ros.simulation.arm.table import FLAT, Table, draw_table, load_table
from llmagent_ros.simulation.arm.task import ArmTaskConfig, judge, load_arm_task
from llmagent_ros.types import Command, JointTarget, Outcome

_BEYOND = 0.1  # m out of the workspace at which an object counts as lost


class ArmSimulator:
    """One simulated arm with its task; as `simulation.simulator.Simulator` for a base."""

    def __init__(self, contract: ArmContract, task: ArmTaskConfig, *, seed: int = 0, gui: bool = False) -> None:
        self._contract = contract
        self._physics = ArmPhysics(contract, gui=gui)
        self._seed, self._drawn = seed, 0
        self.set_task(task)
        self.time = 0.0
        self.steps = 0
        self.world: Table | None = None
        self.instruction = ""
        self._target = ""
        self._before: tuple[float, float] | None = None  # left to do, and from the tip to the object, m
        self._collided = False

    def set_task(self, task: ArmTaskConfig) -> None:
        """The task of the next episode."""
        self._table_config = load_table(task.table)
        self._task = task

    def set_task_by_name(self, name: str) -> None:
        """As `set_task`, of a file of config/tasks.

        Raises:
            ConfigError: there is none, or it is of a base.
        """
        self.set_task(load_arm_task(name))

    @property
    def task(self) -> ArmTaskConfig:
        return self._task

    def reset(self, seed: int | None = None) -> ArmReadings:
        """Draws the next table, or the first of a new sequence when a seed is given; returns its first readings."""
        if seed is not None:
            self._seed, self._drawn = seed, 0
        rng = np.random.default_rng([self._seed, self._drawn])
        self._drawn += 1
        self.world = draw_table(self._table_config, self._contract, self._task.place, rng)
        wording = self._task.instructions[int(rng.integers(len(self._task.instructions)))]
        self._physics.load(self.world)
        self.follow(wording.format(object=self.world.target, place=self._task.place))
        self._collided = False
        self.time += self._contract.control_period
        return self._physics.read(self.time)

    @property
    def episode(self) -> int:
        """Number of the current episode in its seed's sequence, from 0."""
        return max(self._drawn - 1, 0)

    def follow(self, instruction: str) -> bool:
        """Judges by this instruction from now on, and counts its control periods from here; False when nothing that it
        names lies there."""
        self.instruction, self.steps = instruction, 0
        assert self.world is not None, "reset first"
        solid = [name for name in self.world.places if self._contract.objects[name].height >= FLAT]
        self._target = next((name for name in solid if name.lower() in instruction.lower()), "")
        self._before = self._left()
        return bool(self._target)

    def step(self, command: Command) -> tuple[ArmReadings, Outcome]:
        """Advances one control period towards a joint target."""
        readings = self.advance(command, self._contract.control_period)
        return readings, self.judge()

    def advance(self, command: Command, duration: float) -> ArmReadings:
        """Moves for `duration` s, or until the arm touches the table; time passes all the same. What is no joint target
        holds the arm."""
        target = command if isinstance(command, JointTarget) else JointTarget()
        if not self._collided:
            self._collided = self._physics.drive(target, duration)
        self.time += duration
        return self._physics.read(self.time)

    def judge(self) -> Outcome:
        """The outcome of the control period that ends now."""
        self.steps += 1
        before, self._before = self._before, self._left()
        now = self._before
        gained = (before[0] - now[0], before[1] - now[1]) if before is not None and now is not None else (0.0, 0.0)
        left = None if now is None else now[0]
        return judge(
            self._task, left=left, gained=gained, collided=self._collided, lost=self._lost(), steps=self.steps
        )

    def joints(self) -> dict[str, float]:
        """Joint positions, rad."""
        return self._physics.joints()

    def tip(self) -> np.ndarray:
        """Where the tip is, m, (3,)."""
        return self._contract.tip(self._physics.joints())

    def position(self, name: str) -> np.ndarray | None:
        """True position of a named thing, for tests and teachers, m, (3,)."""
        return self._physics.position(name)

    @property
    def target(self) -> str:
        """What the instruction names; empty for nothing that is here."""
        return self._target

    def close(self) -> None:
        self._physics.close()

    def _left(self) -> tuple[float, float] | None:
        """m left until the task is fulfilled, and from the tip to the target's surface; None without a target."""
        middle = self._physics.position(self._target)
        if middle is None:
            return None
        near = float(np.linalg.norm(self.tip() - middle)) - self._contract.objects[self._target].radius
        if self._task.goal == "reach":
            return near - self._task.within, near
        place = self._physics.position(self._task.place)
        assert place is not None, "drawn with its place"
        return float(np.linalg.norm((middle - place)[:2])) - self._task.within, near

    def _lost(self) -> bool:
        middle = self._physics.position(self._target)
        if middle is None:
            return False
        away = middle[:2] - self._contract.arm.workspace.clamp(middle)[:2]
        return bool(np.linalg.norm(away) > _BEYOND)
