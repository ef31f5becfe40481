"""The guard as a process among real topics."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from ros_support import DEADLINE, Graph
from rosgraph_msgs.msg import Clock
from safety_support import open_scan, scan_of
from sensor_msgs.msg import LaserScan
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Decision, Verdict
from llmagent_ros.contract import load_contract
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import reports, sensors, stamps
from llmagent_ros.nodes.wire.stamps import key
from llmagent_ros.types import Odometry as Reading

CONTRACT = load_contract("sim_diffdrive")
REPEATED = "dropped_repeated_scan"


class Around:
    """What is around a guard: scanner, policy, person, e-stop button and the robot."""

    def __init__(self, graph: Graph, **parameters: Any) -> None:
        self.graph = graph
        self.time = 0.0  # of a /clock, s
        self.process = graph.start("guard", **{"odom_check": False, **parameters})
        self.commands = graph.collect(TwistStamped, "/cmd_vel")
        self.scan = graph.publisher(LaserScan, "scan", qos.RELIABLE_SENSOR)
        self.policy = graph.publisher(TwistStamped, "cmd_vel_policy")
        self.person = graph.publisher(TwistStamped, "cmd_vel_teleop")
        self.button = graph.publisher(Bool, "e_stop", qos.LATEST, readers=2)
        graph.catch_up("guard")

    def now(self) -> float:
        return stamps.to_seconds(self.graph.node.get_clock().now().to_msg())

    def see(self, stamp: float) -> None:
        self.scan.publish(sensors.scan_to_message(open_scan(stamp), "base_scan"))
        assert self.scan.wait_for_all_acked(Duration(seconds=DEADLINE)), "the guard does not take the scan"

    def say(self, publisher: Any, linear: float, stamp: float, angular: float = 0.0) -> None:
        message = TwistStamped(header=stamps.header(stamp))
        message.twist.linear.x, message.twist.angular.z = linear, angular
        publisher.publish(message)

    def wait_until_taken(self, publisher: Any) -> None:
        """Until the guard has handled what was published."""
        assert publisher.wait_for_all_acked(Duration(seconds=DEADLINE)), "the guard does not take the message"
        self.graph.catch_up("guard")

    def stand(self, problem: str) -> None:
        """Until a zero comes out that was said after the guard had handled everything."""
        self.graph.catch_up("guard")
        self.commands.clear()
        self.graph.until(lambda: self.commands and self.commands[-1].twist.linear.x == 0.0, problem)

    def answer(self, stamp: float) -> TwistStamped:
        """The command with this stamp."""
        found = self.graph.until(
            lambda: [m for m in self.commands if m.header.stamp == stamps.to_time(stamp)], f"no command for {stamp}"
        )
        assert len(found) == 1, "one output for each policy command"
        return found[0]

    def keep(self, publisher: Any, linear: float, wanted: Any, problem: str) -> TwistStamped:
        """Goes on seeing and commanding until a command as wanted comes out."""
        self.commands.clear()

        def step() -> list[TwistStamped]:
            now = self.now()
            self.see(now)
            self.say(publisher, linear, now)
            return [m for m in self.commands if wanted(m.twist.linear.x)]

        return self.graph.until(step, problem)[-1]


def test_lockstep_answers_each_command_once_with_its_stamp(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="lockstep", scan_wait=10.0)
        around.see(0.4)
        around.say(around.policy, 0.5, 0.4)
        assert around.answer(0.4).twist.linear.x == pytest.approx(0.5)
        around.say(around.policy, 9.0, 0.8)  # its scan comes later: the guard waits for it
        around.see(0.8)
        assert around.answer(0.8).twist.linear.x == pytest.approx(CONTRACT.limits.linear)
        around.see(1.2)
        around.say(around.policy, math.nan, 1.2)
        around.say(around.policy, -0.6, 1.2)
        slowest = CONTRACT.limits.linear - CONTRACT.limits.linear_acceleration * CONTRACT.control_period
        assert around.answer(1.2).twist.linear.x == pytest.approx(max(-0.6, slowest))
        assert around.answer(1.2).header.frame_id == "base_link"


def test_each_command_that_is_answered_has_one_verdict(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="lockstep", scan_wait=1.0)
        verdicts: list[Verdict] = graph.collect(Verdict, "/verdict", qos.VERDICT)
        around.see(0.4)
        around.wait_until_taken(around.scan)  # else it might be looked at when the time to wait for it is over
        around.say(around.policy, 0.5, 0.4)
        around.answer(0.4)
        around.see(0.8)
        around.say(around.person, -0.6, 0.0)  # in lockstep nothing answers it by itself
        around.wait_until_taken(around.person)
        around.say(around.policy, 1e300, 0.8)
        around.answer(0.8)
        around.say(around.policy, math.nan, 1.2)  # not taken
        around.say(around.policy, 0.3, 2.0)  # its scan stays out
        around.answer(2.0)
        around.button.publish(Bool(data=True))
        graph.until(lambda: around.commands[-1].header.stamp == stamps.to_time(0.0), "the e-stop does not stop")
        around.see(2.4)
        around.wait_until_taken(around.scan)
        around.say(around.policy, 0.2, 2.4)
        graph.until(lambda: len(verdicts) == 4, "not four verdicts")
        given = [around.answer(stamp).twist.linear.x for stamp in (0.4, 0.8, 2.0, 2.4)]
    assert [(m.header.stamp, m.linear) for m in verdicts] == [
        (stamps.to_time(stamp), linear) for stamp, linear in zip((0.4, 0.8, 2.0, 2.4), given, strict=True)
    ]
    said = [(m.source, m.verdict, m.reason, m.linear_asked) for m in verdicts]
    assert said[0] == ("policy", "passed", "", 0.5)
    assert said[1] == ("teleop", "limited", "acceleration", -0.6), "a person goes before the policy"
    assert said[2:] == [("none", "stopped", "stale_scan", 0.3), ("none", "stopped", "e_stop", 0.2)]
    assert verdicts[0].header.frame_id == "base_link"


def test_in_real_time_a_person_has_verdicts_too(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime")
        verdicts: list[Verdict] = graph.collect(Verdict, "/verdict", qos.VERDICT)

        asked: list[int] = []  # stamps

        def passed() -> list[Verdict]:
            now = around.now()
            around.see(now)
            around.say(around.person, -0.2, now)
            asked.append(key(stamps.to_time(now)))
            return [m for m in verdicts if m.verdict == "passed"]

        verdict = graph.until(passed, "no verdict on the person's command")[0]
        assert (verdict.source, verdict.linear_asked, verdict.linear) == ("teleop", -0.2, -0.2)
        around.stand("silence does not stop")
        graph.until(lambda: len(around.commands) > 10, "it says nothing")
        graph.catch_up("guard")
        answered = [key(m.header.stamp) for m in verdicts]
        assert len(set(answered)) == len(answered), "one for each command"
        assert set(answered) <= set(asked), "what the timer decides answers nobody"


def test_lockstep_does_not_wait_for_a_scan_for_ever(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="lockstep", scan_wait=0.1)
        around.say(around.policy, 0.5, 7.0)
        assert around.answer(7.0).twist.linear.x == 0.0


def test_a_person_goes_before_the_policy_and_silence_stops(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime")
        around.keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive")
        around.keep(around.person, -0.2, lambda v: v < -0.15, "the person does not drive")
        around.keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive again")
        around.commands.clear()
        graph.until(lambda: around.commands and around.commands[-1].twist.linear.x == 0.0, "silence does not stop")


def test_teleop_commands_that_a_link_held_back_do_not_drive(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime")
        around.keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive")
        around.commands.clear()
        for _ in range(10):
            around.say(around.person, -0.5, around.now() - 2.0)
        graph.until(lambda: "teleop command not taken" in around.process.said, "nothing is said")
        graph.until(lambda: around.commands and around.commands[-1].twist.linear.x == 0.0, "silence does not stop")
        assert min(m.twist.linear.x for m in around.commands) >= 0.0

        def person() -> bool:  # whoever gives no stamp is taken by arrival
            around.see(around.now())
            around.say(around.person, -0.5, 0.0)
            return around.commands[-1].twist.linear.x < -0.45

        graph.until(person, "a person without a stamp does not drive")


def test_a_dead_clock_stops_and_the_old_command_does_not_come_back(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime", use_sim_time=True)
        clock = graph.publisher(Clock, "/clock")

        def drive() -> bool:
            around.time += 0.01
            clock.publish(Clock(clock=stamps.to_time(around.time)))
            around.see(around.time)
            around.say(around.policy, 0.5, around.time)
            return bool(around.commands) and around.commands[-1].twist.linear.x > 0.45

        graph.until(drive, "the policy does not drive")
        around.stand("a dead clock does not stop")
        around.commands.clear()
        resumed = stamps.to_time(around.time + 0.2)  # by the clock, the last command is not old

        def resume() -> bool:
            clock.publish(Clock(clock=resumed))
            return len([m for m in around.commands if m.header.stamp == resumed]) >= 3

        graph.until(resume, "the clock does not run on")
        assert {m.twist.linear.x for m in around.commands} == {0.0}


def test_the_fallback_drives_when_the_policy_is_unsure_or_silent_and_says_so(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        asked = {"fallback": "follow_clearances", "follow__time": 1.0, "unsure_above": 0.5}
        around = Around(graph, mode="realtime", **asked)
        decisions = graph.publisher(Decision, "decision", qos.DECISION)
        states: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")

        def said() -> dict[str, str]:
            return reports.values(states[-1].status[0]) if states else {}

        around.keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive")

        def unsure() -> bool:
            now = around.now()
            around.see(now)
            around.say(around.policy, 0.5, now)
            decisions.publish(Decision(header=stamps.header(now), probabilities=[0.5, 0.5]))
            return said().get("source") == "fallback"

        graph.until(unsure, "an unsure policy drives")

        def silent() -> bool:
            around.see(around.now())
            return said().get("reason") == "stale_command"

        graph.until(silent, "the fallback does not end")
        around.stand("the fallback drives on")
        assert reports.guard_counts(said())["fallback"] >= 1


def test_what_must_live_and_a_dead_man(tmp_path: Path) -> None:
    """The policy drives only with odometry and the heartbeat; a person only while the dead-man is held."""
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime", odom_check=True, heartbeats="['policy']", dead_man=True)
        odometry = graph.publisher(Odometry, "odom", qos.RELIABLE_SENSOR)
        heart = graph.publisher(String, "heartbeat", qos.SENSOR)
        hand = graph.publisher(Bool, "teleop_enable", qos.SENSOR)
        states: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")

        def keep(publisher: Any, linear: float, wanted: Any, problem: str, *, odom: bool, beat: bool) -> None:
            def alive(speed: float) -> bool:
                if odom:
                    reading = Reading(around.now(), 0.0, 0.0, 0.0, 0.0, 0.0)
                    odometry.publish(sensors.odometry_to_message(reading, "odom", "base_link"))
                if beat:
                    heart.publish(String(data="policy"))
                return bool(wanted(speed))

            around.keep(publisher, linear, alive, problem)

        def reason() -> str:
            return reports.values(states[-1].status[0])["reason"] if states else ""

        keep(around.policy, 0.5, lambda _: reason() == "no_odom", "it drives without odometry", odom=False, beat=True)
        keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive", odom=True, beat=True)
        def stopped(why: str) -> Any:
            return lambda v: v == 0.0 and reason() == why

        keep(around.policy, 0.5, stopped("stale_heartbeat"), "no heartbeat does not stop", odom=True, beat=False)
        keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive again", odom=True, beat=True)
        keep(around.policy, 0.5, stopped("stale_odom"), "no odometry does not stop", odom=False, beat=True)

        def person(held: bool) -> Any:
            return lambda v: hand.publish(Bool(data=held)) or v < -0.15

        keep(around.person, -0.2, person(True), "the person does not drive", odom=False, beat=False)
        keep(around.policy, 0.5, lambda v: v > 0.45, "it does not go on after the person", odom=True, beat=True)

        def let_go() -> bool:
            """Whether it is told: not where a machine stalls until the person's last command is old."""
            keep(around.person, -0.2, person(True), "the person does not drive again", odom=True, beat=True)
            states.clear()
            hand.publish(Bool(data=False))
            graph.catch_up("guard")
            return any(reports.values(m.status[0])["reason"] == "dead_man_released" for m in states)

        graph.until(let_go, "letting go hands the robot over")
        keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive after that", odom=True, beat=True)


