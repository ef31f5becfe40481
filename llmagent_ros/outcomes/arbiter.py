"""One outcome for each control period of an episode, which ends once, by the word of whoever has most authority."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from pydantic.dataclasses import dataclass

from llmagent_ros.contract.values import STRICT, Finite, NotNegative, Positive
from llmagent_ros.outcomes.claims import Authority, Claim
from llmagent_ros.types import Judgement, Outcome

SUCCESS, FAILURE = "success", "failure"
FUTURE_TOLERANCE = 1.0  # s that a person's clock may be ahead
LATE, STALE, FUTURE, OTHER_TASK, NO_EPISODE, INVALID = (
    *("late", "stale", "future", "other_task", "no_episode", "invalid"),
)


@dataclass(config=STRICT, frozen=True)
class RewardConfig:
    """What is given, on the scale of the simulated tasks.

    Attributes:
        success, failure: once, at the end. step: each control period.
        stop: for each command of the policy that the guard stops for one of the reasons `stops`. No collision ends the
            episode of a robot that the guard stops in time: ten stops cost as much as one collision in simulation.
        person: most that one judgement, and all of a control period together, may give or take.
    """

    success: Finite = 1.0
    failure: Finite = -1.0
    step: Finite = -0.01
    stop: Finite = -0.1
    stops: tuple[str, ...] = ("obstacle",)
    person: Positive = 1.0


@dataclass(config=STRICT, frozen=True)
class ArbiterConfig:
    """period: control period, s. time_limit: s from the first decision on; 0: none. reward: see RewardConfig."""

    period: Positive
    time_limit: NotNegative = 0.0
    reward: RewardConfig = RewardConfig()


class Arbiter:
    """Collects what is said of the present episode and makes an outcome of it at each tick. Not thread-safe.

    An episode is announced by its task, begins with its first decision (before it the policy takes no outcomes), and
    is over when an outcome has ended it or when another task, or none, is announced. Times are s of the robot's clock.
    What was said before the beginning, or after the end, is counted and never applied to another episode.

    Attributes:
        counts: `ended_by_…` and `refused_…` by source and reason.
    """

    def __init__(self, config: ArbiterConfig) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self._task = ""
        self._limit = config.time_limit
        self._forget()

    def _forget(self) -> None:
        self._begun: float | None = None
        self._ended = False
        self._last = -math.inf  # of the last outcome
        self._reward = self._praise = 0.0  # of the guard, of a person, since the last outcome
        self._claims: dict[Authority, Claim] = {}

    # --- the episode ----------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether an episode is under way."""
        return self._begun is not None and not self._ended

    @property
    def task(self) -> str:
        """Id of the present task; empty: none."""
        return self._task

    def announce(self, task: str, time_limit: float | None = None) -> bool:
        """Takes the present task's id, empty for none; whether it is another one than before.

        Args:
            time_limit: s, of this task; None: that of the configuration.
        """
        if task == self._task:
            return False
        self._task, self._limit = task, self.config.time_limit if time_limit is None else time_limit
        self._forget()
        return True

    def begin(self, task: str, stamp: float) -> bool:
        """Takes a decision; whether the episode begins with it."""
        if not task or task != self._task or self._begun is not None:
            return False
        self._begun = self._last = stamp
        return True

    # --- what is said of it -----------------------------------------------------------------------

    def judge(self, judgement: Judgement, now: float, stamp: float = 0.0, task: str = "") -> str:
        """Takes what a person says; why it is refused, empty when it is taken.

        Args:
            stamp: when they said it; 0: just now. task: id of the task that they mean; empty: the present one.
        """
        kind, problem = self._refusal(judgement, now, stamp or now, task)
        if problem:
            self.counts[f"refused_{kind}"] += 1
            return problem
        most = self.config.reward.person
        self._praise = max(-most, min(most, self._praise + judgement.reward))
        if judgement.verdict:  # the last one before the tick counts: a person may correct a slip
            self._claims[Authority.PERSON] = Claim(Authority.PERSON, judgement.verdict == SUCCESS, judgement.verdict)
        return ""

    def _refusal(self, judgement: Judgement, now: float, stamp: float, task: str) -> tuple[str, str]:
        most = self.config.reward.person
        if judgement.verdict not in ("", SUCCESS, FAILURE):
            return INVALID, f"verdict {judgement.verdict[:40]!r}; valid: {SUCCESS}, {FAILURE}, or empty"
        if not abs(judgement.reward) <= most:  # nor NaN
            return INVALID, f"reward {judgement.reward}; valid: from {-most:g} to {most:g}"
        if not self._task:
            return NO_EPISODE, "no task is worked on"
        if task and task != self._task:
            return OTHER_TASK, f"it is of task {task[:40]}; the present one is {self._task}"
        if self._ended:
            return LATE, "the episode has ended already"
        if self._begun is None:
            return NO_EPISODE, "the episode has not begun: there is no decision yet"
        if stamp <= self._begun:
            return STALE, f"it is of {self._begun - stamp:.1f} s before the episode's beginning"
        if stamp > now + FUTURE_TOLERANCE:
            return FUTURE, f"its stamp is {stamp - now:.1f} s ahead: the clocks disagree"
        return "", ""

    def claim(self, claim: Claim | None, task: str = "") -> None:
        """Takes what conditions or the classifier say; of one source failure goes before success.

        Args:
            task: id of the task that it is about; empty: the present one.
        """
        if claim is None or not self.is_open or (task and task != self._task):
            return
        before = self._claims.get(claim.authority)
        if before is None or before.success:
            self._claims[claim.authority] = claim

    def on_stop(self, source: str, verdict: str, reason: str, stamp: float) -> None:
        """Takes a verdict of the guard (`types.Verdict`: whom it followed, its word and why).

        Args:
            stamp: of the command that it answers, which is that of its scene.
        """
        config = self.config.reward
        stopped = source == "policy" and verdict == "stopped" and not set(config.stops).isdisjoint(reason.split(","))
        if stopped and self._begun is not None and not self._ended and stamp >= self._begun:
            self._reward += config.stop
            self.counts["stops"] += 1

    # --- what comes of it -------------------------------------------------------------------------

    def tick(self, now: float) -> Outcome | None:
        """The outcome of the control period up to now, if it is due; the last one of an episode ends it."""
        if self._begun is None or self._ended:
            return None
        if now < self._begun:  # the clock has jumped back: the policy gives the task up
            self._ended = True
            self.counts["clock_jumped_back"] += 1
            return None
        if 0 < self._limit <= now - self._begun:
            self._claims[Authority.TIME] = Claim(Authority.TIME, False, "timeout")
        # the timer is not in step with the decisions: the first period must not be next to nothing
        if now <= self._last or (not self._claims and now - self._last < self.config.period / 2):
            return None
        reward = self.config.reward.step + self._reward + self._praise
        self._reward, self._praise, self._last = 0.0, 0.0, now
        self.counts["outcomes"] += 1
        if not self._claims:
            return Outcome(reward)
        return self._end(self._claims[min(self._claims)], reward)

    def _end(self, claim: Claim, reward: float) -> Outcome:
        self._ended = True
        self._claims = {}
        self.counts[f"ended_by_{claim.authority.name.lower()}"] += 1
        if claim.authority is Authority.TIME:
            return Outcome(reward, truncated=True, reason=claim.reason)
        given = self.config.reward.success if claim.success else self.config.reward.failure
        return Outcome(reward + given, terminated=True, success=claim.success, reason=claim.reason)

    def report(self) -> Mapping[str, object]:
        """For diagnostics: the state and all counts."""
        state = "open" if self.is_open else "ended" if self._ended else "waiting" if self._task else "no task"
        return {"episode": state, **dict(sorted(self.counts.items()))}
