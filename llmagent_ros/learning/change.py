"""Noticing that a robot, its sensors or its world are no longer what they were.

Each episode gives a few figures that are small while all is as usual: how surprised the base is by what comes of
actions, how far the critic is off (its temporal-difference error), and whether the episode failed. A figure x is
compared with its own past, mean m and standard deviation s of the `baseline` episodes before, and one-sided cumulative
sums (CUSUM, Page 1954) see both a jump and a drift:

    z_e = min((x_e - m) / s, largest)        S_e = max(0, S_{e-1} + z_e - slack)        alarm where S_e > threshold
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ConfigError

# Standard deviation that a figure has at least: of what hardly ever failed, one failure is no change, two may be.
_LEAST_SPREAD: Mapping[str, float] = {"failure": 0.2}
# Learner settings after a change: where there is little to learn from, more is made of each step, and it is begun with
# sooner.
FEW_EPISODES: Mapping[str, Any] = {"warmup": 32, "updates_per_step": 8.0}


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class ChangeConfig:
    """How sure it has to be.

    Attributes:
        baseline: episodes that say what is usual; before there are `least` of them nothing is noticed.
        slack: standard deviations above the mean that still count as usual.
        threshold: of the cumulative sum, in standard deviations.
        largest: standard deviations that one episode counts for at most.
    """

    baseline: Annotated[int, Field(ge=4)] = 60
    least: Annotated[int, Field(ge=4)] = 20
    slack: Annotated[float, Field(ge=0)] = 1.0
    threshold: Annotated[float, Field(gt=0)] = 6.0
    largest: Annotated[float, Field(gt=0)] = 7.5


@plain_dataclass(frozen=True)
class Alarm:
    """What no longer fits. figure: its name. value, usual, spread: of it in the last episode, and mean and standard
    deviation before. episodes: since when, counting the last one."""

    figure: str
    value: float
    usual: float
    spread: float
    episodes: int

    def __str__(self) -> str:
        since = "in this episode" if self.episodes == 1 else f"for {self.episodes} episodes"
        return f"{self.figure} is {self.value:.3g}, usually {self.usual:.3g} +- {self.spread:.2g}, {since}"


class _Sum:
    """The cumulative sum of one figure. Episodes that count towards an alarm do not say what is usual meanwhile."""

    def __init__(self, config: ChangeConfig) -> None:
        self._config = config
        self.past: deque[float] = deque(maxlen=config.baseline)
        self.sum = 0.0
        self.waiting: list[float] = []  # of the episodes since the sum was last 0

    def add(self, name: str, value: float) -> Alarm | None:
        c = self._config
        if len(self.past) < c.least:
            self.past.append(value)
            return None
        usual, spread = statistics.fmean(self.past), self._spread(_LEAST_SPREAD.get(name, 1e-6))
        self.sum = max(0.0, self.sum + min((value - usual) / spread, c.largest) - c.slack)
        self.waiting.append(value)
        if self.sum > c.threshold:
            return Alarm(name, value, usual, spread, len(self.waiting))
        if self.sum == 0.0:
            self.past.extend(self.waiting)
            self.waiting = []
        return None

    def _spread(self, least: float) -> float:
        """At least a tenth of the mean's size: what hardly varied may vary a little."""
        usual = statistics.fmean(self.past)
        return max(statistics.stdev(self.past), 0.1 * abs(usual), least)


class ChangeDetector:
    """See the module. One figure's alarm is enough.

    An alarm is given once, and nothing is taken after it until `dismiss`, or `reset`, after which nothing is known of
    what is usual.
    """

    def __init__(self, config: ChangeConfig | None = None) -> None:
        self.config = config or ChangeConfig()
        self._sums: dict[str, _Sum] = {}
        self.alarm: Alarm | None = None

    def add(self, figures: Mapping[str, float]) -> Alarm | None:
        """Takes the figures of an episode that is over; the first alarm, if this is where it is given.

        Raises:
            ConfigError: a figure is not finite.
        """
        wrong = sorted(name for name, value in figures.items() if not math.isfinite(value))
        if wrong:
            raise ConfigError(f"figures of an episode: {', '.join(wrong)} not finite")
        if self.alarm is not None:
            return None
        alarms = [
            alarm
            for name, value in figures.items()
            if (alarm := self._sums.setdefault(name, _Sum(self.config)).add(name, value)) is not None
        ]
        if not alarms:
            return None
        self.alarm = max(alarms, key=lambda alarm: (alarm.value - alarm.usual) / alarm.spread)
        return self.alarm

    def dismiss(self) -> None:
        """Looks on, with what was usual before the alarm."""
        self.alarm = None
        for each in self._sums.values():
            each.sum, each.waiting = 0.0, []

    def reset(self) -> None:
        """What comes is what is usual from now on."""
        self._sums.clear()
        self.alarm = None

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        sums = {name: [list(each.past), each.sum, each.waiting] for name, each in self._sums.items()}
        return {"sums": sums, "alarm": None if self.alarm is None else vars(self.alarm)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self._sums = {}
        for name, (past, total, waiting) in state["sums"].items():
            each = self._sums[name] = _Sum(self.config)
            each.past.extend(past)
            each.sum, each.waiting = float(total), list(waiting)
        self.alarm = None if state["alarm"] is None else Alarm(**state["alarm"])
