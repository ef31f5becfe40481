"""`llmagent launch sim.launch.xml`: the whole graph from its first process to the files that it leaves."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import pytest
from graph_support import LONG, task_file
from ros_support import Graph

from llmagent_ros.learning.rl.replay import Replay

EPISODES = 3
MAX_STEPS = 10
BUSY = (  # what a machine that is busy with other tests makes nodes say, which wait 1 s and 0.4 s at most
    "the knowledge node did not answer in time; no skills for this task",
    "no command for the scene of t=",
)
PROMISED = {
    "episodes", "successes", "success_first_30", "success_last_30", "env_steps", "updates", "adapter_versions",
    "scene_to_command_ms", "missed_tick_share", "wall_s", "seed", "model",
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of three short episodes has left behind."""
    folder = tmp_path_factory.mktemp("run")
    with Graph(folder) as graph:
        run = graph.launch(
            "sim.launch.xml",
            headless=True,
            episodes=EPISODES,
            seed=7,
            task=task_file(folder, max_steps=MAX_STEPS),
            out=folder / "out",
        )
        graph.until(lambda: run.code is not None, "the run does not end", 2 * LONG)
        assert run.code == 0
        said = run.said
        assert f"run finished after {EPISODES} episodes" in said
        lines = [line for line in said.splitlines() if not any(each in line for each in BUSY)]
        for problem in ("Traceback", "[ERROR]", "[WARN]", "died", "has not stopped"):
            assert not any(problem in line for line in lines), said
    return folder / "out"


pytestmark = pytest.mark.xdist_group("graph_launch")


def test_the_summary_holds_the_promised_figures(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) >= PROMISED
    rows = list(csv.DictReader((out / "episodes.csv").open()))
    assert len(rows) == EPISODES == summary["episodes"]
    successes = sum(int(row["success"]) for row in rows)
    assert summary["successes"] == successes
    assert summary["success_first_30"] == summary["success_last_30"] == pytest.approx(successes / EPISODES)
    assert summary["env_steps"] == sum(int(row["steps"]) for row in rows) == int(rows[-1]["env_steps"])
    assert EPISODES <= summary["env_steps"] <= EPISODES * MAX_STEPS
    assert (summary["seed"], summary["model"], summary["finished"]) == (7, "shipped base", True)
    assert summary["updates"] >= 0 and summary["adapter_versions"] >= 1
    latency = summary["scene_to_command_ms"]
    assert latency["count"] >= summary["env_steps"] - EPISODES
    assert 0.0 < latency["p50"] <= latency["p99"] < 1e3 * summary["wall_s"]
    assert 0.0 <= summary["missed_tick_share"] <= 1.0
    assert summary["wall_s"] > 1.0


def test_picture_and_tensorboard_are_there(out: Path) -> None:
    picture = (out / "learning_curve.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and picture.rstrip().endswith(b"IEND\xaeB`\x82")
    (events,) = (out / "tensorboard").glob("events.out.tfevents.*")
    assert b"episode/success" in events.read_bytes()


def test_the_replay_holds_every_step_once_and_in_its_order(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    rows = list(csv.DictReader((out / "episodes.csv").open()))
    with Replay(out / "replay.sqlite", read_only=True) as replay:
        assert len(replay) == summary["env_steps"]
        episodes = replay.episodes()
        assert [e.episode for e in episodes] == [int(row["episode"]) for row in rows] == list(range(EPISODES))
        for entry, row in zip(episodes, rows, strict=True):
            assert entry.run == row["run"] and entry.run.startswith("out-")
            steps = replay.episode(entry.run, entry.episode)
            assert [t.step for t in steps] == list(range(int(row["steps"])))
            assert all(before.next_scene == after.scene for before, after in pairwise(steps))
            assert [t.terminated or t.truncated for t in steps] == [False] * (len(steps) - 1) + [True]
            assert steps[-1].truncated is (row["reason"] == "timeout")
            assert sum(t.reward for t in steps) == pytest.approx(float(row["total_reward"]), abs=1e-4)
            assert len({t.task for t in steps}) == 1 and all(t.task in t.scene for t in steps)
            assert all(after.stamp - before.stamp == pytest.approx(0.4) for before, after in pairwise(steps))
            assert all(t.log_probability <= 0.0 and t.extra["adapter"] == row["adapter"] for t in steps)


def test_nothing_half_written_is_left(out: Path) -> None:
    names = {path.name for path in out.rglob("*")}
    assert not [name for name in names if name.endswith((".tmp", ".partial", ".old", "-journal"))]
    assert {"replay.sqlite", "learner", "knowledge", "episodes.csv", "summary.json"} <= names
