"""The store: what it takes, what it gives back, who may write, what a full disk and another file do."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk_support import small_file_system
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError, LlmAgentError, StoreError, UnknownNameError
from llmagent_ros.learning.rl.replay import Replay, ReplayConfig
from llmagent_ros.types import Source, Transition

VOCABULARY = ("forward", "stop")
GOOD = Transition("run", 1, 0, "task", "scene 0", "forward", 1.5, "scene 1", False, False)


def step(number: int, **change: object) -> Transition:
    made = dataclasses.replace(
        GOOD, step=number, reward=float(number), scene=f"scene {number}", next_scene=f"scene {number + 1}"
    )
    return dataclasses.replace(made, **change)  # type: ignore[arg-type]


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Replay]:
    with Replay(tmp_path / "replay.sqlite", VOCABULARY) as opened:
        yield opened


def test_every_field_comes_back(tmp_path: Path) -> None:
    full = Transition(
        *("run ü", 3, 4, "Füße\nlesen", "scène 1", "stop", -0.1, "scène 2", True, False, Source.HUMAN, -1.25, 12.34),
        extra={"adapter": "v000012", "note": "by hand"},
    )
    plain = dataclasses.replace(GOOD, reward=np.float32(0.1), episode=np.int64(7), extra={})  # type: ignore[arg-type]
    with Replay(tmp_path / "deep" / "replay.sqlite") as replay:
        assert replay.append([full, plain]) == 2
    with Replay(tmp_path / "deep" / "replay.sqlite") as replay:
        assert len(replay) == 2
        assert replay.recent(10) == [full, plain]
        assert replay.recent(1) == [plain]
        assert replay.episode("run ü", 3) == [full]
        assert replay.episode("run ü", 4) == replay.episode("nobody", 3) == []
        assert replay.vocabulary == ("stop", "forward")  # in order of arrival, none having been given


def test_ends_and_tasks_are_counted_over_restarts(tmp_path: Path) -> None:
    ends = [
        step(1, terminated=True, reward=1.0),
        step(1, episode=2, terminated=True, reward=-1.0),
        step(1, episode=3, truncated=True, reward=1.0),
        step(1, episode=4, terminated=True, reward=0.5, task="another"),
        step(1, episode=5, task=""),
        step(2, episode=5, task=""),
        step(1, episode=6, terminated=True, reward=1.0, source=Source.HUMAN),
        step(1, episode=7, terminated=True, reward=-1.0, source=Source.SCRIPT),
    ]
    with Replay(tmp_path / "replay.sqlite", VOCABULARY) as replay:
        assert replay.endings() == (0, 0) and replay.tasks(8) == []
        assert replay.append(ends) == len(ends) and replay.append(ends) == 0
        assert replay.endings() == (4, 2), "sent again they count once; what a person ended does not"
    with Replay(tmp_path / "replay.sqlite", VOCABULARY) as replay:
        assert replay.endings() == (4, 2)
        assert replay.tasks(8) == ["task", "another"] and replay.tasks(1) == ["task"]


def test_an_episode_is_read_in_order_of_steps(replay: Replay) -> None:
    replay.append([step(2, truncated=True), step(0), step(1), step(0, episode=2)])
    assert [t.step for t in replay.episode("run", 1)] == [0, 1, 2]
    newest = replay.episodes()
    assert [(e.run, e.episode, e.steps, e.reward, e.terminated, e.truncated) for e in newest] == [
        ("run", 1, 3, 3.0, False, True),
        ("run", 2, 1, 0.0, False, False),
    ]
    assert [e.episode for e in replay.episodes(last=1)] == [2]


def test_the_first_of_a_key_wins(replay: Replay) -> None:
    assert replay.append([step(0), step(0, reward=9.0), step(1)]) == 2
    assert replay.append([step(1, reward=9.0), step(2)]) == 1
    assert replay.append([step(0), step(1), step(2)]) == 0
    assert [t.reward for t in replay.recent(9)] == [0.0, 1.0, 2.0]
    assert len(replay) == 3


def test_a_text_is_stored_once(replay: Replay, tmp_path: Path) -> None:
    replay.append([step(number) for number in range(50)])
    with sqlite3.connect(tmp_path / "replay.sqlite") as database:
        assert database.execute("SELECT count(*) FROM texts").fetchone() == (51,)
    database.close()


MALFORMED: dict[str, dict[str, Any]] = {
    "reward is nan": {"reward": float("nan")},
    "reward is inf": {"reward": float("inf")},
    "reward is 1e+39": {"reward": 1e39},
    "scene is empty": {"scene": ""},
    "next_scene is empty": {"next_scene": ""},
    "action is empty": {"action": ""},
    "run is empty": {"run": ""},
    "log_probability is -inf": {"log_probability": float("-inf")},
    "log_probability is 0.5": {"log_probability": 0.5},
    "stamp is nan": {"stamp": float("nan")},
    "episode is not a whole": {"episode": -1},
    "step is not a whole": {"step": 2**32},
    "episode is not a whole number": {"episode": 1.5},
    "reward is 1.0, not": {"reward": "1.0"},
    "unknown action phrase": {"action": "fly"},
    "unknown source": {"source": "oracle"},
    "scene is not Unicode": {"scene": "\ud800"},
    "task is int": {"task": 5},
    "extra.adapter is int": {"extra": {"adapter": 5}},
}


@pytest.mark.parametrize("culprit", MALFORMED)
def test_a_malformed_one_is_named_and_nothing_of_its_batch_stored(replay: Replay, culprit: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replay.append([step(5), dataclasses.replace(step(6), **MALFORMED[culprit])])
    assert culprit in str(caught.value)
    assert "run'/1/6" in str(caught.value) or "episode" in culprit or "step" in culprit or "run is" in culprit
    assert len(replay) == 0
    assert replay.recent(5) == []


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.builds(
            Transition,
            run=st.text(max_size=3),
            episode=st.integers(-1, 3),
            step=st.integers(-1, 3),
            task=st.text(max_size=5),
            scene=st.text(max_size=8),
            action=st.text(max_size=4),
            reward=st.floats(width=32),
            next_scene=st.text(max_size=8),
            terminated=st.booleans(),
            truncated=st.booleans(),
            source=st.sampled_from(Source),
            log_probability=st.floats(max_value=0.0),
            stamp=st.floats(),
            extra=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        ),
        max_size=6,
    )
)
def test_whatever_comes_is_refused_as_a_whole_or_comes_back_equal(data: list[Transition], tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    with Replay(tmp_path_factory.mktemp("replay") / "replay.sqlite") as replay:
        try:
            new = replay.append(data)
        except LlmAgentError:
            assert replay.recent(99) == []
            return
        first = {(t.run, t.episode, t.step): t for t in reversed(data)}
        expected = [t for position, t in enumerate(data) if t is first[t.run, t.episode, t.step] and position >= 0]
        assert replay.recent(99) == expected
        assert new == len(expected)


def test_a_second_writer_is_told_who_has_it(replay: Replay, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llmagent_ros.learning.rl.replay import Replay\n"
        "from llmagent_ros.errors import StoreError\n"
        "try: Replay(Path(sys.argv[1]))\n"
        "except StoreError as error: print(error); sys.exit(2)\n"
    )
    path = tmp_path / "replay.sqlite"
    other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert other.returncode == 2, other.stderr
    assert str(path) in other.stdout and f"process {os.getpid()}" in other.stdout
    with pytest.raises(StoreError, match="in use"):
        Replay(path)
    replay.close()
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60).returncode == 0
    Replay(path).close()


def test_a_reader_follows_the_writer_and_may_not_write(replay: Replay, tmp_path: Path) -> None:
    replay.append([step(0), step(2)])
    with Replay(tmp_path / "replay.sqlite", VOCABULARY, read_only=True) as reader:
        assert len(reader) == 2
        replay.append([step(1), step(3)])
        assert len(reader) == 2
        assert reader.refresh() == 2
        assert reader.refresh() == 0
        assert reader.at([0], 4, 1.0).returns[0] == 6.0
        with pytest.raises(StoreError, match="read-only"):
            reader.append([step(9)])
        with pytest.raises(StoreError, match="read-only"):
            reader.use_base("base", 4)
    with pytest.raises(StoreError, match="no such replay"):
        Replay(tmp_path / "nowhere.sqlite", read_only=True)


def test_a_full_store_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    config = ReplayConfig(max_bytes=1 << 17)  # becomes SQLite's max_page_count, so a real SQLITE_FULL
    path = tmp_path / "replay.sqlite"
    stored: list[Transition] = []
    with Replay(path, config=config) as replay:
        with pytest.raises(StoreError, match=r"replay\.sqlite: cannot be written.*full"):
            for number in range(2000):
                batch = [step(2 * number, task=f"task {number}"), step(2 * number + 1, next_scene="x" * 300)]
                replay.append(batch)
                stored += batch
        assert len(stored) > 20
        assert replay.recent(4000) == stored
        assert len(replay) == len(stored)
        assert replay.sample(8, 3, 0.9, np.random.default_rng(0)).returns.shape == (8,)
    with Replay(path) as replay:  # with room again it goes on, ids included
        assert replay.recent(4000) == stored
        assert replay.append(batch) >= 1
        assert replay.append([step(9_000_000, task="new")]) == 1
        assert replay.recent(1)[0] == step(9_000_000, task="new")


def test_a_failed_append_leaves_no_trace_in_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    after = [step(1, task="third task", scene="third scene"), step(2, run="other run", episode=4)]
    with Replay(path, config=ReplayConfig(max_bytes=1 << 17)) as replay:
        replay.append([step(0)])
        with pytest.raises(StoreError, match="full"):
            replay.append([step(1, task="lost task", run="lost run"), step(2, scene="x" * (1 << 18))])
        assert replay.append(after) == 2
    with Replay(path) as replay:
        assert replay.recent(9) == [step(0), *after]
        assert replay.task(replay.at([1], 1, 1.0).task[0]) == "third task"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "disk", "1m") as folder:
        yield folder


def test_a_full_disk_loses_nothing_acknowledged(small_disk: Path) -> None:
    path = small_disk / "replay.sqlite"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 300_000)
    stored: list[Transition] = []
    with Replay(path) as replay:
        with pytest.raises(StoreError, match="full"):
            for number in range(4000):
                replay.append([step(number, scene=f"{number} " + "x" * 500)])
                stored.append(step(number, scene=f"{number} " + "x" * 500))
        assert replay.recent(5000) == stored
        filler.unlink()
        assert replay.append([step(9999)]) == 1
    with Replay(path) as replay:
        assert replay.recent(5000) == [*stored, step(9999)]


def test_other_files_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look at\n" * 50)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine(x)")
    database.close()
    before = {path: path.read_bytes() for path in (text, other)}
    for path in before:
        with pytest.raises(StoreError, match=path.name):
            Replay(path)
        assert path.read_bytes() == before[path]


def test_another_schema_version_and_lost_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    with Replay(path) as replay:
        replay.append([step(number) for number in range(5)])
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM transitions WHERE id = 2")
    database.close()
    with pytest.raises(StoreError, match="damaged"):
        Replay(path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="version 99"):
        Replay(path)


def test_the_vocabulary_must_cover_the_store(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    with Replay(path, VOCABULARY) as replay:
        replay.append([step(0, action="stop")])
    with Replay(path, ("back", "stop")) as replay:  # another order: indices follow the vocabulary, not the file
        assert replay.at([0], 1, 1.0).action.tolist() == [1]
    with pytest.raises(StoreError, match=r"'stop'.*forward, back"):
        Replay(path, ("forward", "back"))
    with pytest.raises(ConfigError, match="vocabulary"):
        Replay(path, ("stop", "stop"))
    with Replay(path, VOCABULARY) as replay, pytest.raises(UnknownNameError, match="valid: forward, stop"):
        replay.append([step(1, action="fly")])


def test_a_checkpoint_of_another_store_or_of_more_is_refused(replay: Replay, tmp_path: Path) -> None:
    replay.append([step(0)])
    before = replay.state()
    replay.append([step(1)])
    replay.check_state(before)  # more than then is no harm
    with pytest.raises(StoreError, match="holds 2"):
        replay.check_state({**before, "transitions": 3})
    with Replay(tmp_path / "other.sqlite") as other, pytest.raises(StoreError, match="not the replay"):
        other.check_state(before)


def test_closed_means_closed(replay: Replay) -> None:
    replay.close()
    replay.close()
    with pytest.raises(StoreError, match="closed"):
        replay.append([step(0)])


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns every few bytecodes, so that what is not guarded is seen half done."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_sampling_beside_an_appending_thread_is_consistent(replay: Replay, eager_switching: None) -> None:
    replay.append([step(0)])

    def write() -> None:
        for number in range(1, 8000, 10):
            replay.append([step(k) for k in range(number, number + 10)])

    writer = threading.Thread(target=write)
    writer.start()
    rng = np.random.default_rng(0)
    while writer.is_alive():
        batch = replay.sample(32, 3, 1.0, rng)
        first = batch.window.rewards[:, 0]
        assert (batch.window.positions == first).all()
        for offset in range(3):
            there = batch.window.mask[:, offset]
            assert (batch.window.rewards[there, offset] == first[there] + offset).all()
    writer.join()
    assert len(replay) == 8001
    assert replay.at([0], 9000, 1.0).steps[0] == 8001


def test_memory_stays_small_while_the_disk_fills(tmp_path: Path) -> None:
    """200,000 transitions, whose texts alone are 60 MB: under 50 bytes each in arrays, and no more beside them."""
    count, path = 200_000, tmp_path / "replay.sqlite"
    with Replay(path, VOCABULARY) as replay:
        replay.append([step(0)])
    _bulk(path, count)
    tracemalloc.start()
    started = time.process_time()
    with Replay(path, VOCABULARY) as replay:
        opened = time.process_time() - started
        assert len(replay) == count
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert replay.nbytes <= 50 * count
        assert held <= 50 * count + (1 << 20)
        assert peak <= held + (16 << 20)  # chunks on their way
        assert replay.at([0], 3, 1.0).steps.tolist() == [3]
        assert replay.at([count - 1], 3, 1.0).steps.tolist() == [1]
    assert opened < 30.0  # with tracemalloc on; measured 1 to 3 s


def _bulk(path: Path, count: int) -> None:
    """Rows 1..count-1 straight into the tables, as appending them would have."""
    with sqlite3.connect(path) as database:
        database.executemany(
            "INSERT INTO texts VALUES(?, ?, ?)",
            ((number, number.to_bytes(16, "big"), f"{number:0300d}") for number in range(2, count + 1)),
        )
        one = database.execute("SELECT * FROM transitions").fetchone()
        database.executemany(
            f"INSERT INTO transitions VALUES({','.join('?' * 16)})",
            ((k, *one[1:3], k, one[4], k, *one[6:8], k + 1, *one[9:]) for k in range(1, count)),
        )
    database.close()
