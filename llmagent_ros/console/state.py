"""What the console shows, as plain values that a node or a test fills in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from llmagent_ros.types import Decision

RECENT_EPISODES = 20
_TREND = 60
_WARNINGS = 3


@dataclass
class ConsoleState:
    """Everything on the screen. Texts may hold anything; the view makes them safe to show.

    Attributes:
        episode: the one under way, from 0. episodes: how many the run has, 0 if it is open-ended.
        recent: successes of the last 20 episodes. trend: success share over 20 after each of the last 60.
        finished: episodes that ended. total_reward: of the episode under way. last_return: of the one before.
        candidates, probabilities, values, chosen: of the last decision, in the order of the vocabulary.
        guard_source: who commands, e.g. "policy". guard_reason: why a command was changed, empty if it was not.
        guard_counts: interventions by reason.
        skills, lessons: what knowledge gave for this task. warnings: the last three, newest last.
        elapsed_s: wall time of the run, s.
    """

    title: str = "llmagent"
    episode: int = 0
    episodes: int = 0
    finished: int = 0
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    trend: deque[float] = field(default_factory=lambda: deque(maxlen=_TREND))
    total_reward: float = 0.0
    last_return: float | None = None
    last_reason: str = ""
    task: str = ""
    scene: str = ""
    candidates: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    chosen: str = ""
    adapter: str = ""
    updates: int = 0
    updates_per_s: float = 0.0
    env_steps: int = 0
    env_steps_per_s: float = 0.0
    guard_source: str = ""
    guard_reason: str = ""
    guard_counts: dict[str, int] = field(default_factory=dict)
    skills: tuple[str, ...] = ()
    lessons: tuple[str, ...] = ()
    warnings: deque[str] = field(default_factory=lambda: deque(maxlen=_WARNINGS))
    elapsed_s: float = 0.0

    @property
    def success_last_20(self) -> float | None:
        """Share of successes over the last min(20, n) episodes; None before the first ended."""
        return sum(self.recent) / len(self.recent) if self.recent else None

    def begin_episode(self, episode: int, task: str) -> None:
        """A new goal is under way; what knowledge gave for the last one is gone."""
        self.episode, self.task, self.total_reward = episode, task, 0.0
        self.skills, self.lessons = (), ()

    def end_episode(self, success: bool, total_reward: float, reason: str) -> None:
        """The episode under way ended so."""
        self.finished += 1
        self.recent.append(success)
        self.trend.append(sum(self.recent) / len(self.recent))
        self.total_reward = self.last_return = total_reward
        self.last_reason = reason

    def decide(self, decision: Decision, scene: str) -> None:
        """The policy read `scene` and chose."""
        self.scene, self.adapter, self.chosen = scene, decision.adapter, decision.action
        self.candidates = tuple(decision.candidates)
        self.probabilities = tuple(float(p) for p in decision.probabilities)
        self.values = tuple(float(v) for v in decision.values)

    def warn(self, text: str) -> None:
        """Show a warning; one that is said again and again takes one line."""
        if not self.warnings or self.warnings[-1] != text:
            self.warnings.append(text)


class Rate:
    """Events per second of a growing total, over the last `window` seconds.

    Args:
        window: s. Observations closer together than a fiftieth of it replace each other, so memory is bounded.
    """

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._points: deque[tuple[float, int]] = deque(maxlen=64)

    def observe(self, total: int, now: float) -> float:
        """Take the total at time now (s, monotonic) and return events per second; 0 with one observation."""
        if self._points and (total < self._points[-1][1] or now < self._points[-1][0]):
            self._points.clear()  # the counter's process was restarted
        if len(self._points) > 1 and now - self._points[-2][0] < self._window / 50:
            self._points.pop()
        self._points.append((now, total))
        while len(self._points) > 2 and now - self._points[1][0] >= self._window:
            self._points.popleft()
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - start) if end > start else 0.0
