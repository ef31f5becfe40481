"""What a recorder does at its start: it mends bags that were cut off, and loses nothing of what it cannot mend."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from bags_support import DEFINITIONS, FACTS, Episode, bags, record
from disk_support import small_file_system
from mcap.opcode import Opcode
from mcap.writer import Writer

from llmagent_ros.errors import StoreError
from llmagent_ros.recording.bags.inspection import verify
from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.reader import Bag
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder, Role
from llmagent_ros.recording.bags.repair import held, repair_all, sweep
from llmagent_ros.recording.bags.topics import BagMessage

# Begins a bag in argv[1], says so, and waits to be killed.
HOLDER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from bags_support import DEFINITIONS, FACTS, Episode
from llmagent_ros.recording.bags.recorder import BagsConfig, EpisodeRecorder

recorder = EpisodeRecorder(Path(sys.argv[1]), BagsConfig(flush_period=1e-9), FACTS, DEFINITIONS)
Episode(lambda message, role: (recorder.take(message, role), recorder.tick()), steps=2, camera=False).play()
print("recording", flush=True)
sys.stdin.read()
"""


def start(folder: Path, **config: float) -> EpisodeRecorder:
    return EpisodeRecorder(folder, BagsConfig(**config), FACTS, DEFINITIONS)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unfinished(folder: Path, steps: int = 3) -> Path:
    """A bag of many chunks whose recorder was killed, in a folder of bags."""
    made = folder.with_name(f"{folder.name}-made")
    recorder = start(made, flush_period=1e-9)

    def say(message: BagMessage, role: Role) -> None:
        recorder.take(message, role)
        recorder.tick()

    Episode(say, steps=steps, camera=False).play()
    (path,) = bags(made)
    folder.mkdir(parents=True, exist_ok=True)
    copy = shutil.copytree(path, folder / path.name)
    recorder.close()
    shutil.rmtree(made)
    return Path(copy)


def chunks(data: bytes) -> list[tuple[int, int]]:
    """Where the chunks of a file begin, and how many bytes of each follow its length."""
    found, at = [], 8
    while at + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, at)
        if opcode == Opcode.CHUNK:
            found.append((at, length))
        at += 9 + length
    return found


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def foreign_file(path: Path) -> None:
    """What another recorder has begun: JSON, and no footer."""
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile="", library="somebody's")
        schema = writer.register_schema("Status", "jsonschema", b"{}")
        writer.add_message(writer.register_channel("/status", "json", schema), 1, b"{}", 1)
        writer._Writer__finalize_chunk()  # type: ignore[attr-defined]


