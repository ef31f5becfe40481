"""Races pick the better arms as surely as they say, repeat only what is not decided, and do not depend on order."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.learning.evolution.selection import Race, RaceConfig, sign_flip

CONFIG = RaceConfig(block=8, rounds=4, error=0.1)


def run(race: Race, rates: Mapping[str, float], rng: np.random.Generator) -> int:
    """Outcomes of 0 and 1 until it is over; returns how many."""
    asked = 0
    while wanted := race.wanted():
        for name, which in wanted.items():
            race.tell(name, [float(each) for each in rng.random(len(which)) < rates[name]])
            asked += len(which)
    return asked


def test_the_sign_flip_test_by_hand() -> None:
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 1 / 8, "no other signs reach 6"
    assert sign_flip(np.array([1.0, 1.0, -1.0])) == 4 / 8
    assert sign_flip(np.array([0.0, 0.0])) == 1.0
    assert sign_flip(np.array([-1.0, -2.0])) == 1.0
    assert sign_flip(np.array([1.0] * 10 + [0.0] * 30)) == 2**-10, "ties say nothing"
    many = sign_flip(np.array([1.0] * 13 + [-1.0] * 5))  # drawn signs; exactly P(X >= 13), X ~ Binomial(18, 1/2)
    assert many == pytest.approx(0.0481, abs=0.005)


def test_beyond_what_drawn_signs_can_tell_the_bound_does() -> None:
    assert sign_flip(np.ones(64)) == pytest.approx(np.exp(-32)), "2^-64 at least"
    assert sign_flip(np.array([1.0] * 40 + [-1.0] * 24)) > 1e-3, "where drawn signs tell, they do"


@pytest.mark.parametrize("arms", [4, 30, 60])
def test_a_race_among_many_is_decided_as_one_among_few(arms: int) -> None:
    names = [f"arm {number}" for number in range(arms)]
    race = Race(names, 2, RaceConfig())
    run(race, {name: float(number < 2) for number, name in enumerate(names)}, np.random.default_rng(0))
    assert all(each.decided for each in race.standings())
    assert {each.name for each in race.standings() if each.selected} == {"arm 0", "arm 1"}


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_both_sides_of_the_test_cover_everything(differences: list[float]) -> None:
    one, other = sign_flip(np.array(differences)), sign_flip(-np.array(differences))
    assert 0 < one <= 1 and 0 < other <= 1 and one + other >= 1 - 1e-9


def test_the_better_arm_wins_under_noise() -> None:
    right = decided = 0
    for seed in range(40):
        race = Race(["good", "bad"], 1, CONFIG)
        run(race, {"good": 0.9, "bad": 0.4}, np.random.default_rng(seed))
        first = race.standings()[0]
        right += first.name == "good" and first.selected
        decided += first.decided
    assert right == 40 and decided >= 35


def test_equal_arms_are_called_different_no_more_often_than_stated() -> None:
    """Of 200 races the test decided the order of two equal arms in so many; 0.1 is stated."""
    wrong = 0
    for seed in range(200):
        race = Race(["a", "b"], 1, CONFIG)
        run(race, {"a": 0.6, "b": 0.6}, np.random.default_rng(seed))
        wrong += race.standings()[0].decided
    assert wrong / 200 <= 0.1


def test_what_is_decided_is_repeated_no_more() -> None:
    race = Race(["a", "b", "c", "d"], 2, RaceConfig(block=16, rounds=4, error=0.2))
    rng = np.random.default_rng(0)
    run(race, {"a": 1.0, "b": 0.55, "c": 0.5, "d": 0.0}, rng)
    counts = {each.name: each.repetitions for each in race.standings()}
    assert counts["a"] < counts["b"] == counts["c"] == 128 and counts["d"] < 128
    standing = {each.name: each for each in race.standings()}
    assert standing["a"].selected and standing["a"].decided
    assert not standing["d"].selected and standing["d"].decided
    assert sum(each.selected for each in race.standings()) == 2


def test_repetitions_are_bounded() -> None:
    race = Race(["a", "b", "c"], 1, CONFIG)
    asked = run(race, dict.fromkeys("abc", 0.5), np.random.default_rng(3))
    assert asked <= 3 * CONFIG.most == 192
    assert race.wanted() == {}


def test_pairs_are_compared_on_the_repetitions_that_both_have() -> None:
    """A seed that is hard for both says nothing against the one that met it."""
    race = Race(["a", "b"], 1, RaceConfig(block=12, rounds=1, error=0.5))
    hard = [0.0, 100.0] * 6
    race.tell("a", [value + 1.0 for value in hard])
    race.tell("b", hard)
    assert race.wanted() == {}
    assert race.standings()[0].name == "a" and race.standings()[0].decided


def test_the_order_of_answers_does_not_matter() -> None:
    outcomes = {name: np.random.default_rng(n).random(64) for n, name in enumerate("abc")}
    told = []
    for order in itertools.permutations("abc"):
        race = Race(["a", "b", "c"], 1, CONFIG)
        while wanted := race.wanted():
            for name in sorted(wanted, key=order.index):
                race.tell(name, outcomes[name][wanted[name].start : wanted[name].stop].tolist())
        told.append(race.standings())
    assert all(each == told[0] for each in told)


def test_an_arm_that_is_dropped_is_out_whatever_it_gave() -> None:
    race = Race(["a", "b", "c"], 2, RaceConfig(block=4, rounds=1))
    for name, value in (("a", 1.0), ("b", 0.5), ("c", 0.0)):
        race.tell(name, [value] * 4)
    race.drop("a")
    assert race.wanted() == {}
    standings = race.standings()
    assert [each.name for each in standings if each.selected] == ["b", "c"]
    assert standings[-1].name == "a" and standings[-1].repetitions == 0


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Race([], 1), "needs arms"),
        (lambda: Race(["a", "a"], 1), "different names"),
        (lambda: Race(["a"], 0), "keep 0; valid: at least 1"),
        (lambda: Race(["a"], 1).tell("a", [float("nan")]), "not finite"),
    ],
)
def test_bad_input(make: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()  # type: ignore[operator]
    with pytest.raises(UnknownNameError, match="unknown arm 'b'; valid: a"):
        Race(["a"], 1).tell("b", [1.0])
