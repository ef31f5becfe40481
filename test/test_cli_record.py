"""`llmagent record list` and `verify`, and `llmagent export`, as a person sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bags_support import DEFINITIONS, FACTS, Episode, bags, record

from llmagent_ros.cli.main import main
from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder, Role
from llmagent_ros.recording.bags.topics import BagMessage


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two finished bags and one that was cut off."""
    record(tmp_path / "bags", {"steps": 4}, {"steps": 6})
    recorder = EpisodeRecorder(tmp_path / "bags", BagsConfig(flush_period=1e-9), FACTS, DEFINITIONS)

    def say(message: BagMessage, role: Role) -> None:
        recorder.take(message, role)
        recorder.tick()

    Episode(say, number=2, seed=2, steps=3, log_time=1_700_000_100_000_000_000).play()
    recorder._open[0].writer.abandon()
    return tmp_path


def test_list(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "list", str(run)]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "_episode_" in line]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    assert [row[2] for row in rows] == ["0", "1", "2"] and [row[6] for row in rows] == ["4", "6", "3"]
    assert [row[4] for row in rows] == ["timeout", "timeout", "unfinished"]
    assert all(row[3].startswith("go to the ") and row[7] == "v000007" for row in rows)
    assert "3 bags" in printed


def test_list_as_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "list", str(run), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["steps"] for each in listed] == [4, 6, 3]
    assert [each["finished"] for each in listed] == [True, True, False]
    assert all(each["success"] is False and each["nbytes"] > 1000 and each["messages"] > 20 for each in listed)


def test_verify(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "verify", str(run)]) == 1
    assert f"not finished (no {METADATA})" in capsys.readouterr().out
    first, second, cut = bags(run / "bags")
    assert main(["record", "verify", str(first)]) == 0
    assert "sound: 1 bags" in capsys.readouterr().out
    metadata = (second / METADATA).read_text()
    (second / METADATA).write_text(metadata.replace("footprint_radius", "footprint_size"))
    assert main(["record", "verify", str(second), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "the contract in it is not the one that its hash is of" in problem
    (second / METADATA).write_text(metadata.replace("message_count: 6\n", "message_count: 5\n"))
    assert main(["record", "verify", str(second)]) == 1
    assert "messages, there are" in capsys.readouterr().out
    assert cut.is_dir()


def test_what_is_not_there_is_said_with_what_would_be_valid(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "list", str(run / "nowhere")]) == 2
    assert "no such bag or run" in capsys.readouterr().err
    (run / "empty").mkdir()
    assert main(["record", "list", str(run / "empty")]) == 2
    assert "give a bag, a folder of bags, or a run that was recorded (record:=true)" in capsys.readouterr().err
    assert main(["export", str(run / "empty"), "--to", "parquet", str(run / "x.parquet")]) == 2
    assert main(["record", "scenes", str(run / "empty")]) == 2
    assert not (run / "x.parquet").exists()


def test_an_unfinished_bag_is_exported_too(run: Path) -> None:
    assert main(["export", str(run), "--to", "parquet", str(run / "all.parquet")]) == 0
    assert main(["export", str(run), "--to", "parquet", str(run / "all.parquet")]) == 2  # never over another


@pytest.mark.parametrize("content", ["rosbag2_bagfile_information: 3\n", "episode: x"])
def test_a_damaged_bag_is_listed_as_such_beside_the_others(
    run: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    first, second, _ = bags(run / "bags")
    metadata = (second / METADATA).read_text().replace("  episode: '1'", "  episode: x")
    assert "  episode: x" in metadata
    (second / METADATA).write_text(metadata if content == "episode: x" else content)
    assert main(["record", "list", str(run)]) == 1
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in printed.splitlines() if "|" in line]
    assert [row[4] for row in rows[2:]] == ["timeout", "damaged", "unfinished"]
    assert printed.splitlines()[-1].startswith(str(second))
    assert main(["record", "list", str(run), "--json"]) == 1
    listed = json.loads(capsys.readouterr().out)
    assert [bool(each["problem"]) for each in listed] == [False, True, False]
    assert [each["path"] for each in listed][:2] == [str(first), str(second)]
