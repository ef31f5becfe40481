"""Figures of a run against values computed by hand."""

import numpy as np
import pytest

from llmagent_ros.recording.latency import EXACT_LIMIT, RELATIVE_ERROR, LatencyHistogram
from llmagent_ros.recording.metrics import RunMetrics
from llmagent_ros.recording.plot import moving_mean, wilson_interval
from llmagent_ros.types import Decision

DESIGN_KEYS = {
    "episodes", "successes", "success_first_30", "success_last_30", "env_steps", "updates", "adapter_versions",
    "scene_to_command_ms", "missed_tick_share", "wall_s", "seed", "model",
}  # fmt: skip


def decision(adapter: str = "v000001") -> Decision:
    return Decision(
        action="forward",
        log_probability=float(np.log(0.75)),
        candidates=("forward", "back"),
        probabilities=np.array([0.75, 0.25], np.float32),
        values=np.array([1.0, -1.0], np.float32),
        adapter=adapter,
    )


def test_a_run_without_episodes_has_every_key_and_says_null():
    summary = RunMetrics().summary(wall_s=1.5, seed=7, model="base")
    assert summary.keys() >= DESIGN_KEYS
    assert summary["success_first_30"] is None and summary["success_last_30"] is None
    assert summary["missed_tick_share"] is None and summary["return_mean_last_20"] is None
    assert summary["scene_to_command_ms"] == {"p50": None, "p99": None, "max": None, "count": 0, "rejected": 0}
    assert (summary["wall_s"], summary["seed"], summary["model"]) == (1.5, 7, "base")
    assert summary["versions"]["numpy"] == np.__version__


def test_shares_over_the_first_and_last_episodes():
    metrics = RunMetrics()
    for number in range(50):  # successes: 3 of the first 30; 20..29 hold 1 of them, 30..49 all succeed
        success = number in (0, 1, 25) or number >= 30
        metrics.on_episode_end(number, success, float(number), 10, "reached" if success else "collision", 2.0)
    summary = metrics.summary(0.0, 0, "m")
    assert summary["episodes"] == 50 and summary["successes"] == 23
    assert summary["success_first_30"] == pytest.approx(3 / 30)
    assert summary["success_last_30"] == pytest.approx(21 / 30)
    assert summary["success_last_20"] == 1.0
    assert summary["return_mean_last_20"] == pytest.approx(sum(range(30, 50)) / 20)
    assert summary["collisions"] == 27 and summary["episode_ends"] == {"collision": 27, "reached": 23}
    assert summary["env_steps"] == 500


def test_fewer_than_thirty_episodes_share_over_all_of_them():
    metrics = RunMetrics()
    for number in range(4):
        metrics.on_episode_end(number, number == 3, 0.0, 1, "timeout", 1.0)
    summary = metrics.summary(0.0, 0, "m")
    assert summary["success_first_30"] == summary["success_last_30"] == 0.25


def test_an_episode_delivered_again_counts_once_and_another_run_counts():
    metrics = RunMetrics()
    assert metrics.on_episode_end(0, True, 1.0, 5, "reached", 1.0, run="a") is not None
    assert metrics.on_episode_end(0, True, 1.0, 5, "reached", 1.0, run="a") is None
    assert metrics.on_episode_end(0, True, 1.0, 5, "reached", 1.0, run="b") is not None
    assert (len(metrics.episodes), metrics.env_steps, metrics.next_episode) == (2, 10, 1)


def test_env_steps_count_the_episode_under_way():
    metrics = RunMetrics()
    metrics.on_episode_end(0, True, 1.0, 5, "reached", 1.0)
    metrics.on_decision(decision(), 3.0, 1)
    metrics.on_decision(decision(), 3.0, 1)
    assert metrics.env_steps == 7
    metrics.on_episode_end(1, True, 1.0, 2, "reached", 1.0)
    assert metrics.env_steps == 7


