"""Records every episode as a bag that rosbag2 reads: what was seen, told, decided and done, and what came of it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from diagnostic_msgs.msg import DiagnosticStatus
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile

from llmagent_ros import __version__
from llmagent_ros.contract import RobotContract, contract_path, load_contract
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.latency_probe import published_at
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire.commands import command_topics
from llmagent_ros.nodes.wire.definitions import bag_topic, definition, message_class, type_name_of
from llmagent_ros.perception.intake import IMAGE, INFO, sensor_topics
from llmagent_ros.policy.prompt import PromptFormat
from llmagent_ros.recording.bags.facts import TELLING
from llmagent_ros.recording.bags.reader import BAGS
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder, Role
from llmagent_ros.recording.bags.thread import BagThread
from llmagent_ros.recording.bags.topics import BagMessage, BagTopic

REPORT_PERIOD = 1.0  # s of wall time between two diagnostics
_OURS = "llmagent_interfaces/msg"
_TOPICS: tuple[tuple[str, str, QoSProfile, Role], ...] = (  # but for those that the contract names
    ("task", f"{_OURS}/Task", qos.LATEST, "task"),
    ("scene", f"{_OURS}/Scene", qos.COMMAND, "scene"),
    ("decision", f"{_OURS}/Decision", qos.DECISION, "other"),
    ("verdict", f"{_OURS}/Verdict", qos.VERDICT, "other"),
    ("transition", f"{_OURS}/Transition", qos.TRANSITION, "other"),
    ("adapter", f"{_OURS}/Adapter", qos.LATEST, "latched"),
    ("e_stop", "std_msgs/msg/Bool", qos.LATEST, "latched"),
    ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", qos.COMMAND, "other"),
)


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class BagRecorderNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path. out: folder of the run; bags go into OUT/bags.
        mode: of perception, which scenes are replayed by. model, chat: of the policy; only written down.
        camera: whether images are recorded; they are most of what there is.
        bags: room, size of files and times, see BagsConfig.
    """

    robot: str = "sim_diffdrive"
    out: str = "runs/default"
    mode: Literal["lockstep", "realtime"] = "lockstep"
    model: str = ""
    chat: bool = False
    camera: bool = False
    bags: BagsConfig = Field(default_factory=BagsConfig)


class BagRecorderNode(Node):
    """Subscribes what the robot contract and `_TOPICS` name, as serialised messages, and hands them to a thread.

    The executor never waits: messages that find the thread's queue full are dropped, and diagnostics say how many.
    """

    def __init__(self) -> None:
        super().__init__("bag_recorder", automatically_declare_parameters_from_overrides=True)
        self._config = parameters(self, BagRecorderNodeConfig)
        contract, folder = load_contract(self._config.robot), Path(self._config.out) / BAGS
        definitions = {name: definition(name) for name in sorted(TELLING)}
        recorder = EpisodeRecorder(folder, self._config.bags, self._facts(), definitions)
        self._thread = BagThread(recorder)
        self._topics: dict[str, BagTopic] = {}  # by resolved name, with the QoS that was found at its first message
        self._problem = ""
        self._diagnostics = Diagnostics(self)
        self._subscribe(contract)
        self.create_timer(REPORT_PERIOD, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"bags go to {folder}; {recorder.counts.mended} that were cut off are mended")
        for problem in recorder.left:
            self.get_logger().warning(problem)

    def _facts(self) -> dict[str, str]:
        """What every bag says of how it was made."""
        c = self._config
        text = contract_path(c.robot).read_bytes()
        return {
            "recorder": f"llmagent_ros {__version__}",
            "robot": load_contract(c.robot).robot,
            "contract": text.decode(),
            "contract_sha256": hashlib.sha256(text).hexdigest(),
            "prompt": json.dumps({**asdict(PromptFormat()), "chat": c.chat}, ensure_ascii=False),
            "model": c.model or "shipped base",
            "mode": c.mode,
            "namespace": self.get_namespace(),
            "camera": "true" if c.camera else "false",
            "ros_distro": os.environ.get("ROS_DISTRO", "jazzy"),
        }

    def _subscribe(self, contract: RobotContract) -> None:
        lockstep = self._config.mode == "lockstep"
        # an executor looks at subscriptions in the order of their making: the task before what belongs to it
        for name, type_name, profile, role in _TOPICS:
            self._record(name, type_name, profile if role == "latched" else qos.deep(profile), role)
        for spec in sensor_topics(contract):
            if spec.type in (IMAGE, INFO) and not self._config.camera:
                continue
            # what the simulator says in lockstep must not be lost; a robot's drivers may offer best effort only
            profile = qos.RELIABLE_SENSOR if lockstep else qos.of(spec.qos)
            self._record(spec.topic, spec.type, qos.deep(profile), "sensor")
        commands = command_topics(contract)
        for name in (commands.policy, commands.teleop):
            self._record(name, type_name_of(commands.kind), qos.deep(qos.COMMAND), "other")
        for spec in contract.topics:
            if spec.direction == "command":
                self._record(spec.topic, spec.type, qos.deep(qos.COMMAND), "other")
            elif spec.key == "reward.outcome_topic":
                self._record(spec.topic, spec.type, qos.deep(qos.OUTCOME), "other")
        if self.get_parameter("use_sim_time").value:
            self._record("/clock", "rosgraph_msgs/msg/Clock", qos.deep(qos.SENSOR), "other")

    def _record(self, name: str, type_name: str, profile: QoSProfile, role: Role) -> None:
        resolved = self.resolve_topic_name(name)
        taker = self._taker(resolved, type_name, role)
        subscribe: Callable[..., object] = self.create_subscription
        subscribe(message_class(type_name), name, taker, profile, raw=True)

    def _taker(self, name: str, type_name: str, role: Role) -> Callable[[bytes, Mapping[str, Any]], None]:
        def take(data: bytes, info: Mapping[str, Any]) -> None:
            topic = self._topics.get(name)
            if topic is None or role == "task":  # at the beginning of an episode publishers may have changed
                topic = self._topics[name] = bag_topic(self, name, type_name)
            sequence = int(info.get("publication_sequence_number") or 0)
            self._thread.put(BagMessage(topic, bytes(data), time.time_ns(), published_at(info), sequence), role)

        return take

    def _report(self) -> None:
        thread, recorder = self._thread, self._thread.recorder
        if thread.failure is not None:
            raise thread.failure
        if recorder.problem and recorder.problem != self._problem:
            self.get_logger().error(f"not recorded: {recorder.problem}")
        self._problem = recorder.problem
        values = {
            **asdict(recorder.counts),
            "dropped": thread.dropped,
            "waiting": thread.waiting,
            "deleted": recorder.deleted,
            "megabytes": f"{recorder.nbytes / 1e6:.1f}",
        }
        if recorder.problem:
            self._diagnostics.publish(recorder.problem, values, level=DiagnosticStatus.ERROR)
        elif thread.dropped or recorder.counts.lost:
            self._diagnostics.publish("messages are missing", values, level=DiagnosticStatus.WARN)
        else:
            self._diagnostics.publish("recording", values)

    def close(self) -> None:
        """Finishes the open bags."""
        self._thread.close()


def main() -> None:
    process.main(BagRecorderNode)


if __name__ == "__main__":
    main()
