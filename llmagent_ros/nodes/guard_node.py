"""The guard as a node: the only publisher of the robot's command. docs/safety.md says what it lets through."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from sensor_msgs.msg import JointState, Joy, LaserScan
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Decision
from llmagent_interfaces.msg import Verdict as VerdictMessage
from llmagent_ros.contract import ArmContract, MobileContract, load_contract
from llmagent_ros.messages import joints_from_message, odometry_from_message, scan_from_message
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.heartbeat import HEARTBEAT
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire.commands import command_topics, refuse_unstamped
from llmagent_ros.nodes.wire.reports import COUNT
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.nodes.wire.verdicts import verdict_to_message
from llmagent_ros.safety.fallback import uncertainty
from llmagent_ros.safety.guard import Guard, GuardConfig
from llmagent_ros.types import Command, JointTarget, Verdict

REPORT_PERIOD = 0.5  # s of wall time between two diagnostics
DECISIONS = 1000  # of which it says how long they took
LAST_WORD = 1.0  # s that the last zero may take to be acknowledged, by a driver that stalls for a moment


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class GuardNodeConfig(GuardConfig):
    """Parameters: those of GuardConfig but `lockstep`, which follows from `mode`, and

    Attributes:
        robot: contract in config/robots, or a path.
        mode: lockstep: one output for each policy command, the world waits for it. realtime: outputs also in between.
        scan_wait: s of wall time that a command waits in lockstep for the scan (joint states) of its stamp, and for the
            first odometry of a world where it is watched.
        dead_man_button: with `dead_man`, the button of `joy` that is held; -1: it is the Bool on `teleop_enable`.
    """

    robot: str = "sim_diffdrive"
    mode: Literal["lockstep", "realtime"] = "realtime"
    scan_wait: Annotated[float, Field(gt=0, le=10)] = 0.2
    dead_man_button: Annotated[int, Field(ge=-1, le=255)] = -1


class GuardNode(Node):
    """Subscribes cmd_vel_policy, cmd_vel_teleop, `e_stops` and the contract's scan; service ~/reset_e_stop.

    In real time the contract's odometry; as configured decision, heartbeat, and teleop_enable or joy.

    Publishes the contract's command. Of an arm: cmd_joint_policy, cmd_joint_teleop and its joint states.

    In lockstep, time is the newest command's stamp and stands still between commands. In real time it is the node's
    clock, looked at `rate` times a second of a steady clock, so that silence, also that of /clock, ends in zero.

    Each command that it answers has one verdict besides, published after the command that goes out: in lockstep those
    of the policy, in real time a person's too. What the timer decides in between has none.
    """

    def __init__(self) -> None:
        super().__init__("guard", automatically_declare_parameters_from_overrides=True)
        lockstep = self.has_parameter("mode") and self.get_parameter("mode").value == "lockstep"
        self._config = parameters(self, GuardNodeConfig, {"lockstep": lockstep})
        self._contract = load_contract(self._config.robot)
        self._guard = Guard(self._contract, self._config)
        self._topics = command_topics(self._contract)
        if lockstep:
            refuse_unstamped(self._topics)
        self._stamp: Time | None = None  # of the command that is to be answered, to the nanosecond
        self._deadline: float | None = None  # wall time until which it waits for its scan or joint states
        self._verdict: Verdict | None = None
        self._took: deque[float] = deque(maxlen=DECISIONS)  # s from the look at the clock until the command was sent
        self._reported: tuple[object, ...] = ()
        self._make_topics()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)
        if lockstep:
            self.create_timer(self._config.scan_wait / 4, self._stop_waiting, clock=steady)
        else:
            self.create_timer(1.0 / self._config.rate, self._decide, clock=steady)

    def _make_topics(self) -> None:
        topics = self._topics
        self._publisher = self.create_publisher(topics.driver_kind, topics.driver, qos.of(topics.driver_qos))
        self._verdicts = self.create_publisher(VerdictMessage, "verdict", qos.VERDICT)
        self._diagnostics = Diagnostics(self)
        # The subscription with the fewest demands matches every e-stop driver; the other one tells a guard that starts
        # late that the button is pressed.
        for topic in self._config.e_stops:
            for profile in (qos.SENSOR, qos.LATEST):
                self.create_subscription(Bool, topic, partial(self._on_e_stop, topic), profile)
        self._subscribe_sense()
        self._subscribe_vitals()
        self.create_subscription(topics.kind, topics.policy, self._on_policy_command, qos.COMMAND)
        self.create_subscription(topics.kind, topics.teleop, self._on_teleop_command, qos.COMMAND)
        self.create_service(Trigger, "~/reset_e_stop", self._on_reset)

    def _subscribe_sense(self) -> None:
        """What nothing moves without. In lockstep a lost reading would stop the robot for a tick, and the episode would
        depend on it."""
        contract, lockstep = self._contract, self._config.lockstep
        if isinstance(contract, MobileContract):
            scan = contract.sensors.scan
            profile = qos.RELIABLE_SENSOR if lockstep else qos.of(scan.qos)
            self.create_subscription(LaserScan, scan.topic, self._on_scan, profile)
        elif isinstance(contract, ArmContract):
            joints = contract.sensors.joints
            profile = qos.RELIABLE_SENSOR if lockstep else qos.of(joints.qos)
            self.create_subscription(JointState, joints.topic, self._on_joints, profile)

    def _subscribe_vitals(self) -> None:
        """What must keep coming, where the configuration says so."""
        contract, config = self._contract, self._config
        if isinstance(contract, MobileContract) and config.watches_odometry:
            odom = contract.sensors.odom
            profile = qos.RELIABLE_SENSOR if config.lockstep else qos.of(odom.qos)
            self.create_subscription(Odometry, odom.topic, self._on_odometry, profile)
        if config.unsure_above is not None:
            self.create_subscription(Decision, "decision", self._on_decision, qos.COMMAND)
        if config.heartbeats:
            self.create_subscription(String, HEARTBEAT, self._on_heartbeat, qos.SENSOR)
        if config.dead_man and config.dead_man_button < 0:
            self.create_subscription(Bool, "teleop_enable", self._on_enable, qos.SENSOR)
        elif config.dead_man:
            self.create_subscription(Joy, "joy", self._on_joy, qos.SENSOR)

    # --- what comes in ---------------------------------------------------------------------------

    def _on_policy_command(self, message: Any) -> None:
        stamp = message.header.stamp
        if not self._guard.on_policy_command(self._topics.from_message(message), to_seconds(stamp), self._now()):
            self.get_logger().warning(f"policy command not taken: {self._guard.counts}", throttle_duration_sec=5.0)
            return
        self._stamp = stamp
        if self._guard.awaits_scan:
            self._deadline = time.monotonic() + self._config.scan_wait
        else:
            self._decide()

    def _on_teleop_command(self, message: Any) -> None:
        stamp = to_seconds(message.header.stamp) or None  # 0: whoever sent it gives none
        now = self._now()
        if not self._guard.on_teleop_command(self._topics.from_message(message), now, stamp):
            self.get_logger().warning(
                f"teleop command not taken: its stamp is {stamp or 0.0:.1f}, the guard's clock {now:.1f}: "
                f"{self._guard.counts}",
                throttle_duration_sec=5.0,
            )
        elif not self._config.lockstep:
            self._decide(message.header.stamp)

    def _on_scan(self, message: LaserScan) -> None:
        self._guard.on_scan(scan_from_message(message), self._now())
        self._go_on()

    def _on_joints(self, message: JointState) -> None:
        self._guard.on_joints(joints_from_message(message), self._now())
        self._go_on()

    def _on_odometry(self, message: Odometry) -> None:
        self._guard.on_odometry(odometry_from_message(message), self._now())
        self._go_on()

    def _on_decision(self, message: Decision) -> None:
        if self._guard.on_decision(to_seconds(message.header.stamp), uncertainty(message.probabilities)):
            self._decide()

    def _on_heartbeat(self, message: String) -> None:
        self._guard.on_heartbeat(message.data, time.monotonic())

    def _on_enable(self, message: Bool) -> None:
        self._on_dead_man(message.data)

    def _on_joy(self, message: Joy) -> None:
        button = self._config.dead_man_button
        self._on_dead_man(button < len(message.buttons) and message.buttons[button] > 0)

    def _on_dead_man(self, held: bool) -> None:
        self._guard.on_dead_man(held, time.monotonic())
        if not held and self._verdict is not None and self._verdict.source == "teleop" and not self._config.lockstep:
            self._decide()

    def _go_on(self) -> None:
        if self._deadline is not None and not self._guard.awaits_scan:
            self._decide()

    def _on_e_stop(self, topic: str, message: Bool) -> None:
        self._guard.on_e_stop(message.data, topic)
        if self._guard.e_stopped:
            self._decide()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._guard.reset_e_stop()
        pressed = ", ".join(self._guard.pressed_e_stops)
        response.message = "released" if response.success else f"still pressed: {pressed}"
        self.get_logger().info(f"reset of the e-stop: {response.message}")
        self._decide()
        return response

    # --- what goes out ---------------------------------------------------------------------------

    def _stop_waiting(self) -> None:
        """Lockstep: the reading of the command's stamp did not come in time; the guard judges without it."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._decide()

    def _decide(self, teleop: Time | None = None) -> None:
        """teleop: stamp of the person's command that this answers, if it does."""
        began = time.perf_counter()
        verdict = self._guard.decide(self._now(), time.monotonic())
        stamp, self._stamp, self._deadline = self._stamp, None, None
        self._publish(verdict.command, stamp)
        self._took.append(time.perf_counter() - began)
        self._verdict = verdict
        answered = stamp or teleop
        if answered is not None:  # only now: nothing may hold back what moves or stops the robot
            self._verdicts.publish(verdict_to_message(verdict, answered, self._topics.frame))
        if self._state() != self._reported:
            self._report()

    def _publish(self, command: Command, answered: Time | None) -> None:
        """answered: stamp of the policy command that this is the answer to, if it is one.

        In lockstep anything else bears stamp 0: the present time would pass for the answer that the world waits for.
        An arm's trajectory begins when it arrives, which a controller takes stamp 0 for; one of the past it refuses.
        """
        stamp = answered
        if isinstance(command, JointTarget):
            if not command.joints:
                return  # where the arm is was never known, so nothing can be said that would not move it
            stamp = answered if self._config.lockstep else None
        elif not self._config.lockstep:
            stamp = answered or self.get_clock().now().to_msg()
        self._publisher.publish(self._topics.to_message(command, stamp, driver=True))

    def _now(self) -> float:
        return to_seconds(self.get_clock().now().to_msg())

    def _state(self) -> tuple[object, ...]:
        verdict = self._verdict
        return (verdict.source, verdict.reason, self._guard.e_stopped) if verdict else (None, None, False)

    def _report(self) -> None:
        self._reported = self._state()
        verdict, stopped = self._verdict, self._guard.e_stopped
        reason = (verdict.reason if verdict else None) or ""
        values: dict[str, object] = {
            "source": verdict.source if verdict else "stop",
            "reason": reason,
            "limited": ",".join(verdict.limited) if verdict else "",
            "e_stop": str(stopped).lower(),
            "decision_ms_p99": f"{1e3 * float(np.percentile(self._took, 99)):.3f}" if self._took else "",
            **{f"{COUNT}{name}": number for name, number in sorted(self._guard.counts.items())},
        }
        message = "e-stop" if stopped else f"stopped: {reason}" if reason else f"{values['source']} drives"
        level = DiagnosticStatus.WARN if stopped else DiagnosticStatus.OK
        self._diagnostics.publish(message, values, level=level)

    def close(self) -> None:
        """Leaves the robot standing."""
        self._publish(self._guard.stop(), None)
        self._publisher.wait_for_all_acked(Duration(seconds=LAST_WORD))


def main() -> None:
    process.main(GuardNode)


if __name__ == "__main__":
    main()
