"""A recorded episode, said again through the contract, is the same to the byte."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags_support import DEFINITIONS, FACTS, OURS, TOPICS, TYPES, Episode, bags, record
from rosbags.highlevel import AnyReader

from llmagent_ros.cli.main import main
from llmagent_ros.contract import load_mobile_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.recordings.contracts import recorded_contract
from llmagent_ros.experiments.recordings.scenes import ReplayedScene, replay_scenes
from llmagent_ros.perception.intake import SensorIntake, sensor_topics
from llmagent_ros.recording.bags.reader import Bag
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder, Role
from llmagent_ros.recording.bags.topics import BagMessage


def said_again(path: Path) -> list[ReplayedScene]:
    bag = Bag(path)
    return list(replay_scenes(bag, recorded_contract(bag)))


def rewritten(folder: Path, change: Any, **given: Any) -> Path:
    """A bag of an episode whose messages were changed by `change` before they were recorded; None leaves one out."""
    recorder = EpisodeRecorder(folder, BagsConfig(), FACTS, DEFINITIONS)
    messages: list[tuple[BagMessage, Role]] = []
    Episode(lambda message, role: messages.append((message, role)), steps=12, **given).play()
    for message, role in change(messages):
        recorder.take(message, role)
    recorder.close()
    (path,) = bags(folder)
    return path


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_scenes_are_the_same_to_the_byte(tmp_path: Path, seed: int) -> None:
    (episode,) = record(tmp_path, {"seed": seed, "steps": 40}, file_mb=0.1)
    (path,) = bags(tmp_path)
    scenes = said_again(path)
    assert [scene.said.text for scene in scenes if scene.said is not None] == episode.texts
    assert all(scene.same for scene in scenes) and scenes[0].without == ()
    assert any(" before." in text or " at " in text for text in episode.texts)  # objects were seen


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_topics_were_received_makes_no_difference(tmp_path: Path, seed: int) -> None:
    """Only the order within a topic is that in which perception had it."""

    def mix(messages: list[tuple[BagMessage, Role]]) -> list[tuple[BagMessage, Role]]:
        rng, queues = random.Random(seed), {}
        for message, role in messages:
            queues.setdefault(message.topic.name, []).append((message, role))
        first = queues["/task"].pop(0)
        mixed: list[tuple[BagMessage, Role]] = [queues[name].pop(0) for name in ("/odom", "/scan")] + [first]
        last = queues.pop("/task")
        while queues:
            name = rng.choice(sorted(queues))
            mixed += [queues[name].pop(0) for _ in range(min(len(queues[name]), rng.randint(1, 6)))]
            if not queues[name]:
                del queues[name]
        return mixed + last

    scenes = said_again(rewritten(tmp_path, mix))
    assert all(scene.same for scene in scenes)


def test_without_images_all_but_the_objects_is_compared(tmp_path: Path) -> None:
    def blind(messages: list[tuple[BagMessage, Role]]) -> list[tuple[BagMessage, Role]]:
        return [(message, role) for message, role in messages if "camera" not in message.topic.name]

    path = rewritten(tmp_path / "a", blind)
    scenes = said_again(path)
    assert all(scene.same and scene.without == ("objects",) for scene in scenes)

    def lying(messages: list[tuple[BagMessage, Role]]) -> list[tuple[BagMessage, Role]]:
        return [(replace(m, data=m.data.replace(b"turning", b"burning")), role) for m, role in blind(messages)]

    assert not any(scene.same for scene in said_again(rewritten(tmp_path / "b", lying)))


@pytest.mark.parametrize("topic", ["/scan", "/odom", "/camera/image_raw", "/decision"])
def test_a_message_that_perception_had_and_the_bag_has_not_is_named(tmp_path: Path, topic: str) -> None:
    def lose(messages: list[tuple[BagMessage, Role]]) -> list[tuple[BagMessage, Role]]:
        lost = [m for m, _ in messages if m.topic.name == topic][4]
        return [(message, role) for message, role in messages if message is not lost]

    scenes = said_again(rewritten(tmp_path, lose))
    unsaid = [scene for scene in scenes if scene.said is None]
    assert unsaid and all(scene.missing for scene in unsaid)
    word = {"/decision": "decision", "/camera/image_raw": "camera"}.get(topic, topic[1:])
    assert all(word in scene.missing for scene in unsaid)
    assert sum(scene.same for scene in scenes) >= 4  # those before


def test_another_reading_gives_another_scene(tmp_path: Path) -> None:
    def nearer(messages: list[tuple[BagMessage, Role]]) -> list[tuple[BagMessage, Role]]:
        changed = []
        for message, role in messages:
            if message.topic.name == "/scan":
                scan = TYPES.deserialize_cdr(message.data, message.topic.type)
                near = replace(scan, ranges=scan.ranges * np.float32(0.9))
                message = replace(message, data=bytes(TYPES.serialize_cdr(near, message.topic.type)))
            changed.append((message, role))
        return changed

    scenes = said_again(rewritten(tmp_path, nearer))
    assert all(scene.said is not None for scene in scenes) and not all(scene.same for scene in scenes)


def test_the_same_contract_code_reads_what_rosbags_decodes(tmp_path: Path) -> None:
    """A reader that is not ours, and the objects that it makes, go through the code that the node goes through."""
    (episode,) = record(tmp_path, {"steps": 10})
    (path,) = bags(tmp_path)
    contract = load_mobile_contract("sim_diffdrive")
    intake = SensorIntake(contract, "lockstep")
    sensors = {f"/{spec.topic}": spec.type for spec in sensor_topics(contract)}
    texts = []
    with AnyReader([path]) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            if connection.topic in sensors:
                intake.take(sensors[connection.topic], message)
            elif connection.topic == "/task" and message.id:
                intake.begin(message.instruction)
            elif connection.topic == "/decision":
                intake.note(message.action)
            elif connection.topic == "/scene":
                now = intake.complete()
                assert now is not None
                texts.append(intake.scene(now).text)
    assert texts == episode.texts


def test_a_scene_that_is_said_again_counts_once(tmp_path: Path) -> None:
    def repeat(messages: list[tuple[BagMessage, Role]]) -> list[tuple[BagMessage, Role]]:
        return [each for each in messages for _ in range(2 if each[0].topic.name in ("/scene", "/scan") else 1)]

    scenes = said_again(rewritten(tmp_path, repeat))
    assert len(scenes) == 13 and all(scene.same for scene in scenes)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (episode,) = record(tmp_path / "bags", {"steps": 3})
    (path,) = bags(tmp_path / "bags")
    assert main(["record", "scenes", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[2] for line in printed] == episode.texts
    assert main(["record", "scenes", str(path), "--check"]) == 0
    assert "4 of 4 scenes are the same to the byte" in capsys.readouterr().out
    assert main(["record", "scenes", str(path), "--check", "--robot", "sim_scout"]) == 1
    assert "0 of 4 scenes are the same" in capsys.readouterr().out


def test_a_bag_without_scenes_or_contract_is_refused(tmp_path: Path) -> None:
    path = rewritten(tmp_path, lambda messages: [each for each in messages if each[0].topic.name != "/scene"])
    with pytest.raises(ConfigError, match="no scenes in it"):
        said_again(path)
    recorder = EpisodeRecorder(tmp_path / "bare", BagsConfig(), {}, DEFINITIONS)
    Episode(recorder.take).play()
    recorder.close()
    (bare,) = bags(tmp_path / "bare")
    with pytest.raises(ConfigError, match="without a robot contract"):
        said_again(bare)
    assert TOPICS["scene"][0].type == f"{OURS}/Scene"
