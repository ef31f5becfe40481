"""What the doctor finds in made-up observations of a graph, one fault a test."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.contract import MobileContract, TopicSpec, load_contract
from llmagent_ros.doctor import report
from llmagent_ros.doctor.contents import data_problem
from llmagent_ros.doctor.examination import Examination, examine
from llmagent_ros.doctor.observation import Arrival, Endpoint, Observation, TopicObservation

CONTRACT = load_contract("turtlebot3_burger")  # scan 4 Hz, time-out 0.6 s; the camera is not required
assert isinstance(CONTRACT, MobileContract)
SPECS = {spec.key: spec for spec in CONTRACT.topics}
SECONDS, END = 5.0, 1000.0
DRIVER = Endpoint("/turtlebot3_node", SPECS["command"].type)


def arrivals(spec: TopicSpec, rate: float = 20.0, age: float = 0.02, **changes: Any) -> tuple[Arrival, ...]:
    times = END - SECONDS + np.arange(int(SECONDS * rate)) / rate
    made = (Arrival(float(t), float(t) - age, spec.frame, spec.child_frame) for t in times)
    return tuple(dataclasses.replace(each, **changes) for each in made)


def publisher(spec: TopicSpec, **changes: Any) -> Endpoint:
    return dataclasses.replace(Endpoint(f"/{spec.topic}_driver", spec.type), **changes)


def healthy() -> dict[str, TopicObservation]:
    topics = {}
    for key, spec in SPECS.items():
        if spec.direction == "command":
            topics[key] = TopicObservation(subscriptions=(DRIVER,))
        else:
            topics[key] = TopicObservation((publisher(spec),), (), arrivals(spec))
    return topics


def seen(topics: dict[str, TopicObservation], contract: Any = CONTRACT, **changes: Any) -> Examination:
    return examine(contract, dataclasses.replace(Observation(topics, END, SECONDS), **changes))


def faults(examination: Examination) -> set[tuple[str, str, str]]:
    return {(finding.level, finding.key, finding.problem) for finding in examination.findings}


def with_fault(key: str, **changes: Any) -> dict[str, TopicObservation]:
    topics = healthy()
    topics[key] = dataclasses.replace(topics[key], **changes)
    return topics


def test_a_robot_as_its_contract_says() -> None:
    examination = seen(healthy())
    assert examination.findings == () and examination.healthy
    rows = {row[0]: row for row in report.rows(examination)}
    assert rows["sensors.scan"] == ("sensors.scan", "scan", "ok", "20.0 Hz, 20 ms old")
    assert rows["command"] == ("command", "cmd_vel", "ok", "to /turtlebot3_node")


def test_a_missing_topic_and_where_it_may_be_instead() -> None:
    topics, scan = healthy(), SPECS["sensors.scan"]
    topics["sensors.scan"] = TopicObservation()
    examination = seen(topics, types={"/front/scan": (scan.type,), "/chatter": ("std_msgs/msg/String",)})
    assert faults(examination) == {("error", "sensors.scan", "missing")}
    (finding,) = examination.findings
    assert finding.advice.endswith("what has that type: /front/scan")
    assert "no topic of type sensor_msgs/msg/LaserScan" in seen(topics).findings[0].advice


def test_what_is_not_required_is_a_warning_only() -> None:
    topics = healthy()
    for key in ("sensors.camera", "sensors.camera.info_topic", "reward.outcome_topic"):
        topics[key] = TopicObservation()
    examination = seen(topics)
    assert examination.healthy
    assert {level for level, *_ in faults(examination)} == {"warning"} and len(examination.findings) == 3


def test_wrong_type() -> None:
    other = publisher(SPECS["sensors.scan"], type="sensor_msgs/msg/PointCloud2")
    examination = seen(with_fault("sensors.scan", publishers=(other,), arrivals=()))
    assert faults(examination) == {("error", "sensors.scan", "wrong_type")}
    assert "/scan_driver publishes sensor_msgs/msg/PointCloud2" in examination.findings[0].said


def test_incompatible_qos() -> None:
    scan = dataclasses.replace(
        CONTRACT.sensors.scan, qos=dataclasses.replace(CONTRACT.sensors.scan.qos, reliability="reliable")
    )
    contract = dataclasses.replace(CONTRACT, sensors=dataclasses.replace(CONTRACT.sensors, scan=scan))
    best_effort = publisher(SPECS["sensors.scan"], reliable=False)
    topics = with_fault("sensors.scan", publishers=(best_effort,), arrivals=())
    assert ("error", "sensors.scan", "incompatible_qos") in faults(seen(topics, contract))
    assert "incompatible_qos" not in {problem for *_, problem in faults(seen(topics))}, "best effort takes both"


@pytest.mark.parametrize(("rate", "slow"), [(3.0, True), (3.5, True), (3.8, False), (5.0, False)])
def test_too_slow(rate: float, slow: bool) -> None:
    examination = seen(with_fault("sensors.scan", arrivals=arrivals(SPECS["sensors.scan"], rate)))
    assert faults(examination) == ({("error", "sensors.scan", "slow")} if slow else set())


def test_silent_from_the_start_and_after_a_while() -> None:
    spec = SPECS["sensors.odom"]
    assert faults(seen(with_fault("sensors.odom", arrivals=()))) == {("error", "sensors.odom", "silent")}
    stopped = arrivals(spec)[:40]  # 2 of 5 s
    examination = seen(with_fault("sensors.odom", arrivals=stopped))
    assert faults(examination) == {("error", "sensors.odom", "silent")}
    assert "3.0 s before the end" in examination.findings[0].said
    assert faults(seen(with_fault("sensors.odom", arrivals=arrivals(spec)[-1:]))) == {("error", "sensors.odom", "slow")}


def test_stale_future_and_unstamped() -> None:
    spec = SPECS["sensors.scan"]
    for age, problem in ((0.7, "stale"), (-0.15, "future")):
        assert ("error", "sensors.scan", problem) in faults(
            seen(with_fault("sensors.scan", arrivals=arrivals(spec, age=age)))
        )
    unstamped = with_fault("sensors.scan", arrivals=arrivals(spec, stamp=0.0))
    assert faults(seen(unstamped)) == {("error", "sensors.scan", "no_stamp")}
    assert faults(seen(with_fault("sensors.scan", arrivals=arrivals(spec, age=0.5)))) == set()


def test_frames() -> None:
    scan = seen(with_fault("sensors.scan", arrivals=arrivals(SPECS["sensors.scan"], frame="laser")))
    assert faults(scan) == {("error", "sensors.scan", "frame")}
    assert "frame_id 'laser', declared is 'base_scan'" in scan.findings[0].said
    odom = seen(with_fault("sensors.odom", arrivals=arrivals(SPECS["sensors.odom"], child_frame="base_link")))
    assert "child_frame_id 'base_link', declared is 'base_footprint'" in odom.findings[0].said


def test_bad_data_always_and_sometimes() -> None:
    spec = SPECS["sensors.scan"]
    always = seen(with_fault("sensors.scan", arrivals=arrivals(spec, problem="none of 360 ranges")))
    assert faults(always) == {("error", "sensors.scan", "bad_data")}
    some = tuple(dataclasses.replace(each, problem="x" if k % 10 == 0 else "") for k, each in enumerate(arrivals(spec)))
    sometimes = seen(with_fault("sensors.scan", arrivals=some))
    assert faults(sometimes) == {("warning", "sensors.scan", "bad_data")}
    assert sometimes.findings[0].said == "10 of 100 messages: x"


def test_commands() -> None:
    kind = SPECS["command"].type
    guard, other = Endpoint("/guard", kind), Endpoint("/teleop_twist_keyboard", kind)
    nobody = seen(with_fault("command", subscriptions=()), types={"/base/cmd_vel": (kind,)})
    assert faults(nobody) == {("error", "command", "missing")}
    assert "/base/cmd_vel" in nobody.findings[0].advice
    assert faults(seen(with_fault("command", publishers=(guard,)))) == set()
    past = seen(with_fault("command", publishers=(guard, other)))
    assert faults(past) == {("error", "command", "unguarded")}
    assert past.findings[0].said.startswith("/teleop_twist_keyboard publishes it too")
    two = seen(with_fault("command", publishers=(guard, guard)))
    assert faults(two) == {("error", "command", "unguarded")}, "perhaps each on a machine of its own"
    assert two.findings[0].said == "2 publishers of it are called /guard"
    assert faults(seen(with_fault("command", publishers=(guard,)), guard="/tb1/guard")) == {
        ("error", "command", "unguarded")
    }
    twist = dataclasses.replace(DRIVER, type="geometry_msgs/msg/Twist")
    assert faults(seen(with_fault("command", subscriptions=(twist,)))) == {("error", "command", "wrong_type")}
    kept = dataclasses.replace(DRIVER, kept=True)
    assert faults(seen(with_fault("command", subscriptions=(kept,)))) == {("error", "command", "incompatible_qos")}
    driver = CONTRACT.command_interface
    lossy = dataclasses.replace(driver, qos=dataclasses.replace(driver.qos, reliability="best_effort"))
    contract = dataclasses.replace(CONTRACT, command_interface=lossy)
    assert faults(seen(healthy(), contract)) == {("error", "command", "incompatible_qos")}


def test_a_clock_that_differs_is_told_once_beside_what_it_makes_stale() -> None:
    topics = healthy()
    for key in ("sensors.scan", "sensors.odom", "sensors.camera", "sensors.camera.info_topic"):
        topics[key] = dataclasses.replace(topics[key], arrivals=arrivals(SPECS[key], age=3600.0))
    examination = seen(topics)
    skew = [finding for finding in examination.findings if finding.key == "clock"]
    assert [(finding.level, finding.problem) for finding in skew] == [("error", "skew")]
    assert "3600.00 s behind this machine's clock" in skew[0].said
    (clock,) = (f for f in seen(topics, simulated=True).findings if f.key == "clock")
    assert "use_sim_time" in clock.advice
    one = with_fault("sensors.scan", arrivals=arrivals(SPECS["sensors.scan"], age=3.0))
    assert "clock" not in {key for _, key, _ in faults(seen(one))}, "one slow driver is no clock"


def test_a_simulated_clock_that_stands_measures_nothing() -> None:
    spec = SPECS["sensors.scan"]
    standing = tuple(Arrival(END, END, spec.frame) for _ in range(3))
    examination = seen(with_fault("sensors.scan", arrivals=standing), clock_moved=False, simulated=True)
    assert faults(examination) == {("warning", "clock", "stands")}


def test_the_report_says_what_to_do_errors_first_and_is_json_too() -> None:
    topics = with_fault("sensors.scan", publishers=(), arrivals=())
    topics["sensors.camera"] = TopicObservation()
    examination = seen(topics)
    lines = report.advice(examination)
    assert lines[0] == "error: sensors.scan (scan): nobody publishes it" and lines[1].startswith("    start its driver")
    assert lines[2].startswith("warning: sensors.camera (camera/image_raw)")
    plain = json.loads(json.dumps(report.as_json(examination)))
    assert plain["healthy"] is False and plain["robot"] == "turtlebot3_burger"
    assert {topic["key"]: topic["rate_hz"] for topic in plain["topics"]}["sensors.odom"] == pytest.approx(20.0)
    assert {finding["problem"] for finding in plain["findings"]} == {"missing"}
    assert {row[0]: row[2] for row in report.rows(examination)}["sensors.scan"] == "ERROR"


times = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([0.0, math.nan, math.inf, -math.inf]))
anything = st.lists(
    st.builds(Arrival, times, st.one_of(st.none(), times), st.sampled_from(["", "base_scan", "x"])),
    max_size=8,
).map(tuple)


@given(anything, times, st.booleans())
def test_no_stamp_breaks_it(messages: tuple[Arrival, ...], end: float, moved: bool) -> None:
    examination = seen(with_fault("sensors.scan", arrivals=messages), end=end, clock_moved=moved)
    assert len(report.rows(examination)) == len(SPECS) and report.advice(examination) is not None


# --- what a message holds ------------------------------------------------------------------------------


def header() -> Message:
    return Message(stamp=Message(sec=1, nanosec=0), frame_id="")


def scan(ranges: list[float], increment: float = 0.1) -> Message:
    limits = {"range_min": 0.1, "range_max": 3.5}
    return Message(header=header(), angle_min=0.0, angle_increment=increment, ranges=ranges, **limits)


LASER, POSES, JOINTS = "sensor_msgs/msg/LaserScan", "nav_msgs/msg/Odometry", "sensor_msgs/msg/JointState"


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ([], "has no ranges"),
        ([math.nan, math.nan], "none of 2 ranges is a measurement"),
        ([0.0, 0.0, 9.0], "none of 3 ranges is a measurement"),
        ([math.inf, math.nan], ""),
        ([1.0, math.nan], ""),
    ],
)
def test_ranges(ranges: list[float], problem: str) -> None:
    assert data_problem(CONTRACT, LASER, scan(ranges)) == problem


def test_other_readings() -> None:
    assert data_problem(CONTRACT, LASER, scan([1.0], math.nan)) == "angle_increment is nan"
    assert data_problem(CONTRACT, LASER, scan([1.0], 0.0)) == "angle_increment is 0.0"
    nowhere = scan([1.0])
    nowhere.angle_min = math.nan
    assert data_problem(CONTRACT, LASER, nowhere) == "angle_min is nan"
    zero = Message(x=0.0, y=0.0, z=0.0, w=1.0)
    twist = Message(twist=Message(linear=Message(x=math.nan), angular=Message(z=math.inf)))
    odometry = Message(header=header(), pose=Message(pose=Message(position=zero, orientation=zero)), twist=twist)
    assert data_problem(CONTRACT, POSES, odometry) == "linear, angular: not finite"
    arm = load_contract("sim_arm")
    names = ["waist", "shoulder", "elbow", "wrist"]
    told = Message(header=header(), name=names, position=[0.0, 0.0, math.nan, 0.0])
    assert data_problem(arm, JOINTS, told) == "position of elbow: not finite"
    wheels = Message(header=header(), name=["wheel"], position=[0.0])
    assert data_problem(arm, JOINTS, wheels) == "nothing of joint waist, shoulder, elbow, wrist; told: wheel"
    assert data_problem(arm, JOINTS, Message(header=header(), name=names, position=[])).startswith("nothing of joint")
    assert data_problem(CONTRACT, "llmagent_interfaces/msg/Outcome", Message()) == ""


def test_images() -> None:
    def image(encoding: str, value: int) -> Message:
        data = bytes([value] * 12)
        return Message(header=header(), width=2, height=2, step=6, encoding=encoding, data=data)

    kind = "sensor_msgs/msg/Image"
    assert data_problem(CONTRACT, kind, image("rgb8", 7)) == ""
    assert data_problem(CONTRACT, kind, image("rgb8", 0)) == "every pixel is black"
    assert "encoding 'yuyv' is not supported; valid: bgr8" in data_problem(CONTRACT, kind, image("yuyv", 7))
    uncalibrated = Message(k=[0.0] * 9)
    assert "not calibrated" in data_problem(CONTRACT, "sensor_msgs/msg/CameraInfo", uncalibrated)
