"""The simulated robot: publishes its sensors and takes its command, in real time or in lockstep with the commands."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any, Literal

from diagnostic_msgs.msg import DiagnosticStatus
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage

from llmagent_interfaces.msg import Outcome as OutcomeMessage
from llmagent_interfaces.msg import Task
from llmagent_interfaces.srv import ResetSimulation, SetTask
from llmagent_ros.contract import MobileContract, load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.sim_outputs import SimOutputs
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.commands import command_topics, refuse_unstamped
from llmagent_ros.nodes.wire.stamps import key, to_time
from llmagent_ros.perception.text import clean_instruction
from llmagent_ros.simulation.making import AnyReadings, make_simulator
from llmagent_ros.types import Command, JointTarget, Outcome, Velocity

REPORT_PERIOD = 1.0  # s of wall time between two diagnostics
REPEAT_PERIOD = 2.0  # s of wall time in lockstep after which readings that nobody answered are sent again
READINGS_PER_PERIOD = 4  # in real time, sensors are read so often in a control period


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class SimNodeConfig:
    """Parameters.

    Attributes:
        robot, task: names in config/, or paths. seed: of the worlds.
        mode: lockstep: the world advances one control period when the command for its last readings has come.
            realtime: it advances by the wall clock times `speed`.
        headless: "auto" opens a window where there is a display, "true" never, "false" always.
        command_timeout: s of wall time in lockstep after which a missing command is reported and its tick counts as
            missed; the world goes on waiting, so that a seed always gives the same episode.
    """

    robot: str = "sim_diffdrive"
    task: str = "navigate"
    seed: Annotated[int, Field(ge=0)] = 0
    mode: Literal["lockstep", "realtime"] = "lockstep"
    speed: Annotated[float, Field(gt=0, le=100)] = 1.0
    headless: Literal["auto", "true", "false"] = "true"
    command_timeout: Annotated[float, Field(gt=0)] = 0.4


class SimNode(Node):
    """Services: ~/reset (draws a world), ~/set_task (an instruction to judge by).

    An episode begins with ~/reset, and with a task that is announced: it has all the control periods of an episode. One
    that finds the last episode over gets the next world, as ~/reset without a seed draws it.
    """

    def __init__(self) -> None:
        super().__init__("sim", automatically_declare_parameters_from_overrides=True)
        self._config = parameters(self, SimNodeConfig)
        self._contract = load_contract(self._config.robot)
        self._topics = command_topics(self._contract)
        if self._config.mode == "lockstep":
            refuse_unstamped(self._topics)
        c = self._config
        self._simulator = make_simulator(self._contract, c.task, seed=c.seed, gui=_window(c.headless))
        self._nothing: Command = Velocity() if isinstance(self._contract, MobileContract) else JointTarget()
        self._running = False  # an episode is on
        self._task_id = ""  # of the task that was announced last
        self._unclaimed = False  # the task that the world was drawn for has not been announced yet
        self._undrawn = ""  # why the last task that was announced has no world
        self._command, self._command_stamp = self._nothing, -1.0
        self._readings: AnyReadings | None = None  # the last ones
        self._waiting_since: float | None = None
        self._sent_at = 0.0  # wall time
        self._reported = False
        self._ticks = self._missed = 0
        self._part = 0
        self._make_topics()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)
        if self._config.mode == "lockstep":
            self.create_timer(self._config.command_timeout / 4, self._watch, clock=steady)
        else:
            period = self._contract.control_period / READINGS_PER_PERIOD / self._config.speed
            self.create_timer(period, self._tick, clock=steady)

    def _make_topics(self) -> None:
        self._clock_publisher = self.create_publisher(ClockMessage, "/clock", qos.COMMAND)
        self._outputs = SimOutputs(self, self._contract)
        self._outcome_publisher = self.create_publisher(
            OutcomeMessage, self._contract.reward.outcome_topic, qos.OUTCOME
        )
        self._diagnostics = Diagnostics(self, "simulator")
        topics = self._topics
        self.create_subscription(topics.driver_kind, topics.driver, self._on_command, qos.of(topics.driver_qos))
        self.create_subscription(Task, "task", self._on_task, qos.LATEST)
        self.create_service(ResetSimulation, "~/reset", self._on_reset)
        self.create_service(SetTask, "~/set_task", self._on_set_task)

    # --- what comes in ---------------------------------------------------------------------------

    def _on_reset(self, request: ResetSimulation.Request, response: ResetSimulation.Response) -> object:
        try:
            if request.task:
                self._simulator.set_task_by_name(request.task)
            self._begin(request.seed if request.use_seed else None)
        except ConfigError as error:
            response.ok, response.message = False, str(error)
            return response
        response.ok, response.instruction = True, self._simulator.instruction
        response.episode = self._simulator.episode
        return response

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> object:
        response.ok = self._simulator.world is not None and self._simulator.follow(request.instruction)
        if not response.ok:
            response.message = f"nothing in this world is named in {request.instruction!r}"
        return response

    def _begin(self, seed: int | None = None, instruction: str = "") -> None:
        """An episode in the next world, of the task that it is drawn with or of another instruction.

        Raises:
            ConfigError: no world can be drawn.
        """
        readings = self._simulator.reset(seed)
        if instruction:
            self._simulator.follow(instruction)
        self._running, self._unclaimed, self._part = True, not instruction, 0
        self._undrawn = ""
        self._command = self._nothing
        self._publish(readings)

    def _on_task(self, message: Task) -> None:
        if not message.instruction or message.id == self._task_id or self._simulator.world is None:
            return
        self._task_id = message.id
        drawn, self._unclaimed = self._unclaimed, False
        lockstep = self._config.mode == "lockstep"
        if lockstep and drawn and message.instruction == clean_instruction(self._simulator.instruction):
            return  # what the world was drawn for; it may be heard only after some of its steps, which must count
        if self._running:
            self._simulator.follow(message.instruction)
            return
        try:
            self._begin(instruction=message.instruction)
        except ConfigError as error:  # said by the diagnostics until a world is drawn; another task may find one
            self._undrawn = f"no episode of {message.instruction!r}: {error}"
            self.get_logger().error(self._undrawn)

    def _on_command(self, message: Any) -> None:
        command = self._topics.from_message(message)
        if self._config.mode == "realtime":
            self._command, self._command_stamp = command, self._simulator.time
        elif self._running and key(message.header.stamp) == key(to_time(self._simulator.time)):
            self._count_tick(fresh=not self._reported)
            self._publish(*self._simulator.step(command))

    # --- how time passes --------------------------------------------------------------------------

    def _tick(self) -> None:
        """Real time: one part of a control period has gone by."""
        if not self._running:
            return
        stale = self._simulator.time - self._command_stamp > 1.5 * self._contract.control_period
        duration = self._contract.control_period / READINGS_PER_PERIOD
        readings = self._simulator.advance(self._nothing if stale else self._command, duration)
        self._part = (self._part + 1) % READINGS_PER_PERIOD
        if self._part == 0:
            self._count_tick(fresh=not stale)
            self._publish(readings, self._simulator.judge())
        else:
            self._publish(readings)

    def _watch(self) -> None:
        """Lockstep: reports, once for each tick, that the command is late.

        Sends the readings again now and then: a node that was found late, or was started again, has missed them, and
        in lockstep nothing else would ever come. Who has them already takes them for what they are, by their stamp.
        """
        if self._waiting_since is None:
            return
        if self._readings is not None and time.monotonic() - self._sent_at > REPEAT_PERIOD:
            self._send(self._readings)
        waited = time.monotonic() - self._waiting_since
        if not self._reported and waited > self._config.command_timeout and self._simulator.steps > 0:
            self._reported = True
            self.get_logger().warning(
                f"no command for the scene of t={self._simulator.time:.1f} s after {waited:.2f} s; waiting"
            )

    def _count_tick(self, *, fresh: bool) -> None:
        self._ticks += 1
        self._missed += not fresh

    # --- what goes out ------------------------------------------------------------------------------

    def _publish(self, readings: AnyReadings, outcome: Outcome | None = None) -> None:
        self._clock_publisher.publish(ClockMessage(clock=to_time(self._simulator.time)))
        if outcome is not None:
            self._outcome_publisher.publish(decisions.outcome_to_message(outcome, self._simulator.time))
            self._running = not outcome.ended
        self._send(readings)
        self._waiting_since = time.monotonic() if self._running else None
        self._reported = False

    def _send(self, readings: AnyReadings) -> None:
        self._readings, self._sent_at = readings, time.monotonic()
        self._outputs.publish(readings)

    def _report(self) -> None:
        waiting = f"waiting for a command, mode {self._config.mode}" if self._reported else self._config.mode
        level = DiagnosticStatus.ERROR if self._undrawn else DiagnosticStatus.OK
        values = {
            "ticks": self._ticks,
            "ticks_missed": self._missed,
            "episode": self._simulator.episode,
            "time": f"{self._simulator.time:.3f}",
        }
        self._diagnostics.publish(self._undrawn or waiting, values, level=level)

    def close(self) -> None:
        self._simulator.close()


def _window(headless: str) -> bool:
    display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if headless == "false" and not display:
        raise ConfigError("headless:=false needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set")
    return headless == "false" or (headless == "auto" and display)


def main() -> None:
    process.main(SimNode)


if __name__ == "__main__":
    main()