def test_env_steps_count_unfinished_episodes_and_never_go_back():
    metrics, seen = RunMetrics(), [0]

    def decide(episode: int, count: int) -> None:
        for _ in range(count):
            metrics.on_decision(decision(), 3.0, episode, "r")
            seen.append(metrics.env_steps)

    def end(episode: int, steps: int) -> None:
        entry = metrics.on_episode_end(episode, True, 1.0, steps, "reached", 1.0, "r")
        assert entry is not None
        seen.append(metrics.env_steps)

    decide(0, 50)  # pre-empted
    decide(1, 10)
    end(1, 10)
    assert metrics.env_steps == 60
    decide(2, 5)
    decide(3, 2)  # before the end of the one before
    end(2, 4)  # the last decision was on the last scene
    decide(2, 1)  # and so was this one, which came late
    end(3, 2)
    assert metrics.env_steps == 67 and seen == sorted(seen)
    assert [entry.env_steps for entry in metrics.episodes] == [60, 66, 66]
    decide(4, 3)
    assert metrics.env_steps == 69


def test_unfinished_episodes_are_forgotten_but_stay_counted():
    metrics = RunMetrics()
    for episode in range(1000):
        metrics.on_decision(decision(), 3.0, episode)
    assert metrics.env_steps == 1000 and len(metrics._decided) <= 64


def test_adapters_ticks_updates_and_guard():
    metrics = RunMetrics()
    for version in ("v1", "v1", "v2", "v1", ""):  # a rollback to v1 is no new version
        metrics.on_adapter(version)
    for tick in range(100):
        metrics.on_tick(fresh=tick != 42)
    metrics.on_learner(40, {"critic_loss": 0.5})
    metrics.on_learner(30, {"critic_loss": 0.4})  # restarted from a checkpoint
    metrics.on_guard({"speed": 3, "stale": 1})
    metrics.on_guard({"speed": 5, "stale": 1})
    metrics.on_guard({"speed": 2})  # the guard was restarted and counts from 0
    summary = metrics.summary(0.0, None, "m")
    assert summary["adapter_versions"] == 2
    assert summary["missed_tick_share"] == pytest.approx(0.01) and summary["ticks"] == 100
    assert summary["updates"] == 40 and metrics.learner_stats == {"critic_loss": 0.4}
    assert summary["guard_reasons"] == {"speed": 7, "stale": 1} and summary["guard_interventions"] == 8


def test_guard_reasons_are_bounded():
    metrics = RunMetrics()
    metrics.on_guard({f"reason {i}": 1 for i in range(1000)})
    assert len(metrics.guard_interventions) <= 65
    assert sum(metrics.guard_interventions.values()) == 1000


def test_percentiles_by_nearest_rank_are_exact_below_the_limit():
    histogram = LatencyHistogram()
    for value in np.random.default_rng(0).permutation(np.arange(1, 101)):
        histogram.add(float(value))
    assert histogram.summary() == {"p50": 50.0, "p99": 99.0, "max": 100.0, "count": 100, "rejected": 0}


def test_percentiles_beyond_the_limit_stay_within_the_documented_error():
    samples = np.random.default_rng(1).lognormal(1.0, 1.0, EXACT_LIMIT + 50_000)
    histogram = LatencyHistogram()
    for value in samples:
        histogram.add(float(value))
    for q in (0.01, 0.5, 0.99, 0.999):
        exact = np.quantile(samples, q, method="inverted_cdf")
        assert histogram.percentile(q) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)
    assert histogram.max == samples.max() and histogram.count == len(samples)
    assert len(histogram._samples) == 0


def test_samples_that_are_no_durations_are_counted_apart():
    histogram = LatencyHistogram(exact_limit=1)
    for value in (float("nan"), float("inf"), -1.0, 0.0, 1e12, 2.0):
        histogram.add(value)
    assert (histogram.count, histogram.rejected, histogram.max) == (3, 3, 1e12)
    assert histogram.percentile(0.5) == pytest.approx(2.0, rel=RELATIVE_ERROR * 1.001)


def test_wilson_interval_against_published_values():
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statist. Med. 1998, Table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_moving_mean_grows_to_its_window():
    assert moving_mean([1.0, 0.0, 1.0, 1.0], window=2).tolist() == [1.0, 0.5, 0.5, 1.0]
