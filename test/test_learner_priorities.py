"""Prioritised draws: the tree against plain lists, chances and weights by hand, shares, and going on exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmagent_ros.errors import ModelError, StoreError
from llmagent_ros.learning.rl.priorities import PrioritisedSampler, SumTree

WEIGHTS = st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), max_size=40)


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(WEIGHTS, max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 200), st.sampled_from([0.5, 2.0]))),
)
def test_a_tree_is_a_list_of_weights(parts: list[list[float]], changes: list[tuple[int, float]]) -> None:
    tree, plain = SumTree(), []
    for part in parts:
        tree.extend(np.array(part))
        plain += part
    for number, weight in changes:
        if number < len(plain) and plain[number] > 0.0:
            tree.set(np.array([number]), np.array([weight]))
            plain[number] = weight
    assert tree.values.tolist() == plain and len(tree) == len(plain)
    assert tree.total == sum(plain)
    assert tree.members == sum(weight > 0.0 for weight in plain)
    if tree.members:
        uniforms = np.linspace(0.0, np.nextafter(1.0, 0.0), 50)
        edges = np.cumsum(plain)
        expected = [int(np.flatnonzero(edges > uniform * edges[-1])[0]) for uniform in uniforms]
        assert tree.draw(uniforms).tolist() == expected


def test_a_tree_grows_and_never_draws_what_has_no_weight() -> None:
    rng = np.random.default_rng(0)
    tree = SumTree()
    plain = np.where(rng.random(5000) < 0.5, 0.0, rng.random(5000)).astype(np.float32)
    for start in range(0, 5000, 300):
        tree.extend(plain[start : start + 300])
    assert (tree.values == plain).all()
    assert tree.total == pytest.approx(float(plain.sum(dtype=np.float64)), rel=1e-5)
    drawn = tree.draw(np.append(rng.random(20_000), np.nextafter(1.0, 0.0)))
    assert drawn.max() < 5000 and (plain[drawn] > 0.0).all()


def test_of_one_that_is_named_twice_the_last_counts() -> None:
    tree = SumTree()
    tree.extend(np.ones(3))
    tree.set(np.array([1, 1]), np.array([5.0, 2.0]))
    assert tree.values.tolist() == [1.0, 2.0, 1.0] and tree.total == 4.0


class Stored:
    """What a sampler asks the replay."""

    def __init__(self, demonstrations: list[bool]) -> None:
        self.flags = demonstrations

    def __call__(self, first: int) -> np.ndarray:
        return np.array(self.flags[first:], bool)


def test_chances_and_weights_by_hand() -> None:
    sampler = PrioritisedSampler(Stored([False] * 4), exponent=0.5, importance=0.5)
    rng = np.random.default_rng(1)
    positions, weights = sampler.draw(8, 0.5, rng)
    assert set(weights.tolist()) == {1.0}, "nothing is known of any"
    sampler.learn(np.arange(4), np.array([0.008, -0.008, 0.035, 0.0]))
    roots = np.sqrt([0.009, 0.009, 0.036, 0.001])
    chances = roots / roots.sum()
    positions, weights = sampler.draw(20_000, 0.5, rng)
    assert stats.chisquare(np.bincount(positions, minlength=4), 20_000 * chances).pvalue > 0.01
    by_hand = (4 * chances) ** -0.5
    assert weights == pytest.approx((by_hand / by_hand.max())[positions], rel=1e-5)


def test_without_exponent_all_are_alike() -> None:
    sampler = PrioritisedSampler(Stored([False] * 5), exponent=0.0, importance=0.5)
    rng = np.random.default_rng(2)
    sampler.draw(4, 0.5, rng)
    sampler.learn(np.array([0, 1]), np.array([9.0, 0.0]))
    positions, weights = sampler.draw(5000, 0.5, rng)
    assert stats.chisquare(np.bincount(positions, minlength=5)).pvalue > 0.01
    assert set(weights.tolist()) == {1.0}


def test_each_kind_keeps_its_share() -> None:
    stored = Stored([False] * 20 + [True] * 2)
    sampler = PrioritisedSampler(stored, exponent=0.6, importance=0.5)
    rng = np.random.default_rng(3)
    for _ in range(5):
        positions, _ = sampler.draw(40, 0.25, rng)
        assert (positions[:10] >= 20).all() and (positions[10:] < 20).all()
        sampler.learn(positions, np.where(positions >= 20, 0.0, 1.0))
    assert PrioritisedSampler(Stored([True] * 3), 0.6, 0.5).draw(4, 0.25, rng)[0].max() < 3, "there is nothing else"
    with pytest.raises(StoreError, match="empty"):
        PrioritisedSampler(Stored([]), 0.6, 0.5).draw(4, 0.5, rng)


def test_what_is_new_comes_as_often_as_what_was_worst() -> None:
    stored = Stored([False] * 50)
    sampler = PrioritisedSampler(stored, exponent=1.0, importance=0.0)
    rng = np.random.default_rng(4)
    sampler.draw(1, 0.5, rng)
    sampler.learn(np.arange(50), np.full(50, 0.009))
    sampler.learn(np.array([7]), np.array([2.999]))
    stored.flags += [False]
    drawn = np.bincount(sampler.draw(9000, 0.5, rng)[0], minlength=51)
    # weights 49 of 0.01, one of 3, and the new one the greatest so far, 3: (0.49, 3, 3) of 6.49
    assert drawn[50] / 9000 == pytest.approx(3 / 6.49, abs=0.03)
    assert drawn[7] / 9000 == pytest.approx(3 / 6.49, abs=0.03)


def test_it_goes_on_where_it_was_saved() -> None:
    stored = Stored([False, True, False] * 10)
    first = PrioritisedSampler(stored, 0.6, 0.5)
    rng = np.random.default_rng(5)
    first.learn(*_drawn(first, rng))
    state = first.state()
    second = PrioritisedSampler(Stored(stored.flags + [False] * 5), 0.6, 0.5)
    second.load(state)
    stored.flags += [False] * 5  # as it arrived in the replay of the one that was saved
    for sampler in (first, second):
        sampler.learn(*_drawn(sampler, np.random.default_rng(6)))
    drawn = [sampler.draw(50, 0.5, np.random.default_rng(7)) for sampler in (first, second)]
    for one, other in zip(*drawn, strict=True):
        assert one.tolist() == other.tolist()
    with pytest.raises(ModelError, match="priorities of 30 transitions, the replay holds 3"):
        PrioritisedSampler(Stored([False] * 3), 0.6, 0.5).load(state)


def _drawn(sampler: PrioritisedSampler, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    positions, _ = sampler.draw(12, 0.5, rng)
    return positions, rng.random(12)
