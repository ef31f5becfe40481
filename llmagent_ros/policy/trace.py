"""Joining scenes, decisions and outcomes into transitions, whatever order they come in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from llmagent_ros.types import Decision, Outcome, Scene, Source, Transition

_MATCH = 1e-6  # s within which two stamps are the same moment


@dataclass(frozen=True)
class _Pending:
    step: int
    scene: Scene
    decision: Decision


class EpisodeTrace:
    """The transitions of one episode.

    A transition is closed when the scene after its decision and the outcome of its period are both known. Rewards of
    outcomes stamped in (scene, next scene] are summed, so that a world that reports more often than the robot decides
    is counted in full.

    Args:
        run: identifier of the run. episode: number in it. stepwise: whether every control period has an outcome
            (simulation); otherwise (a robot) a period without one has reward 0.
    """

    def __init__(self, run: str, episode: int, *, stepwise: bool) -> None:
        self._run, self._episode, self._stepwise = run, episode, stepwise
        self._pending: _Pending | None = None
        self._next: Scene | None = None
        self._outcomes: deque[tuple[float, Outcome]] = deque(maxlen=1000)
        self.steps = 0
        self.total_reward = 0.0
        self.ended: Outcome | None = None

    @property
    def last_stamp(self) -> float | None:
        """Stamp of the scene that was decided on last."""
        return self._pending.scene.stamp if self._pending else None

    def on_decision(self, scene: Scene, decision: Decision) -> list[Transition]:
        """Takes the decision on `scene`, which is also the scene after the decision before."""
        closed = self.on_scene(scene) if self._pending else []
        if self._pending is not None:  # its outcome never came: it cannot be learned from
            self._pending = None
        self._pending = _Pending(self.steps, scene, decision)
        self._next = None
        self.steps += 1
        return closed

    def on_scene(self, scene: Scene) -> list[Transition]:
        """Takes the scene after the last decision; the end of an episode has no decision of its own."""
        if self._pending is not None and scene.stamp > self._pending.scene.stamp + _MATCH and self._next is None:
            self._next = scene
        return self._close()

    def on_outcome(self, stamp: float, outcome: Outcome) -> list[Transition]:
        """Takes the outcome of the period that led to `stamp`."""
        if self.ended is not None:
            return []
        self.total_reward += outcome.reward
        self._outcomes.append((stamp, outcome))
        if outcome.ended:
            self.ended = outcome
        return self._close()

    def flush(self) -> list[Transition]:
        """Closes a terminated step whose next scene never came; that scene's text would not be used anyway."""
        if self._pending is not None and self.ended is not None and self.ended.terminated:
            self._next = self._next or self._pending.scene
        return self._close(force=True)

    @property
    def complete(self) -> bool:
        """Whether the episode has ended and its last transition is closed."""
        return self.ended is not None and self._pending is None

    def _close(self, *, force: bool = False) -> list[Transition]:
        pending, following = self._pending, self._next
        if pending is None or following is None:
            return []
        start = pending.scene.stamp + _MATCH
        due = [(t, o) for t, o in self._outcomes if start < t <= following.stamp + _MATCH]
        if force and self.ended is not None and not any(o is self.ended for _, o in due):
            due += [(t, o) for t, o in self._outcomes if o is self.ended]
        if not due and self._stepwise:
            return []
        while self._outcomes and self._outcomes[0][0] <= following.stamp + _MATCH:
            self._outcomes.popleft()
        self._pending = self._next = None
        last = next((o for _, o in due if o.ended), Outcome(0.0))
        return [
            Transition(
                run=self._run,
                episode=self._episode,
                step=pending.step,
                task=pending.scene.task,
                scene=pending.scene.text,
                action=pending.decision.action,
                reward=sum(o.reward for _, o in due),
                next_scene=following.text,
                terminated=last.terminated,
                truncated=last.truncated and not last.terminated,
                source=Source.POLICY,
                log_probability=pending.decision.log_probability,
                stamp=pending.scene.stamp,
                extra={"adapter": pending.decision.adapter},
            )
        ]
