"""The bag recorder as a process: what it writes while a graph speaks, is killed, or fills a disk."""

from __future__ import annotations

import hashlib
import math
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from disk_support import small_file_system
from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from ros_support import DEADLINE, Graph, Process
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from sensor_msgs.msg import Image
from sensor_msgs.msg import LaserScan as LaserScanMessage

from llmagent_interfaces.msg import Adapter, Decision, Outcome, Scene, Task, Transition
from llmagent_ros.contract import contract_path
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import sensors, stamps
from llmagent_ros.nodes.wire.definitions import definition, message_class, type_hash
from llmagent_ros.recording.bags.inspection import verify
from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.reader import Bag
from llmagent_ros.types import LaserScan, Odometry

Messages = list[tuple[str, Any]]  # topic and message


class Speaker:
    """Says on the topics of a graph what its nodes would, and remembers it."""

    def __init__(self, graph: Graph, process: Process) -> None:
        self.graph, self.process, self.time = graph, process, 10.0
        self.said: Messages = []
        self.diagnostics: list[DiagnosticArray] = graph.collect(DiagnosticArray, "/diagnostics")
        kinds: dict[str, tuple[type, QoSProfile]] = {
            "scan": (LaserScanMessage, qos.RELIABLE_SENSOR),
            "odom": (OdometryMessage, qos.RELIABLE_SENSOR),
            "adapter": (Adapter, qos.LATEST),
            "task": (Task, qos.LATEST),
            "scene": (Scene, qos.COMMAND),
            "decision": (Decision, qos.DECISION),
            "outcome": (Outcome, qos.OUTCOME),
            "transition": (Transition, qos.TRANSITION),
        }
        self._publishers = {name: graph.publisher(kind, name, profile) for name, (kind, profile) in kinds.items()}
        graph.catch_up("bag_recorder")

    def say(self, name: str, message: Any) -> None:
        publisher = self._publishers[name]
        publisher.publish(message)
        if name == "task":
            # only the latest is kept for a reader that is found already but has not found the writer; and what is
            # said before it belongs to another episode than what is said after it
            assert publisher.wait_for_all_acked(Duration(seconds=DEADLINE)), f"nobody takes {name}"
            self.graph.catch_up("bag_recorder")
        as_sent = deserialize_message(serialize_message(message), type(message))  # float32 is not float64
        self.said.append((f"/{name}", as_sent))
        self.graph.spin_once()

    def episode(self, number: int, steps: int = 3) -> Messages:
        """An episode from its task to its end; what was said in it."""
        begin = len(self.said)
        task = f"{number:032x}"
        self.say("task", Task(id=task, instruction="go to the red ball", episode=number, header=self._header()))
        for step in range(steps):
            self.read()
            self.say("scene", Scene(header=self._header(), text=f"scene {step}", task_id=task, episode=number))
            decision = Decision(header=self._header(), task_id=task, run="run", episode=number, step=step)
            decision.adapter, decision.adapter_digest = "v000003", "d" * 64
            self.say("decision", decision)
            last = step == steps - 1
            self.time += 0.4
            ended = {"terminated": last, "success": last, "reason": "reached"}
            self.say("outcome", Outcome(header=self._header(), reward=0.5, **ended))
            told = {"run": "run", "episode": number, "step": step, "terminated": last, "source": "policy"}
            self.say("transition", Transition(header=self._header(), reward=0.5, **told))
        self.say("task", Task(episode=number, header=self._header()))
        return self.said[begin:]

    def read(self) -> None:
        """The scanner and the odometry say something."""
        scan = LaserScan(self.time, -math.pi, math.radians(2), np.full(180, 2.0, np.float32), 0.05, 5.0)
        self.say("odom", sensors.odometry_to_message(Odometry(self.time, 0, 0, 0, 0, 0), "odom", "base_link"))
        self.say("scan", sensors.scan_to_message(scan, "base_scan"))

    def reported(self, message: str = "", **values: int) -> bool:
        """Whether the recorder's last diagnostics say so."""
        own = [s for array in self.diagnostics for s in array.status if s.name.endswith("/bag_recorder")]
        if not own:
            return False
        counts = {pair.key: pair.value for pair in own[-1].values}
        return message in own[-1].message and all(counts[key] == str(value) for key, value in values.items())

    def until(self, message: str = "", **values: int) -> None:
        self.graph.until(lambda: self.reported(message, **values), f"never reported: {message} {values}")

    def _header(self) -> Any:
        return stamps.header(self.time)


