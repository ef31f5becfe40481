"""Which outcomes belong to which episode, whatever order their topics deliver them in."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TypeVar

from llmagent_ros.types import Outcome

_LONGEST = 100_000  # steps of an episode that are kept
_REMEMBERED = 64  # episodes that have ended, or of which less is known
T = TypeVar("T")


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
    """An episode that was cut off; wall time of hearing so."""

    steps: int
    wall: float


@dataclass(frozen=True)
class _Left:
    """An episode that another followed before its end was known; walls of its first and last decision."""

    reward: float
    began: float
    last: float


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
        self._cuts: dict[tuple[str, int], _Cut] = {}
        self._left: dict[tuple[str, int], _Left] = {}

    def is_ended(self, run: str, episode: int) -> bool:
        """Whether it is one of the last episodes that ended."""
        return (run, episode) in self._ended

    def on_decision(self, stamp: int, run: str, episode: int) -> EndedEpisode | None:
        """Takes a decision; the episode that this completes: its outcome had come before, or it was cut off."""
        if self._decisions and stamp < self._decisions[-1].stamp:
            self._decisions.clear()
            self._outcomes.clear()
            self._ends.clear()
            self._left.clear()
            self._cuts.clear()
        cut = next((self._cut_off(other, stamp) for other in self._cuts if self._is_over(other, (run, episode))), None)
        if not self.is_ended(run, episode):
            self._decisions.append(_Decision(stamp, (run, episode), time.monotonic()))
        return cut or self._close()

    def on_outcome(self, stamp: int, outcome: Outcome) -> EndedEpisode | None:
        """Takes the outcome of the period that led to `stamp`; the episode that it ends, if it does."""
        self._outcomes.append((stamp, outcome))
        if outcome.ended:
            self._ends.append((stamp, outcome))
        return self._close()

    def on_truncated(self, run: str, episode: int, steps: int) -> EndedEpisode | None:
        """Takes the last transition of an episode that was cut off, by the world or by the policy for a time limit.

        If the world did it, its outcome says so and may still be on its way: see `settle`.

        Returns:
            The episode, if another has followed already.
        """
        key = (run, episode)
        if self.is_ended(run, episode):
            return None
        _put(self._cuts, key, _Cut(steps, time.monotonic()))
        following = self._following(key)
        return self._cut_off(key, following) if key in self._left or following is not None else None

    def settle(self) -> EndedEpisode | None:
        """An episode that was cut off without an outcome that ends it, when nothing more is to come; None: no more."""
        seen = {decision.episode for decision in self._decisions} | self._left.keys()
        return next((self._cut_off(episode, None) for episode in self._cuts if episode in seen), None)

    def _is_over(self, episode: tuple[str, int], present: tuple[str, int]) -> bool:
        """Whether an episode was decided in, and is not the present one."""
        return episode != present and any(decision.episode == episode for decision in self._decisions)

    def _cut_off(self, episode: tuple[str, int], end: int | None) -> EndedEpisode:
        """Ends it. end: ns; what is stamped later is not its own."""
        cut, left = self._cuts.pop(episode), self._left.pop(episode, None)
        if left is not None:
            self._ended.append(episode)
            return EndedEpisode(*episode, False, left.reward, cut.steps, "timeout", left.last - left.began)
        own = [decision for decision in self._decisions if decision.episode == episode]
        reward = self._reward(own[0].stamp, end)
        self._forget(episode, max(own[-1].stamp + 1, end or 0))
        return EndedEpisode(*episode, False, reward, cut.steps, "timeout", max(cut.wall, own[-1].wall) - own[0].wall)

    def _following(self, episode: tuple[str, int]) -> int | None:
        """Stamp of the first decision of the episode after this one."""
        last = max((d.stamp for d in self._decisions if d.episode == episode), default=None)
        return next((d.stamp for d in self._decisions if last is not None and d.stamp > last), None)

    def _reward(self, begin: int, end: int | None) -> float:
        return sum(o.reward for stamp, o in self._outcomes if begin < stamp and (end is None or stamp <= end))

    def _forget(self, episode: tuple[str, int], end: int) -> None:
        """Everything up to the end of an episode; of those before it, what is needed should their end still come."""
        self._ended.append(episode)
        self._cuts.pop(episode, None)
        for other in {d.episode: d for d in self._decisions if d.stamp < end and d.episode != episode}:
            own = [decision for decision in self._decisions if decision.episode == other]
            reward = self._reward(own[0].stamp, self._following(other))
            _put(self._left, other, _Left(reward, own[0].wall, own[-1].wall))
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


def _put(kept: dict[tuple[str, int], T], episode: tuple[str, int], value: T) -> None:
    """Keeps the newest alone."""
    kept[episode] = value
    if len(kept) > _REMEMBERED:
        del kept[next(iter(kept))]
