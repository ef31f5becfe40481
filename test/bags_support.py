"""Bags made without ROS: an episode of the simulated robot, message by message, as the graph would say it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from llmagent_ros.contract import MobileContract, load_mobile_contract
from llmagent_ros.messages import to_seconds
from llmagent_ros.perception.intake import SensorIntake
from llmagent_ros.recording.bags.facts import TELLING
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder, Role
from llmagent_ros.recording.bags.topics import BagMessage, BagTopic
from llmagent_ros.simulation.physics import Readings
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import load_task
from llmagent_ros.types import CameraImage, Transition

ROOT = Path(__file__).resolve().parent.parent
TYPES = get_typestore(Stores.ROS2_JAZZY)
for _path in sorted((ROOT / "llmagent_interfaces" / "msg").glob("*.msg")):
    TYPES.register(get_types_from_msg(_path.read_text(), f"llmagent_interfaces/msg/{_path.stem}"))
OURS = "llmagent_interfaces/msg"
RELIABLE = {
    "history": "keep_last",
    "depth": 10,
    "reliability": "reliable",
    "durability": "volatile",
    "deadline": {"sec": 9223372036, "nsec": 854775807},
    "lifespan": {"sec": 9223372036, "nsec": 854775807},
    "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 9223372036, "nsec": 854775807},
    "avoid_ros_namespace_conventions": False,
}
CONTRACT = (ROOT / "config/robots/sim_diffdrive.yaml").read_text()
FACTS = {
    "mode": "lockstep",
    "namespace": "/",
    "contract": CONTRACT,
    "contract_sha256": hashlib.sha256(CONTRACT.encode()).hexdigest(),
}


def topic(name: str, type_name: str) -> BagTopic:
    text, _ = TYPES.generate_msgdef(type_name, ros_version=2)
    return BagTopic(name, type_name, text, TYPES.hash_rihs01(type_name), (RELIABLE,))


TOPICS: dict[str, tuple[BagTopic, Role]] = {
    name: (topic(f"/{name}", type_name), role)
    for name, type_name, role in (
        ("scan", "sensor_msgs/msg/LaserScan", "sensor"),
        ("odom", "nav_msgs/msg/Odometry", "sensor"),
        ("camera/image_raw", "sensor_msgs/msg/Image", "sensor"),
        ("camera/camera_info", "sensor_msgs/msg/CameraInfo", "sensor"),
        ("task", f"{OURS}/Task", "task"),
        ("scene", f"{OURS}/Scene", "scene"),
        ("decision", f"{OURS}/Decision", "other"),
        ("outcome", f"{OURS}/Outcome", "other"),
        ("transition", f"{OURS}/Transition", "other"),
        ("cmd_vel", "geometry_msgs/msg/TwistStamped", "other"),
        ("adapter", f"{OURS}/Adapter", "latched"),
        ("e_stop", "std_msgs/msg/Bool", "latched"),
    )
}
DEFINITIONS = {name: topic("", name).definition for name in TELLING}
DEFAULTS: dict[str, Any] = {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}


def make(type_name: str, **values: Any) -> Any:
    """A message with these fields, and zeros for all others."""
    fields = {}
    for name, (kind, detail) in TYPES.fielddefs[type_name][1]:
        fields[name] = values.pop(name) if name in values else _zero(int(kind), detail)
    assert not values, f"{type_name} has no {', '.join(values)}"
    return TYPES.types[type_name](**fields)


def _zero(kind: int, detail: Any) -> Any:
    if kind == 1:
        return DEFAULTS.get(detail[0], 0)
    if kind == 2:
        return make(detail)
    (inner_kind, inner), size = detail
    if int(inner_kind) == 1 and inner[0] != "string":
        return np.zeros(size if kind == 3 else 0, inner[0] if inner[0] != "bool" else "bool")
    return []


def time_of(nanoseconds: int) -> Any:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return make("builtin_interfaces/msg/Time", sec=seconds, nanosec=rest)


def header(nanoseconds: int, frame: str = "") -> Any:
    return make("std_msgs/msg/Header", stamp=time_of(nanoseconds), frame_id=frame)


@dataclass
class Episode:
    """What the graph says in an episode in lockstep; `say` gets each message with its role, in order.

    The robot drives as `choose` says. `texts` are the scenes as perception has built them.
    """

    say: Callable[[BagMessage, Role], object]
    seed: int = 0
    steps: int = 8
    number: int = 0
    run: str = "run-1"
    camera: bool = True
    log_time: int = 1_700_000_000_000_000_000
    choose: Callable[[int, tuple[str, ...]], str] = lambda step, phrases: phrases[step % len(phrases)]
    instruction: str = ""
    digest: str = "f" * 64
    texts: list[str] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)

    def play(self) -> Episode:
        """From the world's reset to the end of the task."""
        contract = load_mobile_contract("sim_diffdrive")
        simulator = Simulator(contract, load_task("navigate"), seed=self.seed)
        try:
            self._play(contract, simulator)
        finally:
            simulator.close()
        return self

    def publish(self, name: str, message: Any) -> None:
        recorded, role = TOPICS[name]
        self.log_time += 1_000_000
        data = bytes(TYPES.serialize_cdr(message, recorded.type))
        self.say(BagMessage(recorded, data, self.log_time, self.log_time - 100_000, 7), role)

    def _play(self, contract: MobileContract, simulator: Simulator) -> None:
        intake, task = SensorIntake(contract, "lockstep"), uuid.UUID(int=self.seed * 1000 + self.number).hex
        self._read(intake, simulator.reset())
        instruction = self.instruction or simulator.instruction
        stamp = round(simulator.time * 1e9)
        asked = {"id": task, "instruction": instruction, "episode": self.number}
        self.publish("task", make(f"{OURS}/Task", header=header(stamp), **asked))
        intake.begin(instruction)
        scene = self._scene(intake, task)
        for step in range(self.steps):
            action = self.choose(step, contract.phrases)
            self._decide(contract, intake, task, step, scene, action)
            readings, outcome = simulator.step(contract.command(action))
            last = step == self.steps - 1 or outcome.ended
            stamp = round(simulator.time * 1e9)
            said = {name: getattr(outcome, name) for name in ("reward", "terminated", "truncated", "success", "reason")}
            self.publish("outcome", make(f"{OURS}/Outcome", header=header(stamp), **said))
            self._read(intake, readings)
            following = self._scene(intake, task)
            self._learn(step, scene, action, following, outcome, last and not outcome.ended)
            scene = following
            if last:
                break
        self.publish("task", make(f"{OURS}/Task", header=header(stamp), episode=self.number))

    def _read(self, intake: SensorIntake, readings: Readings) -> None:
        for name, message in sensor_messages(readings).items():
            if "camera" not in name or self.camera:
                self.publish(name, message)
            intake.take(TOPICS[name][0].type, message)

    def _scene(self, intake: SensorIntake, task: str) -> tuple[int, str]:
        now = intake.complete()
        assert now is not None
        scene = intake.scene(now)
        stamp = round(scene.stamp * 1e9)
        self.texts.append(scene.text)
        message = make(
            f"{OURS}/Scene",
            header=header(stamp, "base_link"),
            text=scene.text,
            task=scene.task,
            task_id=task,
            episode=self.number,
            unknown=list(scene.unknown),
            time=time_of(now),
            sensors=list(intake.stamps),
            readings=[time_of(each) for each in intake.stamps.values()],
            decisions=intake.decisions,
        )
        self.publish("scene", message)
        return stamp, scene.text

    def _decide(
        self, contract: MobileContract, intake: SensorIntake, task: str, step: int, scene: tuple[int, str], action: str
    ) -> None:
        shares = np.full(len(contract.phrases), 1 / len(contract.phrases), np.float32)
        message = make(
            f"{OURS}/Decision",
            header=header(scene[0], "base_link"),
            run=self.run,
            task_id=task,
            episode=self.number,
            step=step,
            scene=scene[1],
            prompt_prefix="lesson: keep left. ",
            candidates=list(contract.phrases),
            probabilities=shares,
            values=shares * 0,
            action=action,
            log_probability=-1.5,
            source="policy",
            adapter="v000007",
            adapter_digest=self.digest,
        )
        self.publish("decision", message)
        intake.note(action)
        velocity = contract.command(action)
        command = make("geometry_msgs/msg/TwistStamped", header=header(scene[0], "base_link"))
        command.twist.linear.x, command.twist.angular.z = velocity.linear, velocity.angular
        self.publish("cmd_vel", command)

    def _learn(
        self, step: int, scene: tuple[int, str], action: str, following: tuple[int, str], outcome: Any, cut: bool
    ) -> None:
        values = {
            "run": self.run,
            "task": "go",
            "episode": self.number,
            "step": step,
            "scene": scene[1],
            "action": action,
            "reward": float(np.float32(outcome.reward)),
            "next_scene": following[1],
            "terminated": outcome.terminated,
            "truncated": outcome.truncated or cut,
            "log_probability": -1.5,
        }
        message = make(f"{OURS}/Transition", header=header(scene[0]), source="policy", adapter="v000007", **values)
        self.publish("transition", message)
        stamp = to_seconds(message.header.stamp)
        self.transitions.append(Transition(**values, stamp=stamp, extra={"adapter": "v000007"}))


