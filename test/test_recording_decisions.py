"""The log of decisions: what is put comes back, whatever comes late, is killed, or does not fit."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decisions_support import put_forever, record, same, verdict
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.recording.decision_reader import DecisionReader
from llmagent_ros.recording.decision_rows import DECISIONS, DecisionRecord, EpisodeEnd
from llmagent_ros.recording.decisions import DecisionLog
from llmagent_ros.recording.recorder import RecorderConfig, RunRecorder
from llmagent_ros.types import Decision, Outcome, RetrievedSkill, Source, Velocity, Verdict

SKILLS = (RetrievedSkill("a", "go to the ball", 0.75), RetrievedSkill("b", "explore", -0.5))
KILLS = 12
_CONTEXT = multiprocessing.get_context("forkserver")


def kept(out: Path) -> list[DecisionRecord]:
    """All that is kept, by number."""
    with DecisionReader(out) as reader:
        numbers = [n for e in reader.episodes() for n in range(e.first, e.last + 1)]
        return [reader.find(str(number)) for number in sorted(numbers)]


# --- round trip ---------------------------------------------------------------------------------------

reals = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(allow_nan=False, width=32)
velocities = st.builds(Velocity, reals, reals)
phrases = st.lists(st.text(max_size=12), min_size=1, max_size=8, unique=True)


@st.composite
def decisions(draw: Any) -> Decision:
    candidates = tuple(draw(phrases))
    count = len(candidates)
    weights = st.lists(singles, min_size=count, max_size=count)
    probabilities, values = (np.array(draw(weights), np.float32) for _ in range(2))
    names = draw(st.sampled_from(candidates)), draw(reals)
    said = draw(st.sampled_from(["", *candidates]))
    return Decision(*names, candidates, probabilities, values, draw(st.text()), draw(st.sampled_from(Source)), said)


@st.composite
def records(draw: Any) -> DecisionRecord:
    """Anything that a run may say, with what is known late or without."""
    stamp = draw(reals)
    maybe = st.none()
    skills = st.lists(st.builds(RetrievedSkill, st.text(), st.text(), reals), max_size=3).map(tuple)
    limits = st.lists(st.sampled_from(["speed", "acceleration"]), unique=True).map(tuple)
    sources = st.sampled_from(["policy", "teleop", "stop"])
    verdicts = st.builds(Verdict, velocities, sources, maybe | st.text(), limits, st.just(stamp), velocities)
    return DecisionRecord(
        *(draw(st.text()), draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**32 - 1))),
        *(draw(st.text()), draw(st.text()), stamp, draw(st.text()), draw(st.text()), draw(decisions()), draw(reals)),
        skills=draw(maybe | skills),
        beginning=draw(st.text()),
        latency_ms=draw(maybe | reals),
        verdict=draw(maybe | verdicts),
        outcome=draw(maybe | st.builds(Outcome, reals, st.booleans(), st.booleans())),
        next_scene=draw(st.text()),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), min_size=1, max_size=6, unique_by=lambda one: (one.run, one.episode, one.step)))
def test_any_record_comes_back(tmp_path_factory: pytest.TempPathFactory, put: list[DecisionRecord]) -> None:
    out = tmp_path_factory.mktemp("log")
    log = DecisionLog(out / DECISIONS)
    for one in put:
        log.put(one)
    log.close()
    with DecisionReader(out) as reader:
        for number, one in enumerate(put):
            assert same(reader.find(str(number)), one, but=("number",))


# --- what comes late ----------------------------------------------------------------------------------

END = EpisodeEnd(False, "collision", -1.5, 2)


def events(log: DecisionLog) -> dict[str, Callable[[], object]]:
    return {
        "decision": lambda: log.put(record(3)),
        "task": lambda: log.on_task("task 0", "go to the red ball", SKILLS, "begins with a"),
        "command": lambda: (log.on_verdict(verdict(1.5, limited=("acceleration",))), log.on_latency(1.5, 14.25)),
        "outcome": lambda: log.on_outcome("run", 0, 3, Outcome(-1.0, terminated=True), "the end"),
    }


def test_what_is_known_of_a_decision_is_joined_whatever_order_it_comes_in(tmp_path: Path) -> None:
    expected = record(
        3,
        number=0,
        task="go to the red ball",
        skills=SKILLS,
        beginning="begins with a",
        verdict=verdict(1.5, limited=("acceleration",)),
        latency_ms=14.25,
        outcome=Outcome(-1.0, True, False, False, "collision"),
        next_scene="the end",
        end=END,
    )
    for number, order in enumerate(itertools.permutations(("decision", "task", "command", "outcome"))):
        out = tmp_path / str(number)
        log = DecisionLog(out / DECISIONS)
        happens = events(log)
        for name in order:
            happens[name]()
        log.on_episode_end("run", 0, END)
        log.close()
        (found,) = kept(out)
        assert same(found, expected), order


def test_what_comes_first_stays_and_what_is_of_others_is_left_alone(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS)
    for number in range(2):
        log.put(record(number))
        log.on_verdict(verdict(0.5 * number))
    log.put(record(1, scene="put again"))
    log.on_verdict(verdict(0.5, reason="e_stop"))
    log.on_verdict(verdict(77.0, reason="e_stop"))
    log.on_outcome("another run", 0, 1, Outcome(5.0), "")
    log.close()
    found = kept(tmp_path)
    assert len(found) == 2
    for number, one in enumerate(found):
        assert same(one, record(number, verdict=verdict(0.5 * number)), but=("number",))


@pytest.mark.parametrize("late", [False, True])
def test_a_decision_after_the_last_step_is_no_step(tmp_path: Path, late: bool) -> None:
    """The policy may decide on the last scene before it hears that the episode has ended."""
    log = DecisionLog(tmp_path / DECISIONS)
    log.put(record(0))
    if not late:
        log.put(record(1))
    log.on_outcome("run", 0, 0, Outcome(1.0, terminated=True), "the end")
    if late:
        log.put(record(1))
    log.on_verdict(verdict(0.5, reason="no_scan"))
    log.put(record(0, episode=1, stamp=2.0))
    log.on_verdict(verdict(0.5, reason="stale_scan"))  # the command was sent again
    log.on_verdict(verdict(2.0))
    log.close()
    found = kept(tmp_path)
    assert [(one.number, one.episode, one.step) for one in found] == [(0, 0, 0), (1, 1, 0)], "no number is left out"
    assert found[0].verdict is None and found[1].verdict == verdict(2.0)


def test_what_is_not_known_is_bounded(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS)
    for number in range(5000):
        log.on_verdict(verdict(float(number)))
        log.on_task(str(number), "", ())
    assert len(log._early) + len(log._tasks) < 2500
    assert not (tmp_path / DECISIONS).exists(), "without a decision there is nothing to keep"


# --- the file -----------------------------------------------------------------------------------------


def test_it_is_read_while_it_is_written_and_gone_on_with(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS, delay=1000.0)
    log.put(record(0))
    log.flush()
    log.put(record(1))
    assert [one.step for one in kept(tmp_path)] == [0], "the second is not committed yet"
    log.flush()
    assert [one.step for one in kept(tmp_path)] == [0, 1]
    log.close()
    log.close()
    again = DecisionLog(tmp_path / DECISIONS)
    again.put(record(1))  # delivered again to a recorder that was started again
    again.on_verdict(verdict(0.5))
    again.put(record(2))
    again.close()
    found = kept(tmp_path)
    assert [one.number for one in found] == [0, 1, 2] and found[1].verdict == verdict(0.5)


def test_what_is_put_is_there_after_the_delay(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS, delay=0.05)
    log.put(record(0))
    time.sleep(0.1)
    log.put(record(1))
    assert [one.step for one in kept(tmp_path)] == [0, 1]
    log.close()


def test_where_the_room_is_full_the_newest_stay(tmp_path: Path) -> None:
    limit = 400_000
    log = DecisionLog(tmp_path / DECISIONS, max_bytes=limit)
    count = 4000
    for number in range(count):
        log.put(record(number, episode=number // 50, prompt_prefix=f"lesson: {number // 50}. "))
        if number % 100 == 99:
            log.flush()
    log.close()
    assert (tmp_path / DECISIONS).stat().st_size < 1.3 * limit
    found = kept(tmp_path)
    assert [one.number for one in found] == list(range(count - len(found), count)) and len(found) > 500
    for one in found:
        assert same(one, record(one.step, one.step // 50, prompt_prefix=f"lesson: {one.step // 50}. "), but=("number",))
    with sqlite3.connect(tmp_path / DECISIONS) as db:
        assert db.execute("SELECT count(*) FROM contexts").fetchone()[0] <= len(found) / 50 + 2
    shorter = DecisionLog(tmp_path / DECISIONS, max_bytes=limit // 4)
    shorter.put(record(count))
    shorter.close()
    fewer = kept(tmp_path)
    assert len(fewer) < len(found) / 2 and fewer[-1].number == count


def test_steps_that_are_made_again_are_kept_once(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS)
    log.rewind(0)
    assert not (tmp_path / DECISIONS).exists()
    for number in range(6):
        log.put(record(number, episode=number // 2, number=number))
    log.rewind(4)
    log.put(record(4, episode=2, number=4, scene="made again"))
    log.close()
    assert [(one.number, one.scene == "made again") for one in kept(tmp_path)][3:] == [(3, False), (4, True)]
    log = DecisionLog(tmp_path / DECISIONS)
    log.rewind(2)
    log.put(record(2, episode=1, number=2, scene="made again"))
    log.close()
    assert [(one.number, one.episode) for one in kept(tmp_path)] == [(0, 0), (1, 0), (2, 1)]
    assert kept(tmp_path)[-1].scene == "made again"


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"x" * 5000, "file is not a database"), (None, "a database, but not of decisions"), (b"", "holds nothing, or")],
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / DECISIONS
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE mine(x)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=problem):
        DecisionReader(tmp_path)
    if content != b"":
        with pytest.raises(StoreError, match=problem):
            DecisionLog(path).put(record(0))
        assert path.read_bytes() == before


def test_a_full_disk_says_so_and_keeps_what_was_there(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS)
    log.put(record(0))
    log.flush()
    assert log._db is not None
    log._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match=r"decisions\.sqlite: cannot be written: database or disk is full"):
        for number in range(1, 1000):
            log.put(record(number))
    log._db.close()
    assert [one.step for one in kept(tmp_path)] == [0]


# --- a kill -------------------------------------------------------------------------------------------


def test_a_kill_loses_what_was_not_committed_and_nothing_else(tmp_path: Path) -> None:
    _CONTEXT.set_forkserver_preload(["decisions_support"])
    chance = random.Random(0)
    safe: list[int] = []
    for life in range(KILLS):
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=put_forever, args=(tmp_path, life, sender), daemon=True)
        process.start()
        sender.close()
        count = 0
        for _ in range(chance.randrange(1, 8)):
            assert receiver.poll(60), "the writing process says nothing"
            count = receiver.recv()
        process.join(chance.uniform(0.0, 0.01))  # to die at any point of what follows
        process.kill()
        process.join(20)
        assert process.exitcode == -9
        safe.append(count)
        receiver.close()
        with DecisionReader(tmp_path) as reader:
            assert [e.episode for e in reader.episodes()] == list(range(life + 1)), "read at once, before any repair"
    found = kept(tmp_path)
    assert [one.number for one in found] == list(range(len(found)))
    for life, count in enumerate(safe):
        own = [one for one in found if one.episode == life]
        assert len(own) >= count and len(own) % 7 == 0, "whole transactions"
        assert [one.step for one in own] == list(range(len(own)))
        assert all(one.outcome == Outcome(one.step / 8) and one.verdict == verdict(one.stamp) for one in own)


def test_a_torn_tail_is_passed_over(tmp_path: Path) -> None:
    """The log as a kill leaves it, then cut anywhere: what is whole is read, and it can be gone on with."""
    out = tmp_path / "run"
    log = DecisionLog(out / DECISIONS, delay=0.0)
    for number in range(20):
        log.put(record(number))
    files = {path.name: path.read_bytes() for path in out.iterdir() if not path.name.endswith("-shm")}
    log.close()
    journal = f"{DECISIONS}-wal"
    whole = len(files[journal])
    seen = set()
    for cut in (whole, whole - 1, whole - 3000, whole - 5000, whole // 2, whole // 3):
        copy = tmp_path / str(cut)
        copy.mkdir()
        for name, content in files.items():
            (copy / name).write_bytes(content[:cut] if name == journal else content)
        again = DecisionLog(copy / DECISIONS)
        again.put(record(1000))
        again.close()
        steps = [one.step for one in kept(copy)]
        assert steps == [*range(len(steps) - 1), 1000]
        seen.add(len(steps))
    assert max(seen) == 21 and len(seen) > 2


# --- finding ------------------------------------------------------------------------------------------


def two_runs(out: Path) -> None:
    """Episodes 0 and 1 of a run that collided in the first, then episode 1 again, of a policy that was restarted."""
    log = DecisionLog(out / DECISIONS)
    for number, (run, episode, step) in enumerate([("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("b", 1, 0), ("b", 1, 1)]):
        log.put(record(step, episode, run=run, stamp=float(number)))
    log.on_episode_end("a", 0, EpisodeEnd(False, "collision", -1.0, 2))
    log.close()


@pytest.mark.parametrize(
    ("step", "number"), [("0", 0), ("4", 4), ("0:1", 1), ("1:0", 3), ("1:1", 4), ("last", 4), ("worst", 1)]
)
def test_a_step_is_found_by_each_of_its_names(tmp_path: Path, step: str, number: int) -> None:
    two_runs(tmp_path)
    with DecisionReader(tmp_path) as reader:
        assert reader.find(step).number == number


def test_the_next_decision_is_of_the_same_episode(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS)
    for number, (run, episode, step) in enumerate([("a", 0, 0), ("a", 1, 0), ("a", 1, 1), ("b", 1, 0), ("b", 1, 2)]):
        log.put(record(step, episode, run=run, stamp=float(number)))
    log.close()
    with DecisionReader(tmp_path) as reader:
        following = [reader.following(reader.find(str(number))) for number in range(5)]
    assert [one.number if one else None for one in following] == [None, 2, None, 4, None]


VALID = "valid: 0 to 4, EPISODE:STEP from 0:0 to 1:1, last, worst"


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("5", f"OUT: no step 5; {VALID}"),
        ("2:0", f"OUT: no episode 2; {VALID}"),
        ("1:2", "OUT: no step 2 in episode 1; valid: 1:0 to 1:1"),
        ("first", f"'first' names no step; {VALID}"),
        ("-1", f"'-1' names no step; {VALID}"),
        ("9" * 40, "names no step"),
    ],
)
def test_a_step_that_is_not_there(tmp_path: Path, step: str, problem: str) -> None:
    two_runs(tmp_path)
    with DecisionReader(tmp_path) as reader, pytest.raises(ConfigError) as caught:
        reader.find(step)
    assert problem.replace("OUT", str(tmp_path)) in str(caught.value)


def test_without_a_collision_there_is_no_worst_step(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / DECISIONS)
    log.put(record(0))
    log.close()
    with DecisionReader(tmp_path) as reader, pytest.raises(ConfigError, match="no collision in the episodes"):
        reader.find("worst")


def test_a_folder_without_decisions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: no such run; give the folder"):
        DecisionReader(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"keeps no decisions \(decisions\.sqlite\); runs of the graph"):
        DecisionReader(tmp_path)
    log = DecisionLog(tmp_path / DECISIONS)
    log.put(record(0, number=0))
    log.rewind(0)
    log.close()
    with pytest.raises(ConfigError, match="keeps no decisions yet"):
        DecisionReader(tmp_path)


# --- as part of what a run leaves ---------------------------------------------------------------------


def test_a_recorder_keeps_decisions_where_it_is_asked_to(tmp_path: Path) -> None:
    assert RunRecorder(RecorderConfig(tmp_path / "none")).decisions is None
    recorder = RunRecorder(RecorderConfig(tmp_path / "run", decisions_mb=1.0))
    assert recorder.decisions is not None
    assert recorder.finish() is None and not (tmp_path / "run").exists(), "a run that never began leaves nothing"
    recorder = RunRecorder(RecorderConfig(tmp_path / "run", decisions_mb=1.0))
    assert recorder.decisions is not None
    one = record(0)
    recorder.on_decision(one.decision, one.compute_ms, one.episode, one.run)
    recorder.decisions.put(one)
    recorder.on_episode_end(0, True, 1.0, 1, "reached", 0.5, run="run")
    recorder.close()
    assert [path.name for path in (tmp_path / "run").glob(f"{DECISIONS}*")] == [DECISIONS], "closed, it is one file"
    (found,) = kept(tmp_path / "run")
    assert found.end == EpisodeEnd(True, "reached", 1.0, 1)