def test_a_damaged_chunk_anywhere_leaves_the_bag_as_it_is(tmp_path: Path) -> None:
    """What comes after it is sound, and a person may want it; also where the length of the chunk is what is damaged."""
    path = unfinished(tmp_path / "bags")
    (file,) = path.glob("*.mcap")
    (path / "notes.txt").write_text("mine")
    whole, messages = file.read_bytes(), [m.data for m in Bag(path).messages()]
    found, left = chunks(whole), 0
    first, middle = found[0], found[len(found) // 2]
    for at, length in (first, middle):
        for place in (at + 1, at + 3, at + 8, at + 9 + length // 2, at + 9 + length - 3):
            file.write_bytes(flip(whole, place))
            before = tree(tmp_path / "bags")
            repairs = repair_all(tmp_path / "bags")
            if repairs.mended:  # it could be read all the same
                assert [m.data for m in Bag(path).messages()] == messages
                (path / METADATA).unlink()
                continue
            left += 1
            assert str(file) in repairs.left[0] and "damaged, so left as it is" in repairs.left[0]
            assert tree(tmp_path / "bags") == before
            assert any("leaves it as it is, since it is damaged" in problem for problem in verify(path))
    assert left >= 6


@pytest.mark.parametrize("kind", ["pointer", "foreign", "sound foreign"])
def test_what_others_have_put_there_stays_and_is_named(tmp_path: Path, kind: str) -> None:
    cut = unfinished(tmp_path / "bags")
    drive = tmp_path / "bags" / "drive"
    drive.mkdir()
    if kind == "pointer":
        (drive / "drive_0.mcap").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n")
    else:
        foreign_file(drive / "drive_0.mcap")
    if kind == "foreign":
        data = (drive / "drive_0.mcap").read_bytes()
        (drive / "drive_0.mcap").write_bytes(data[: chunks(data)[0][0] + 20])  # within its only chunk
    (drive / "notes.txt").write_text("mine")
    before = tree(drive)
    recorder = start(tmp_path / "bags")
    assert tree(drive) == before
    assert [str(drive) in problem for problem in recorder.left] == [True]
    assert recorder.counts.mended == 1 and verify(cut) == []  # and the other one is mended all the same
    recorder.close()


@pytest.mark.parametrize("size", ["nothing", "magic", "facts", "half a chunk"])
def test_a_bag_that_holds_nothing_goes_but_nothing_that_is_not_of_it(tmp_path: Path, size: str) -> None:
    path, bare = unfinished(tmp_path / "bags"), tmp_path / "bags" / "bare"
    (file,) = path.glob("*.mcap")
    at, length = chunks(file.read_bytes())[0]
    begins = {"nothing": 0, "magic": 5, "facts": at, "half a chunk": at + 9 + length // 2}[size]
    file.write_bytes(file.read_bytes()[:begins])
    bare.mkdir()
    (bare / "bare_0.mcap").write_bytes(file.read_bytes())
    (path / "notes.txt").write_text("mine")
    assert repair_all(tmp_path / "bags").left == []
    assert tree(tmp_path / "bags") == {f"{path.name}/notes.txt": b"mine"} and not bare.exists()


def test_zeros_in_the_place_of_what_was_not_written_yet_are_no_damage(tmp_path: Path) -> None:
    path = unfinished(tmp_path / "bags")
    (file,) = path.glob("*.mcap")
    messages = [m.data for m in Bag(path).messages()]
    file.write_bytes(file.read_bytes() + bytes(4096))
    repairs = repair_all(tmp_path / "bags")
    assert (repairs.mended, repairs.left) == ([path], []) and verify(path) == []
    assert [m.data for m in Bag(path).messages()] == messages


def test_two_recorders_never_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bags"
    first = start(folder, flush_period=1e-9)

    def say(message: BagMessage, role: Role) -> None:
        first.take(message, role)
        first.tick()
        if message.topic.name == "/decision":
            before = tree(folder)
            with pytest.raises(StoreError, match=f"process {os.getpid()} records there already; stop it, or give"):
                start(folder)
            assert tree(folder) == before

    Episode(say, steps=2, camera=False).play()
    first.close()
    second = start(folder)
    assert second.counts.mended == 0 and second.left == []
    second.close()
    assert [verify(path) for path in bags(folder)] == [[]]


def test_kill_9_lets_the_next_recorder_in(tmp_path: Path) -> None:
    folder = tmp_path / "bags"
    command = [sys.executable, "-c", HOLDER, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "recording\n"
        with pytest.raises(StoreError, match=f"process {holder.pid} records there already"):
            start(folder)
        holder.kill()
    recorder = start(folder)
    assert recorder.counts.mended == 1
    recorder.close()
    assert [verify(path) for path in bags(folder)] == [[]]


def test_a_bag_that_cannot_be_begun_leaves_no_folder(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", "64k") as disk:
        recorder = start(disk / "bags", linger=0.0)
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        for number in range(3):
            Episode(recorder.take, number=number, steps=1, camera=False).play()
        assert "No space left on device" in recorder.problem and recorder.counts.lost > 0
        assert list(bags(disk / "bags")) == []
        ballast.unlink()
        Episode(recorder.take, number=3, steps=1, camera=False).play()
        recorder.close()
        assert recorder.problem == "" and [verify(path) for path in bags(disk / "bags")] == [[]]


def test_what_is_being_worked_in_is_not_swept(tmp_path: Path) -> None:
    for name in (".trash-redacted-a.x", ".trash-7-b", "..trash-redacted-c.y", "bag"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x_0.mcap").write_bytes(b"1")
    with held(tmp_path / ".trash-redacted-a.x") as alone:
        assert alone
        sweep(tmp_path, ".trash-redacted-")
        assert sorted(path.name for path in tmp_path.iterdir()) == [".trash-7-b", ".trash-redacted-a.x", "bag"]
    repair_all(tmp_path)  # what was left by a kill
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_finished_bag_is_none_of_its_business(tmp_path: Path) -> None:
    record(tmp_path, {"steps": 2, "camera": False})
    (path,) = bags(tmp_path)
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-100])
    before = tree(tmp_path)
    assert (path / METADATA).is_file() and repair_all(tmp_path).mended == [] and tree(tmp_path) == before
