"""What was taken out of a bag is in none of its bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from bags_support import DEFINITIONS, FACTS, TOPICS, Episode, bags, record
from mcap.records import Chunk
from mcap.stream_reader import StreamReader
from mcap.writer import Writer
from rosbags.highlevel import AnyReader

from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, StoreError, UnknownNameError
from llmagent_ros.experiments.recordings.contracts import recorded_contract
from llmagent_ros.recording.bags import redact as redaction
from llmagent_ros.recording.bags.facts import DECISION, EpisodeFacts
from llmagent_ros.recording.bags.inspection import verify
from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.reader import Bag
from llmagent_ros.recording.bags.recorder import LOCK, BagsConfig, EpisodeRecorder
from llmagent_ros.recording.bags.redact import redact, redact_in_place
from llmagent_ros.recording.bags.repair import held, repair_all

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
    exchange, fsync = redaction._exchange, os.fsync
    synced: dict[int, tuple[str, int]] = {}  # by inode: name and bytes when it was

    def note(descriptor: int) -> None:
        fsync(descriptor)
        name, status = Path(f"/proc/self/fd/{descriptor}").readlink().name, os.fstat(descriptor)
        synced[status.st_ino] = (name, status.st_mtime_ns)

    def look(new: Path, old: Path) -> None:
        assert verify(new) == [] and verify(old) == []
        for path in (*new.iterdir(), new):  # a power cut from here on finds it on the disk, under its names
            name, changed = synced[path.stat().st_ino]
            assert changed == path.stat().st_mtime_ns and (name == path.name or path.name == METADATA), path
        exchange(new, old)
        assert verify(new) == [] and verify(old) == []

    monkeypatch.setattr(redaction, "_exchange", look)
    monkeypatch.setattr(os, "fsync", note)
    redact_in_place(Bag(bag), ["/scan"], [SECRET])
    assert verify(bag) == [] and not holds(bag, SECRET) and "/scan" not in Bag(bag).topics
    assert list(bag.parent.glob(".trash*")) == [] and list(bags(bag.parent)) == [bag]
    assert all(path.name.startswith(bag.name) for path in bag.glob("*.mcap"))


# Redacts the bag argv[1] and is killed before (0) or after (1) the two folders have changed their names.
KILLED = """
import os, signal, sys
from pathlib import Path
from llmagent_ros.recording.bags import redact as redaction
from llmagent_ros.recording.bags.reader import Bag

exchange = redaction._exchange

def killed(new, old):
    if int(sys.argv[3]):
        exchange(new, old)
    os.kill(os.getpid(), signal.SIGKILL)

