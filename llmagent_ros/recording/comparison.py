"""Several runs of one setting side by side: a table for people, in Markdown, and their learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmagent_ros.recording.episodes import EPISODES, Episode, read_episodes
from llmagent_ros.recording.metrics import EDGE_EPISODES, success_share
from llmagent_ros.recording.plot import plot_runs
from llmagent_ros.recording.summary import figure, percent, read_summary

_HEADER = (
    "run", "seed", "episodes", "first 30", "last 30", "gain, points", "by 30", "env steps", "updates",
    "scene to command p50 / p99, ms", "missed ticks", "wall time",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a run left in its folder."""

    out: Path
    summary: dict[str, Any]
    episodes: list[Episode]


def read_run(out: Path) -> Run:
    """Reads summary.json and episodes.csv of a run that has ended or goes on.

    Raises:
        StoreError: one is missing or is not what it should be; names the file.
    """
    return Run(out, read_summary(out / "summary.json"), read_episodes(out / EPISODES))


def table(runs: Sequence[Run]) -> str:
    """One row a run, in Markdown. Shares are in percent; "by 30" is the success of each 30 episodes in turn."""
    rows = [_HEADER, *(_row(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join(["| " + lines[0] + " |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def plot(runs: Sequence[Run], path: Path, title: str) -> None:
    """The learning curves of all, with their median; see `plot_runs`."""
    plot_runs([(_label(run), run.episodes) for run in runs], path, title)


def _label(run: Run) -> str:
    seed = run.summary.get("seed")
    return run.out.name if seed is None else f"{run.out.name}, seed {seed}"


def _row(run: Run) -> tuple[str, ...]:
    episodes, said = run.episodes, run.summary
    first, last = success_share(episodes[:EDGE_EPISODES]), success_share(episodes[-EDGE_EPISODES:])
    gain = "-" if first is None or last is None else f"{100 * (last - first):+.0f}"
    parts = [success_share(episodes[i : i + EDGE_EPISODES]) for i in range(0, len(episodes), EDGE_EPISODES)]
    latency = said.get("scene_to_command_ms")
    latency = latency if isinstance(latency, dict) else {}
    return (
        run.out.name,
        figure(said.get("seed")),
        str(len(episodes)),
        percent(first),
        percent(last),
        gain,
        " ".join(percent(part).removesuffix(" %") for part in parts) or "-",
        figure(said.get("env_steps"), ",d"),
        figure(said.get("updates"), ",d"),
        f"{figure(latency.get('p50'), '.1f')} / {figure(latency.get('p99'), '.1f')}",
        percent(said.get("missed_tick_share"), 2),
        figure(said.get("wall_s"), ".0f", " s"),
    )
