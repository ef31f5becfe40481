"""`llmagent bench evolve`: what its figures mean, on numbers that are known; and that methods take equal steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.experiments.bench import evolve
from llmagent_ros.experiments.bench.aggregate import difference, iqm, mean
from llmagent_ros.experiments.bench.beside import missed_ticks
from llmagent_ros.experiments.bench.results import OURS, Results


def test_the_interquartile_mean_by_hand() -> None:
    assert iqm(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    assert iqm(np.array([5.0, 1.0, 9.0])) == 5.0, "too few to leave any out"
    np.testing.assert_array_equal(iqm(np.array([[1.0] * 4, [0.0, 3.0, 3.0, 9.0]])), [1.0, 3.0])


def test_a_difference_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.7, 0.1, (10, 6)), rng.normal(0.5, 0.1, (10, 6))
    found = difference(ours, theirs)
    assert found.value == pytest.approx(0.2, abs=0.05) and 0 < found.low < found.value < found.high < 0.3
    assert difference(ours, theirs) == found
    turned = difference(theirs, ours)
    assert turned.value == -found.value and turned.high == pytest.approx(-found.low, abs=0.01)
    same = difference(ours, ours)
    assert same.value == 0 and same.low < 0 < same.high


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of the difference of two means, which is 0.1: in 95 of 100 cases, fewer with few seeds."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        ours, theirs = rng.normal(0.6, 0.2, (15, 3)), rng.normal(0.5, 0.2, (15, 3))
        found = difference(ours, theirs, mean)
        covered += found.low <= 0.1 <= found.high
    assert covered >= 51


def test_seeds_are_drawn_within_each_task() -> None:
    """Tasks that differ, seeds that do not: there is nothing to be unsure of."""
    found = difference(np.tile([0.1, 0.5, 0.9, 1.0], (5, 1)), np.zeros((3, 4)))
    assert found.low == found.value == found.high == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("ours", "theirs", "problem"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), "of the same tasks"),
        (np.zeros((0, 3)), np.zeros((2, 3)), "of the same tasks"),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), "not all of them are finite"),
    ],
)
def test_scores_that_say_nothing_are_refused(ours: Any, theirs: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        difference(ours, theirs)


def test_figures_are_read_off_what_was_measured(tmp_path: Path) -> None:
    results = Results(tmp_path / "evolve.json", "evolve", {})
    levels = {
        OURS: 0.9, evolve.ALONE: 0.5, evolve.NO_META: 0.7, evolve.NO_EVOLUTION: 0.8, evolve.TUNED: 0.6,
    }  # fmt: skip
    for method, level in levels.items():
        for seed in range(3):
            results.add(method, seed, {"success": {f"task {n}": level + 0.01 * seed for n in range(4)}})
    results.add(evolve.THROUGHPUT, 0, {"two_workers_over_one": 1.8})
    results.add(evolve.BESIDE, 0, {"missed_tick_share": 0.001})
    results.add(evolve.GRAPH_ALONE, 0, {"missed_tick_share": 0.0})
    figures, peers = evolve.read(results)
    assert figures["iqm_gain"]["value"] == pytest.approx(0.4) and 0.38 < figures["iqm_gain_ci_low"]["value"] < 0.4
    assert figures["tuned_gain"]["value"] == pytest.approx(10.0)
    assert 8 < figures["tuned_gain_ci_low"]["value"] < 10 < figures["tuned_gain_ci_high"]["value"] < 12
    assert figures["two_workers_over_one"]["value"] == 1.8 and figures["missed_tick_share"]["value"] == 0.001
    assert peers["over no meta-learning"]["iqm_gain"]["value"] == pytest.approx(0.2)
    assert peers["over no evolution"]["iqm_gain"]["value"] == pytest.approx(0.1)
    assert peers[evolve.GRAPH_ALONE]["missed_tick_share"]["value"] == 0.0
    empty, _ = evolve.read(Results(tmp_path / "none.json", "evolve", {}))
    assert empty == {}, "what was not measured is not there"


def test_all_methods_take_equal_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes before the tasks is taken off what they get."""
    tasks, steps = evolve._tasks(), 1000
    total = steps * len(tasks)
    made: list[Any] = []

    class Evolved:
        def __init__(self, config: Any, out: Path, *_: Any, **__: Any) -> None:
            out.mkdir(parents=True, exist_ok=True)
            (out / evolve.SETTINGS).write_text("learner: {beta: 0.1}\n")
            made.append(config)

        def run(self) -> dict[str, int]:
            return {"env_steps": 1400, "evaluation_steps": 1000}

    monkeypatch.setattr(evolve, "Evolution", Evolved)
    monkeypatch.setattr(evolve, "meta_train", lambda config, out: made.append(config))
    monkeypatch.setattr(evolve, "latest_bundle", lambda folder: folder / "v000000")
    learned: list[tuple[Any, ...]] = []
    monkeypatch.setattr(evolve, "_learned", lambda *given: learned.append(given) or 0.5)
    for method in (OURS, evolve.ALONE, evolve.NO_META, evolve.NO_EVOLUTION):
        learned.clear()
        told = evolve.measure(method, 0, steps, tmp_path, lambda line: None)
        assert list(told["success"]) == tasks == [each[0] for each in learned]
        spent = told["steps_before"] + sum(each[1] for each in learned)
        assert total - len(tasks) < spent <= total, method
        assert bool(learned[0][3]) == (method != evolve.ALONE), "it begins with what was learned before"
        assert bool(learned[0][4]) == (method in (OURS, evolve.NO_META)), "and with settings that were evolved"
    assert next(each for each in made if hasattr(each, "breeding")).start, "evolution begins with meta-learning's"
    told = evolve.measure(evolve.TUNED, 0, steps, tmp_path, lambda line: None)
    assert told["steps_each"] == steps and learned[-1][3] == "" and learned[-1][4] == {"learner": {"beta": 0.1}}
    assert made[-1].breeding.inherit is False
    budget = made[-1].slice * made[-1].population * made[-1].generations
    share = evolve.LEARNING_SHARE * evolve.EVOLUTION_SHARE
    assert 0.95 * share * total < budget <= share * total
    with pytest.raises(ConfigError, match=r"took 2,[0-9]{3} steps before the tasks, and none are left"):
        evolve.measure(evolve.NO_META, 0, 2, tmp_path, lambda line: None)


def test_the_graph_runs_beside_meta_learning_and_evolution(tmp_path: Path, reserved_domain: None) -> None:
    told = missed_ticks(tmp_path, 0, "navigate", beside=True, episodes=2)
    assert told["ticks"] > 0 and 0 <= told["missed_tick_share"] <= 1 and told["scene_to_command_ms"]["count"] > 0
    assert (tmp_path / "evolution" / "evolve.json").exists(), "it had begun"


def test_an_evolution_that_ends_too_early_is_told(tmp_path: Path, reserved_domain: None) -> None:
    with pytest.raises(LlmAgentError, match=r"not run beside the graph to its end; .*no_such_task"):
        missed_ticks(tmp_path, 0, "no_such_task", beside=True, episodes=1)
