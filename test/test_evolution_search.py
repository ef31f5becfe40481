"""CMA-ES finds what is known to be best, resumes by its answers, and mixes adapters exactly to a known combination."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from models_support import random_adapter, save_tiny_model, tiny_language_model

from llmagent_ros.errors import ConfigError
from llmagent_ros.learning.evolution.mixtures import mix, search_mixture, weights_of
from llmagent_ros.learning.evolution.search import Search
from llmagent_ros.learning.rl.critic import Critic, CriticConfig

OPTIMUM = np.array([0.7, 0.3, 0.5, 0.9])


def sphere(point: np.ndarray) -> float:
    return -float(((point - OPTIMUM[: len(point)]) ** 2).sum())


def drive(search: Search, count: int, function: object = sphere) -> list[np.ndarray]:
    points = []
    for _ in range(count):
        candidate = search.ask()
        assert candidate is not None
        points.append(candidate[1])
        search.tell(candidate[0], function(candidate[1]))  # type: ignore[operator]
    return points


@pytest.mark.parametrize("dimension", [1, 4])
def test_it_finds_the_optimum(dimension: int) -> None:
    search = Search([0.2] * dimension, seed=0)
    points = drive(search, 300)
    np.testing.assert_allclose(search.mean, OPTIMUM[:dimension], atol=0.02)
    assert all(((point >= 0) & (point <= 1)).all() for point in points)


def test_it_finds_the_optimum_at_a_corner() -> None:
    search = Search([0.5, 0.5], seed=1)
    drive(search, 300, lambda point: float(point[0] - point[1]))
    np.testing.assert_allclose(search.mean, [1.0, 0.0], atol=0.03)


def test_a_batch_may_be_answered_in_any_order() -> None:
    one, other = Search([0.2] * 4, seed=3), Search([0.2] * 4, seed=3)
    for _ in range(5):
        for search, order in ((one, 1), (other, -1)):
            batch = [candidate for _ in range(search.batch) if (candidate := search.ask()) is not None]
            assert search.ask() is None, "no further one before all are answered"
            for number, point in batch[::order]:
                search.tell(number, sphere(point))
    np.testing.assert_array_equal(one.mean, other.mean)


def test_it_resumes_by_its_answers_in_the_middle_of_a_batch() -> None:
    whole = Search([0.2] * 4, seed=5)
    first = Search([0.2] * 4, seed=5)
    drive(first, 13)
    again = Search([0.2] * 4, seed=5)
    np.random.seed(123)  # noqa: NPY002 - what others draw must not matter
    again.replay(first.state())
    expected = drive(whole, 40)[13:]
    np.testing.assert_array_equal(drive(again, 27), expected)
    assert not np.array_equal(drive(Search([0.2] * 4, seed=6), 40)[13:], expected)


def test_searches_draw_nothing_that_others_draw() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    drive(Search([0.5, 0.5], seed=0), 30)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index] # noqa: NPY002


def test_candidates_that_failed_are_worse_than_the_worst() -> None:
    search = Search([0.5, 0.5], seed=0)

    def left_half_crashes(point: np.ndarray) -> float | None:
        return None if point[0] < 0.5 else -abs(float(point[0]) - 0.55)

    drive(search, 200, left_half_crashes)
    assert search.mean[0] == pytest.approx(0.55, abs=0.05)
    lost = Search([0.5, 0.5], seed=0)
    drive(lost, 4 * lost.batch, lambda _: float("nan"))
    np.testing.assert_allclose(lost.mean, [0.5, 0.5], err_msg="where all fail, nothing is learned")


def test_bad_input() -> None:
    for make, problem in (
        (lambda: Search([], 0), "needs a finite start"),
        (lambda: Search([1.5], 0), "not within 0"),
        (lambda: Search([0.5], 0, batch=1), "batch 1; valid"),
        (lambda: Search([0.5], 0).tell(0, 1.0), "candidate 0 was not asked for"),
    ):
        with pytest.raises(ConfigError, match=problem):
            make()
    search = Search([0.5, 0.5], 0)
    drive(search, 1)
    with pytest.raises(ConfigError, match="has been answered"):
        search.tell(0, 1.0)
    with pytest.raises(ConfigError, match="has begun already"):
        search.replay([])
    with pytest.raises(ConfigError, match=r"answers before candidate 20 are missing"):
        Search([0.5, 0.5], 0).replay([{"number": 20, "fitness": 1.0}])


# --- mixtures ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """Three with the same A, as learning leaves them."""
    folder = save_tiny_model(tmp_path_factory.mktemp("base") / "llama", width=16, layers=1)
    model = tiny_language_model(Path(folder))
    own = model.adapter_state()
    return [{n: own[n] if "lora_A" in n else t for n, t in random_adapter(model, seed).items()} for seed in range(3)]


def test_the_known_combination_is_found(adapters: list[dict[str, torch.Tensor]]) -> None:
    known = (0.2, 0.5, 0.3)
    target, _ = mix(adapters, [], known)

    def judge(mixtures: object) -> list[float]:
        told = []
        for weights in mixtures:  # type: ignore[attr-defined]
            merged, _ = mix(adapters, [], weights)
            told.append(-sum(float((merged[name] - target[name]).square().sum()) for name in merged))
        return told

    found = search_mixture(3, judge, seed=0, rounds=20)
    assert found[0].weights == pytest.approx(known, abs=0.03)
    best, _ = mix(adapters, [], found[0].weights)
    for name, tensor in target.items():
        torch.testing.assert_close(best[name], tensor, atol=0.05, rtol=0)
    fitness = [each.fitness for each in found]
    assert fitness == sorted(fitness, reverse=True)


def test_the_best_is_never_judged_worse_than_a_parent_or_their_mean() -> None:
    for best in range(3):
        found = search_mixture(3, lambda w, best=best: [each[best] for each in w], seed=0, rounds=1)
        assert found[0].weights == tuple(float(n == best) for n in range(3))
    asked: list[tuple[float, ...]] = []
    search_mixture(2, lambda w: [asked.append(each) or 0.0 for each in w], seed=0, rounds=0)
    assert asked == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]


def test_a_mixture_that_fails_is_last_and_the_search_goes_on() -> None:
    def judge(mixtures: object) -> list[float | None]:
        return [None if each[0] > 0.6 else each[0] for each in mixtures]  # type: ignore[attr-defined]

    found = search_mixture(2, judge, seed=0, rounds=10)
    assert found[0].weights[0] == pytest.approx(0.6, abs=0.05) and found[-1].fitness is None


def test_critics_mix_in_proportion() -> None:
    torch.manual_seed(0)
    critics = [Critic(6, 3, CriticConfig(heads=4, width=8)) for _ in range(2)]
    _, merged = mix([{}, {}], [critic.state() for critic in critics], (0.75, 0.25))
    taken = [
        sum(bool((merged["net.0.weight"][h] == critic.state()["net.0.weight"][h]).all()) for h in range(4))
        for critic in critics
    ]
    assert taken == [3, 1]


def test_weights_are_a_distribution() -> None:
    assert weights_of(np.array([1000.0, 1000.0])) == (0.5, 0.5)
    assert weights_of(np.log([0.2, 0.8])) == pytest.approx((0.2, 0.8))
    with pytest.raises(ConfigError, match="no parents"):
        search_mixture(0, lambda _: [], seed=0)
