"""An arm's commands on the wire, and its guard as a process among real topics."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from ros_support import DEADLINE, Graph
from sensor_msgs.msg import JointState as JointStateMessage
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from llmagent_interfaces.msg import Scene
from llmagent_interfaces.msg import Verdict as VerdictMessage
from llmagent_ros.contract import ArmContract, contract_path, load_contract
from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.nodes import policy_commands, qos
from llmagent_ros.nodes.policy_commands import PolicyCommands
from llmagent_ros.nodes.wire import reports, sensors, stamps
from llmagent_ros.nodes.wire.commands import command_topics, refuse_unstamped
from llmagent_ros.nodes.wire.verdicts import verdict_from_message, verdict_to_message
from llmagent_ros.recording.decision_rows import _to_verdict, late_columns
from llmagent_ros.recording.explanation import _guard
from llmagent_ros.types import JointState, JointTarget, Velocity, Verdict

ARM = load_contract("sim_arm")
assert isinstance(ARM, ArmContract)
HOME = dict(ARM.arm.home)
TOPIC = "/joint_trajectory_controller/joint_trajectory"
STAMP = Time(sec=3, nanosec=500_000_000)


def contract_file(folder: Path, robot: str, **changes: Any) -> Path:
    path = folder / "robot.yaml"
    content = yaml.safe_load(contract_path(robot).read_text()) | changes
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


# --- conversions ----------------------------------------------------------------------------------------


def test_joint_targets_there_and_back() -> None:
    topics, command = command_topics(ARM), JointTarget(("waist", "wrist"), (0.25, -1.5), 0.2)
    message = topics.to_message(command, STAMP)
    assert isinstance(message, JointTrajectory) and message.header.stamp == STAMP
    assert message.header.frame_id == "base_link" and message.joint_names == ["waist", "wrist"]
    assert message.points[0].time_from_start.nanosec == 200_000_000
    assert topics.from_message(message) == command
    assert topics.from_message(topics.to_message(JointTarget(), STAMP)) == JointTarget()
    assert topics.from_message(JointTrajectory(joint_names=["waist"])) == JointTarget(), "without a point: nothing"
    ends = JointTrajectory(joint_names=["waist"], points=[JointTrajectoryPoint(positions=[p]) for p in (0.1, 0.2)])
    assert topics.from_message(ends).positions == (0.2,), "where it ends"


def test_what_does_not_fit_is_no_number(tmp_path: Path) -> None:
    topics = command_topics(ARM)
    short = JointTrajectory(joint_names=["waist", "elbow"], points=[JointTrajectoryPoint(positions=[0.1])])
    assert all(map(math.isnan, topics.from_message(short).positions))
    array = command_topics(
        load_contract(str(contract_file(tmp_path, "sim_arm", command={"type": "Float64MultiArray"})))
    )
    assert all(map(math.isnan, array.from_message(Float64MultiArray(data=[1.0])).positions))
    with pytest.raises(ConfigError, match="Float64MultiArray has no stamp, which mode lockstep needs; valid: JointT"):
        refuse_unstamped(array)
    refuse_unstamped(topics)


def test_the_driver_gets_the_type_of_the_contract(tmp_path: Path) -> None:
    array = command_topics(
        load_contract(str(contract_file(tmp_path, "sim_arm", command={"type": "Float64MultiArray"})))
    )
    swapped = JointTarget(("wrist", "waist", "elbow", "shoulder"), (4.0, 1.0, 3.0, 2.0))
    assert list(array.to_message(swapped, STAMP, driver=True).data) == [1.0, 2.0, 3.0, 4.0], "in the contract's order"
    assert isinstance(array.to_message(swapped, STAMP), JointTrajectory), "to the guard it is always a trajectory"
    twist = command_topics(load_contract(str(contract_file(tmp_path, "sim_diffdrive", command={"type": "Twist"}))))
    message = twist.to_message(Velocity(0.5, -0.2), STAMP, driver=True)
    assert isinstance(message, Twist) and twist.from_message(message) == Velocity(0.5, -0.2)
    assert isinstance(twist.to_message(Velocity(), STAMP), TwistStamped) and not twist.stamped


def test_joint_states_there_and_back() -> None:
    state = JointState(3.5, {"waist": 0.25, "wrist": -1.0})
    assert sensors.joints_from_message(sensors.joints_to_message(state)) == state
    bare = JointStateMessage(name=["waist", "wrist"], position=[0.5])
    assert sensors.joints_from_message(bare).positions == {"waist": 0.5}


ASKED, GIVEN = JointTarget(("waist",), (0.9,)), JointTarget(("waist", "wrist"), (0.4, 0.1))


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(GIVEN, "policy", None, ("step",), 3.5, ASKED),
        Verdict(GIVEN, "stop", "stale_joint_states", (), 3.5, JointTarget()),
        Verdict(JointTarget(), "stop", "no_joint_states", (), 3.5, ASKED),
    ],
)
def test_verdicts_of_an_arm_on_the_wire_and_in_the_log(verdict: Verdict) -> None:
    message = verdict_to_message(verdict, STAMP, "base_link")
    assert (message.linear, message.linear_asked) == (0.0, 0.0)
    assert verdict_from_message(message) == verdict
    assert _to_verdict(json.loads(late_columns(verdict=verdict)["verdict"]), 3.5) == verdict
    said = _guard(verdict)
    assert ("waist to 0.90 rad" in said) == (verdict.asked == ASKED) and "m/s" not in said


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    with Graph(tmp_path) as made:
        yield made


# --- the policy -----------------------------------------------------------------------------------------


def test_a_phrase_becomes_a_target_from_the_joint_states_of_its_scene(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = PolicyCommands(graph.node, ARM, exact=True)
    joints = graph.publisher(JointStateMessage, "joint_states", qos.RELIABLE_SENSOR)
    sent: list[JointTrajectory] = graph.collect(JointTrajectory, "cmd_joint_policy")
    scene = Scene(header=stamps.header(0.4))
    with pytest.raises(LlmAgentError, match=r"no joint states for the scene of 0\.40 s: none came"):
        commands.prepare(scene)

    def publish(stamp: float, waist: float) -> None:
        joints.publish(sensors.joints_to_message(JointState(stamp, HOME | {"waist": waist})))
        joints.publish(sensors.joints_to_message(JointState(stamp + 9.0, {"finger": 0.0})))

    publish(0.2, 0.3)
    graph.until(lambda: commands._arm is not None and commands._arm._joints is not None, "the joint states are lost")
    with pytest.raises(LlmAgentError, match=r"the last are of 0\.20 s"):
        commands.prepare(scene)
    monkeypatch.setattr(policy_commands, "JOINTS_WAIT", DEADLINE)
    waiting = Thread(target=lambda: (commands.prepare(scene), commands.send(scene, "up")))
    waiting.start()
    publish(0.4, 0.5)
    graph.until(lambda: sent, "no command")
    waiting.join()
    told = command_topics(ARM).from_message(sent[0])
    assert sent[0].header.stamp == stamps.to_time(0.4)
    assert told.positions == pytest.approx(ARM.target("up", HOME | {"waist": 0.5}).positions)
    commands.repeat(scene)
    commands.repeat(Scene(header=stamps.header(0.6)))
    commands.stop()
    graph.until(lambda: len(sent) == 3, "not the command again and a stop")
    assert sent[1] == sent[0] and command_topics(ARM).from_message(sent[2]) == JointTarget()


# --- the guard ------------------------------------------------------------------------------------------


class Around:
    """What is around an arm's guard."""

    def __init__(self, graph: Graph, kind: type = JointTrajectory, **parameters: Any) -> None:
        self.graph = graph
        self.process = graph.start("guard", **{"robot": "sim_arm"} | parameters)
        self.commands = graph.collect(kind, TOPIC)
        self.joints = graph.publisher(JointStateMessage, "joint_states", qos.RELIABLE_SENSOR)
        self.policy = graph.publisher(JointTrajectory, "cmd_joint_policy")
        self.person = graph.publisher(JointTrajectory, "cmd_joint_teleop")
        self.button = graph.publisher(Bool, "e_stop", qos.LATEST, readers=2)
        self.at = dict(HOME)
        graph.catch_up("guard")

    def now(self) -> float:
        return stamps.to_seconds(self.graph.node.get_clock().now().to_msg())

    def see(self, stamp: float) -> None:
        self.joints.publish(sensors.joints_to_message(JointState(stamp, self.at)))

    def say(self, publisher: Any, stamp: float, **positions: float) -> None:
        publisher.publish(
            command_topics(ARM).to_message(
                JointTarget(tuple(positions), tuple(positions.values()), 0.2), stamps.to_time(stamp)
            )
        )

    def answer(self, stamp: float) -> dict[str, float]:
        found = self.graph.until(
            lambda: [m for m in self.commands if m.header.stamp == stamps.to_time(stamp)], f"no command for {stamp}"
        )
        assert len(found) == 1, "one output for each policy command"
        return dict(zip(found[0].joint_names, found[0].points[0].positions, strict=True))

    def keep(self, publisher: Any, wanted: Any, problem: str, **positions: float) -> dict[str, float]:
        """Goes on seeing and commanding, and moving as commanded, until a command as wanted comes out."""
        self.commands.clear()

        def step() -> dict[str, float] | None:
            now = self.now()
            self.see(now)
            self.say(publisher, now, **positions)
            told = [dict(zip(m.joint_names, m.points[0].positions, strict=True)) for m in self.commands]
            if told:
                self.at.update(told[-1])
            return next((each for each in told if wanted(each)), None)

        found: dict[str, float] = self.graph.until(step, problem)
        return found


