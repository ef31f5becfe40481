"""The simulator of a robot, whichever kind it is."""

from __future__ import annotations

from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.simulation.arm.physics import ArmReadings
from llmagent_ros.simulation.arm.simulator import ArmSimulator
from llmagent_ros.simulation.arm.task import load_arm_task
from llmagent_ros.simulation.physics import Readings
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task

AnyReadings = Readings | ArmReadings
AnySimulator = Simulator | ArmSimulator


def make_simulator(contract: RobotContract, task: str, *, seed: int, gui: bool) -> AnySimulator:
    """That of a robot with a task of config/tasks.

    Raises:
        ConfigError: there is no such task, or it is of another kind of robot.
    """
    if isinstance(contract, MobileContract):
        return Simulator(contract, load_task(task), seed=seed, gui=gui)
    assert isinstance(contract, ArmContract)
    return ArmSimulator(contract, load_arm_task(task), seed=seed, gui=gui)
