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
    """An episode at its end. duration_s: wall time.

    steps: control periods that had an outcome; of one that the policy cut off, all.
    """

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


@dataclass(frozen=True)
class _Cut:
    episode: tuple[str, int]
    steps: int
    wall: float


class EpisodeTracker:
    """Joins decisions (which name their episode) with outcomes (which do not) by their stamps.

    An outcome belongs to the episode of the last decision stamped before it. Stamps are nanoseconds of one clock that
    runs on over episodes; when it jumps back (a simulator was restarted) what was before is forgotten. An episode that
    the policy itself cut off has no outcome that says so, but a truncated transition.
    """

    def __init__(self) -> None:
        self._decisions: deque[_Decision] = deque(maxlen=_LONGEST)
        self._outcomes: deque[tuple[int, Outcome]] = deque(maxlen=_LONGEST)
        self._ends: deque[tuple[int, Outcome]] = deque(maxlen=_REMEMBERED)  # those of _outcomes that end an episode
        self._ended: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)
        self._cut: _Cut | None = None

    def is_ended(self, run: str, episode: int) -> bool:
        """Whether it is one of the last episodes that ended."""
        return (run, episode) in self._ended

    def on_decision(self, stamp: int, run: str, episode: int) -> EndedEpisode | None:
        """Takes a decision; the episode that this completes: its outcome had come before, or it was cut off."""
        if self._decisions and stamp < self._decisions[-1].stamp:
            self._decisions.clear()
            self._outcomes.clear()
            self._ends.clear()
            self._cut = None
        cut = self.settle(stamp) if self._cut is not None and self._cut.episode != (run, episode) else None
        if not self.is_ended(run, episode):
            self._decisions.append(_Decision(stamp, (run, episode), time.monotonic()))
        return cut or self._close()

    def on_outcome(self, stamp: int, outcome: Outcome) -> EndedEpisode | None:
        """Takes the outcome of the period that led to `stamp`; the episode that it ends, if it does."""
        self._outcomes.append((stamp, outcome))
        if outcome.ended:
            self._ends.append((stamp, outcome))
        return self._close()

    def on_truncated(self, run: str, episode: int, steps: int) -> None:
        """Takes the last transition of an episode that was cut off, by the world or by the policy for a time limit.

        If the world did it, its outcome says so and may still be on its way: see `settle`.
        """
        if not self.is_ended(run, episode):
            self._cut = _Cut((run, episode), steps, time.monotonic())

    def settle(self, end: int | None = None) -> EndedEpisode | None:
        """The episode that was cut off without an outcome that ends it, once nothing more of it can come.

        Args:
            end: ns; what is stamped later is not its own.
        """
        cut, self._cut = self._cut, None
        own = [decision for decision in self._decisions if cut is not None and decision.episode == cut.episode]
        if cut is None or not own:
            return None
        rewards = [o.reward for s, o in self._outcomes if own[0].stamp < s and (end is None or s <= end)]
        self._forget(cut.episode, max(own[-1].stamp + 1, end or 0))
        return EndedEpisode(*cut.episode, False, sum(rewards), cut.steps, "timeout", cut.wall - own[0].wall)

    def _forget(self, episode: tuple[str, int], end: int) -> None:
        """Everything up to the end of an episode."""
        self._ended.append(episode)
        self._decisions = deque((d for d in self._decisions if d.stamp >= end), maxlen=_LONGEST)
        self._outcomes = deque(((s, o) for s, o in self._outcomes if s > end), maxlen=_LONGEST)
        self._ends = deque(((s, o) for s, o in self._ends if s > end), maxlen=_REMEMBERED)

    def _close(self) -> EndedEpisode | None:
        for end, outcome in self._ends:
            before = [decision for decision in self._decisions if decision.stamp < end]
            if not before:
                continue
            episode = before[-1].episode
            own = [decision for decision in before if decision.episode == episode]
            parts = [part for stamp, part in self._outcomes if own[0].stamp < stamp <= end]
            self._forget(episode, end)
            duration = time.monotonic() - own[0].wall
            reward = sum(part.reward for part in parts)
            return EndedEpisode(*episode, outcome.success, reward, len(parts), outcome.reason, duration)
        return None
