"""One object that a node or a training command feeds, and that writes the whole OUT folder of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.recording.decision_rows import DECISIONS, EpisodeEnd
from llmagent_ros.recording.decisions import DecisionLog
from llmagent_ros.recording.episodes import EPISODES, Episode, EpisodeLog
from llmagent_ros.recording.metrics import RECENT_EPISODES, RunMetrics, success_share
from llmagent_ros.recording.plot import import_early, plot_learning_curve
from llmagent_ros.recording.summary import write_summary
from llmagent_ros.recording.tensorboard import TensorBoardWriter
from llmagent_ros.types import Decision

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class RecorderConfig:
    """What to write where.

    Attributes:
        out: folder of the run, made if missing.
        seed: of the run, None if it had none. model: name or path of the base.
        resume: go on with a folder that holds episodes; False refuses it.
        report_period: s between two TensorBoard reports of latency, rates and learner figures.
        summary_period: s between two rewrites of summary.json while the run goes on.
        decisions_mb: MB in which the newest decisions are kept (decisions.sqlite); 0 keeps none.
    """

    out: Path
    seed: int | None = None
    model: str = ""
    resume: bool = True
    report_period: Positive = 2.0
    summary_period: Positive = 10.0
    decisions_mb: NotNegative = 0.0


class RunRecorder:
    """Feeds `metrics`, episodes.csv, TensorBoard (OUT/tensorboard), and writes summary.json and learning_curve.png.

    `decisions` is where decisions are to be put; it learns of the ends of episodes by itself. None: they are not kept.

    Before the first decision or episode nothing is written, so that a run that never began leaves its folder as it was.
    Methods raise StoreError when the disk is full; what was on disk before stays. Not thread-safe.
    """

    def __init__(self, config: RecorderConfig) -> None:
        self.config = config
        self._log = EpisodeLog(config.out / EPISODES, resume=config.resume)
        room = int(config.decisions_mb * 1e6)
        self.decisions = DecisionLog(config.out / DECISIONS, room) if room else None
        self._board: TensorBoardWriter | None = None
        self.metrics = RunMetrics(self._log.episodes)
        self._started = time.monotonic()
        self._last_summary = -math.inf
        self._last_report = self._started
        self._reported = (self.metrics.env_steps, self.metrics.updates)

    @property
    def wall_s(self) -> float:
        """Seconds since this recorder started."""
        return time.monotonic() - self._started

    def on_episode_end(
        self,
        episode: int,
        success: bool,
        total_reward: float,
        steps: int,
        reason: str,
        duration_s: float,
        run: str = "",
    ) -> None:
        """Take a finished episode; it is on disk when this returns. One that is in already is left alone."""
        if self.decisions is not None:  # also of one that is in: a kill may have come before they were written
            self.decisions.on_episode_end(run, episode, EpisodeEnd(success, reason, total_reward, steps))
        entry = self.metrics.on_episode_end(episode, success, total_reward, steps, reason, duration_s, run)
        if entry is None:
            return
        board = self._begin()
        self._log.append(entry)
        self._board_episode(board, entry)
        if len(self.metrics.episodes) == self.metrics.resumed_episodes + 1:
            import_early()
        if time.monotonic() - self._last_summary >= self.config.summary_period:
            self._write_summary(finished=False)

    def on_decision(self, decision: Decision, compute_ms: float, episode: int, run: str = "") -> None:
        """See `RunMetrics.on_decision`."""
        self._begin()
        self.metrics.on_decision(decision, compute_ms, episode, run)
        self._report_when_due()

    def on_latency(self, ms: float) -> None:
        """See `RunMetrics.on_latency`."""
        self.metrics.on_latency(ms)

    def on_tick(self, fresh: bool) -> None:
        """See `RunMetrics.on_tick`."""
        self.metrics.on_tick(fresh)

    def on_learner(self, updates: int, stats: Mapping[str, float]) -> None:
        """See `RunMetrics.on_learner`."""
        self.metrics.on_learner(updates, stats)
        self._report_when_due()

    def on_adapter(self, version: str) -> None:
        """See `RunMetrics.on_adapter`."""
        self.metrics.on_adapter(version)

    def on_guard(self, reasons: Mapping[str, int]) -> None:
        """See `RunMetrics.on_guard`."""
        self.metrics.on_guard(reasons)

    def finish(self, *, complete: bool = True) -> dict[str, Any] | None:
        """Write the last report, summary.json and the picture, close everything.

        Returns:
            the summary as written; None when nothing was, because the run never began.

        Args:
            complete: whether the run came to its end; written down as `finished`. False when it was interrupted.
        """
        if self._board is None:
            self.close()
            return None
        try:
            self._report(self._board)
            summary = self._write_summary(finished=complete)
            if len(self.metrics.episodes) > self.metrics.resumed_episodes:  # else there is nothing new to draw
                plot_learning_curve(self.metrics.episodes, self.config.out / "learning_curve.png", self._title())
        finally:
            self.close()
        return summary

    def close(self) -> None:
        """Close the files without a summary; may be called twice."""
        self._log.close()
        if self._board is not None:
            self._board.close()
        if self.decisions is not None:
            self.decisions.close()

    def _begin(self) -> TensorBoardWriter:
        if self._board is None:
            self._log.begin()
            self._board = TensorBoardWriter(self.config.out / "tensorboard")
        return self._board

    def _title(self) -> str:
        seed = "" if self.config.seed is None else f", seed {self.config.seed}"
        return f"{Path(self.config.model).name or 'run'}{seed}"

    def _write_summary(self, finished: bool) -> dict[str, Any]:
        summary = self.metrics.summary(self.wall_s, self.config.seed, self.config.model)
        summary["finished"] = finished
        write_summary(self.config.out / "summary.json", summary)
        self._last_summary = time.monotonic()
        return summary

    def _board_episode(self, board: TensorBoardWriter, entry: Episode) -> None:
        recent = success_share(self.metrics.episodes[-RECENT_EPISODES:])
        figures = {
            "episode/success": float(entry.success),
            "episode/success_last_20": recent if recent is not None else 0.0,
            "episode/return": entry.total_reward,
            "episode/steps": float(entry.steps),
            "episode/duration_s": entry.duration_s,
        }
        for tag, value in figures.items():
            board.scalar(tag, value, entry.env_steps)

    def _report_when_due(self) -> None:
        if self._board is not None and time.monotonic() - self._last_report >= self.config.report_period:
            self._report(self._board)

    def _report(self, board: TensorBoardWriter) -> None:
        metrics, now = self.metrics, time.monotonic()
        elapsed = max(now - self._last_report, 1e-6)
        steps, updates = metrics.env_steps, metrics.updates
        figures: dict[str, float | None] = {
            "policy/compute_p99_ms": metrics.compute.percentile(0.99),
            "control/scene_to_command_p50_ms": metrics.latency.percentile(0.50),
            "control/scene_to_command_p99_ms": metrics.latency.percentile(0.99),
            "control/missed_tick_share": metrics.missed_tick_share,
            "control/env_steps_per_s": (steps - self._reported[0]) / elapsed,
            "learner/updates": float(updates),
            "learner/updates_per_s": (updates - self._reported[1]) / elapsed,
            "learner/adapter_versions": float(metrics.adapter_versions),
            "guard/interventions": float(sum(metrics.guard_interventions.values())),
            **_decision_figures(metrics.last_decision),
        }
        for tag, value in figures.items():
            if value is not None:
                board.scalar(tag, value, steps)
        for name, value in metrics.learner_stats.items():
            board.learner_stat(name, value, steps)
        self._last_report, self._reported = now, (steps, updates)


def _decision_figures(decision: Decision | None) -> dict[str, float | None]:
    if decision is None or decision.action not in decision.candidates:
        return {}
    chosen = decision.candidates.index(decision.action)
    probabilities = [float(p) for p in decision.probabilities]
    return {
        "policy/entropy": -sum(p * math.log(p) for p in probabilities if p > 0.0),
        "policy/chosen_probability": probabilities[chosen],
        "policy/chosen_value": float(decision.values[chosen]),
    }
