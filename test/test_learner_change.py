"""Noticing a change: soon after it, seldom without one, and what is told of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.change import Alarm, ChangeConfig, ChangeDetector


def usual(rng: np.random.Generator, episodes: int) -> list[dict[str, float]]:
    return [{"surprise": float(rng.normal(1.0, 0.2)), "error": float(rng.gamma(4.0, 0.1))} for _ in range(episodes)]


def first_alarm(detector: ChangeDetector, episodes: list[dict[str, float]]) -> tuple[int, Alarm] | None:
    for number, figures in enumerate(episodes):
        if (alarm := detector.add(figures)) is not None:
            return number, alarm
    return None


@pytest.mark.parametrize(("jump", "within"), [(8.0, 1), (4.0, 3), (2.0, 8)])
def test_a_jump_is_noticed_the_sooner_the_larger_it_is(jump: float, within: int) -> None:
    delays, early = [], 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        detector = ChangeDetector()
        early += first_alarm(detector, usual(rng, 40)) is not None
        detector.alarm = None
        found = first_alarm(detector, [{**e, "surprise": e["surprise"] + jump * 0.2} for e in usual(rng, 30)])
        assert found is not None
        delays.append(found[0] + 1)
    assert np.median(delays) <= within and early <= 2


def test_what_is_usual_gives_no_alarm_for_long() -> None:
    """500 episodes of two figures, one of them skewed, twenty times."""
    alarms = 0
    for seed in range(20):
        detector = ChangeDetector()
        for figures in usual(np.random.default_rng(seed), 500):
            if detector.add(figures) is not None:
                alarms += 1
                detector.reset()
    assert alarms <= 20, f"{alarms} in 10,000 episodes"


def test_a_slow_drift_is_noticed_although_what_is_usual_is_learned_meanwhile() -> None:
    rng = np.random.default_rng(0)
    detector = ChangeDetector(ChangeConfig(baseline=40))
    assert first_alarm(detector, usual(rng, 40)) is None
    drifting = [{**e, "surprise": e["surprise"] + 0.05 * n} for n, e in enumerate(usual(rng, 60))]
    assert first_alarm(detector, drifting) is not None


def test_a_fall_is_no_alarm() -> None:
    """A robot that learns is surprised less and less."""
    rng = np.random.default_rng(1)
    detector = ChangeDetector()
    figures = [{"surprise": 2.0 * 0.98**n + float(rng.normal(0.0, 0.05))} for n in range(200)]
    assert first_alarm(detector, figures) is None


def test_nothing_is_noticed_before_there_is_something_usual() -> None:
    detector = ChangeDetector(ChangeConfig(least=20))
    assert first_alarm(detector, [{"surprise": float(n)} for n in range(20)]) is None


def test_an_alarm_is_given_once_and_a_reset_begins_anew() -> None:
    rng = np.random.default_rng(2)
    detector = ChangeDetector()
    first_alarm(detector, usual(rng, 40))
    changed = [{**e, "surprise": 5.0 + e["surprise"]} for e in usual(rng, 80)]
    assert first_alarm(detector, changed[:10]) is not None
    assert detector.alarm is not None and first_alarm(detector, changed[10:20]) is None
    assert len(json.dumps(detector.state())) < 20_000, "nothing is kept of what comes after an alarm"
    detector.reset()
    assert detector.alarm is None and first_alarm(detector, changed[20:]) is None
    assert first_alarm(detector, [{"surprise": 20.0, "error": 0.4}]) is not None


def test_one_episode_alone_counts_so_much_at_most() -> None:
    rng = np.random.default_rng(3)
    detector = ChangeDetector(ChangeConfig(largest=4.0))
    first_alarm(detector, usual(rng, 40))
    assert detector.add({"surprise": 1e9, "error": 0.4}) is None
    assert first_alarm(detector, usual(rng, 60)) is None, "and is forgotten"


@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(0, 59))
def test_it_goes_on_exactly_from_its_state(values: list[float], at: int) -> None:
    whole, half = ChangeDetector(ChangeConfig(least=4)), ChangeDetector(ChangeConfig(least=4))
    expected = [whole.add({"x": value}) for value in values]
    found = [half.add({"x": value}) for value in values[:at]]
    again = ChangeDetector(ChangeConfig(least=4))
    again.load_state(json.loads(json.dumps(half.state())))
    found += [again.add({"x": value}) for value in values[at:]]
    assert found == expected


def test_a_figure_that_is_no_number_is_refused_and_changes_nothing() -> None:
    detector = ChangeDetector()
    before = detector.state()
    with pytest.raises(ConfigError, match="error, surprise not finite"):
        detector.add({"surprise": float("nan"), "error": float("inf")})
    assert detector.state() == before


def test_an_alarm_says_what_and_since_when() -> None:
    said = str(Alarm("surprise", 2.0, 1.0, 0.1, 3))
    assert said == "surprise is 2, usually 1 +- 0.1, for 3 episodes"


def test_one_failure_is_no_change_and_two_in_a_row_are() -> None:
    detector = ChangeDetector()
    assert first_alarm(detector, [{"failure": 0.0}] * 60) is None
    assert first_alarm(detector, [{"failure": 1.0}] + [{"failure": 0.0}] * 20) is None
    found = first_alarm(detector, [{"failure": 1.0}] * 3)
    assert found is not None and found[0] == 1


def test_after_an_alarm_that_is_dismissed_what_was_usual_is_known_still() -> None:
    detector = ChangeDetector()
    assert first_alarm(detector, usual(np.random.default_rng(0), 30)) is None
    high = [{"surprise": 5.0, "error": 0.4}] * 3
    assert first_alarm(detector, high) is not None and first_alarm(detector, high) is None
    detector.dismiss()
    assert first_alarm(detector, usual(np.random.default_rng(1), 5)) is None
    assert first_alarm(detector, high) is not None
