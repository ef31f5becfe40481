"""Bags that others recorded, through a contract, into replay."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from bags_support import CONTRACT, OURS, TYPES, Episode, header, make, sensor_messages
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from llmagent_ros.cli.main import main
from llmagent_ros.contract import MobileContract, load_mobile_contract
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.experiments.recordings.demonstrations import DemonstrationConfig, Demonstrations
from llmagent_ros.experiments.recordings.foreign import ForeignMessage, foreign_messages
from llmagent_ros.experiments.recordings.transitions import replay_transitions
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task
from llmagent_ros.types import Source, Transition, Velocity

FORWARD, LEFT, STILL = Velocity(0.4, 0.0), Velocity(0.0, 1.2), Velocity()
START = 1_600_000_000_000_000_000
Said = list[tuple[str, str, int, Any]]  # topic, type, ns, message


@pytest.fixture
def contract() -> MobileContract:
    return load_mobile_contract("sim_diffdrive")


def driven(
    contract: MobileContract, velocities: list[Velocity], *, camera: bool = True, stamped: bool = True, parts: int = 4
) -> Said:
    """What a driver's bag holds when a person drives so, a control period each; readings `parts` times a period."""
    simulator = Simulator(contract, load_task("navigate"), seed=3)
    said: Said = []
    time = START

    def publish(topic: str, type_name: str, message: Any) -> None:
        nonlocal time
        time += 1_000_000
        said.append((topic, type_name, time, message))

    def read(readings: Any) -> None:
        for name, message in sensor_messages(readings).items():
            if camera or "camera" not in name:
                publish(f"/{name}", message.__msgtype__, message)

    try:
        read(simulator.reset())
        for velocity in velocities:
            kind = "geometry_msgs/msg/TwistStamped" if stamped else "geometry_msgs/msg/Twist"
            command = make(kind)
            twist = command.twist if stamped else command
            twist.linear.x, twist.angular.z = velocity.linear, velocity.angular
            publish("/cmd_vel", kind, command)
            for _ in range(parts):
                read(simulator.advance(velocity, contract.control_period / parts))
    finally:
        simulator.close()
    return said


def outcome(stamp: float, **values: Any) -> tuple[str, str, int, Any]:
    message = make(f"{OURS}/Outcome", header=header(round(stamp * 1e9)), **values)
    return "/outcome", f"{OURS}/Outcome", 0, message


