"""The scenes of a recorded episode, said again by the same code from what the sensors said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmagent_ros import messages
from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.errors import ConfigError
from llmagent_ros.messages import Message, said_to_the_robot
from llmagent_ros.perception.intake import IMAGE, INFO, Mode, SensorIntake, sensor_of, sensor_topics
from llmagent_ros.recording.bags.facts import DECISION, SCENE, TASK
from llmagent_ros.recording.bags.reader import Bag
from llmagent_ros.types import Scene


@dataclass(frozen=True)
class ReplayedScene:
    """A scene as it was recorded, and as it is said again.

    Attributes:
        said: None where it cannot be said, because something that it was built of is not in the bag.
        missing: what that is. without: parts of the scene that need a sensor that was not recorded; `same` looks at
            the others.
    """

    recorded: Scene
    said: Scene | None
    missing: str = ""
    without: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def same(self) -> bool:
        """Whether both are equal to the byte, but for `without`."""
        if self.said is None:
            return False
        if not self.without:
            return self.recorded == self.said
        before, after = (" ".join(part) for part in self.parts)
        text = self.recorded.text
        fits = len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)
        known = tuple(part for part in self.recorded.unknown if part not in self.without)
        return fits and known == self.said.unknown and self.recorded.task == self.said.task


@dataclass
class _Reading:
    """One message of a sensor topic. stamp: ns."""

    type: str
    stamp: int
    message: Message


@dataclass
class _Content:
    """A bag's messages by what they are for, each in its order."""

    scenes: list[Message] = field(default_factory=list)
    decisions: dict[str, list[str]] = field(default_factory=dict)  # task id to actions
    tasks: dict[str, str] = field(default_factory=dict)  # id to instruction
    readings: dict[str, list[_Reading]] = field(default_factory=dict)  # by sensor


def replay_scenes(bag: Bag, contract: RobotContract) -> Iterator[ReplayedScene]:
    """Feeds the recorded readings, tasks and actions to perception as each recorded scene says that they had come.

    A scene names the time for which it was said, the newest reading of each sensor and the number of decisions that
    perception knew. So the order in which the recorder got messages of different topics does not matter.

    Raises:
        ConfigError: it has no scenes, or was made before scenes told what they were built of.
        StoreError: it is damaged.
    """
    namespace = bag.facts.get("namespace", "/")
    topics = {resolved(spec.topic, namespace): sensor_of(spec) for spec in sensor_topics(contract)}
    content = _read(bag, topics)
    if not content.scenes:
        raise ConfigError(f"{bag.path}: no scenes in it")
    if not hasattr(content.scenes[0], "readings"):
        raise ConfigError(f"{bag.path}: its scenes do not tell what they were built of; it is of an older version")
    mode: Mode = "realtime" if bag.facts.get("mode") == "realtime" else "lockstep"
    seen = set(content.readings)
    blind = {sensor for sensor in topics.values() if sensor not in seen}
    player = _Player(contract, mode, content, blind)
    for message in content.scenes:
        yield player.say(message)


