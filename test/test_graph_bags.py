"""Recorded episodes of the whole graph: the same scenes to the byte, in lockstep and in real time; `kill -9`."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest
from graph_support import LONG, find_node, kill_node, task_file
from mcap.reader import make_reader
from ros_support import Graph, Process
from rosbags.highlevel import AnyReader

from llmagent_ros.cli.main import main
from llmagent_ros.experiments.recordings.contracts import recorded_contract
from llmagent_ros.experiments.recordings.scenes import ReplayedScene, replay_scenes
from llmagent_ros.experiments.recordings.transitions import bag_transitions, replay_transitions
from llmagent_ros.recording.bags.inspection import entry, verify
from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.reader import Bag, find_bags

EPISODES = 3
MAX_STEPS = 8
pytestmark = pytest.mark.xdist_group("graph_bags")


def run(folder: Path, **arguments: object) -> Path:
    """What a recorded run of short episodes leaves behind."""
    with Graph(folder) as graph:
        settings = {"headless": True, "seed": 7, "record": "camera", "out": folder / "out"} | arguments
        launch = graph.launch("sim.launch.xml", task=task_file(folder, max_steps=MAX_STEPS), **settings)
        graph.until(lambda: launch.code is not None, "the run does not end", 2 * LONG)
        assert launch.code == 0 and "Traceback" not in launch.said
    return folder / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("lockstep"), episodes=EPISODES)


def said_again(path: Path) -> list[ReplayedScene]:
    bag = Bag(path)
    return list(replay_scenes(bag, recorded_contract(bag)))


def test_every_episode_is_a_sound_bag(out: Path) -> None:
    rows = list(csv.DictReader((out / "episodes.csv").open()))
    entries = [entry(path) for path in find_bags(out)]
    assert len(entries) == EPISODES == len(rows)
    for listed, row in zip(entries, rows, strict=True):
        assert verify(listed.path) == []
        assert (listed.run, listed.episode, listed.steps) == (row["run"], int(row["episode"]), int(row["steps"]))
        assert (listed.success, listed.reason) == (row["success"] == "1", row["reason"])
        assert listed.reward == pytest.approx(float(row["total_reward"]), abs=1e-5)


def test_the_same_scenes_are_said_again_to_the_byte(out: Path) -> None:
    for path in find_bags(out):
        scenes = said_again(path)
        assert len(scenes) == entry(path).steps + 1
        assert all(scene.same and scene.without == () for scene in scenes), path


def test_bags_hold_the_transitions_of_the_replay(out: Path) -> None:
    recorded = [step for path in find_bags(out) for step in bag_transitions(Bag(path))]
    kept = list(replay_transitions(out / "replay.sqlite"))
    assert sorted(recorded, key=lambda t: (t.episode, t.step)) == sorted(kept, key=lambda t: (t.episode, t.step))
    assert main(["record", "import", str(out), "--into", str(out / "again.sqlite"), "--robot", "sim_diffdrive"]) == 0
    assert list(replay_transitions(out / "again.sqlite")) == kept


def test_readers_that_are_not_ours_find_the_whole_graph_in_it(out: Path) -> None:
    wanted = {
        "/clock", "/scan", "/odom", "/camera/image_raw", "/camera/camera_info", "/task", "/scene", "/decision",
        "/cmd_vel_policy", "/cmd_vel", "/verdict", "/outcome", "/transition", "/diagnostics",
    }  # fmt: skip
    for path in find_bags(out):
        with AnyReader([path]) as reader:
            assert {c.topic for c in reader.connections} >= wanted
            counts = {name: info.msgcount for name, info in reader.topics.items()}
            assert all(reader.deserialize(data, c.msgtype) for c, _, data in reader.messages())
        for file in path.glob("*.mcap"):
            with file.open("rb") as stream:
                reader2 = make_reader(stream, validate_crcs=True)
                assert sum(1 for _ in reader2.iter_messages()) == sum(counts.values())
        steps = entry(path).steps
        assert counts["/transition"] == steps and counts["/verdict"] >= steps and counts["/scene"] >= steps + 1


def test_in_real_time_too(tmp_path: Path) -> None:
    out = run(tmp_path, episodes=2, mode="realtime", learn="false")
    for path in find_bags(out):
        scenes = said_again(path)
        assert verify(path) == [] and len(scenes) > 1
        said = [scene for scene in scenes if scene.said is not None]
        assert all(scene.same for scene in said)
        # a machine that stalls may have lost a reading on the way to the recorder, or the first decisions
        assert len(said) >= 0.8 * len(scenes), [scene.missing for scene in scenes]
    assert json.loads((out / "summary.json").read_text())["episodes"] == 2


def test_after_kill_9_it_is_started_again_and_records_on_until_ctrl_c(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Graph(tmp_path) as graph:
        task = task_file(tmp_path, max_steps=MAX_STEPS)
        launch = graph.launch("sim.launch.xml", task=task, headless=True, record=True, learn="false", out=out)

        def finished() -> list[Path]:
            return [path for path in (out / "bags").glob("*") if (path / METADATA).exists()]

        graph.until(finished, "no bag is finished", 2 * LONG)
        before = {path: (path / METADATA).read_bytes() for path in finished()}
        killed = kill_node(launch, "bag_recorder")
        graph.until(lambda: _other(launch, killed), "it is not started again", LONG)
        assert launch.code is None  # the robot drives on
        graph.until(lambda: len(finished()) >= len(before) + 3, "it does not record on", LONG)
        launch.stop(signal.SIGINT)
        graph.until(lambda: launch.code is not None, "the run does not end", LONG)
    assert {path: (path / METADATA).read_bytes() for path in before} == before
    assert all(verify(path) == [] for path in find_bags(out))  # the one that was cut off, and that of Ctrl-C, too
    told = [path for path in find_bags(out) if any(m.topic.name == "/scene" for m in Bag(path).messages())]
    assert set(told) >= set(before)  # one that is started again may find who says scenes some episodes later
    for path in told:
        assert all(scene.same for scene in said_again(path) if scene.said is not None)


def _other(launch: Process, pid: int) -> bool:
    """Whether a bag recorder of another process id runs."""
    node = find_node(launch, "bag_recorder")
    return node is not None and node.pid != pid