def test_lockstep_answers_each_command_once_within_the_limits_of_the_joints(graph: Graph) -> None:
    around = Around(graph, mode="lockstep", scan_wait=10.0)
    verdicts: list[VerdictMessage] = graph.collect(VerdictMessage, "/verdict", qos.VERDICT)
    around.see(0.2)
    around.say(around.policy, 0.2, waist=0.1)
    assert around.answer(0.2) == pytest.approx(HOME | {"waist": 0.1})
    around.say(around.policy, 0.4, waist=50.0)  # its joint states come later: the guard waits for them
    around.at["waist"] = 0.1
    around.see(0.4)
    assert around.answer(0.4)["waist"] == pytest.approx(0.1 + 2.0 * 0.2)
    around.see(0.6)
    around.say(around.policy, 0.6, waist=math.nan)
    around.say(around.policy, 0.6, knee=0.1)
    around.say(around.policy, 0.6, elbow=HOME["elbow"] - 0.1)
    assert around.answer(0.6)["elbow"] == pytest.approx(HOME["elbow"] - 0.1)
    graph.until(lambda: len(verdicts) == 3, "not three verdicts")
    limited = verdict_from_message(verdicts[1])
    assert (limited.word, limited.why, limited.asked) == ("limited", "position,step", JointTarget(("waist",), (50.0,)))


