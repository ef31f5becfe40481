"""`llmagent doctor` as a process beside good and faulty drivers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from ros_support import Graph, Process
from sensor_msgs.msg import LaserScan

from llmagent_interfaces.srv import ResetSimulation
from llmagent_ros.contract import contract_path
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import stamps

SECONDS = 3.0


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    with Graph(tmp_path) as made:
        yield made


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    """A base without a camera, with scans at 5 Hz or more; whatever stalls for a moment is no fault."""
    content = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    content["sensors"] = {"scan": {"rate": 5.0, "timeout": SECONDS}, "odom": {"timeout": SECONDS}, "camera": None}
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if key != "objects"}, sort_keys=False))
    return path


class Drivers:
    """The drivers of a base, in the test's process; they spin while the doctor looks."""

    def __init__(self, graph: Graph, *, scan: Any = None, odom: Any = None, command: type = TwistStamped) -> None:
        self.graph = graph
        self._scan, self._odom = scan or {}, odom or {}
        self._publishers = {
            "scan": graph.node.create_publisher(LaserScan, "scan", qos.SENSOR),
            "odom": graph.node.create_publisher(Odometry, "odom", qos.RELIABLE_SENSOR),
        }
        graph.node.create_subscription(command, "cmd_vel", lambda message: None, qos.COMMAND)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        graph.node.create_timer(1.0 / self._scan.get("rate", 25.0), self._tell_scan, clock=steady)
        graph.node.create_timer(0.04, self._tell_odom, clock=steady)

    def _header(self, frame: str, late: float) -> Any:
        return stamps.header(stamps.to_seconds(self.graph.node.get_clock().now().to_msg()) - late, frame)

    def _tell_scan(self) -> None:
        message = LaserScan(header=self._header(self._scan.get("frame", "base_scan"), self._scan.get("late", 0.0)))
        message.angle_increment, message.range_min, message.range_max = 0.1, 0.1, 4.0
        message.ranges = [self._scan.get("range", 1.0)] * 60
        self._publishers["scan"].publish(message)

    def _tell_odom(self) -> None:
        late = self._odom.get("late", 0.0)
        self._publishers["odom"].publish(Odometry(header=self._header("odom", late), child_frame_id="base_link"))


def doctor(graph: Graph, robot: Path | str, *words: str) -> Process:
    return graph.run("doctor", "-m", "llmagent_ros.cli.main", "doctor", robot, "--seconds", str(SECONDS), *words)


def examined(graph: Graph, robot: Path) -> tuple[int, dict[str, Any]]:
    """Exit code, and what it says as JSON."""
    process = doctor(graph, robot, "--json")
    code = graph.exit_code(process)
    return code, json.loads(process.said)


def errors(told: dict[str, Any]) -> set[tuple[str, str]]:
    return {(finding["key"], finding["problem"]) for finding in told["findings"] if finding["level"] == "error"}


def test_a_healthy_robot(graph: Graph, robot: Path) -> None:
    Drivers(graph)
    process = doctor(graph, robot)
    assert graph.exit_code(process) == 0, process.said
    assert "the robot is as its contract says" in process.said
    rows = {line.split("|")[1].strip(): line for line in process.said.splitlines() if line.startswith("| ")}
    assert " ok " in rows["sensors.scan"] and " Hz" in rows["sensors.scan"]
    assert "to /tester" in rows["command"]
    assert "warning: reward.outcome_topic (outcome): nobody publishes it" in process.said


def slow_scan(graph: Graph) -> None:
    Drivers(graph, scan={"rate": 2.0})


def stale_scan(graph: Graph) -> None:
    Drivers(graph, scan={"late": 5.0})


def scan_from_the_future(graph: Graph) -> None:
    Drivers(graph, scan={"late": -1.0})


def scan_of_another_frame(graph: Graph) -> None:
    Drivers(graph, scan={"frame": "laser"})


