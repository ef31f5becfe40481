"""Joining scenes, decisions and outcomes into transitions, whatever order they come in."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from llmagent_ros.types import Decision, Outcome, Scene, Source, Transition

_MATCH = 1e-6  # s within which two stamps are the same moment
_MOST_OPEN = 64  # steps that wait for their outcomes; more means that nobody reports any


@dataclass
class _Open:
    step: int
    scene: Scene
    decision: Decision
    executed: bool
    next: Scene | None = None


class EpisodeTrace:
    """The transitions of one episode.

    A transition is closed when the scene after its decision and the outcomes up to that scene are known. Rewards of
    outcomes stamped in (scene, next scene] are summed, so that a world that reports more often than the robot decides
    is counted in full. Scenes come in order, and so do outcomes; how the two interleave makes no difference: a step
    stays open while decisions go on, and a decision on what turns out to be the episode's last scene is not a step.
    Whatever was reported up to the end counts for the last step, also what came after the scene that closed it. A step
    that was not executed as decided closes without a transition, and its rewards are nobody's.

    Args:
        run: identifier of the run. episode: number in it. stepwise: whether every control period has an outcome
            (simulation); otherwise (a robot) nothing is waited for, a period without one has reward 0, and one that
            comes late counts for the step that is then open.
    """

    def __init__(self, run: str, episode: int, *, stepwise: bool) -> None:
        self._run, self._episode, self._stepwise = run, episode, stepwise
        self._open: deque[_Open] = deque(maxlen=_MOST_OPEN)
        self._outcomes: deque[tuple[float, Outcome]] = deque(maxlen=1000)
        self._reported = -math.inf  # stamp of the last outcome
        self.steps = 0
        self.total_reward = 0.0
        self.ended: Outcome | None = None

    @property
    def last_stamp(self) -> float | None:
        """Stamp of the scene that was decided on last, while its step is open."""
        return self._open[-1].scene.stamp if self._open else None

    @property
    def reported(self) -> float:
        """Stamp of the last outcome; -inf before the first."""
        return self._reported

    def on_decision(self, scene: Scene, decision: Decision, *, executed: bool = True) -> list[Transition]:
        """Takes the decision on `scene`, which is also the scene after the decision before.

        Args:
            executed: whether the robot does what the decision says, as far as is known.
        """
        goes_on = not self._is_after_end(scene)
        self._follow(scene)
        closed = self._close(goes_on)
        if goes_on:
            self._open.append(_Open(self.steps, scene, decision, executed))
            self.steps += 1
        return closed

    def drives(self, source: Source | None) -> None:
        """Says whose commands the robot follows from now on; None: nobody's. The others' open steps are not learned."""
        for step in self._open:
            if step.next is None and step.decision.source is not source:
                step.executed = False

    def on_scene(self, scene: Scene) -> list[Transition]:
        """Takes the scene after the last decision; the end of an episode has no decision of its own."""
        self._follow(scene)
        return self._close()

    def on_outcome(self, stamp: float, outcome: Outcome) -> list[Transition]:
        """Takes the outcome of the period that led to `stamp`."""
        if self.ended is not None:
            return []
        self.total_reward += outcome.reward
        self._outcomes.append((stamp, outcome))
        self._reported = stamp
        if outcome.ended:
            self.ended = outcome
            while self._stepwise and self._open and self._is_after_end(self._open[-1].scene):
                self.steps = self._open.pop().step
        return self._close()

    def flush(self) -> list[Transition]:
        """Closes a terminated step whose next scene never came; that scene's text would not be used anyway."""
        closed = self._close()
        if self._open and self.ended is not None and self.ended.terminated:
            last = self._open.pop()
            due = [o for t, o in self._outcomes if t > self._start(last)]
            closed += [self._transition(last, last.scene, due)] if last.executed else []
        return closed

    @property
    def complete(self) -> bool:
        """Whether the episode has ended and its last transition is closed."""
        return self.ended is not None and not self._open

    def _is_after_end(self, scene: Scene) -> bool:
        """Whether the outcome that ended the episode was that of the period that led to this scene."""
        return self.ended is not None and self._reported <= scene.stamp + _MATCH

    def _follow(self, scene: Scene) -> None:
        last = self._open[-1] if self._open else None
        if last is not None and last.next is None and scene.stamp > last.scene.stamp + _MATCH:
            last.next = scene

    def _close(self, goes_on: bool = False) -> list[Transition]:
        """The transitions of all steps whose next scene and outcomes are known, in order.

        Args:
            goes_on: whether another step follows those that are open.
        """
        closed = []
        while self._open and (following := self._open[0].next) is not None:
            known = self._reported + _MATCH >= following.stamp or self.ended is not None
            if self._stepwise and not known:
                break
            step = self._open.popleft()
            is_last = self.ended is not None and not self._open and not goes_on
            end = math.inf if is_last else following.stamp + _MATCH
            due = [o for t, o in self._outcomes if self._start(step) < t <= end]
            while self._outcomes and self._outcomes[0][0] <= end:
                self._outcomes.popleft()
            # without its outcome a step cannot be learned from
            if step.executed and (due or not self._stepwise):
                closed.append(self._transition(step, following, due))
        return closed

    def _start(self, step: _Open) -> float:
        """Outcomes up to this stamp are not the step's."""
        return step.scene.stamp + _MATCH if self._stepwise else -math.inf

    def _transition(self, step: _Open, following: Scene, due: list[Outcome]) -> Transition:
        last = next((o for o in due if o.ended), Outcome(0.0))
        return Transition(
            run=self._run,
            episode=self._episode,
            step=step.step,
            task=step.scene.task,
            scene=step.scene.text,
            action=step.decision.action,
            reward=sum(o.reward for o in due),
            next_scene=following.text,
            terminated=last.terminated,
            truncated=last.truncated and not last.terminated,
            source=step.decision.source,
            log_probability=step.decision.log_probability,
            stamp=step.scene.stamp,
            extra={"adapter": step.decision.adapter},
        )