redaction._exchange = killed
redaction.redact_in_place(Bag(Path(sys.argv[1])), [], [sys.argv[2]])
"""


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("next_one", ["recorder", "redaction"])
def test_what_a_killed_redaction_leaves_is_cleared_away_by_the_next_one(
    bag: Path, tmp_path: Path, exchanged: bool, next_one: str
) -> None:
    command = [sys.executable, "-c", KILLED, str(bag), SECRET, str(int(exchanged))]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list(bag.parent.glob(".trash*"))) == 1
    assert verify(bag) == [] and holds(bag, SECRET) is not exchanged
    if next_one == "recorder":
        repair_all(bag.parent)
    else:  # of the same bag, to somewhere else
        redact(Bag(bag), ["/scan"], [], tmp_path / "clean" / "bag")
    assert list(bag.parent.glob(".*")) == [bag.parent / LOCK] and verify(bag) == []


def test_one_bag_is_redacted_in_place_by_one_process(bag: Path) -> None:
    with held(bag), pytest.raises(StoreError, match="is being redacted already"):
        redact_in_place(Bag(bag), ["/scan"], [])
    assert "/scan" in Bag(bag).topics


def test_through_a_link_it_is_the_bag_that_is_redacted(bag: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bag)
    redact_in_place(Bag(tmp_path / "link"), [], [SECRET])
    assert not holds(bag, SECRET) and (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bags", "link"]


def test_where_the_names_cannot_be_exchanged_the_original_stays(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in bag.iterdir()}
    monkeypatch.setattr(redaction, "_EXCHANGE", 1 << 20)  # a flag that no kernel knows
    with pytest.raises(StoreError, match="cannot be replaced in one step"):
        redact_in_place(Bag(bag), [], [SECRET])
    assert {path.name: path.read_bytes() for path in bag.iterdir()} == before
    assert list(bag.parent.glob(".*")) == [bag.parent / LOCK] and list(bags(bag.parent)) == [bag]


@pytest.mark.parametrize("text", ["Müller", "MÜLLER", "mü", 'say "hi"'])
def test_texts_that_json_has_escaped_go_too(tmp_path: Path, text: str) -> None:
    """Recorders of before wrote the facts so; and a person may have such a contract."""
    prompt = json.dumps({"cue": 'für Müller, say "hi"', "other": "MÜLLER"})
    assert "M\\u00fcller" in prompt and "M\\u00dcLLER" in prompt
    recorder = EpisodeRecorder(tmp_path / "bags", BagsConfig(), {**FACTS, "prompt": prompt}, DEFINITIONS)
    Episode(recorder.take, steps=2, camera=False, run="Müller_run").play()
    recorder.close()
    (path,) = bags(tmp_path / "bags")
    redact(Bag(path), [], [text], tmp_path / "clean")
    said = json.loads(Bag(tmp_path / "clean").facts["prompt"])
    assert text.lower() not in json.dumps(said, ensure_ascii=False).lower() and "redacted" in said["cue"]
    escaped = json.dumps(text)[1:-1]
    assert not holds(tmp_path / "clean", text) and not holds(tmp_path / "clean", escaped)


def test_facts_that_a_recorder_writes_can_be_searched(tmp_path: Path) -> None:
    facts = EpisodeFacts({})
    facts.take(DECISION, SimpleNamespace(run="r", episode=0, adapter="Käse", adapter_digest="d"))
    assert "Käse" in facts.facts()["adapters"]


def test_an_escaped_text_that_is_left_is_found(bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction._Replacer, "facts", lambda self, facts: {**facts, "x": json.dumps("Müller")})
    with pytest.raises(StoreError, match="'MÜLLER' is left"):
        redact(Bag(bag), [], ["MÜLLER"], tmp_path / "clean")


@pytest.mark.parametrize("schema", ["jsonschema", "none"])
def test_other_encodings_are_refused_by_name(tmp_path: Path, schema: str) -> None:
    """They would be said to be CDR in what is written."""
    path = tmp_path / "other.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile="", library="somebody's")
        status = writer.register_schema("Status", "jsonschema", b"{}") if schema != "none" else 0
        cdr = writer.register_schema("std_msgs/msg/Bool", "ros2msg", b"bool data")
        for topic, encoding, kind in (("/status", "json", status), ("/stop", "cdr", cdr)):
            channel = writer.register_channel(topic, encoding, kind)
            writer.add_message(channel, 1, b"{}" if encoding == "json" else b"\0\1\0\0\1", 1)
        writer.finish()
    with pytest.raises(StoreError, match=r"/status has messages as 'json'.*valid: cdr, ros2msg"):
        redact(Bag(path), ["/stop"], [], tmp_path / "clean")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other.mcap"]
    redact(Bag(path), ["/status"], [], tmp_path / "clean")
    assert [m.topic.name for m in Bag(tmp_path / "clean").messages()] == ["/stop"]


@pytest.mark.parametrize("out", ["file/x/BAG", "/proc/nope/BAG"])
def test_a_place_that_cannot_be_written_is_one_line(
    bag: Path, tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["record", "redact", str(bag), "--topics", "/scan", "--out", str(tmp_path / out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


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
