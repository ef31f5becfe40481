"""Benchmarks: what is read off a curve, and files that are added to, gone on with and never mixed up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.experiments.bench import cartpole, peers, report, running
from llmagent_ros.experiments.bench.curves import first_step, held_share, is_over
from llmagent_ros.experiments.bench.results import Figure, Results, entries, median
from llmagent_ros.experiments.evaluation import Policy
from llmagent_ros.locking import lock_beside
from llmagent_ros.policy.language_model import shipped_base_digest


def curve(*returns: float) -> list[dict[str, float]]:
    return [{"env_steps": 1000.0 * (number + 1), "return_mean": value} for number, value in enumerate(returns)]


def test_the_first_step_and_what_holds_after_it() -> None:
    points = curve(100, 475, 480, 474, 500, 500)
    assert first_step(points, "return_mean", 475) == 2000
    assert held_share(points, "return_mean", 475, 4) == 0.75
    assert held_share(points, "return_mean", 475, 5) is None, "too few follow"
    assert is_over(points, "return_mean", 475, 4) and not is_over(points, "return_mean", 475, 5)
    assert first_step(points, "return_mean", 501) is None and held_share(points, "return_mean", 501, 1) is None


def test_of_an_ablation_only_how_soon_it_learns_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(cartpole, "our_curve", lambda *given, **more: begun.append(given) or {"curve": []})
    for method in (cartpole.OURS, "summed scores"):
        cartpole.measure(method, 0, cartpole.STEPS, tmp_path, print)
    assert [given[1].steps for given in begun] == [22_000, 12_000]
    assert [given[0].following for given in begun] == [10, 2]
    results = Results(tmp_path / "cartpole.json", "cartpole", {}, read=cartpole.read)
    results.add("summed scores", 0, {"curve": curve(100, 480, 500, 500)})
    assert results.summary()[1]["summed scores"].keys() == {"steps_to_475"}


@pytest.mark.parametrize(
    ("values", "lower", "expected"),
    [
        ([3.0, 1.0, 2.0], True, 2.0),
        ([1.0, 2.0, 4.0, 3.0], True, 2.5),
        ([1.0, None, 2.0], True, 2.0),
        ([1.0, None, 2.0], False, 1.0),
        ([1.0, None, None], True, None),
        ([], True, None),
    ],
)
def test_a_median_counts_what_was_never_reached(
    values: list[float | None], lower: bool, expected: float | None
) -> None:
    assert median(values, lower=lower) == expected


@pytest.mark.parametrize(
    ("value", "lower", "verdict"),
    [(0.95, False, "floor"), (1.0, False, "goal"), (0.5, False, "missed"), (None, False, "missed")],
)
def test_a_verdict(value: float | None, lower: bool, verdict: str) -> None:
    assert Figure("k", "share", "", 1.0, 0.9, lower).verdict(value) == verdict
    assert Figure("k", "steps", "", 5.0, 12.0, True).verdict(6.0) == "floor"
    assert Figure("k", "steps", "", 5.0, 12.0, True).verdict(13.0) == "missed"
    assert Figure("k", "steps", "").verdict(13.0) == ""
    assert [Figure("k", "return", "", 200).verdict(each) for each in (210, 190, None)] == ["goal", "", ""]


def test_results_are_on_disk_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    results = Results(path, "cartpole", {"a": (1, 2)})
    results.add("llmagent", 10, {"curve": curve(1)})
    results.add("llmagent", 9, {"curve": curve(2)})
    again = Results(path, "cartpole", {"a": [1, 2]})
    assert again.has("llmagent", 9) and not again.has("llmagent", 8) and not again.has("dqn", 9)
    assert [each["curve"][0]["return_mean"] for each in again.of("llmagent")] == [2, 1]
    assert json.loads(path.read_text())["versions"]["stable-baselines3"]
    path.write_text(path.read_text().replace('"cpus": ', '"cpus": 9'))
    Results(path, "cartpole", {"a": [1, 2]}).write()
    assert json.loads(path.read_text())["cpus"] > 9, "of when it was measured"
    again.add("llmagent", 8, {"curve": curve(2)})
    assert json.loads(path.read_text())["cpus"] == os.cpu_count()


def test_figures_are_told_of_what_is_there_so_far(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results = Results(path, "cartpole", {}, read=cartpole.read)
    for seed, first in enumerate((2, 4)):
        results.add("llmagent", seed, {"curve": curve(*[9.0] * first, *[500.0] * 11)})
    told = json.loads(path.read_text())["figures"]["steps_to_475"]
    assert told["seeds"] == [3000.0, 5000.0] and told["value"] == 4000.0


def test_two_that_measure_into_one_file_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    holder = lock_beside(path)
    with pytest.raises(StoreError, match=f"results.json: in use by process {os.getpid()}"):
        running.run("cartpole", Results(path, "cartpole", {}), ["dqn"], 1, 100, 1, None)
    holder.release()


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    Results(path, "cartpole", {"steps": 5}).add("dqn", 0, {})
    with pytest.raises(ConfigError, match="measured with other settings: steps 5, now 6; choose another --json"):
        Results(path, "cartpole", {"steps": 6})
    shown = Results(path, "cartpole", {"steps": 6}, any_settings=True)
    assert shown.has("dqn", 0) and shown.other_settings == ["steps 5, now 6"]
    with pytest.raises(ConfigError, match="results of 'cartpole', not of 'speed'"):
        Results(path, "speed", {"steps": 5})
    path.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        Results(path, "cartpole", {"steps": 5})


def test_what_another_base_gave_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results = Results(path, "cartpole", {}, "old")
    results.add("llmagent", 0, {"curve": [1], "base": "old"})
    results.add("dqn", 0, {"curve": [2]})
    again = Results(path, "cartpole", {}, "new")
    assert not again.has("llmagent", 0) and again.has("dqn", 0)
    assert again.of("llmagent") == [] and again.of("dqn") == [{"curve": [2]}]
    again.add("llmagent", 0, {"curve": [3], "base": "new"})
    assert Results(path, "cartpole", {}, "new").of("llmagent") == [{"curve": [3], "base": "new"}]


def test_only_what_is_missing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[str, int]] = []

    def measure(method: str, seed: int, steps: int, scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
        measured.append((method, seed))
        if (method, seed) == ("b", 1):
            raise KeyboardInterrupt
        return {"curve": curve(seed)}

    monkeypatch.setattr(cartpole, "measure", measure)
    results = Results(tmp_path / "results.json", "cartpole", {}, shipped_base_digest())
    with pytest.raises(KeyboardInterrupt):
        running.run("cartpole", results, ["a", "b"], 2, 100, 1, None)
    monkeypatch.setattr(cartpole, "measure", lambda *args: {"curve": curve(7)})
    again = Results(tmp_path / "results.json", "cartpole", {}, shipped_base_digest())
    running.run("cartpole", again, ["a", "b"], 2, 100, 1, None)
    assert measured == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [each["curve"][0]["return_mean"] for each in again.of("b")] == [0, 7]


def test_what_measures_time_is_measured_alone_after_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, bool]] = []

    def together(jobs: Any, results: Any, workers: int) -> None:
        order.extend((job.method, True) for job in jobs)

    def measure(method: str, *_: Any) -> dict[str, Any]:
        order.append((method, False))
        return {"curve": curve(0)}

    monkeypatch.setattr(running, "_measure_together", together)
    monkeypatch.setattr(cartpole, "measure", measure)
    monkeypatch.setattr(cartpole, "TIMED", ("a",), raising=False)
    results = Results(tmp_path / "results.json", "cartpole", {}, shipped_base_digest())
    running.run("cartpole", results, ["a", "b"], 2, 100, 2, None)
    assert order == [("b", True), ("b", True), ("a", False), ("a", False)]


def test_a_curve_outlives_an_interruption(tmp_path: Path) -> None:
    """The run goes on at its checkpoint, which lies before the last evaluation: what came before that one stays."""
    from llmagent_ros.experiments import runs
    from llmagent_ros.experiments.bench.learning import CURVE, Goal, our_curve
    from llmagent_ros.experiments.environments import EnvironmentSpec

    goal = Goal(EnvironmentSpec("CartPole-v1"), "return_mean", 1000.0, every=300, episodes=2, following=1)
    small = {"warmup": 5000, "critic": {"heads": 2, "width": 8}}

    def say(text: str) -> None:
        if text.startswith("1,200") and not (tmp_path / "whole").exists():
            raise KeyboardInterrupt

    def config(steps: int) -> Any:
        return runs.make_config("CartPole-v1", {"steps": steps, "learner": small}, "test")

    with pytest.raises(KeyboardInterrupt):
        our_curve(goal, config(1500), tmp_path / "parts", say)
    assert len(json.loads((tmp_path / "parts" / CURVE).read_text())) == 4
    (tmp_path / "whole").mkdir()
    parts = our_curve(goal, config(1500), tmp_path / "parts", say)["curve"]
    whole = our_curve(goal, config(1500), tmp_path / "whole", say)["curve"]
    told = [[(p["env_steps"], p["return_mean"]) for p in each] for each in (parts, whole)]
    assert [steps for steps, _ in told[0]] == [300, 600, 900, 1200, 1500]
    assert told[0] == told[1]
    minutes = [p["minutes"] for p in parts]
    assert minutes == sorted(minutes)


def test_a_curve_ends_when_its_minutes_are_over(tmp_path: Path) -> None:
    from llmagent_ros.experiments import runs
    from llmagent_ros.experiments.bench.learning import Goal, our_curve
    from llmagent_ros.experiments.environments import EnvironmentSpec

    goal = Goal(EnvironmentSpec("CartPole-v1"), "return_mean", 1000.0, every=400, episodes=2)
    small = {"warmup": 5000, "critic": {"heads": 2, "width": 8}}
    config = runs.make_config("CartPole-v1", {"steps": 2000, "learner": small}, "test")
    measured = our_curve(goal, config, tmp_path, lambda text: None, to_the_end=True, minutes=0.0)
    assert [point["env_steps"] for point in measured["curve"]] == [1]
    assert measured["from_files"]["episodes"] == 2


def test_cartpole_reads_every_seed_of_everyone(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json", "cartpole", {})
    held = [500.0] * 10
    for seed, first in enumerate((2, 4, 3)):
        results.add("llmagent", seed, {"curve": curve(*[9.0] * first, *held, 500.0)})
        results.add("dqn", seed, {"curve": curve(*[9.0] * 30)})
    figures, theirs = cartpole.read(results)
    assert figures["steps_to_475"] == {"value": 4000.0, "unit": "env steps", "seeds": [3000.0, 5000.0, 4000.0]}
    assert figures["evals_held"]["value"] == 1.0 and figures["steps_to_475_demos"]["value"] is None
    assert theirs == {"dqn": entries(cartpole.FIGURES, {"steps_to_475": [None] * 3, "evals_held": [None] * 3})}
    table = report.table(cartpole.FIGURES, figures, theirs)
    assert table.count("not measured") == 1
    assert "| steps_to_475 (env steps)" in table and "3,000, 5,000, 4,000" in table and "never, never, never" in table
    cartpole.draw(results, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", peers.NAMES)
def test_a_peer_learns_from_numbers_and_is_evaluated_on_time(name: str) -> None:
    """With its published settings, cut short."""
    from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
    from llmagent_ros.perception.gymnasium_text import NumericObservations

    asked: list[int] = []

    def on_evaluation(steps: int, policy: Policy) -> bool:
        asked.append(steps)
        log_pi = policy(np.zeros((3, 4), np.float32))
        assert log_pi.shape == (3, 2) and np.exp(log_pi).sum(1) == pytest.approx(1.0)
        return steps < 1500

    settings = peers.PUBLISHED["CartPole-v1"][name] | {"n_steps": 8, "batch_size": 64} if name == "ppo" else None
    peers.train_peer(
        name,
        settings or peers.PUBLISHED["CartPole-v1"][name],
        lambda: NumericObservations(make_environment(EnvironmentSpec("CartPole-v1"))),
        seed=0,
        every=500,
        on_evaluation=on_evaluation,
    )
    assert asked == [pytest.approx(n, abs=7) for n in (500, 1000, 1500)]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nope"], "unknown benchmark 'nope'; valid: adapt, cartpole, continual, demos, devices, evolve, faults, "),
        (["cartpole", "--only", "sarsa"], "unknown method 'sarsa'; valid: dqn, full fine-tuning, llmagent, "),
    ],
)
def test_unknown_names(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str) -> None:
    assert main(["bench", *words, "--json", str(tmp_path / "file.json")]) == 2
    assert problem in capsys.readouterr().err


def test_a_report_of_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    configuration = cartpole.configuration(cartpole.STEPS)
    Results(path, "cartpole", configuration).add("llmagent", 0, {"curve": curve(9, 480, *[500] * 10)})
    before = path.read_bytes()
    assert main(["bench", "cartpole", "--json", str(path), "--report", "--plot", str(tmp_path / "c.png")]) == 0
    assert "2,000" in capsys.readouterr().out
    assert path.read_bytes() == before, "another process may be measuring"


def test_a_report_says_what_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    results = Results(path, "cartpole", cartpole.configuration(cartpole.STEPS))
    results.add("llmagent", 0, {"curve": curve(9, 480, *[500] * 10), "base": "of before"})
    results.add("dqn", 0, {"curve": curve(*[9.0] * 30)})
    assert main(["bench", "cartpole", "--json", str(path), "--report"]) == 0
    said = capsys.readouterr().out
    assert "steps_to_475 (env steps)       | not measured" in said
    assert said.count("not counted") == 1 and "not counted: 1 of llmagent, measured with another base" in said
    assert json.loads(path.read_text())["runs"]["llmagent"]["0"]["base"] == "of before", "it is not lost"