def write(path: Path, said: Said, plugin: StoragePlugin) -> Path:
    """A bag by a writer that is not ours."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, type_name, time, message in said:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=TYPES)
            writer.write(connections[topic], time, TYPES.serialize_cdr(message, type_name))
    return path


def steps_of(said: Said, contract: MobileContract, **given: Any) -> list[Transition]:
    config = DemonstrationConfig("drive", "go to the red ball", **given)
    messages = [ForeignMessage(topic, type_name, time, message) for topic, type_name, time, message in said]
    return list(Demonstrations(contract, config).transitions(messages))


def test_each_control_period_is_a_step_with_the_phrase_that_was_driven(contract: MobileContract) -> None:
    steps = steps_of(driven(contract, [FORWARD] * 2 + [LEFT] * 3), contract)
    assert [step.action for step in steps] == ["forward"] * 2 + ["turn left"] * 3
    assert [step.step for step in steps] == list(range(5))
    assert all(before.next_scene == after.scene for before, after in itertools.pairwise(steps))
    told = "forward 0.4 turning 0.0"
    assert steps[2].scene.endswith(f"did {told}, {told}.") and steps[0].scene.endswith("did nothing.")
    assert all(step.source is Source.HUMAN and step.log_probability == 0.0 for step in steps)
    assert "unknown" not in "".join(step.scene for step in steps)
    assert [(s.terminated, s.truncated) for s in steps] == [(False, False)] * 4 + [(False, True)]


def test_scenes_are_those_that_perception_says_live(contract: MobileContract) -> None:
    """The same readings, one set a control period: what the graph says in lockstep."""
    drive = {"steps": 4, "seed": 3, "instruction": "go to the red ball"}
    episode = Episode(lambda message, role: None, choose=lambda step, phrases: "forward", **drive).play()
    steps = steps_of(driven(contract, [contract.command("forward")] * 4, parts=1), contract)
    assert [step.scene for step in steps] + [steps[-1].next_scene] == episode.texts


@pytest.mark.parametrize("end", ["success", "failure", "truncated"])
def test_the_end_is_what_the_person_says(contract: MobileContract, end: str) -> None:
    steps = steps_of(driven(contract, [FORWARD] * 3 + [STILL] * 2), contract, end=end, reward=2.0)
    assert len(steps) == 3  # standing still is no phrase
    last = steps[-1]
    wanted = {"success": (2.0, True, False), "failure": (-2.0, True, False), "truncated": (0.0, False, True)}[end]
    assert (last.reward, last.terminated, last.truncated) == wanted
    assert not any(step.terminated or step.truncated or step.reward for step in steps[:-1])


def test_standing_still_in_between_leaves_a_gap_that_nothing_bridges(contract: MobileContract) -> None:
    steps = steps_of(driven(contract, [FORWARD, STILL, STILL, LEFT]), contract)
    assert [(step.step, step.action) for step in steps] == [(0, "forward"), (3, "turn left")]
    assert steps[0].next_scene != steps[1].scene or "moving 0.0" in steps[1].scene


def test_an_outcome_in_the_bag_says_how_it_ended_and_what_it_was_worth(contract: MobileContract) -> None:
    said = driven(contract, [FORWARD] * 6, parts=1)
    period = contract.control_period
    at = {round(message.header.stamp.sec + message.header.stamp.nanosec * 1e-9, 6): index
          for index, (topic, _, _, message) in enumerate(said) if topic == "/odom"}  # fmt: skip
    ended = at[round(4 * period, 6)]  # the first reading is that of one period
    said.insert(ended, outcome(4 * period, reward=0.75, terminated=True, success=True, reason="reached"))
    said.insert(at[round(3 * period, 6)], outcome(3 * period, reward=0.25))
    steps = steps_of(said, contract)
    first = [step for step in steps if step.episode == 0]
    assert [step.reward for step in first] == [0.0, 0.25, 0.75]
    assert (first[-1].terminated, first[-1].truncated) == (True, False)
    assert {step.episode for step in steps} == {0, 1}  # the person drove on


def test_what_comes_while_the_robot_stands_counts_for_the_last_step_only_at_the_end(contract: MobileContract) -> None:
    period, said = contract.control_period, driven(contract, [FORWARD, STILL, FORWARD, STILL, STILL], parts=1)
    for at in (5, 3):  # in units of a period: the first reading is that of one period
        index = next(
            index for index, (topic, _, _, message) in enumerate(said)
            if topic == "/odom" and message.header.stamp.nanosec == round((at * period) % 1 * 1e9)
            and message.header.stamp.sec == int(at * period)
        )  # fmt: skip
        said.insert(index, outcome(at * period, reward=1.0))
    steps = steps_of(said, contract)
    assert [(step.step, step.reward) for step in steps] == [(0, 0.0), (2, 1.0)]


def test_a_long_silence_begins_another_drive(contract: MobileContract) -> None:
    one = driven(contract, [FORWARD] * 2)
    later = []
    for topic, type_name, time, message in driven(contract, [LEFT] * 2):
        if hasattr(message, "header") and message.header.stamp.sec + message.header.stamp.nanosec:
            message.header.stamp.sec += 100
        later.append((topic, type_name, time + 10**12, message))
    steps = steps_of(one + later, contract)
    assert [(step.episode, step.step, step.action) for step in steps] == [
        (0, 0, "forward"), (0, 1, "forward"), (1, 0, "turn left"), (1, 1, "turn left"),
    ]  # fmt: skip
    assert [step.truncated for step in steps] == [False, True, False, True]


@pytest.mark.parametrize("plugin", list(StoragePlugin), ids=lambda plugin: plugin.name)
@pytest.mark.parametrize("stamped", [True, False])
def test_the_command_reads_bags_of_rosbag2(
    tmp_path: Path, contract: MobileContract, capsys: pytest.CaptureFixture[str], plugin: StoragePlugin, stamped: bool
) -> None:
    said = driven(contract, [FORWARD] * 3 + [LEFT] * 2, stamped=stamped)
    path = write(tmp_path / "drive", said, plugin)
    words = ["record", "import", str(path), "--into", str(tmp_path / "replay.sqlite"), "--robot", "sim_diffdrive"]
    assert main([*words, "--task", "go to the red ball", "--end", "success", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 5
    kept = list(replay_transitions(tmp_path / "replay.sqlite"))
    assert kept == steps_of(said, contract, end="success")
    assert {step.run for step in kept} == {"drive"} and kept[-1].terminated


def test_a_bag_of_ros_1_and_topics_of_other_names(
    tmp_path: Path, contract: MobileContract, capsys: pytest.CaptureFixture[str]
) -> None:
    store, said = get_typestore(Stores.ROS1_NOETIC), driven(contract, [FORWARD] * 3, camera=False, stamped=False)
    names = {"/scan": "/base/laser", "/odom": "/wheels", "/cmd_vel": "/joy_vel"}
    path = tmp_path / "old.bag"
    with Writer1(path) as writer:
        connections: dict[str, Any] = {}
        for topic, type_name, time, message in said:
            if topic not in connections:
                connections[topic] = writer.add_connection(names[topic], type_name, typestore=store)
            raw = TYPES.cdr_to_ros1(TYPES.serialize_cdr(message, type_name), type_name)
            writer.write(connections[topic], time, raw)
    robot = tmp_path / "robot.yaml"
    robot.write_text(CONTRACT.replace("topic: scan,", "topic: /base/laser,").replace("topic: odom,", "topic: /wheels,"))
    words = ["record", "import", str(path), "--into", str(tmp_path / "replay.sqlite"), "--robot", str(robot)]
    assert main([*words, "--task", "go to the red ball", "--command", "/joy_vel"]) == 0
    assert "3 of 3 transitions were new" in capsys.readouterr().out


def test_what_a_bag_does_not_say_is_asked_for(
    tmp_path: Path, contract: MobileContract, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "drive", driven(contract, [FORWARD]), StoragePlugin.MCAP)
    into = ["--into", str(tmp_path / "replay.sqlite")]
    assert main(["record", "import", str(path), *into]) == 2
    assert "give --robot CONTRACT and --task TEXT" in capsys.readouterr().err
    assert main(["record", "import", str(path), *into, "--robot", "sim_diffdrive", "--task", "dance"]) == 2
    assert "it names nothing that sim_diffdrive knows" in capsys.readouterr().err
    assert main(["record", "import", str(tmp_path / "nowhere"), *into]) == 2
    assert not (tmp_path / "replay.sqlite").exists()
    with pytest.raises(ConfigError, match="has no topic /a; it has /camera"):
        list(foreign_messages(path, ["/a", "/scan"], ["/a"]))


def test_a_damaged_bag_is_an_error(tmp_path: Path, contract: MobileContract) -> None:
    path = write(tmp_path / "drive", driven(contract, [FORWARD]), StoragePlugin.MCAP)
    file = next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreError, match="cannot be read"):
        list(foreign_messages(path, ["/scan"]))


@pytest.mark.parametrize("topic", ["/scan", "/camera/image_raw"])
def test_a_command_of_another_type_is_refused_and_no_replay_is_made(
    tmp_path: Path, contract: MobileContract, capsys: pytest.CaptureFixture[str], topic: str
) -> None:
    path = write(tmp_path / "drive", driven(contract, [FORWARD] * 2), StoragePlugin.MCAP)
    words = ["record", "import", str(path), "--into", str(tmp_path / "run" / "replay.sqlite")]
    assert main([*words, "--robot", "sim_diffdrive", "--task", "go to the red ball", "--command", topic]) == 2
    told = capsys.readouterr().err
    assert f"unknown type of {topic}" in told and told.count("\n") == 1
    assert "valid: geometry_msgs/msg/Twist, geometry_msgs/msg/TwistStamped" in told
    assert not (tmp_path / "run").exists()


def test_a_sensor_of_another_type_is_refused(contract: MobileContract) -> None:
    said = driven(contract, [FORWARD])
    said.append(("/scan", "std_msgs/msg/String", 0, make("std_msgs/msg/String", data="x")))
    with pytest.raises(ConfigError, match=r"unknown type of /scan 'std_msgs/msg/String'; valid: .*LaserScan"):
        steps_of(said, contract)


def test_a_drive_without_a_step_imports_nothing(
    tmp_path: Path, contract: MobileContract, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "drive", driven(contract, [STILL] * 2), StoragePlugin.MCAP)
    words = ["record", "import", str(path), "--into", str(tmp_path / "replay.sqlite")]
    assert main([*words, "--robot", "sim_diffdrive", "--task", "go to the red ball"]) == 2
    assert "nothing to import: there are no transitions" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["drive"]