def test_in_real_time_silence_holds_and_a_person_goes_first(graph: Graph) -> None:
    around = Around(graph, mode="realtime")
    around.keep(around.policy, lambda q: q["waist"] > 0.05, "the policy does not move it", waist=0.2)
    around.keep(around.person, lambda q: q["waist"] < -0.05, "the person does not move it", waist=-0.2)
    assert all(m.header.stamp == Time() for m in around.commands), "begin when it comes"
    held = around.at["waist"]
    around.commands.clear()

    def silent() -> bool:
        around.see(around.now())
        return len(around.commands) > 30

    graph.until(silent, "the guard says nothing")
    (still,) = {m.points[0].positions[0] for m in around.commands[-5:]}
    assert -0.21 < still < held + 0.06, "on the way of the last command, where it became stale"
    around.commands.clear()
    graph.until(lambda: len(around.commands) > 12, "it holds without joint states too")
    assert len({m.points[0].positions[0] for m in around.commands}) == 1


def test_an_e_stop_holds_until_it_is_reset(graph: Graph) -> None:
    around = Around(graph, mode="realtime")
    states: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")
    around.keep(around.policy, lambda q: q["waist"] > 0.05, "the policy does not move it", waist=0.2)
    around.button.publish(Bool(data=True))
    graph.until(lambda: states and reports.values(states[-1].status[0])["e_stop"] == "true", "it is not reported")
    told: list[float] = []

    def holds() -> bool:
        told.append(around.keep(around.policy, lambda q: True, "nothing is said", waist=0.6)["waist"])
        return len(told) > 5 and len(set(told[-5:])) == 1

    graph.until(holds, "it moves on")  # commands from before may still be on their way
    assert told[-1] < 0.3, "it went to where the policy wanted it"
    assert not graph.call(Trigger, "guard/reset_e_stop", Trigger.Request()).success, "the button is still pressed"
    around.button.publish(Bool(data=False))
    graph.until(lambda: graph.call(Trigger, "guard/reset_e_stop", Trigger.Request()).success, "it cannot be reset")
    around.keep(around.policy, lambda q: q["waist"] > told[-1] + 0.05, "it does not move again", waist=told[-1] + 0.2)