def test_a_scanner_that_sends_an_old_scan_with_fresh_stamps_stops_a_robot_that_moves(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime", odom_check=True)
        odometry = graph.publisher(Odometry, "odom", qos.RELIABLE_SENSOR)
        states: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")
        scan, x, step = scan_of(np.array([[3.0, 0.0]]), 0.0), 0.0, 0.0  # the same scan all the time

        def said() -> dict[str, str]:
            return reports.values(states[-1].status[0]) if states else {}

        def go_on() -> bool:
            """One more of everything; whether the robot has driven since the commands were cleared."""
            nonlocal x
            x += step
            now = around.now()
            reading = Reading(now, x, 0.0, 0.0, 0.0, 0.0)
            odometry.publish(sensors.odometry_to_message(reading, "odom", "base_link"))
            around.scan.publish(sensors.scan_to_message(dataclasses.replace(scan, stamp=now), "base_scan"))
            around.say(around.policy, 0.5, now)
            return any(m.twist.linear.x > 0.45 for m in around.commands)

        def stopped() -> bool:
            go_on()
            counted = reports.guard_counts(said()).get(REPEATED, 0)
            return bool(counted and said()["reason"] == "stale_scan" and around.commands[-1].twist.linear.x == 0.0)

        graph.until(go_on, "the policy does not drive")
        for _ in range(10):
            go_on()
        around.wait_until_taken(around.scan)
        states.clear()
        graph.until(lambda: states, "it reports nothing")
        assert REPEATED not in reports.guard_counts(said()), "a robot that stands may see the same"
        step = 0.04
        graph.until(stopped, "it drives on by an old scan")
        scan, step = scan_of(np.array([[2.9, 0.0]]), 0.0), 0.0
        around.commands.clear()
        graph.until(go_on, "the first scan that is another is not believed")


def test_e_stop_is_latched_until_it_is_reset(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime")
        states: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")
        around.keep(around.policy, 0.5, lambda v: v > 0.0, "the policy does not drive")
        around.button.publish(Bool(data=True))
        graph.until(
            lambda: states and reports.values(states[-1].status[0])["e_stop"] == "true", "the e-stop is not reported"
        )
        around.stand("the e-stop does not stop")  # a command from before it may still have been on its way
        around.commands.clear()

        def driven() -> bool:
            now = around.now()
            around.see(now)
            around.say(around.policy, 0.5, now)
            return len(around.commands) >= 10

        graph.until(driven, "it says nothing")
        assert all(m.twist.linear.x == 0.0 for m in around.commands)
        assert not graph.call(Trigger, "guard/reset_e_stop", Trigger.Request()).success, "the button is still pressed"
        around.button.publish(Bool(data=False))
        graph.until(lambda: graph.call(Trigger, "guard/reset_e_stop", Trigger.Request()).success, "it cannot be reset")
        around.keep(around.policy, 0.5, lambda v: v > 0.0, "the policy does not drive after the reset")
        said = reports.values(states[-1].status[0])
        assert reports.guard_counts(said)["e_stop"] == 1


def test_each_e_stop_has_a_topic_and_a_reset_is_refused_by_name(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime", e_stops="['e_stop', 'red/button', 'mat']")
        red, mat = (graph.publisher(Bool, topic, qos.LATEST, readers=2) for topic in ("red/button", "mat"))

        def reset() -> Trigger.Response:
            graph.catch_up("guard")
            return graph.call(Trigger, "guard/reset_e_stop", Trigger.Request())

        around.keep(around.policy, 0.5, lambda v: v > 0.0, "the policy does not drive")
        red.publish(Bool(data=True))
        around.stand("the button does not stop")
        mat.publish(Bool(data=True))
        around.button.publish(Bool(data=True))
        around.button.publish(Bool(data=False))  # teleop's: pressed and let go
        refused = reset()
        assert (refused.success, refused.message) == (False, "still pressed: mat, red/button")
        red.publish(Bool(data=False))
        assert reset().message == "still pressed: mat"
        mat.publish(Bool(data=False))
        assert reset().success
        around.keep(around.policy, 0.5, lambda v: v > 0.0, "the policy does not drive after the reset")


def test_the_last_command_is_zero(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        around = Around(graph, mode="realtime", command_timeout=1000.0)
        around.keep(around.policy, 0.5, lambda v: v > 0.45, "the policy does not drive")
        around.process.stop()
        assert graph.exit_code(around.process) == 0
        graph.until(lambda: around.commands[-1].twist.linear.x == 0.0, "the robot is left driving")


def test_unknown_parameter_names_the_valid_ones(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.start("guard", comand_timeout=1.0)
        assert graph.exit_code(process) == 2
        (line,) = process.said.strip().splitlines()
        assert "comand_timeout" in line and "command_timeout" in line and "lockstep" not in line