def sensor_messages(readings: Readings) -> dict[str, Any]:
    """The messages of one moment, by topic."""
    scan, odometry = readings.scan, readings.odometry
    stamp = round(scan.stamp * 1e9)
    laser = make(
        "sensor_msgs/msg/LaserScan",
        header=header(stamp, "base_scan"),
        angle_min=float(np.float32(scan.angle_min)),
        angle_max=0.0,
        angle_increment=float(np.float32(scan.angle_increment)),
        range_min=float(np.float32(scan.range_min)),
        range_max=float(np.float32(scan.range_max)),
        ranges=np.asarray(scan.ranges, np.float32),
    )
    odom = make("nav_msgs/msg/Odometry", header=header(stamp, "odom"), child_frame_id="base_link")
    odom.pose.pose.position.x, odom.pose.pose.position.y = odometry.x, odometry.y
    odom.pose.pose.orientation.z, odom.pose.pose.orientation.w = np.sin(odometry.yaw / 2), np.cos(odometry.yaw / 2)
    odom.twist.twist.linear.x, odom.twist.twist.angular.z = odometry.linear, odometry.angular
    image, info = image_messages(readings.image)
    return {"odom": odom, "scan": laser, "camera/camera_info": info, "camera/image_raw": image}


def image_messages(image: CameraImage) -> tuple[Any, Any]:
    stamp = round(image.stamp * 1e9)
    height, width, _ = image.rgb.shape
    size = {"height": height, "width": width}
    picture = make(
        "sensor_msgs/msg/Image",
        header=header(stamp, "camera_link"),
        encoding="rgb8",
        step=width * 3,
        data=np.ascontiguousarray(image.rgb).reshape(-1),
        **size,
    )
    k = np.array([image.fx, 0, image.cx, 0, image.fy, image.cy, 0, 0, 1], np.float64)
    return picture, make("sensor_msgs/msg/CameraInfo", header=header(stamp, "camera_link"), k=k, **size)


def record(folder: Path, *episodes: dict[str, Any], **config: Any) -> list[Episode]:
    """Plays episodes into bags of a folder; what they said."""
    recorder = EpisodeRecorder(folder, BagsConfig(**config), FACTS, DEFINITIONS)
    played = []
    for number, given in enumerate(episodes or ({},)):
        began = Episode.log_time + number * 10**10
        told = {"number": number, "seed": number, "log_time": began} | given
        played.append(Episode(recorder.take, **told).play())
    recorder.close()
    assert recorder.problem == ""
    return played


def bags(folder: Path) -> Iterator[Path]:
    """The bags in a folder, oldest first."""
    yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))
