"""The instruction that the policy works on: its episode, its time limit, and who wants it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from llmagent_interfaces.msg import Outcome, Scene
from llmagent_ros.knowledge.start import Start
from llmagent_ros.nodes.goals import Goal
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.policy.trace import EpisodeTrace
from llmagent_ros.types import Outcome as OutcomeValue
from llmagent_ros.types import RetrievedSkill, Transition

CLOCK_JUMP = 1.0  # s by which a scene may be older than the one before without being of another time

ROUNDING = 1e-3  # s; a goal's time limit is a float32


@dataclass
class Work:
    """Not thread-safe.

    Attributes:
        id, instruction, episode: as announced. stepwise: whether an outcome comes for every control period.
        time_limit: s of ROS time from the first scene on, 0: none. begun: ROS time, s.
        goal: who wants it; None: a topic or service. started: stamp of its first scene, s.
        wording: what it asks for, whichever object it is about.
        lessons, skills, start: what was retrieved for it, and with what it begins. seen: whether its first scene was
            asked for, too.
        overdue: the scene at its time limit, while the outcome of that moment is missing.
        ended_at: wall time of its last outcome, s.
    """

    id: str
    instruction: str
    wording: str
    episode: int
    trace: EpisodeTrace
    stepwise: bool
    time_limit: float
    begun: float
    goal: Goal | None
    started: float | None = None
    lessons: tuple[str, ...] = ()
    skills: tuple[RetrievedSkill, ...] = ()
    start: Start | None = None
    seen: bool = False
    overdue: Scene | None = None
    ended_at: float | None = None

    def is_of_another_time(self, scene: Scene) -> bool:
        """Whether the clock has jumped back since the last decision."""
        last = self.trace.last_stamp
        return last is not None and to_seconds(scene.header.stamp) < last - CLOCK_JUMP

    def take_scene(self, scene: Scene) -> list[Transition] | None:
        """The transitions that a scene closes, if it is the episode's last; None if it is to be decided on."""
        if self.trace.ended is None and not self._ends_by_time(scene):
            return None if self.overdue is None else []
        return self.trace.on_scene(decisions.scene_from_message(scene))

    def take_outcome(self, message: Outcome, stamp: float, undecided: Scene | None) -> list[Transition]:
        """The transitions that an outcome closes.

        Args:
            stamp: of the state that it led to, s. undecided: the newest scene, if there is no decision on it yet.
        """
        if self.started is None or stamp <= self.started:
            return []  # of what was before
        closed = self.trace.on_outcome(stamp, decisions.outcome_from_message(message))
        overdue, self.overdue = self.overdue, None
        if overdue is not None and self.trace.ended is None:
            self._ends_by_time(overdue)
        if self.trace.ended is not None:
            self.ended_at = time.monotonic()
            last = undecided or overdue
            if last is not None:  # it came before the outcome
                closed += self.trace.on_scene(decisions.scene_from_message(last))
        return closed

    def is_late(self, now: float, slack: float) -> bool:
        """Whether the time limit is over by more than `slack` s, no scene having come to end it."""
        since = self.begun if self.started is None else self.started
        return 0 < self.time_limit < now - since - slack

    def _ends_by_time(self, scene: Scene) -> bool:
        """Whether the time limit ends the episode in this scene, which the world's own word on that moment precedes."""
        stamp = to_seconds(scene.header.stamp)
        if self.started is None:
            self.started = stamp
        if not 0 < self.time_limit <= stamp - self.started + ROUNDING or self.trace.steps == 0:
            return False
        if self.stepwise and self.trace.reported < stamp:
            self.overdue = scene
            return False
        self.trace.on_outcome(stamp, OutcomeValue(0.0, truncated=True, reason="timeout"))
        return True
