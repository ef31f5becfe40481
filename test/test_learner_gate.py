"""The gate: its probabilities against simulation, its rulings by hand, and how often it errs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.gate import Gate, GateConfig, Record, probability_not_worse

RECORDS = [(Record(8, 10), Record(8, 10)), (Record(3, 10), Record(27, 30)), (Record(0, 0), Record(5, 9)),
           (Record(99, 100), Record(90, 100)), (Record(0, 40), Record(40, 40))]  # fmt: skip


@pytest.mark.parametrize(("new", "old"), RECORDS)
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
def test_the_probability_is_that_of_simulated_posteriors(new: Record, old: Record, margin: float) -> None:
    rng = np.random.default_rng(0)

    def draws(record: Record) -> np.ndarray:
        return rng.beta(1 + record.successes, 1 + record.attempts - record.successes, 200_000)

    simulated = float((draws(new) >= draws(old) - margin).mean())
    assert probability_not_worse(new, old, margin) == pytest.approx(simulated, abs=0.006)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_more_successes_are_never_worse(a: int, b: int, c: int, d: int) -> None:
    new, old = Record(min(a, b), max(a, b)), Record(min(c, d), max(c, d))
    p = probability_not_worse(new, old, 0.05)
    assert 0.0 <= p <= 1.0 + 1e-9
    assert probability_not_worse(Record(new.successes + 1, new.attempts + 1), old, 0.05) >= p - 1e-9
    assert probability_not_worse(Record(new.successes, new.attempts + 1), old, 0.05) <= p + 1e-9


def test_a_candidate_waits_for_enough_episodes() -> None:
    gate = Gate(GateConfig(episodes=10))
    ruling = gate.on_outcomes(Record(9, 10), Record(9, 9))
    assert ruling.says == "wait" and "1 episodes more" in ruling.why
    assert gate.on_outcomes(Record(9, 10), Record(10, 10)).says != "reject"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (Record(18, 30), Record(20, 20), "accept"),
        (Record(28, 30), Record(8, 20), "reject"),
        (Record(24, 30), Record(9, 12), "wait"),
        (Record(24, 30), Record(32, 40), "accept"),
        (Record(24, 30), Record(24, 40), "reject"),
    ],
)
def test_rulings_on_outcomes(old: Record, new: Record, says: str) -> None:
    ruling = Gate().on_outcomes(old, new)
    assert ruling.says == says, ruling.why
    assert str(new) in ruling.why and str(old) in ruling.why


def log_pi(choices: list[int], phrases: int = 3, certainty: float = 0.98) -> np.ndarray:
    rest = (1 - certainty) / (phrases - 1)
    return np.log(np.where(np.eye(phrases)[choices] > 0, certainty, rest))


def test_what_is_gained_on_scenes_by_hand() -> None:
    values = np.tile([0.0, 0.5, 1.0], (20, 1))
    old, new = log_pi([1] * 20, certainty=1 - 1e-12), log_pi([2] * 20, certainty=1 - 1e-12)
    ruling = Gate().on_scenes(old, new, values, values * 0.5)
    assert ruling.says == "accept"
    assert ruling.data["gain"] == pytest.approx((1.0 - 0.5) * 0.75)
    assert ruling.data["choices_that_differ"] == 1.0 and ruling.data["scenes"] == 20
    assert Gate().on_scenes(new, old, values, values * 0.5).says == "reject"
    assert Gate().on_scenes(old, old, values, values).says == "accept", "the same is not worse"


def test_a_candidate_that_is_worse_in_some_scenes_is_rejected_for_its_doubt() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, 3))
    old = log_pi(list(values.argmax(1)))
    few = values.argmax(1).copy()
    few[:6] = values[:6].argmin(1)
    assert Gate(GateConfig(tolerance=0.02)).on_scenes(old, log_pi(list(few)), values, values).says == "reject"
    assert Gate(GateConfig(tolerance=2.0)).on_scenes(old, log_pi(list(few)), values, values).says == "accept"


def test_what_is_not_finite_is_rejected() -> None:
    good, values = log_pi([0, 1]), np.zeros((2, 3))
    assert Gate().on_scenes(good, good * np.nan, values, values).says == "reject"
    assert Gate().on_scenes(good, good, values, values + np.inf).says == "reject"
    impossible = np.where(np.eye(3)[[0, 1]] > 0, 0.0, -np.inf)  # certain of one phrase: allowed
    assert Gate().on_scenes(good, impossible, values, values).says == "accept"


def test_shapes_and_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="one shape"):
        Gate().on_scenes(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="patience"):
        GateConfig(episodes=20, patience=10)
    with pytest.raises(ConfigError, match="successes"):
        Record(3, 2)


def follow(old_rate: float, new_rate: float, rng: np.random.Generator) -> str:
    """What becomes of a candidate that is tried until it is decided."""
    gate, old = Gate(), Record(int(rng.binomial(60, old_rate)), 60)
    successes = 0
    for attempts in range(1, 100):
        successes += int(rng.random() < new_rate)
        ruling = gate.on_outcomes(old, Record(successes, attempts))
        if ruling.says != "wait":
            return ruling.says
    raise AssertionError("never decided")


def test_good_candidates_mostly_pass_and_bad_ones_hardly_ever() -> None:
    rng = np.random.default_rng(1)
    better = [follow(0.8, 0.92, rng) for _ in range(200)]
    worse = [follow(0.8, 0.4, rng) for _ in range(200)]
    assert better.count("accept") >= 190
    assert worse.count("accept") <= 4


def test_a_drop_takes_back_and_luck_does_not() -> None:
    rng = np.random.default_rng(2)

    def taken_back(rate: float) -> bool:
        successes = 0
        for attempts in range(1, 41):
            successes += int(rng.random() < rate)
            if Gate().on_drop(Record(54, 60), Record(successes, attempts)).says == "take back":
                return True
        return False

    assert sum(taken_back(0.4) for _ in range(200)) >= 196
    assert sum(taken_back(0.92) for _ in range(200)) <= 12
    assert Gate().on_drop(Record(54, 60), Record(0, 3)).says == "keep", "too few episodes to tell"
