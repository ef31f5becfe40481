"""Joining scenes, decisions and outcomes: every order of arrival gives the same transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.policy.trace import EpisodeTrace
from llmagent_ros.types import Decision, Outcome, Scene, Source, Transition

PERIOD = 0.4
TERMINATED = Outcome(7.0, terminated=True, success=True, reason="reached")
TRUNCATED = Outcome(-3.0, truncated=True, reason="timeout")


def scene(k: int) -> Scene:
    return Scene(1.0 + PERIOD * k, f"scene {k}", "go to the red ball")


def decision(k: int) -> Decision:
    half = np.full(2, 0.5, np.float32)
    return Decision(f"action {k}", -0.25 * (k + 1), (f"action {k}", "other"), half, half, f"adapter {k}")


@dataclass(frozen=True)
class Episode:
    """What arrives of an episode of `steps` periods with `reports` outcomes in each; the last one ends it."""

    steps: int
    reports: int
    last: Outcome

    @property
    def outcomes(self) -> list[tuple[float, Outcome]]:
        made = [
            (1.0 + PERIOD * (k + (part + 1) / self.reports), Outcome(100.0 * k + part))
            for k in range(self.steps)
            for part in range(self.reports)
        ]
        return [*made[:-1], (made[-1][0], self.last)]

    @property
    def rewards(self) -> list[float]:
        per_step = [self.outcomes[k * self.reports : (k + 1) * self.reports] for k in range(self.steps)]
        return [sum(outcome.reward for _, outcome in part) for part in per_step]

    def play(self, order: Sequence[bool], *, decided_on_last: bool) -> tuple[EpisodeTrace, list[Transition]]:
        """Feeds the two ordered streams, True taking the next outcome and False the next scene."""
        trace, closed = EpisodeTrace("run", 3, stepwise=True), []
        scenes, outcomes = list(range(self.steps + 1)), list(self.outcomes)
        for take_outcome in [*order, *([False] * len(scenes)), *([True] * len(outcomes))]:
            if take_outcome and outcomes:
                closed += trace.on_outcome(*outcomes.pop(0))
            elif not take_outcome and scenes:
                k = scenes.pop(0)
                final = k == self.steps and (trace.ended is not None or not decided_on_last)
                closed += trace.on_scene(scene(k)) if final else trace.on_decision(scene(k), decision(k))
        return trace, closed


episodes = st.builds(
    Episode, st.integers(1, 6), st.integers(1, 3), st.sampled_from([TERMINATED, TRUNCATED])
)


@given(episodes, st.lists(st.booleans(), max_size=30), st.booleans())
def test_order_of_arrival_makes_no_difference(episode: Episode, order: list[bool], decided_on_last: bool) -> None:
    trace, closed = episode.play(order, decided_on_last=decided_on_last)
    assert [t.step for t in closed] == list(range(episode.steps))
    assert [t.scene for t in closed] == [f"scene {k}" for k in range(episode.steps)]
    assert [t.next_scene for t in closed] == [f"scene {k + 1}" for k in range(episode.steps)]
    assert [t.action for t in closed] == [f"action {k}" for k in range(episode.steps)]
    assert [t.reward for t in closed] == pytest.approx(episode.rewards)
    assert [t.terminated for t in closed[:-1]] == [False] * (episode.steps - 1)
    assert [t.truncated for t in closed[:-1]] == [False] * (episode.steps - 1)
    assert (closed[-1].terminated, closed[-1].truncated) == (episode.last.terminated, episode.last.truncated)
    assert trace.complete and trace.ended is episode.last
    assert trace.steps == episode.steps
    assert trace.total_reward == pytest.approx(sum(episode.rewards))
    assert trace.flush() == []


def test_one_transition_in_full() -> None:
    trace = EpisodeTrace("run 9", 4, stepwise=True)
    assert trace.on_decision(scene(0), decision(0)) == []
    assert trace.last_stamp == 1.0
    assert trace.on_outcome(1.0 + PERIOD, Outcome(0.5)) == []
    assert trace.on_decision(scene(1), decision(1)) == [
        Transition(
            run="run 9",
            episode=4,
            step=0,
            task="go to the red ball",
            scene="scene 0",
            action="action 0",
            reward=0.5,
            next_scene="scene 1",
            terminated=False,
            truncated=False,
            source=Source.POLICY,
            log_probability=-0.25,
            stamp=1.0,
            extra={"adapter": "adapter 0"},
        )
    ]


def test_outcome_that_never_came_leaves_its_step_out_and_shifts_no_reward() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    closed = trace.on_decision(scene(0), decision(0)) + trace.on_decision(scene(1), decision(1))
    closed += trace.on_outcome(scene(2).stamp, Outcome(5.0))  # that of scene 1 is lost
    closed += trace.on_decision(scene(2), decision(2))
    assert [(t.step, t.reward) for t in closed] == [(1, 5.0)]


def test_outcomes_that_never_come_leave_memory_bounded() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    closed = [t for k in range(500) for t in trace.on_decision(scene(k), decision(k))]
    assert closed == []
    closed = trace.on_outcome(scene(500).stamp, TERMINATED) + trace.on_scene(scene(500))
    assert [(t.step, t.reward, t.terminated) for t in closed] == [(499, 7.0, True)]


def test_flush_closes_a_terminated_step_without_its_last_scene() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    trace.on_decision(scene(0), decision(0))
    trace.on_outcome(1.2, Outcome(1.0))
    trace.on_outcome(1.4, TERMINATED)
    assert not trace.complete
    (closed,) = trace.flush()
    assert (closed.reward, closed.terminated, closed.truncated, closed.scene) == (8.0, True, False, "scene 0")
    assert trace.complete


@pytest.mark.parametrize("last", [None, TRUNCATED])
def test_flush_invents_no_next_scene(last: Outcome | None) -> None:
    """Only a terminated step needs no next scene: a truncated one would bootstrap from a text that never was."""
    trace = EpisodeTrace("run", 0, stepwise=True)
    trace.on_decision(scene(0), decision(0))
    if last is not None:
        trace.on_outcome(1.4, last)
    assert trace.flush() == []


def test_robot_without_outcomes_has_reward_zero() -> None:
    trace = EpisodeTrace("run", 0, stepwise=False)
    trace.on_decision(scene(0), decision(0))
    (closed,) = trace.on_decision(scene(1), decision(1))
    assert (closed.reward, closed.terminated, closed.truncated) == (0.0, False, False)


def test_late_outcome_of_a_robot_counts_for_the_open_step() -> None:
    trace = EpisodeTrace("run", 0, stepwise=False)
    trace.on_decision(scene(0), decision(0))
    trace.on_decision(scene(1), decision(1))
    assert trace.on_outcome(1.1, TERMINATED) == []
    (closed,) = trace.on_scene(scene(2))
    assert (closed.step, closed.reward, closed.terminated) == (1, 7.0, True)
    assert trace.complete


@pytest.mark.parametrize("stepwise", [True, False])
@pytest.mark.parametrize("last", [TERMINATED, TRUNCATED])
@pytest.mark.parametrize("scene_first", [True, False])
def test_the_end_counts_for_the_last_step_whatever_scene_came_after_it(
    stepwise: bool, last: Outcome, scene_first: bool
) -> None:
    """In real time scenes and outcomes have moments of their own: the newest scene may be older than the end."""
    trace = EpisodeTrace("run", 0, stepwise=stepwise)
    closed = trace.on_decision(scene(0), decision(0)) + trace.on_outcome(1.35, Outcome(0.5))
    if scene_first:
        closed += trace.on_decision(scene(1), decision(1))
        closed += trace.on_outcome(1.45, last) + trace.on_scene(Scene(1.43, "scene 1.5", "go to the red ball"))
    else:
        closed += trace.on_outcome(1.45, last) + trace.on_scene(scene(1))
    ends = [(t.reward, t.terminated, t.truncated) for t in closed]
    end = (last.reward, last.terminated, last.truncated)
    if scene_first and stepwise:  # that first period's outcome is not known to be whole before one of its end comes
        assert ends[-1] == end
    elif scene_first:
        assert ends == [(0.5, False, False), end]
    else:
        assert ends == [(0.5 + last.reward, *end[1:])]
    assert trace.complete


def test_what_was_not_done_is_not_learned_and_its_reward_is_nobodys() -> None:
    trace = EpisodeTrace("run", 0, stepwise=False)
    closed = trace.on_decision(scene(0), decision(0))
    closed += trace.on_outcome(1.3, Outcome(1.0))
    closed += trace.on_decision(scene(1), decision(1), executed=False)  # under an e-stop
    closed += trace.on_outcome(1.7, Outcome(20.0))
    closed += trace.on_decision(scene(2), decision(2))
    trace.drives(None)  # pressed again in the middle of a step
    trace.drives(Source.POLICY)
    closed += trace.on_outcome(2.1, Outcome(300.0))
    closed += trace.on_decision(scene(3), decision(3))
    trace.drives(Source.POLICY)
    closed += trace.on_outcome(2.5, Outcome(4000.0)) + trace.on_scene(scene(4))
    assert [(t.step, t.reward) for t in closed] == [(0, 1.0), (3, 4000.0)]
    assert trace.total_reward == 4321.0 and trace.steps == 4


def test_a_step_that_somebody_else_took_over_is_not_learned() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    closed = trace.on_decision(scene(0), decision(0))
    trace.drives(Source.HUMAN)  # a person takes over in the middle of it
    closed += trace.on_outcome(scene(1).stamp, Outcome(1.0))
    driven = replace(decision(1), source=Source.HUMAN)
    closed += trace.on_decision(scene(1), driven) + trace.on_outcome(scene(2).stamp, Outcome(2.0))
    closed += trace.on_decision(scene(2), replace(decision(2), source=Source.HUMAN))
    trace.drives(Source.POLICY)  # and lets go in the middle of another
    closed += trace.on_outcome(scene(3).stamp, TERMINATED) + trace.on_scene(scene(3))
    assert [(t.step, t.source, t.reward) for t in closed] == [(1, Source.HUMAN, 2.0)]
    assert trace.complete


def test_flush_leaves_out_what_was_not_done() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    trace.on_decision(scene(0), decision(0), executed=False)
    trace.on_outcome(1.4, TERMINATED)
    assert trace.flush() == [] and trace.complete


def test_outcome_of_a_period_before_the_first_decision_is_not_its_reward() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    trace.on_outcome(1.0, Outcome(90.0))
    trace.on_decision(scene(0), decision(0))
    trace.on_outcome(1.4, Outcome(1.0))
    (closed,) = trace.on_scene(scene(1))
    assert closed.reward == 1.0


def test_nothing_counts_after_the_end() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    trace.on_decision(scene(0), decision(0))
    trace.on_outcome(1.4, TERMINATED)
    assert trace.on_outcome(1.8, Outcome(50.0)) == []
    (closed,) = trace.on_scene(scene(1))
    assert (closed.reward, trace.total_reward) == (7.0, 7.0)


def test_the_same_scene_again_is_not_the_next_one() -> None:
    trace = EpisodeTrace("run", 0, stepwise=True)
    trace.on_decision(scene(0), decision(0))
    trace.on_scene(scene(0))
    trace.on_outcome(1.4, Outcome(1.0))
    (closed,) = trace.on_scene(scene(1))
    assert closed.next_scene == "scene 1"