def test_before_the_arms_own_joints_are_known_nothing_is_sent(graph: Graph) -> None:
    around = Around(graph, mode="realtime")
    verdicts: list[VerdictMessage] = graph.collect(VerdictMessage, "/verdict", qos.VERDICT)

    def refused() -> list[VerdictMessage]:
        around.say(around.policy, around.now(), waist=0.2)
        around.joints.publish(sensors.joints_to_message(JointState(around.now(), {"finger": 0.0})))
        return [m for m in verdicts if m.reason == "no_joint_states"]

    graph.until(refused, "no verdict")
    assert around.commands == []


def test_a_controller_of_arrays_gets_arrays(graph: Graph, tmp_path: Path) -> None:
    robot = contract_file(tmp_path, "sim_arm", command={"type": "Float64MultiArray", "topic": TOPIC})
    around = Around(graph, Float64MultiArray, robot=robot, mode="realtime")

    def moved() -> bool:
        now = around.now()
        around.see(now)
        around.say(around.policy, now, waist=0.2)
        return bool(around.commands) and around.commands[-1].data[0] > 0.05

    graph.until(moved, "nothing comes")
    assert list(around.commands[-1].data[1:]) == pytest.approx([HOME[name] for name in ARM.joints[1:]])


def test_lockstep_refuses_a_type_without_a_stamp(graph: Graph, tmp_path: Path) -> None:
    robot = contract_file(tmp_path, "sim_diffdrive", command={"type": "Twist"})
    for node in ("guard", "sim"):
        process = graph.start(node, robot=robot, mode="lockstep")
        assert graph.exit_code(process) == 2
        assert (
            "command.type: Twist has no stamp, which mode lockstep needs; valid: JointTrajectory, Twist" in process.said
        )


def test_a_base_that_takes_twist_on_another_topic(graph: Graph, tmp_path: Path) -> None:
    robot = contract_file(tmp_path, "sim_diffdrive", command={"type": "Twist", "topic": "base/cmd_vel"})
    graph.start("sim", robot=robot, mode="realtime")
    graph.start("guard", robot=robot, mode="realtime", use_sim_time=True)
    commands: list[Twist] = graph.collect(Twist, "/base/cmd_vel")
    graph.until(lambda: len(commands) > 3, "the guard does not speak")
    graph.until(lambda: graph.node.count_subscribers("/base/cmd_vel") == 2, "sim does not take it")
    assert graph.node.count_publishers("/cmd_vel") == 0
