"""What was taken out of a bag is in none of its bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from bags_support import TOPICS, bags, record
from mcap.records import Chunk
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader

from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, StoreError, UnknownNameError
from llmagent_ros.experiments.recordings.contracts import recorded_contract
from llmagent_ros.recording.bags import redact as redaction
from llmagent_ros.recording.bags.inspection import verify
from llmagent_ros.recording.bags.reader import Bag
from llmagent_ros.recording.bags.redact import redact, redact_in_place
from llmagent_ros.recording.bags.repair import repair_all

SECRET = "Ann's Käse drawer"


def every_byte(bag: Path) -> Iterator[bytes]:
    """The files of a bag as they are, and with their chunks taken apart by other means than ours."""
    for path in bag.rglob("*"):
        yield path.read_bytes()
        if path.suffix != ".mcap":
            continue
        with path.open("rb") as file:
            for found in StreamReader(file, emit_chunks=True).records:
                if isinstance(found, Chunk):
                    plain = zstandard.decompress(found.data, found.uncompressed_size)
                    assert zlib.crc32(plain) == found.uncompressed_crc
                    yield plain


def holds(bag: Path, text: str) -> bool:
    return any(text.lower() in data.decode("utf-8", "ignore").lower() for data in every_byte(bag))


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    record(tmp_path / "bags", {"instruction": f"go to the red ball by {SECRET}"}, file_mb=0.03)
    (path,) = bags(tmp_path / "bags")
    assert holds(path, SECRET) and len(list(path.glob("*.mcap"))) > 2
    return path


def test_texts_and_topics_are_gone_and_all_else_is_there(bag: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in bag.iterdir()}
    done = redact(Bag(bag), ["/camera/image_raw", "/camera/camera_info"], [SECRET], tmp_path / "clean")
    assert not holds(tmp_path / "clean", SECRET)
    assert {path.name: path.read_bytes() for path in bag.iterdir()} == before
    assert verify(tmp_path / "clean") == []
    old, new = list(Bag(bag).messages()), list(Bag(tmp_path / "clean").messages())
    assert "/scan" in {m.topic.name for m in new} and not any("camera" in m.topic.name for m in new)
    assert done.removed == len(old) - len(new) and done.kept == len(new)
    untouched = {"/scan", "/odom", "/cmd_vel", "/outcome"}
    assert [m for m in new if m.topic.name in untouched] == [m for m in old if m.topic.name in untouched]
    with AnyReader([tmp_path / "clean"]) as reader:
        asked = [c for c in reader.connections if c.topic == "/task"]
        instructions = [reader.deserialize(data, c.msgtype).instruction for c, _, data in reader.messages(asked)]
    assert instructions[0] == "go to the red ball by redacted"


def test_texts_go_whatever_their_case_and_wherever_they_stand(bag: Path, tmp_path: Path) -> None:
    redact(Bag(bag), [], ["RED BALL", "KÄSE", "keep left"], tmp_path / "clean")
    for text in ("red ball", "käse", "keep left"):
        assert holds(bag, text) and not holds(tmp_path / "clean", text)
    assert recorded_contract(Bag(tmp_path / "clean")).robot == "sim_diffdrive"  # still one, with other names
    assert verify(tmp_path / "clean") == []


def test_in_place_there_is_always_one_whole_bag(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = redaction._exchange

    def look(new: Path, old: Path) -> None:
        assert verify(new) == [] and verify(old) == []
        exchange(new, old)
        assert verify(new) == [] and verify(old) == []

    monkeypatch.setattr(redaction, "_exchange", look)
    redact_in_place(Bag(bag), ["/scan"], [SECRET])
    assert verify(bag) == [] and not holds(bag, SECRET) and "/scan" not in Bag(bag).topics
    assert [path.name for path in bag.parent.iterdir()] == [bag.name]
    assert all(path.name.startswith(bag.name) for path in bag.glob("*.mcap"))


def test_the_original_does_not_outlive_a_kill_that_came_before_it_was_deleted(
    bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(redaction, "discard", killed)
    with pytest.raises(KeyboardInterrupt):
        redact_in_place(Bag(bag), [], [SECRET])
    assert len(list(bag.parent.iterdir())) == 2 and not holds(bag, SECRET)
    repair_all(bag.parent)  # as the next recorder does
    assert [path.name for path in bag.parent.iterdir()] == [bag.name] and verify(bag) == []


def test_where_the_names_cannot_be_exchanged_the_original_stays(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in bag.iterdir()}
    monkeypatch.setattr(redaction, "_EXCHANGE", 1 << 20)  # a flag that no kernel knows
    with pytest.raises(StoreError, match="cannot be replaced in one step"):
        redact_in_place(Bag(bag), [], [SECRET])
    assert {path.name: path.read_bytes() for path in bag.iterdir()} == before
    assert [path.name for path in bag.parent.iterdir()] == [bag.name]


def test_a_text_that_cannot_be_taken_out_is_an_error_and_leaves_nothing(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'camera_info' is left in what /camera/camera_info is"):
        redact(Bag(bag), [], ["camera_info"], tmp_path / "clean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bags"]
    redact(Bag(bag), ["/camera/camera_info"], ["camera_info"], tmp_path / "clean")  # as it says
    assert not holds(tmp_path / "clean", "camera_info")


def test_what_is_not_there_or_says_nothing_is_refused(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="/scan"):
        redact(Bag(bag), ["/lidar"], [], tmp_path / "clean")
    with pytest.raises(ConfigError, match="nothing to take out"):
        redact(Bag(bag), [], [], tmp_path / "clean")
    with pytest.raises(ConfigError, match="too short"):
        redact(Bag(bag), [], ["a"], tmp_path / "clean")
    with pytest.raises(ConfigError, match="part of 'redacted'"):
        redact(Bag(bag), [], ["act"], tmp_path / "clean")
    with pytest.raises(ConfigError, match="is there already"):
        redact(Bag(bag), ["/scan"], [], tmp_path)


def test_a_damaged_bag_is_not_redacted(bag: Path, tmp_path: Path) -> None:
    last = sorted(bag.glob("*.mcap"))[-1]
    last.write_bytes(last.read_bytes()[:-40])
    with pytest.raises(StoreError, match="damaged, so not redacted"):
        redact(Bag(bag), ["/scan"], [], tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


def test_the_command(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "redact", str(bag), "--topics", "/scan", "/odom", "--texts", SECRET, "red ball"]
    assert main([*words, "--out", str(tmp_path / "clean")]) == 0
    assert "messages left out" in capsys.readouterr().out
    assert not holds(tmp_path / "clean", SECRET)
    assert set(Bag(tmp_path / "clean").topics) == {f"/{name}" for name in TOPICS} - {
        "/scan", "/odom", "/adapter", "/e_stop",
    }  # fmt: skip
    assert main([*words, "--in-place"]) == 0
    assert not holds(bag, "red ball")