def start(graph: Graph, out: Path, **parameters: Any) -> Speaker:
    settings = {"out": out, "bags__linger": 0.3, "bags__flush_period": 0.05} | parameters
    return Speaker(graph, graph.start("bag_recorder", **settings))


def recorded(path: Path) -> Messages:
    """What is in a bag, decoded by rclpy; the bytes may differ in how they are padded."""
    said = [m for m in Bag(path).messages() if m.topic.name != "/diagnostics"]
    return [(m.topic.name, deserialize_message(m.data, message_class(m.topic.type))) for m in said]


def ordered(said: Messages) -> Messages:
    return sorted(said, key=lambda each: (each[0], str(each[1])))


def recorded_in(out: Path) -> Messages:
    """What is in all bags, finished or not."""
    said: Messages = []
    for path in bags(out):
        with suppress(ConfigError, StoreError):  # it is being made or mended just now
            said += recorded(path)
    return said


def bags(out: Path) -> list[Path]:
    return sorted(path for path in (out / "bags").glob("*") if not path.name.startswith("."))


def test_what_is_said_is_recorded_as_it_is(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        speaker = start(graph, tmp_path / "out")
        speaker.say("adapter", Adapter(name="v000003", digest="d" * 64))
        speaker.read()
        before = list(speaker.said)
        first, second = speaker.episode(0), speaker.episode(1)
        speaker.until("recording", episodes=2, dropped=0, lost=0)
        one, two = bags(tmp_path / "out")
        assert ordered(recorded(one)) == ordered(before + first)
        held = [each for each in before + first if each[0] in ("/adapter", "/odom", "/scan")]
        assert all(each in recorded(two) for each in second)
        assert all(each in second + held for each in recorded(two))  # and what was seen right before
        assert before[0] in recorded(two)
        assert [verify(path) for path in (one, two)] == [[], []]
        with AnyReader([one]) as reader:  # refuses a type whose hash is not that of its definition
            offered = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
            assert all(reader.deserialize(data, c.msgtype) for c, _, data in reader.messages())
        assert offered["/task"][0].durability == QosDurability.TRANSIENT_LOCAL  # depths are not told by discovery
        assert offered["/scan"][0].durability == QosDurability.VOLATILE
        assert offered["/scan"][0].reliability == QosReliability.RELIABLE


def test_facts_of_the_bag(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        speaker = start(graph, tmp_path / "out", model="tiny", mode="realtime")
        speaker.episode(0)
        speaker.until(episodes=1)
        (path,) = bags(tmp_path / "out")
        facts, text = Bag(path).facts, contract_path("sim_diffdrive").read_text()
        assert facts["contract"] == text and facts["contract_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert (facts["model"], facts["mode"], facts["camera"]) == ("tiny", "realtime", "false")
        assert (facts["run"], facts["episode"], facts["task"]) == ("run", "0", "go to the red ball")
        assert (facts["steps"], facts["success"], facts["reason"]) == ("3", "true", "reached")
        assert facts["adapters"] == f'[{{"name": "v000003", "digest": "{"d" * 64}"}}]'
        assert '"cue": " so now it is best to"' in facts["prompt"]


@pytest.mark.parametrize("camera", [False, True])
def test_images_are_recorded_only_if_asked_for(tmp_path: Path, camera: bool) -> None:
    with Graph(tmp_path) as graph:
        speaker = start(graph, tmp_path / "out", camera=camera)
        publisher = graph.node.create_publisher(Image, "camera/image_raw", qos.RELIABLE_SENSOR)
        if camera:
            graph.until(publisher.get_subscription_count, "nobody takes images")
        speaker.say("task", Task(id="f" * 32, instruction="go", header=stamps.header(10.0)))
        publisher.publish(Image(header=stamps.header(10.0), width=1, height=1, data=[1, 2, 3], encoding="rgb8"))
        speaker.until(waiting=0)
        speaker.read()
        graph.until(lambda: speaker.said[-1] in recorded_in(tmp_path / "out"), "the reading is not recorded")
        speaker.process.stop(signal.SIGINT)
        assert graph.exit_code(speaker.process) == 0
        (path,) = bags(tmp_path / "out")
        assert verify(path) == [] and ("/camera/image_raw" in Bag(path).topics) is camera


def test_kill_9_and_a_new_start_lose_no_bag_and_go_on_with_the_task(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Graph(tmp_path) as graph:
        speaker = start(graph, out, bags__flush_period=0.01)
        speaker.episode(0)
        speaker.until(episodes=1)
        (first,) = bags(out)
        content = {path.name: path.read_bytes() for path in first.iterdir()}
        speaker.say("task", Task(id="a" * 32, instruction="go", episode=1, header=stamps.header(50.0)))
        for kill in range(3):
            speaker.time = 50.0 + kill
            speaker.read()
            last = speaker.said[-1]
            graph.until(lambda last=last: last in recorded_in(out), "what was said is not flushed")
            speaker.process.kill()
            speaker.process = graph.start("bag_recorder", out=out, bags__linger=0.3, bags__flush_period=0.01)
            graph.until(lambda last=last: last in recorded_in(out), "what was flushed is lost")
            graph.until(lambda kill=kill: len(bags(out)) == kill + 3, "the task is not taken up again")
            assert all(verify(path) == [] for path in bags(out)[:-1])
        assert {path.name: path.read_bytes() for path in first.iterdir()} == content
        speaker.time = 60.0
        speaker.episode(2)
        speaker.until(episodes=2)  # the one that it found going on, and this
        assert all(verify(path) == [] for path in bags(out)) and len(bags(out)) == 6


def test_a_full_disk_is_an_error_on_diagnostics_and_the_node_goes_on(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", "96k") as disk, Graph(tmp_path) as graph:
        speaker = start(graph, disk / "out", bags__flush_period=0.01)
        for number in range(40):
            speaker.episode(number)
            if speaker.reported("No space left on device"):
                break
        speaker.until("No space left on device")
        levels = [s.level for array in speaker.diagnostics for s in array.status if s.name.endswith("/bag_recorder")]
        assert levels[-1] == DiagnosticStatus.ERROR
        finished = [path for path in bags(disk / "out") if (path / METADATA).exists()]
        assert finished and all(verify(path) == [] for path in finished)
        assert speaker.process.code is None
        speaker.process.stop()
        graph.until(lambda: speaker.process.code is not None, "does not end")


def test_the_oldest_bags_go(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        speaker = start(graph, tmp_path / "out", bags__bags_mb=0.06, bags__linger=0.0)
        for number in range(8):
            speaker.episode(number)
        speaker.until(episodes=8)
        files = [file for path in bags(tmp_path / "out") for file in path.iterdir()]
        assert sum(file.stat().st_size for file in files) <= 0.06e6
        left = [int(Bag(path).facts["episode"]) for path in bags(tmp_path / "out")]
        assert left == list(range(8 - len(left), 8)) and 0 < len(left) < 8


def test_definitions_are_those_of_the_installed_interfaces() -> None:
    text = definition("llmagent_interfaces/msg/Scene")
    assert text.startswith("# One time-stamped text") and "MSG: builtin_interfaces/Time" in text
    assert text.count("MSG: std_msgs/Header") == 1
    assert type_hash("llmagent_interfaces/msg/Scene").startswith("RIHS01_")



def test_a_second_recorder_of_a_run_is_refused_and_what_the_first_cannot_mend_is_said(tmp_path: Path) -> None:
    drive = tmp_path / "out" / "bags" / "drive"
    drive.mkdir(parents=True)
    (drive / "drive_0.mcap").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with Graph(tmp_path) as graph:
        first = graph.start("bag_recorder", out=tmp_path / "out")
        graph.catch_up("bag_recorder")
        words = ("--ros-args", "-r", "__ns:=/other", "-p", f"out:={tmp_path / 'out'}")
        second = graph.run("second", "-m", "llmagent_ros.nodes.bag_recorder_node", *words)
        assert graph.exit_code(second) == 2
        assert "records there already" in second.said
        graph.until(lambda: "damaged, so left as it is" in first.said, "what is left is not said")
        assert (drive / "drive_0.mcap").exists()


def test_an_unknown_parameter_is_refused(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.start("bag_recorder", bags__megabytes=3)
        assert graph.exit_code(process) == 2
        assert "valid: bags.bags_mb, bags.before, bags.file_mb, bags.flush_period, bags.linger" in process.said
