"""Data sets of transitions: read by readers that are not ours, and back without losing a bit."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bags_support import CONTRACT, Episode, bags, record
from disk_support import small_file_system
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagent_ros.cli.main import main
from llmagent_ros.contract import load_mobile_contract
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.experiments.recordings.transitions import (
    bag_transitions,
    dataset_format,
    kept_transitions,
    replay_transitions,
    store,
)
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.perception import text as say
from llmagent_ros.perception.quantities import SceneQuantities
from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.reader import Bag
from llmagent_ros.recording.datasets import lerobot
from llmagent_ros.recording.datasets.lerobot import DatasetFormat, read_lerobot, write_lerobot
from llmagent_ros.recording.datasets.parquet import read_parquet, write_parquet
from llmagent_ros.recording.datasets.statistics import statistics
from llmagent_ros.types import Source, Transition

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
FINITE = st.floats(-1e30, 1e30)
PHRASES = ("forward", "turn left", "back")


@st.composite
def episodes(draw: st.DrawFn) -> list[Transition]:
    """Episodes with gaps in their steps, as after an intervention."""
    made = []
    for episode in range(draw(st.integers(1, 3))):
        for step in sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=4))):
            flags = draw(st.tuples(st.booleans(), st.booleans()))
            made.append(
                Transition(
                    run=f"run-{episode}",
                    episode=episode,
                    step=step,
                    task=draw(TEXT),
                    scene=draw(TEXT),
                    action=draw(st.sampled_from(PHRASES)),
                    reward=draw(FINITE),
                    next_scene=draw(TEXT),
                    terminated=flags[0],
                    truncated=flags[1],
                    source=draw(st.sampled_from(Source)),
                    log_probability=draw(st.floats(-50.0, 0.0)),
                    stamp=draw(st.floats(0.0, 1e9)),
                    extra=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
                )
            )
    return made


@settings(max_examples=40)
@given(episodes())
def test_what_goes_out_comes_back_as_it_was(steps: list[Transition]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_parquet(folder / "steps.parquet", steps, {})
        assert list(read_parquet(folder / "steps.parquet")) == steps
        write_lerobot(folder / "set", steps, DatasetFormat(2.5, "robot", PHRASES))
        assert list(read_lerobot(folder / "set")) == steps
        for at, source in enumerate((folder / "steps.parquet", folder / "set")):
            assert store(folder / f"{at}.sqlite", kept_transitions(source), PHRASES) == (len(steps), len(steps))
            kept = list(replay_transitions(folder / f"{at}.sqlite"))
            assert sorted(kept, key=lambda t: (t.run, t.step)) == sorted(steps, key=lambda t: (t.run, t.step))


def test_pyarrow_reads_one_row_for_each_transition(tmp_path: Path) -> None:
    (episode,) = record(tmp_path / "bags", {"steps": 6})
    assert main(["export", str(tmp_path / "bags"), "--to", "parquet", str(tmp_path / "steps.parquet")]) == 0
    table = pq.read_table(tmp_path / "steps.parquet")
    assert table.num_rows == 6
    rows = table.to_pylist()
    for row, step in zip(rows, episode.transitions, strict=True):
        assert (row["scene"], row["action"], row["next_scene"]) == (step.scene, step.action, step.next_scene)
        assert (row["reward"], row["log_probability"]) == (step.reward, step.log_probability)
        assert (row["terminated"], row["truncated"]) == (step.terminated, step.truncated)
        assert json.loads(row["extra"]) == {"adapter": "v000007"}
    assert table.schema.metadata[b"robot"] == b"sim_diffdrive"


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, list[Transition]]:
    played = record(tmp_path / "bags", {"steps": 5}, {"steps": 7}, {"steps": 3})
    assert main(["export", str(tmp_path / "bags"), "--to", "lerobot", str(tmp_path / "set")]) == 0
    return tmp_path / "set", [step for episode in played for step in episode.transitions]


def test_the_layout_is_that_of_lerobot_3(dataset: tuple[Path, list[Transition]]) -> None:
    """As `lerobot/datasets` loads it: tasks by their index, episodes and data by the patterns of info.json."""
    folder, _ = dataset
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 2.5 and info["robot_type"] == "sim_diffdrive"
    assert (info["total_episodes"], info["total_frames"], info["splits"]) == (3, 15, {"train": "0:3"})
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "go"}]
    assert tasks.schema.pandas_metadata["index_columns"] == ["task"]  # by which pandas looks an instruction up
    listed = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["length"] for row in listed] == [5, 7, 3]
    for row in listed:
        path = folder / info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        frames = pq.read_table(path).slice(row["dataset_from_index"], row["length"])
        assert set(frames["episode_index"].to_pylist()) == {row["episode_index"]}
        assert frames["frame_index"].to_pylist() == list(range(row["length"]))
        np.testing.assert_allclose(frames["timestamp"], np.arange(row["length"]) / info["fps"], atol=1e-4)
        assert row["tasks"] == ["go"] and row["dataset_to_index"] - row["dataset_from_index"] == row["length"]
        assert row["stats/next.reward/count"] == [row["length"]]
    assert [row["dataset_from_index"] for row in listed] == [0, 5, 12]


def test_every_feature_is_of_the_type_and_shape_that_info_says(dataset: tuple[Path, list[Transition]]) -> None:
    folder, _ = dataset
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    table = pq.read_table(folder / "data/chunk-000/file-000.parquet")
    assert set(table.column_names) == set(features)
    stats = json.loads((folder / "meta/stats.json").read_text())
    for name, feature in features.items():
        kind = table.schema.field(name).type
        if feature["dtype"] == "string":
            assert kind == pa.string() and name not in stats
            continue
        values = np.array(table[name].to_pylist())
        assert values.reshape(len(values), -1).shape[1:] == tuple(feature["shape"])
        inner = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
        assert str(inner) == {"float32": "float", "float64": "double"}.get(feature["dtype"], feature["dtype"])
        known = values.astype(float).reshape(len(values), -1)
        for column in range(known.shape[1]):
            there = known[~np.isnan(known[:, column]), column]
            if len(there):
                assert stats[name]["mean"][column] == pytest.approx(there.mean())
                assert stats[name]["max"][column] == there.max()


def test_features_say_what_the_robot_saw_and_did(dataset: tuple[Path, list[Transition]]) -> None:
    folder, steps = dataset
    table = pq.read_table(folder / "data/chunk-000/file-000.parquet")
    info, contract = json.loads((folder / "meta/info.json").read_text()), load_mobile_contract("sim_diffdrive")
    names = info["features"]["observation.state"]["names"]
    assert table["observation.scene"].to_pylist() == [step.scene for step in steps]
    for state, action, index, step in zip(
        *(table[name].to_pylist() for name in ("observation.state", "action", "action.index")), steps, strict=True
    ):
        command = contract.command(step.action)
        assert action == [pytest.approx(command.linear), pytest.approx(command.angular)]
        assert contract.phrases[index] == step.action
        for name, value in zip(names, state, strict=True):
            word = name.removeprefix("clear ").removeprefix("free ")
            assert math.isnan(value) or f"{word} {value:.1f}".replace(" -0.0", " 0.0") in step.scene
    assert table["next.terminated"].to_pylist() == [step.terminated for step in steps]
    assert table["next.truncated"].to_pylist() == [step.truncated for step in steps]
    assert table["next.done"].to_pylist() == [step.terminated or step.truncated for step in steps]
    assert sum(table["next.done"].to_pylist()) == 3


def test_terminated_and_truncated_are_never_merged(tmp_path: Path) -> None:
    base = {"run": "r", "task": "go", "scene": "s", "action": "back", "next_scene": "n"}
    ends = [(False, False), (True, False), (False, True), (True, True)]
    steps = [
        Transition(**base, episode=at, step=0, reward=r, terminated=e[0], truncated=e[1])
        for at, (e, r) in enumerate(zip(ends, (1.0, 1.0, 1.0, -1.0), strict=True))
    ]
    write_lerobot(tmp_path / "set", steps, DatasetFormat(1, "", PHRASES))
    table = pq.read_table(tmp_path / "set/data/chunk-000/file-000.parquet")
    assert table["next.done"].to_pylist() == [False, True, True, True]
    assert table["next.success"].to_pylist() == [False, True, False, False]  # ended there, with a reward above 0
    assert [(s.terminated, s.truncated) for s in read_lerobot(tmp_path / "set")] == ends


def test_data_files_are_split_and_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot, "_CHUNK", 2)
    monkeypatch.setattr(lerobot, "_FILE_MB", 0)  # each episode into a file of its own, two files in a folder
    monkeypatch.setattr(lerobot._Writer, "_nbytes", 1, raising=False)
    steps = [
        Transition("r", episode, step, "go", f"scene {step}", "back", 0.0, "n", False, step == 1)
        for episode in range(5)
        for step in range(2)
    ]
    write_lerobot(tmp_path / "set", steps, DatasetFormat(1, "", PHRASES))
    assert [str(p.relative_to(tmp_path / "set/data")) for p in sorted(tmp_path.glob("set/data/*/*"))] == [
        "chunk-000/file-000.parquet",
        "chunk-000/file-001.parquet",
        "chunk-001/file-000.parquet",
        "chunk-001/file-001.parquet",
        "chunk-002/file-000.parquet",
    ]
    listed = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["data/chunk_index"], row["data/file_index"]) for row in listed] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0),
    ]  # fmt: skip
    assert list(read_lerobot(tmp_path / "set")) == steps


def test_statistics_by_hand() -> None:
    found = statistics(np.array([[1.0, np.nan], [2.0, 4.0], [3.0, np.nan]]))
    assert found["min"] == [1.0, 4.0] and found["max"] == [3.0, 4.0] and found["mean"] == [2.0, 4.0]
    assert found["std"] == [pytest.approx(math.sqrt(2 / 3)), 0.0] and found["q50"] == [2.0, 4.0]
    assert found["count"] == [3]
    assert statistics(np.full((2, 1), np.nan))["mean"] == [0.0]


@settings(max_examples=50)
@given(st.data())
def test_the_numbers_of_a_scene_are_those_that_were_said(data: st.DataObject) -> None:
    contract = load_mobile_contract("sim_diffdrive")
    quantities = SceneQuantities(contract)
    tenths = st.none() | st.integers(0, 50).map(lambda tenth: tenth / 10)
    clear = {sector: data.draw(tenths) for sector in contract.scene.sectors}
    free = {phrase: data.draw(tenths) for phrase in contract.phrases if f"free {phrase}" in quantities.names}
    linear, angular = (data.draw(st.integers(-20, 20)) / 10 for _ in range(2))
    sounds_like = say.say_scan(dict.fromkeys(clear, 9.9))  # an instruction that a person may give
    scene = " ".join(
        [
            say.say_task(data.draw(st.sampled_from([f"{sounds_like[:-1]} and more", "clear ahead 9.9", "go"]))),
            say.say_scan(clear),
            say.say_free(free),
            say.say_motion(linear, angular),
            say.say_history(["forward", "back"]),
        ]
    )
    wanted = [*clear.values(), *free.values(), linear, angular]
    np.testing.assert_allclose(quantities.read(scene), [np.nan if v is None else v for v in wanted], rtol=1e-6)


def test_a_run_is_exported_from_all_of_its_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Transition("r", 0, at, "go", f"scene {at}", "back", 0.1, "n", False, at == 2) for at in range(3)]
    other = [Transition("r", 1, 0, "leave", "scene", "forward", -1.0, "n", True, False, Source.HUMAN)]
    for path, part in ((tmp_path / "run/replay.sqlite", steps), (tmp_path / "run/tasks/01/replay.sqlite", other)):
        with Replay(path) as replay:
            replay.append(part)
    assert main(["export", str(tmp_path / "run"), "--to", "lerobot", str(tmp_path / "set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4
    assert list(read_lerobot(tmp_path / "set")) == steps + other
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["features"]["action"]["names"] == ["index"]  # without a contract there are no velocities
    assert main(["export", str(tmp_path / "run"), "--to", "parquet", str(tmp_path / "x.parquet")]) == 0
    assert list(read_parquet(tmp_path / "x.parquet")) == steps + other


def test_bags_and_data_sets_are_imported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (episode,) = record(tmp_path / "bags", {"steps": 6})
    into = ["--into", str(tmp_path / "replay.sqlite"), "--robot", "sim_diffdrive", "--json"]
    for new in (6, 0):
        assert main(["record", "import", str(tmp_path / "bags"), *into]) == 0
        assert json.loads(capsys.readouterr().out)["new"] == new
    assert list(replay_transitions(tmp_path / "replay.sqlite")) == episode.transitions
    other = tmp_path / "other.yaml"
    other.write_text(CONTRACT.replace("turn left", "spin left"))
    foreign = ["--into", str(tmp_path / "other.sqlite"), "--robot", str(other)]
    assert main(["record", "import", str(tmp_path / "bags"), *foreign]) == 2
    assert "unknown action phrase" in capsys.readouterr().err


def test_what_is_no_data_set_or_is_there_already_is_refused(tmp_path: Path) -> None:
    form = DatasetFormat(1, "", PHRASES)
    step = Transition("r", 0, 0, "go", "s", "back", 0.0, "n", False, False)
    with pytest.raises(ConfigError, match="nothing to export"):
        write_lerobot(tmp_path / "none", [], form)
    with pytest.raises(ConfigError, match="action 'jump' is none of the robot's: forward, turn left, back"):
        write_lerobot(tmp_path / "none", [Transition("r", 0, 0, "t", "s", "jump", 0.0, "n", False, False)], form)
    assert list(tmp_path.iterdir()) == []
    write_lerobot(tmp_path / "set", [step], form)
    with pytest.raises(ConfigError, match="is there already"):
        write_lerobot(tmp_path / "set", [step], form)
    info: dict[str, Any] = json.loads((tmp_path / "set/meta/info.json").read_text())
    del info["features"]["observation.scene"]
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match=r"has no feature 'observation\.scene'"):
        list(read_lerobot(tmp_path / "set"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match="cannot be read"):
        list(read_parquet(tmp_path / "x.parquet"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "y.parquet")
    with pytest.raises(StoreError, match="it has no column 'run'"):
        list(read_parquet(tmp_path / "y.parquet"))


def test_a_full_disk_leaves_no_half_of_a_data_set(tmp_path: Path) -> None:
    steps = [
        Transition("r", 0, at, "go", np.random.default_rng(at).bytes(600).hex(), "back", 0.0, "n", False, False)
        for at in range(600)
    ]
    with small_file_system(tmp_path / "disk", "200k") as disk:
        with pytest.raises(StoreError, match="cannot be written"):
            write_lerobot(disk / "set", steps, DatasetFormat(1, "", PHRASES))
        with pytest.raises(StoreError, match="cannot be written"):
            write_parquet(disk / "steps.parquet", steps, {})
        assert list(disk.iterdir()) == []


def test_a_bag_gives_its_transitions_in_order(tmp_path: Path) -> None:
    (episode,) = record(tmp_path, {"steps": 4})
    (path,) = bags(tmp_path)
    assert bag_transitions(Bag(path)) == episode.transitions
    form = dataset_format(None, episode.transitions)
    assert form.phrases == tuple(dict.fromkeys(step.action for step in episode.transitions))


def test_a_replay_that_is_empty_hides_no_bags_and_a_failed_import_makes_none(tmp_path: Path) -> None:
    (episode,) = record(tmp_path / "run" / "bags", {"steps": 4, "camera": False})
    run = tmp_path / "run"
    assert store(run / "replay.sqlite", [], PHRASES) == (0, 0)
    with pytest.raises(ConfigError, match="unknown action phrase"):
        store(run / "replay.sqlite", episode.transitions, ("jump",))
    assert sorted(path.name for path in run.iterdir()) == ["bags"]
    Replay(run / "replay.sqlite").close()
    assert list(kept_transitions(run)) == episode.transitions
    store(run / "replay.sqlite", episode.transitions[:2])
    assert list(kept_transitions(run)) == episode.transitions[:2]


@pytest.fixture
def spoilt(tmp_path: Path) -> tuple[list[Path], list[Episode]]:
    """Four bags: one whose file is damaged, one whose metadata is, a sound one, and one that a kill cut off."""
    played = record(tmp_path / "bags", *({"steps": 4, "camera": False} for _ in range(4)))
    paths = list(bags(tmp_path / "bags"))
    (file,) = paths[0].glob("*.mcap")
    data = file.read_bytes()
    at = len(data) // 3
    file.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    (paths[1] / METADATA).write_text("rosbag2_bagfile_information: 3\n")
    (file,) = paths[3].glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-500])  # its index
    (paths[3] / METADATA).unlink()
    return paths, played


@pytest.mark.parametrize("command", ["import", "parquet", "lerobot"])
def test_a_damaged_bag_is_left_out_and_named(
    tmp_path: Path, spoilt: tuple[list[Path], list[Episode]], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (damaged, headless, _, cut), played = spoilt
    source, out = str(tmp_path / "bags"), tmp_path / f"out.{command}"
    words = {"import": ["record", "import", source, "--into", str(out)]}
    assert main(words.get(command, ["export", source, "--to", command, str(out)])) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert told[0].startswith(f"warning: {cut}: not finished, so only its beginning was taken")
    assert told[1].startswith(f"left out: {damaged}: damaged: {damaged.name}_0.mcap: a chunk is damaged")
    assert told[2].startswith(f"left out: {headless / METADATA}: not the metadata of a bag")
    read = {"import": replay_transitions, "parquet": read_parquet, "lerobot": read_lerobot}[command]
    wanted = played[2].transitions + played[3].transitions
    assert list(read(out)) == wanted
    assert main([*words["import"][:2], str(cut), "--into", str(tmp_path / "cut.sqlite")]) == 0  # a warning, no more
    assert "not finished" in capsys.readouterr().err
    with pytest.raises(StoreError, match="damaged"):
        list(kept_transitions(tmp_path / "bags"))
    with pytest.raises(StoreError, match="damaged: "):
        bag_transitions(Bag(damaged))


def test_the_contract_is_that_of_the_first_bag_that_can_be_read(
    tmp_path: Path, spoilt: tuple[list[Path], list[Episode]]
) -> None:
    paths, _ = spoilt
    (paths[0] / METADATA).write_text("no")
    assert main(["export", str(tmp_path / "bags"), "--to", "parquet", str(tmp_path / "x.parquet")]) == 1
    assert pq.read_table(tmp_path / "x.parquet").schema.metadata[b"robot"] == b"sim_diffdrive"
