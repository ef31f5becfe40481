"""The figures of one run, collected event by event in bounded memory. See `RunMetrics.summary` for each figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmagent_ros.recording.episodes import Episode
from llmagent_ros.recording.latency import LatencyHistogram
from llmagent_ros.recording.summary import versions
from llmagent_ros.types import Decision

EDGE_EPISODES = 30
RECENT_EPISODES = 20
_MAX_REASONS = 64
_UNFINISHED = 64  # episodes whose decisions are kept apart, in case their end still comes


def success_share(episodes: Sequence[Episode]) -> float | None:
    """Successes over episodes, in [0, 1]; None without episodes."""
    return sum(episode.success for episode in episodes) / len(episodes) if episodes else None


class RunMetrics:
    """Collects what happens in a run and sums it up. Not thread-safe: call it from one executor.

    Args:
        episodes: those of the same run from before a restart, in order.
    """

    def __init__(self, episodes: Iterable[Episode] = ()) -> None:
        self.episodes: list[Episode] = list(episodes)
        self.resumed_episodes = len(self.episodes)
        self.latency = LatencyHistogram()
        self.adapter = self.episodes[-1].adapter if self.episodes else ""
        self.updates = 0
        self.learner_stats: dict[str, float] = {}
        self.decisions = 0
        self.last_decision: Decision | None = None
        self.compute = LatencyHistogram()
        self.ticks = 0
        self.missed_ticks = 0
        self._versions = {episode.adapter for episode in self.episodes} - {""}
        self._known = {(episode.run, episode.episode) for episode in self.episodes}
        self._steps = self._most_steps = self.episodes[-1].env_steps if self.episodes else 0
        self._decided: dict[tuple[str, int], int] = {}  # decisions that are in _steps, of episodes without an end
        self._guard_seen: dict[str, int] = {}
        self._guard_total: Counter[str] = Counter()

    @property
    def env_steps(self) -> int:
        """Control periods so far; never less than before.

        Those of finished episodes, and the decisions of all others: of the one under way, and of those that were
        pre-empted, cancelled or done again.
        """
        return self._most_steps

    @property
    def next_episode(self) -> int:
        """The number after the highest episode so far; where a resumed run goes on."""
        return 1 + max((episode.episode for episode in self.episodes), default=-1)

    @property
    def adapter_versions(self) -> int:
        """How many distinct adapter versions were deployed."""
        return len(self._versions)

    @property
    def guard_interventions(self) -> dict[str, int]:
        """How often the guard stopped, limited, dropped or overrode a command, by reason."""
        return dict(sorted(self._guard_total.items()))

    @property
    def missed_tick_share(self) -> float | None:
        """Control ticks without a fresh decision over all ticks; None without ticks."""
        return self.missed_ticks / self.ticks if self.ticks else None

    def on_episode_end(
        self,
        episode: int,
        success: bool,
        total_reward: float,
        steps: int,
        reason: str,
        duration_s: float,
        run: str = "",
    ) -> Episode | None:
        """Take a finished episode (see `Episode`); None for one that is in already, e.g. delivered again."""
        if (run, episode) in self._known:
            return None
        self._count_steps(steps - self._decided.pop((run, episode), 0))
        last = self.episodes[-1].env_steps if self.episodes else 0
        entry = Episode(
            run=run,
            episode=episode,
            success=bool(success),
            total_reward=float(total_reward),
            steps=steps,
            reason=reason,
            duration_s=float(duration_s),
            env_steps=max(self._steps, last),
            adapter=self.adapter,
        )
        self._known.add((run, episode))
        self.episodes.append(entry)
        return entry

    def on_decision(self, decision: Decision, compute_ms: float, episode: int, run: str = "") -> None:
        """Take one choice of the policy; compute_ms: wall time from scene to choice inside the policy."""
        self.decisions += 1
        self._count_decision((run, episode))
        self.last_decision = decision
        self.compute.add(compute_ms)
        self.on_adapter(decision.adapter)

    def _count_decision(self, episode: tuple[str, int]) -> None:
        if episode in self._known:
            return  # one on the last scene, late: no control period followed
        self._decided[episode] = self._decided.get(episode, 0) + 1
        if len(self._decided) > _UNFINISHED:
            del self._decided[next(iter(self._decided))]
        self._count_steps(1)

    def _count_steps(self, more: int) -> None:
        """more: below 0 when a decision on the last scene of an episode had been counted."""
        self._steps += more
        self._most_steps = max(self._most_steps, self._steps)

    def on_latency(self, ms: float) -> None:
        """Take the time from a scene's publication to that of the command that answers it, ms."""
        self.latency.add(ms)

    def on_tick(self, fresh: bool) -> None:
        """Take one control tick; fresh: a decision for the newest scene was there."""
        self.ticks += 1
        self.missed_ticks += not fresh

    def on_learner(self, updates: int, stats: Mapping[str, float]) -> None:
        """Take the learner's report; updates: gradient steps since the run began (a restart may report fewer)."""
        self.updates = max(self.updates, updates)
        self.learner_stats = {str(name): float(value) for name, value in stats.items()}

    def on_adapter(self, version: str) -> bool:
        """Take the deployed adapter's version; whether it differs from the one before."""
        if not version or version == self.adapter:
            return False
        self.adapter = version
        self._versions.add(version)
        return True

    def on_guard(self, reasons: Mapping[str, int]) -> None:
        """Take the guard's counts since *it* started, by reason; a restarted guard counts from 0 and is added up."""
        report: Counter[str] = Counter()
        for reason, count in reasons.items():
            known = reason in self._guard_seen or len(self._guard_seen) + len(report) < _MAX_REASONS
            report[reason if known else "other"] += count
        for reason, count in report.items():
            before = self._guard_seen.get(reason, 0)
            self._guard_total[reason] += count - before if count >= before else count
            self._guard_seen[reason] = count

    def summary(self, wall_s: float, seed: int | None, model: str) -> dict[str, Any]:
        """The content of summary.json.

        Keys (shares in [0, 1], None where nothing was measured):
            episodes, successes: finished ones. success_first_30, success_last_30, success_last_20: share of successes
            over the first or last min(N, episodes). return_mean_last_20: mean undiscounted return over them.
            collisions: episodes that ended so. episode_ends: episodes by reason.
            env_steps: see the property. updates: gradient steps. adapter_versions: distinct ones deployed.
            scene_to_command_ms: p50, p99, max, count, rejected (see `LatencyHistogram`). policy_compute_ms: the same
            inside the policy. missed_tick_share: control ticks without a fresh decision. ticks: all of them.
            guard_interventions: total. guard_reasons: by reason. resumed_episodes: how many were read back after a
            restart; latencies, ticks and guard counts are only those since. wall_s, seed, model, versions.
        """
        episodes = self.episodes
        recent = episodes[-RECENT_EPISODES:]
        guard = self.guard_interventions
        ends = Counter(episode.reason for episode in episodes)
        return {
            "episodes": len(episodes),
            "successes": sum(episode.success for episode in episodes),
            "success_first_30": success_share(episodes[:EDGE_EPISODES]),
            "success_last_30": success_share(episodes[-EDGE_EPISODES:]),
            "success_last_20": success_share(recent),
            "return_mean_last_20": math.fsum(e.total_reward for e in recent) / len(recent) if recent else None,
            "collisions": ends["collision"],
            "episode_ends": dict(ends.most_common(_MAX_REASONS)),
            "env_steps": self.env_steps,
            "updates": self.updates,
            "adapter_versions": self.adapter_versions,
            "scene_to_command_ms": self.latency.summary(),
            "policy_compute_ms": self.compute.summary(),
            "missed_tick_share": self.missed_tick_share,
            "ticks": self.ticks,
            "guard_interventions": sum(guard.values()),
            "guard_reasons": guard,
            "resumed_episodes": self.resumed_episodes,
            "wall_s": wall_s,
            "seed": seed,
            "model": model,
            "versions": versions(),
        }
