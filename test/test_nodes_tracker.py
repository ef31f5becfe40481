"""Episodes that no outcome ends: the action's time limit cut them off, and a truncated transition says so."""

from __future__ import annotations

from llmagent_ros.nodes.episode_tracker import EpisodeTracker
from llmagent_ros.types import Outcome


def half(episode: int, begin: int) -> EpisodeTracker:
    """A tracker in the midst of an episode of two steps, at begin and begin + 10."""
    tracker = EpisodeTracker()
    for stamp in (begin, begin + 10):
        assert tracker.on_decision(stamp, "r", episode) is None
        assert tracker.on_outcome(stamp + 10, Outcome(0.5)) is None
    return tracker


def test_it_ends_when_the_next_one_begins() -> None:
    tracker = half(0, 10)
    tracker.on_truncated("r", 0, 2)
    tracker.on_outcome(45, Outcome(7.0))  # of the next one, whose decision is late
    ended = tracker.on_decision(40, "r", 1)
    assert ended is not None and (ended.run, ended.episode) == ("r", 0)
    assert (ended.success, ended.reason, ended.steps, ended.total_reward) == (False, "timeout", 2, 1.0)
    following = tracker.on_outcome(50, Outcome(1.0, terminated=True, success=True, reason="reached"))
    assert following is not None and (following.episode, following.total_reward) == (1, 8.0)


def test_it_ends_with_the_run() -> None:
    tracker = half(0, 10)
    assert tracker.settle() is None, "it is still under way"
    tracker.on_truncated("r", 0, 2)
    ended = tracker.settle()
    assert ended is not None and (ended.episode, ended.steps) == (0, 2)
    assert tracker.settle() is None and tracker.is_ended("r", 0)


def test_it_counts_however_late_it_is_said() -> None:
    tracker = half(0, 10)
    tracker.on_decision(40, "r", 1)
    ended = tracker.on_truncated("r", 0, 2)  # in the midst of the next one
    assert ended is not None and (ended.episode, ended.total_reward, ended.steps) == (0, 1.0, 2)
    tracker.on_outcome(50, Outcome(0.25))
    tracker.on_decision(50, "r", 1)
    end = Outcome(1.0, terminated=True, success=True, reason="reached")
    following = tracker.on_outcome(60, end)
    assert following is not None and (following.episode, following.total_reward, following.steps) == (1, 1.25, 2)

    tracker = half(0, 10)
    tracker.on_decision(40, "r", 1)
    assert tracker.on_outcome(50, end) is not None
    ended = tracker.on_truncated("r", 0, 2)  # after the end of the next one
    assert ended is not None and (ended.episode, ended.total_reward, ended.steps) == (0, 1.0, 2)
    assert tracker.on_truncated("r", 0, 2) is None


def test_it_counts_however_early_it_is_said() -> None:
    tracker = EpisodeTracker()
    assert tracker.on_truncated("r", 0, 1) is None and tracker.on_truncated("r", 1, 2) is None
    assert tracker.settle() is None, "nothing of them was seen"
    ends = [
        tracker.on_decision(10, "r", 0),
        tracker.on_outcome(20, Outcome(0.5)),
        tracker.on_decision(30, "r", 1),
        tracker.on_decision(40, "r", 1),
        tracker.on_outcome(40, Outcome(0.25)),
        tracker.settle(),
    ]
    found = [(end.episode, end.steps, end.total_reward) for end in ends if end is not None]
    assert found == [(0, 1, 0.5), (1, 2, 0.25)]
    assert tracker.settle() is None


def test_an_outcome_that_ends_it_counts_whichever_comes_first() -> None:
    end = Outcome(1.0, truncated=True, reason="timeout")
    for transition_first in (True, False):
        tracker = EpisodeTracker()
        tracker.on_decision(10, "r", 0)
        if transition_first:
            tracker.on_truncated("r", 0, 1)
        ended = tracker.on_outcome(20, end)
        if not transition_first:
            tracker.on_truncated("r", 0, 1)
        assert ended is not None and (ended.steps, ended.total_reward) == (1, 1.0)
        assert tracker.on_decision(30, "r", 1) is None and tracker.settle() is None


def test_one_that_was_not_seen_and_one_of_another_world_are_nobodys() -> None:
    tracker = half(0, 100)
    tracker.on_truncated("r", 7, 3)
    assert tracker.on_decision(130, "r", 1) is None
    tracker.on_truncated("r", 1, 1)
    assert tracker.on_decision(10, "r", 2) is None, "the simulator was started again"
    assert tracker.settle() is None