class _Player:
    """Feeds perception up to where a scene was said, and has it said."""

    def __init__(self, contract: RobotContract, mode: Mode, content: _Content, blind: set[str]) -> None:
        assert isinstance(contract, MobileContract | ArmContract)
        self._parts: tuple[str, ...] = contract.scene.parts
        effects = isinstance(contract, MobileContract) and contract.scene.effects
        self._told = contract.scene.history if effects else 0  # decisions of which is said what came of them
        unseen = blind == {"camera"} and "objects" in self._parts
        self._without: tuple[str, ...] = ("objects",) if unseen else ()
        if self._without:  # the parts before and after are said apart, to be looked for around it
            contract = _with_parts(contract, [part for part in self._parts if part not in self._without])
        self._content, self._blind = content, blind
        self._intake = SensorIntake(contract, mode)
        self._next = dict.fromkeys(content.readings, 0)
        self._task = ""
        self._known: int | None = None  # decisions at the first scene of which all since is known

    def say(self, message: Message) -> ReplayedScene:
        recorded = messages.scene_from_message(message)
        missing = self._begin(message.task_id) or self._feed(message) or self._note(message)
        if missing:
            return ReplayedScene(recorded, None, missing)
        said = self._intake.scene(messages.key(message.time))
        lacking = self._lack(message)
        if lacking:
            return ReplayedScene(recorded, None, lacking)
        if not self._without:
            return ReplayedScene(recorded, said)
        return ReplayedScene(recorded, said, "", self._without, self._around(messages.key(message.time)))

    def _begin(self, task_id: str) -> str:
        if task_id == self._task:
            return ""
        if task_id not in self._content.tasks:
            return "the task"
        self._task, self._known = task_id, None
        self._intake.begin(self._content.tasks[task_id])
        return ""

    def _feed(self, message: Message) -> str:
        """Takes the readings up to those that the scene names."""
        for sensor, stamp in zip(message.sensors, map(messages.key, message.readings), strict=True):
            if not (sensor in self._blind and self._without) and not self._feed_up_to(sensor, stamp):
                return f"the reading of {sensor} at {stamp * 1e-9:.3f} s"
        return ""

    def _feed_up_to(self, sensor: str, stamp: int) -> bool:
        """Takes the readings of a sensor up to that of a stamp; False where that one is not in the bag."""
        readings = self._content.readings.get(sensor, [])
        if any(reading.stamp == stamp for reading in readings[self._next.get(sensor, 0) :]):
            while self._intake.stamps.get(sensor) != stamp and self._next[sensor] < len(readings):
                reading = readings[self._next[sensor]]
                self._next[sensor] += 1
                self._intake.take(reading.type, reading.message)
        return self._intake.stamps.get(sensor) == stamp

    def _note(self, message: Message) -> str:
        """Takes the decisions that were known."""
        actions = self._content.decisions.get(message.task_id, [])
        if len(actions) < message.decisions:
            return f"decision {len(actions)} of the task"
        for action in actions[self._intake.decisions : message.decisions]:
            self._intake.note(action)
        return ""

    def _lack(self, message: Message) -> str:
        """What of an episode's beginning is not here, where the recording began later."""
        if self._known is None or message.decisions < self._known:
            self._known = message.decisions
        needed = max(0, message.decisions - self._told)
        return f"the odometry at decision {needed} of the task" if self._told and self._known > needed else ""

    def _around(self, now: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts of the parts before and after the one that is left out."""
        at = self._parts.index(self._without[0])
        said = self._intake.said(now)
        return tuple(said[part] for part in self._parts[:at]), tuple(said[part] for part in self._parts[at + 1 :])


def _with_parts(contract: MobileContract | ArmContract, parts: Sequence[Any]) -> RobotContract:
    if isinstance(contract, MobileContract):
        return replace(contract, scene=replace(contract.scene, parts=tuple(parts)))
    return replace(contract, scene=replace(contract.scene, parts=tuple(parts)))


def _read(bag: Bag, topics: Mapping[str, str]) -> _Content:
    content = _Content()
    last: tuple[str, int] | None = None
    for recorded, message in bag.decoded():
        kind, sensor = recorded.topic.type, topics.get(recorded.topic.name)
        if sensor is not None:
            reading = _Reading(kind, messages.key(message.header.stamp), message)
            content.readings.setdefault(sensor, []).append(reading)
        elif kind == SCENE:
            moment = (message.task_id, messages.key(message.time) if hasattr(message, "time") else 0)
            if moment != last or not hasattr(message, "time"):  # one that is said again is the same scene
                content.scenes.append(message)
            last = moment
        elif kind == DECISION:
            content.decisions.setdefault(message.task_id, []).append(said_to_the_robot(message))
        elif kind == TASK and message.id:
            content.tasks.setdefault(message.id, message.instruction)
    _pair_images(content.readings)
    return content


def _pair_images(readings: dict[str, list[_Reading]]) -> None:
    """The half of an image and its intrinsics that came first goes right before the other."""
    pairs = readings.get("camera", [])
    infos = [each for each in pairs if each.type == INFO]
    images = [each for each in pairs if each.type == IMAGE]
    by_stamp = {each.stamp: each for each in infos}
    ordered: list[_Reading] = []
    for image in images:
        if image.stamp in by_stamp:
            ordered += [by_stamp[image.stamp], image]
    if pairs:
        readings["camera"] = ordered
    if pairs and not ordered:
        del readings["camera"]


def resolved(topic: str, namespace: str = "/") -> str:
    """A topic of the contract as it is called in the graph."""
    return topic if topic.startswith("/") else f"{namespace.rstrip('/')}/{topic}"


def verdict(scenes: Sequence[ReplayedScene]) -> str:
    """How many scenes are the same, in words."""
    same, unsaid = sum(scene.same for scene in scenes), sum(scene.said is None for scene in scenes)
    words = f"{same} of {len(scenes)} scenes are the same to the byte"
    return words + (f", {unsaid} cannot be said again" if unsaid else "")
