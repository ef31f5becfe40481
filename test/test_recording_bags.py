"""Bags as files: read back by others' readers, split, mended, kept within their room."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from bags_support import CONTRACT, DEFINITIONS, FACTS, RELIABLE, TOPICS, TYPES, Episode, bags, header, make, record
from disk_support import small_file_system
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosReliability

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.messages import transition_from_message
from llmagent_ros.recording.bags.inspection import entry, verify
from llmagent_ros.recording.bags.metadata import METADATA, read_metadata
from llmagent_ros.recording.bags.reader import Bag, find_bags
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder, Role
from llmagent_ros.recording.bags.repair import repair_all
from llmagent_ros.recording.bags.thread import BagThread, QueueLimits
from llmagent_ros.recording.bags.topics import BagMessage, header_stamp

Said = list[tuple[str, bytes, int, int]]  # topic, data, log time, publish time
# Records an episode again and again into argv[1], and says each bag that is finished, until it is killed.
WRITER = """
import sys, uuid
sys.path.insert(0, sys.argv[2])
from dataclasses import replace
from pathlib import Path
from bags_support import DEFINITIONS, FACTS, Episode, bags
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder

folder, said = Path(sys.argv[1]), []
Episode(lambda message, role: said.append((message, role))).play()
task = uuid.UUID(int=0).hex.encode()
recorder = EpisodeRecorder(folder, BagsConfig(linger=0.0, flush_period=0.001, file_mb=0.03), FACTS, DEFINITIONS)
known = set(bags(folder))
while True:
    other, later = uuid.uuid4().hex.encode(), uuid.uuid4().int % 10**17
    for message, role in said:
        data = message.data.replace(task, other)
        recorder.take(replace(message, data=data, log_time=message.log_time + later), role)
        recorder.tick()
    for path in bags(folder):
        if path not in known and (path / "metadata.yaml").is_file():
            known.add(path)
            print(path.name, flush=True)
