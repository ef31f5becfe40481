"""`llmagent compare`: the figures that the runs left, and one picture of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmagent_ros.cli.main import main
from llmagent_ros.recording.episodes import Episode, EpisodeLog
from llmagent_ros.recording.metrics import RunMetrics
from llmagent_ros.recording.summary import write_summary


def left_by_a_run(out: Path, seed: int, successes: list[bool], **changes: Any) -> Path:
    log = EpisodeLog(out / "episodes.csv")
    for number, success in enumerate(successes):
        log.append(Episode("r", number, success, 1.0 if success else -1.0, 10, "x", 1.0, 10 * (number + 1), "v1"))
    log.close()
    metrics = RunMetrics(log.episodes)
    for milliseconds in (10.0, 20.0):
        metrics.on_latency(milliseconds)
    metrics.on_learner(1234, {})
    for tick in range(100):
        metrics.on_tick(tick > 0)
    write_summary(out / "summary.json", metrics.summary(61.4, seed, "shipped base") | changes)
    return out


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_for_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = left_by_a_run(tmp_path / "a", 0, [False] * 30 + [True] * 15 + [False] * 15 + [True] * 30)
    second = left_by_a_run(tmp_path / "b", 1, [True, False], scene_to_command_ms=None, missed_tick_share=None)
    assert main(["compare", str(first), str(second)]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert cells(header)[:6] == ["run", "seed", "episodes", "first 30", "last 30", "gain, points"]
    assert [cells(row) for row in rows] == [
        ["a", "0", "90", "0 %", "100 %", "+100", "0 50 100", "900", "1,234", "10.0 / 20.0", "1.00 %", "61 s"],
        ["b", "1", "2", "50 %", "50 %", "+0", "50", "20", "1,234", "- / -", "-", "61 s"],
    ]
    assert len({len(line) for line in (header, *rows)}) == 1, "the columns stand below each other"


def test_a_run_that_has_just_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = left_by_a_run(tmp_path / "a", 0, [True])
    (out / "episodes.csv").write_bytes((out / "episodes.csv").read_bytes().splitlines(keepends=True)[0])
    assert main(["compare", str(out)]) == 0
    assert cells(capsys.readouterr().out.splitlines()[2])[2:7] == ["0", "-", "-", "-", "-"]


def test_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = left_by_a_run(tmp_path / "a", 0, [True] * 5)
    assert main(["compare", str(out), "--plot", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"drawn: {tmp_path / 'curves.png'}" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["summary.json", "episodes.csv"])
def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    out = left_by_a_run(tmp_path / "a", 0, [True])
    (out / missing).unlink()
    assert main(["compare", str(out)]) == 2
    assert capsys.readouterr().err == f"llmagent: {out / missing}: cannot be read: No such file or directory\n"


def test_values_of_another_kind_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = left_by_a_run(tmp_path / "a", 0, [True])
    said = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(said | {"updates": "many", "wall_s": [], "scene_to_command_ms": 3}))
    assert main(["compare", str(out)]) == 0
    row = cells(capsys.readouterr().out.splitlines()[2])
    assert (row[8], row[9], row[11]) == ("-", "- / -", "-")
