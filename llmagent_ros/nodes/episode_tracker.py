"""Which outcomes belong to which episode, whatever order their topics deliver them in."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from llmagent_ros.types import Outcome

_LONGEST = 100_000  # steps of an episode that are kept
_REMEMBERED = 64  # ended episodes


@dataclass(frozen=True)
class EndedEpisode:
    """An episode at its end. steps: control periods that had an outcome. duration_s: wall time."""

    run: str
    episode: int
    success: bool
    total_reward: float
    steps: int
    reason: str
    duration_s: float


@dataclass(frozen=True)
class _Decision:
    stamp: int
    episode: tuple[str, int]
    wall: float


class EpisodeTracker:
    """Joins decisions (which name their episode) with outcomes (which do not) by their stamps.

    An outcome belongs to the episode of the last decision stamped before it. Stamps are nanoseconds of one clock that
    runs on over episodes; when it jumps back (a simulator was restarted) what was before is forgotten.
    """

    def __init__(self) -> None:
        self._decisions: deque[_Decision] = deque(maxlen=_LONGEST)
        self._outcomes: deque[tuple[int, Outcome]] = deque(maxlen=_LONGEST)
        self._ends: deque[tuple[int, Outcome]] = deque(maxlen=_REMEMBERED)  # those of _outcomes that end an episode
        self._ended: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)

    def is_ended(self, run: str, episode: int) -> bool:
        """Whether it is one of the last episodes that ended."""
        return (run, episode) in self._ended

    def on_decision(self, stamp: int, run: str, episode: int) -> EndedEpisode | None:
        """Takes a decision; the episode that this completes, when its outcome had come before."""
        if self._decisions and stamp < self._decisions[-1].stamp:
            self._decisions.clear()
            self._outcomes.clear()
            self._ends.clear()
        if not self.is_ended(run, episode):
            self._decisions.append(_Decision(stamp, (run, episode), time.monotonic()))
        return self._close()

    def on_outcome(self, stamp: int, outcome: Outcome) -> EndedEpisode | None:
        """Takes the outcome of the period that led to `stamp`; the episode that it ends, if it does."""
        self._outcomes.append((stamp, outcome))
        if outcome.ended:
            self._ends.append((stamp, outcome))
        return self._close()

    def _close(self) -> EndedEpisode | None:
        for end, outcome in self._ends:
            before = [decision for decision in self._decisions if decision.stamp < end]
            if not before:
                continue
            episode = before[-1].episode
            own = [decision for decision in before if decision.episode == episode]
            parts = [part for stamp, part in self._outcomes if own[0].stamp < stamp <= end]
            self._ended.append(episode)
            self._decisions = deque((d for d in self._decisions if d.stamp >= end), maxlen=_LONGEST)
            self._outcomes = deque(((s, o) for s, o in self._outcomes if s > end), maxlen=_LONGEST)
            self._ends = deque(((s, o) for s, o in self._ends if s > end), maxlen=_REMEMBERED)
            duration = time.monotonic() - own[0].wall
            reward = sum(part.reward for part in parts)
            return EndedEpisode(*episode, outcome.success, reward, len(parts), outcome.reason, duration)
        return None