"""


def played(folder: Path, **given: Any) -> tuple[Said, Episode]:
    """An episode in a bag, and every message that was said in it."""
    said: Said = []
    recorder = EpisodeRecorder(folder, BagsConfig(**given), FACTS, DEFINITIONS)

    def say(message: BagMessage, role: Role) -> None:
        said.append((message.topic.name, message.data, message.log_time, message.publish_time))
        recorder.take(message, role)

    episode = Episode(say).play()
    recorder.close()
    return said, episode


def test_the_mcap_library_reads_what_was_said(tmp_path: Path) -> None:
    said, episode = played(tmp_path)
    (bag,) = bags(tmp_path)
    with (bag / f"{bag.name}_0.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        read = [
            (channel.topic, message.data, message.log_time, message.publish_time)
            for _, channel, message in reader.iter_messages(log_time_order=False)
        ]
        schemas = {schema.name: schema.encoding for schema in reader.get_summary().schemas.values()}
        qos = [channel.metadata["offered_qos_profiles"] for channel in reader.get_summary().channels.values()]
        facts = {name: values for record in reader.iter_metadata() for name, values in [(record.name, record.metadata)]}
    assert read == said
    assert set(schemas.values()) == {"ros2msg"} and "llmagent_interfaces/msg/Scene" in schemas
    assert all(yaml.safe_load(text) == [RELIABLE] for text in qos)
    assert facts["llmagent"]["contract"] == CONTRACT
    assert facts["llmagent.adapter"] == {"name": "v000007", "digest": episode.digest}
    assert facts["llmagent.end"]["ended"] == "true"


def test_rosbags_reads_what_was_said(tmp_path: Path) -> None:
    said, episode = played(tmp_path)
    (bag,) = bags(tmp_path)
    with AnyReader([bag]) as reader:  # compares the types' hashes with their definitions
        read = sorted((connection.topic, data, time) for connection, time, data in reader.messages())
        assert read == sorted((topic, data, time) for topic, data, time, _ in said)
        for connection in reader.connections:
            (qos,) = connection.ext.offered_qos_profiles
            assert qos.reliability == QosReliability.RELIABLE and qos.depth == 10
        texts = [
            reader.deserialize(data, connection.msgtype).text
            for connection, _, data in reader.messages([c for c in reader.connections if c.topic == "/scene"])
        ]
    assert texts == episode.texts


def test_metadata_says_what_the_episode_was(tmp_path: Path) -> None:
    said, episode = played(tmp_path)
    (bag,) = bags(tmp_path)
    facts = read_metadata(bag).facts
    assert json.loads(facts["adapters"]) == [{"name": "v000007", "digest": episode.digest}]
    assert facts["run"] == "run-1" and facts["episode"] == "0"
    assert facts["contract_sha256"] == FACTS["contract_sha256"]
    listed = entry(bag)
    assert (listed.steps, listed.success, listed.messages) == (len(episode.transitions), False, len(said))
    assert listed.reward == pytest.approx(sum(step.reward for step in episode.transitions))
    assert verify(bag) == []


def test_files_are_split_by_size_and_read_as_one(tmp_path: Path) -> None:
    said, _ = played(tmp_path, file_mb=0.02)
    (bag,) = bags(tmp_path)
    files = sorted(path.stat().st_size for path in bag.glob("*.mcap"))
    assert len(files) > 3
    assert files[-1] < 0.02e6 + 60_000  # one message, schemas and index more
    assert [(m.topic.name, m.data) for m in Bag(bag).messages()] == [(topic, data) for topic, data, *_ in said]
    with AnyReader([bag]) as reader:
        assert reader.message_count == len(said) == sum(1 for _ in reader.messages())


def test_what_comes_in_another_order_goes_into_the_bag_of_its_episode(tmp_path: Path) -> None:
    """The recorder may get the messages of one topic long after those of another."""
    messages: list[tuple[BagMessage, Role]] = []
    first = Episode(lambda message, role: messages.append((message, role)), number=0, seed=0).play()
    second = Episode(lambda message, role: messages.append((message, role)), number=1, seed=1).play()
    late = {"/decision", "/transition", "/scene"}
    recorder = EpisodeRecorder(tmp_path, BagsConfig(), FACTS, DEFINITIONS)
    for message, role in [m for m in messages if m[0].topic.name not in late]:
        recorder.take(message, role)
    for message, role in [m for m in messages if m[0].topic.name in late]:
        recorder.take(message, role)
    recorder.close()
    for path, episode in zip(bags(tmp_path), (first, second), strict=True):
        bag = Bag(path)
        steps = [transition_from_message(m) for _, m in bag.decoded(("llmagent_interfaces/msg/Transition",))]
        assert steps == episode.transitions
        assert [m.text for _, m in bag.decoded(("llmagent_interfaces/msg/Scene",))] == episode.texts
        assert bag.facts["steps"] == str(len(episode.transitions))


def test_what_comes_before_its_task_is_kept_for_it(tmp_path: Path) -> None:
    messages: list[tuple[BagMessage, Role]] = []
    episode = Episode(lambda message, role: messages.append((message, role)), steps=4, camera=False).play()
    recorder = EpisodeRecorder(tmp_path, BagsConfig(), FACTS, DEFINITIONS)
    (task, last) = [each for each in messages if each[1] == "task"]
    for message, role in [*(each for each in messages if each[1] != "task"), task, last]:
        recorder.take(message, role)
    recorder.close()
    (path,) = bags(tmp_path)
    ours = [each for each in Bag(path).messages() if each.topic.type.startswith("llmagent_interfaces/")]
    wanted = [message for message, _ in messages if message.topic.type.startswith("llmagent_interfaces/")]
    assert sorted(m.data for m in ours) == sorted(m.data for m in wanted)
    assert Bag(path).facts["steps"] == str(len(episode.transitions))


def test_a_bag_begins_with_what_holds_and_what_was_seen_last(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, BagsConfig(before=1.0), FACTS, DEFINITIONS)
    adapter, _ = TOPICS["adapter"]
    message = make("llmagent_interfaces/msg/Adapter", name="v000007", digest="d")
    recorder.take(BagMessage(adapter, bytes(TYPES.serialize_cdr(message, adapter.type)), 1, 1), "latched")
    scan, _ = TOPICS["scan"]
    for stamp in (10.0, 11.5, 12.0, 12.4):  # s
        reading = make("sensor_msgs/msg/LaserScan", header=header(round(stamp * 1e9)))
        data = bytes(TYPES.serialize_cdr(reading, scan.type))
        recorder.take(BagMessage(scan, data, round(stamp * 1e9), 1), "sensor")
    task, _ = TOPICS["task"]
    asked = make("llmagent_interfaces/msg/Task", id="t", instruction="go", header=header(12_500_000_000))
    recorder.take(BagMessage(task, bytes(TYPES.serialize_cdr(asked, task.type)), 13_000_000_000, 1), "task")
    recorder.close()
    (bag,) = bags(tmp_path)
    read = [(m.topic.name, header_stamp(m.data) * 1e-9) for m in Bag(bag).messages() if m.topic.name == "/scan"]
    assert read == [("/scan", 11.5), ("/scan", 12.0), ("/scan", 12.4)]
    assert next(m.topic.name for m in Bag(bag).messages()) == "/adapter"
    assert read_metadata(bag).start == 11_500_000_000  # what is latched came long ago, but counts from the task on


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_leaves_finished_bags_as_they_are_and_what_was_flushed_of_the_last(tmp_path: Path, seed: int) -> None:
    rng, folder, finished = random.Random(seed), tmp_path / "bags", set()
    folder.mkdir()
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randint(1, 6)):
                finished.add(writer.stdout.readline().strip())
            threading.Event().wait(rng.uniform(0.0, 0.05))  # somewhere within the next episode
            os.kill(writer.pid, signal.SIGKILL)
        before = {name: (folder / name / METADATA).read_bytes() for name in finished}
        for path in list(bags(folder)):
            begun = any(path.glob("*.mcap"))  # else it was killed before there was anything in the folder
            if begun and not (path / METADATA).is_file():  # what there is can be read at once, without mending
                assert list(Bag(path).messages()) or not any(each.stat().st_size > 5000 for each in path.glob("*"))
        repair_all(folder)
        for path in bags(folder):
            assert verify(path) == []
            with AnyReader([path]) as reader:
                assert sum(1 for _ in reader.messages()) == reader.message_count > 0
        assert {name: (folder / name / METADATA).read_bytes() for name in finished} == before
    assert len(finished) >= 4


def test_a_file_that_is_cut_off_anywhere_keeps_its_whole_chunks(tmp_path: Path) -> None:
    """Whatever byte a kill, or a power cut, leaves as the last one."""
    recorder = EpisodeRecorder(tmp_path / "bags", BagsConfig(flush_period=1e-9), FACTS, DEFINITIONS)

    def say(message: BagMessage, role: Role) -> None:
        recorder.take(message, role)
        recorder.tick()

    Episode(say, steps=3, camera=False).play()
    (path,) = bags(tmp_path / "bags")
    (file,) = path.glob("*.mcap")
    whole = file.read_bytes()
    messages = [m.data for m in Bag(path).messages()]
    assert len(messages) > 20
    seen = set()
    for size in [*range(0, len(whole), 499), len(whole)]:
        copy = tmp_path / "cut" / path.name
        copy.mkdir(parents=True)
        (copy / file.name).write_bytes(whole[:size])
        repairs = repair_all(copy.parent)
        assert repairs.left == []
        if repairs.mended:
            assert verify(copy) == []
            kept = [m.data for m in Bag(copy).messages()]
            assert kept == messages[: len(kept)]
            seen.add(len(kept))
        else:
            assert not copy.exists()  # not even one message
        shutil.rmtree(copy.parent)
    assert len(seen) > 10 and max(seen) == len(messages)
    recorder.close()


def test_a_damaged_chunk_is_found_and_nothing_before_it_is_lost(tmp_path: Path) -> None:
    """Also where what was changed can still be decompressed."""
    record(tmp_path, {}, file_mb=0.02)
    (path,) = bags(tmp_path)
    file = sorted(path.glob("*.mcap"))[1]
    whole, messages = file.read_bytes(), sum(1 for _ in Bag(path).messages())
    for at in range(len(whole) * 2 // 5, len(whole) * 3 // 5, 101):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert any(file.name in problem for problem in verify(path)), at
        assert 0 < sum(1 for _ in Bag(path).messages()) < messages


def test_the_oldest_bags_go_where_the_room_is_full(tmp_path: Path) -> None:
    record(tmp_path, *({} for _ in range(8)), bags_mb=0.2)
    left = list(bags(tmp_path))
    assert 0 < sum(file.stat().st_size for path in left for file in path.iterdir()) <= 0.2e6
    assert [int(Bag(path).facts["episode"]) for path in left] == list(range(8 - len(left), 8))
    assert 1 < len(left) < 8
    assert all(verify(path) == [] for path in left)


def test_an_episode_that_alone_takes_all_the_room_keeps_its_beginning(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, BagsConfig(bags_mb=0.05, flush_period=1e-9), FACTS, DEFINITIONS)

    def say(message: BagMessage, role: Role) -> None:
        recorder.take(message, role)
        recorder.tick()

    Episode(say, steps=30).play()
    recorder._open[-1].ended = 0.0
    recorder.tick()
    assert recorder.counts.lost > 0
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 0.05e6 + 60_000


def test_a_full_disk_is_said_and_older_bags_stay_readable(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", "160k") as disk:
        recorder = EpisodeRecorder(disk / "bags", BagsConfig(linger=0.0, flush_period=1e-9), FACTS, DEFINITIONS)

        def say(message: BagMessage, role: Role) -> None:
            lost = recorder.counts.lost
            recorder.take(message, role)
            recorder.tick()
            assert recorder.counts.lost == lost or recorder.problem

        for number in range(6):
            Episode(say, number=number, seed=number, steps=6).play()
            recorder.tick()
            if recorder.problem:
                break
        assert "No space left on device" in recorder.problem
        assert recorder.counts.lost > 0 and recorder.counts.episodes > 0
        finished = [path for path in bags(disk / "bags") if (path / METADATA).is_file()]
        assert len(finished) == recorder.counts.episodes
        assert all(verify(path) == [] for path in finished)
        shutil.rmtree(finished[0])  # a person makes room: the next episode is recorded, the cut one mended
        Episode(say, number=10, seed=1, steps=2, camera=False).play()
        recorder.close()
        assert recorder.problem == ""
        assert all(verify(path) == [] for path in bags(disk / "bags"))


def test_a_queue_that_is_full_drops_and_counts_and_never_waits(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()
    recorder = EpisodeRecorder(tmp_path, BagsConfig(), FACTS, DEFINITIONS)
    take = recorder.take

    def slow(message: BagMessage, role: Role) -> None:
        entered.set()
        gate.wait(60.0)
        take(message, role)

    recorder.take = slow  # type: ignore[method-assign]
    thread = BagThread(recorder, QueueLimits(messages=10))
    data = bytes(TYPES.serialize_cdr(make("std_msgs/msg/Bool"), "std_msgs/msg/Bool"))
    message = BagMessage(TOPICS["e_stop"][0], data, 1, 1)
    assert thread.put(message, "latched")
    assert entered.wait(60.0)  # the first is being written, for as long as we like
    taken = [thread.put(message, "latched") for _ in range(25)]
    assert taken == [True] * 10 + [False] * 15
    assert thread.dropped == 15 and thread.waiting == 10
    gate.set()
    thread.close()


def test_a_defect_in_the_thread_is_handed_to_its_owner(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, BagsConfig(), FACTS, DEFINITIONS)
    recorder.tick = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    thread = BagThread(recorder)
    thread._thread.join(60.0)
    assert isinstance(thread.failure, ZeroDivisionError)


def test_bags_are_found_in_a_run_and_what_is_none_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "run" / "bags", {}, {})
    assert find_bags(tmp_path / "run") == find_bags(tmp_path / "run" / "bags") == list(bags(tmp_path / "run" / "bags"))
    with pytest.raises(ConfigError, match="no bags; give a bag"):
        find_bags(tmp_path)
    with pytest.raises(ConfigError, match="no such bag"):
        Bag(tmp_path / "nowhere")
    (path, _) = bags(tmp_path / "run" / "bags")
    (path / METADATA).write_text("rosbag2_bagfile_information: 3\n")
    with pytest.raises(StoreError, match="not the metadata of a bag"):
        Bag(path)
    assert verify(path) != []