def blind_scan(graph: Graph) -> None:
    Drivers(graph, scan={"range": math.nan})


def driver_that_takes_twist(graph: Graph) -> None:
    Drivers(graph, command=Twist)


def somebody_who_drives_past_the_guard(graph: Graph) -> None:
    Drivers(graph)
    graph.node.create_publisher(TwistStamped, "cmd_vel", qos.COMMAND)


def clock_that_is_behind(graph: Graph) -> None:
    Drivers(graph, scan={"late": 40.0}, odom={"late": 40.0})


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (slow_scan, {("sensors.scan", "slow")}),
        (stale_scan, {("sensors.scan", "stale")}),
        (scan_from_the_future, {("sensors.scan", "future")}),
        (scan_of_another_frame, {("sensors.scan", "frame")}),
        (blind_scan, {("sensors.scan", "bad_data")}),
        (driver_that_takes_twist, {("command", "wrong_type")}),
        (somebody_who_drives_past_the_guard, {("command", "unguarded")}),
        (clock_that_is_behind, {("sensors.scan", "stale"), ("sensors.odom", "stale"), ("clock", "skew")}),
    ],
)
def test_one_fault_is_one_error(
    graph: Graph, robot: Path, fault: Callable[[Graph], None], found: set[tuple[str, str]]
) -> None:
    fault(graph)
    code, told = examined(graph, robot)
    assert errors(told) == found, told
    assert code == 1


def test_nothing_runs(graph: Graph, robot: Path) -> None:
    code, told = examined(graph, robot)
    assert code == 1
    assert errors(told) == {("sensors.scan", "missing"), ("sensors.odom", "missing"), ("command", "missing")}
    advice = {finding["key"]: finding["advice"] for finding in told["findings"]}
    assert advice["sensors.scan"].endswith("no topic of type sensor_msgs/msg/LaserScan is there"), "its own is none"


def test_a_driver_on_another_topic_is_named(graph: Graph, robot: Path) -> None:
    Drivers(graph)
    content = yaml.safe_load(robot.read_text())
    content["sensors"]["scan"]["topic"] = "front/scan"
    robot.write_text(yaml.safe_dump(content, sort_keys=False))
    _, told = examined(graph, robot)
    assert errors(told) == {("sensors.scan", "missing")}
    (finding,) = (each for each in told["findings"] if each["key"] == "sensors.scan")
    assert finding["advice"].endswith("set sensors.scan to what has that type: /scan")


def test_qos_that_cannot_match_is_told(graph: Graph, robot: Path) -> None:
    content = yaml.safe_load(robot.read_text())
    content["sensors"]["scan"]["qos"] = {"reliability": "reliable"}
    robot.write_text(yaml.safe_dump(content, sort_keys=False))
    Drivers(graph)
    code, told = examined(graph, robot)
    assert code == 1
    assert errors(told) == {("sensors.scan", "incompatible_qos")}


def test_the_simulated_robot_and_its_guard_are_healthy(graph: Graph) -> None:
    graph.start("sim", mode="realtime")
    graph.start("guard", mode="realtime", use_sim_time=True)
    graph.call(ResetSimulation, "sim/reset", ResetSimulation.Request())
    process = doctor(graph, "sim_diffdrive", "--json")
    code = graph.exit_code(process)
    told = json.loads(process.said)
    assert (code, told["findings"]) == (0, []), told
    (command,) = (topic for topic in told["topics"] if topic["key"] == "command")
    assert (command["publishers"], command["subscriptions"]) == (["/guard"], ["/sim"])


def test_what_is_wrong_on_the_command_line_is_one_line(graph: Graph, robot: Path) -> None:
    for words, said in (
        (("--seconds", "0"), "--seconds 0.0; valid: above 0"),
        (("--namespace", "no good"), "--namespace 'no good'"),
    ):
        process = doctor(graph, robot, *words)
        assert graph.exit_code(process) == 2
        assert said in process.said.splitlines()[-1]
