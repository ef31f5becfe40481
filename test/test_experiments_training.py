"""`llmagent train` and `eval`: repeatable, resumable, and measured from files alone."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_support import save_tiny_model
from runs_support import same, tensors
from toy_support import CELLS

from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, DivergenceError
from llmagent_ros.experiments import evaluation, runs
from llmagent_ros.experiments.environments import MAX_STEPS, EnvironmentSpec, learner_settings, make_environment
from llmagent_ros.experiments.evaluation import HELD_OUT_SEED, EpisodeResult, evaluate, figures
from llmagent_ros.experiments.exploration import FIRST_SEED, explore
from llmagent_ros.experiments.training import TRAINING_SEEDS, TrainConfig, Trainer
from llmagent_ros.recording.decision_rows import DECISIONS
from llmagent_ros.recording.episodes import EPISODES, read_episodes
from llmagent_ros.types import RealArray, Source

LAKE = """
environment: FrozenLake-v1
arguments: {is_slippery: false}
task: cross the lake
factors: [4, 4]
parts: [{name: row, step: 1}, {name: column, step: 1}]
actions: [go left, go down, go right, go up]
success_return: 1
learner: {gamma: 0.95}
"""
SMALL = {
    "warmup": 40,
    "batch_size": 32,
    "updates_per_step": 1.0,
    "actor_every": 10,
    "actor_batch": 8,
    "critic": {"heads": 4, "width": 32},
}


@pytest.fixture
def lake(tmp_path: Path) -> str:
    path = tmp_path / "lake.yaml"
    path.write_text(LAKE)
    return str(path)


def configured(lake: str, folder: Path, steps: int, seed: int = 0, **learner: Any) -> TrainConfig:
    """On a tiny random model."""
    model = folder / "tiny"
    if not model.exists():
        save_tiny_model(model)
    settings = {"steps": steps, "seed": seed, "model": {"model": str(model), "rank": 2}, "learner": SMALL | learner}
    return runs.make_config(lake, settings, "test")


def test_a_seed_makes_a_run_repeatable(lake: str, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        runs.train(configured(lake, tmp_path, 150, seed), tmp_path / name)
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    assert not same(tensors(tmp_path / "a"), tensors(tmp_path / "c"))
    a, b, c = ([(e.steps, e.total_reward) for e in read_episodes(tmp_path / n / EPISODES)] for n in "abc")
    assert a == b and a != c and sum(steps for steps, _ in a) <= 150


@pytest.mark.parametrize("target_entropy", [0.0, 0.4])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    lake: str, tmp_path: Path, target_entropy: float
) -> None:
    config = configured(lake, tmp_path, 200, target_entropy=target_entropy)
    runs.train(config, tmp_path / "whole", save_every=50)

    def stop(trainer: Trainer) -> None:
        if trainer.env_steps == 131:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(config, tmp_path / "parts", save_every=50, on_step=stop)
    summary = json.loads((tmp_path / "parts" / "summary.json").read_text())
    assert summary["finished"] is False
    runs.train(config, tmp_path / "parts", save_every=50)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))
    whole, parts = (read_episodes(tmp_path / name / EPISODES) for name in ("whole", "parts"))
    assert [(e.steps, e.total_reward) for e in whole] == [(e.steps, e.total_reward) for e in parts]


_KILLED = """
import os, signal, sys
from pathlib import Path
from llmagent_ros.experiments import runs

def stop(trainer):
    if trainer.env_steps == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

settings = {"steps": 200, "learner": {"warmup": 64, "updates_per_step": 0.5}}
runs.train(runs.make_config("CartPole-v1", settings, "test"), Path(sys.argv[1]), save_every=60, on_step=stop)
"""


@pytest.mark.parametrize("at", [40, 160])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path, at: int) -> None:
    """On the shipped base, whose features differ in their last digits when a batch is of another size."""
    for folder, stops in (("whole", [0]), ("parts", [at, 0])):
        for stop in stops:
            command = [sys.executable, "-c", _KILLED, str(tmp_path / folder), str(stop)]
            ended = subprocess.run(command, check=False, capture_output=True, timeout=300)
            assert ended.returncode == (-9 if stop else 0), ended.stderr.decode()
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))


def test_decisions_are_kept_and_change_nothing(
    lake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted run makes steps again that it had kept already."""
    config = configured(lake, tmp_path, 120)
    runs.train(config, tmp_path / "none", save_every=50)
    runs.train(config, tmp_path / "whole", save_every=50, decisions_mb=1.0)
    assert same(tensors(tmp_path / "none"), tensors(tmp_path / "whole"))
    assert not (tmp_path / "none" / DECISIONS).exists()

    def stop(trainer: Trainer) -> None:
        if trainer.env_steps == 95:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(config, tmp_path / "parts", save_every=50, decisions_mb=1.0, on_step=stop)
    runs.train(config, tmp_path / "parts", save_every=50, decisions_mb=1.0)
    told: dict[str, list[str]] = {"whole": [], "parts": []}
    for name, texts in told.items():
        for number in range(120):
            assert main(["explain", str(tmp_path / name), str(number)]) == 0
            texts.append(re.sub(r"Decided in .*| of run \S+", "", capsys.readouterr().out))
    assert told["whole"] == told["parts"] and len(set(told["whole"])) == 120
    assert "told        cross the lake" in told["whole"][0] and "skills      none found" in told["whole"][0]
    episodes = read_episodes(tmp_path / "whole" / EPISODES)
    first = told["whole"][episodes[0].steps - 1]
    assert "The episode " in first and f"in {episodes[0].steps} steps." in " ".join(first.split())


def test_a_run_may_be_made_longer_and_not_otherwise_changed(lake: str, tmp_path: Path) -> None:
    runs.train(configured(lake, tmp_path, 60), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"other settings: learner.beta 0.02, now 0.5; choose another --out"):
        runs.train(configured(lake, tmp_path, 60, beta=0.5), tmp_path / "run")
    summary = runs.train(configured(lake, tmp_path, 120), tmp_path / "run")
    assert summary is not None
    assert runs.read_config(tmp_path / "run").steps == 120


def test_a_fresh_process_measures_the_same_from_the_files(lake: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    runs.train(configured(lake, tmp_path, 150), out)
    here, results = runs.evaluate_run(out, 7)
    assert [result.seed for result in results] == [HELD_OUT_SEED + n for n in range(7)]
    command = [sys.executable, "-m", "llmagent_ros.cli.main", "eval", str(out), "--episodes", "7", "--json"]
    there = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(there.stdout) == pytest.approx(here, rel=1e-12)
    kept = json.loads((out / runs.EVALUATION).read_text())
    assert kept["figures"] == pytest.approx(here) and len(kept["episodes"]) == 7
    assert kept["temperature"] == 0.0, "the one that was used, also where nobody asked for one"


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_random_steps_of_a_teacher_are_stored_and_not_imitated(lake: str, tmp_path: Path, noise: float) -> None:
    Path(lake).write_text(LAKE + f"teacher_noise: {noise}\n")
    config = dataclasses.replace(configured(lake, tmp_path, 10), demonstrations=12)
    trainer = Trainer(config, tmp_path / "run")
    try:
        shown, stored = trainer.replay.demonstrations, len(trainer.replay)
        sources = {each.source for each in trainer.replay.recent(stored)}
    finally:
        trainer.close()
    assert shown == stored if noise == 0.0 else 0.4 * stored < shown < 0.8 * stored
    assert sources == ({Source.SCRIPT} if noise == 0.0 else {Source.SCRIPT, Source.POLICY})


def test_a_log_shows_every_step_also_where_phrases_are_held(lake: str) -> None:
    every = list(explore(EnvironmentSpec(lake), 0, 50))
    Path(lake).write_text(LAKE + "hold: 3\n")
    assert make_environment(EnvironmentSpec(lake)).get_wrapper_attr("hold") == 3
    assert list(explore(EnvironmentSpec(lake), 0, 50)) == every


def test_another_robot_needs_a_run_of_a_robot(lake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.train(configured(lake, tmp_path, 60), tmp_path / "run")
    assert main(["eval", str(tmp_path / "run"), "--robot", "sim_scout"]) == 2
    assert "robot sim_scout: there is no robot in what was learned (gymnasium_" in capsys.readouterr().err
    assert not (tmp_path / "run" / runs.EVALUATION).exists()


def test_a_toy_environment_is_solved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the base that ships, from the command line, in well under a minute."""
    learner = ["warmup=100", "critic.heads=4", "critic.width=64", "batch_size=64"]
    words = [f"--set=learner.{setting}" for setting in learner]
    out = tmp_path / "run"
    name = "toy_support:Corridor-v0"
    assert main(["train", name, "--steps", "500", "--out", str(out), "--evaluate", "10", *words]) == 0
    assert "return_mean" in capsys.readouterr().out
    kept = json.loads((out / runs.EVALUATION).read_text())
    assert max(episode["steps"] for episode in kept["episodes"]) < CELLS, "each the shortest way"
    assert kept["figures"]["return_mean"] > 0.85


def test_an_explosion_ends_the_run_and_leaves_the_last_good_files(lake: str, tmp_path: Path) -> None:
    config = configured(lake, tmp_path, 300)

    def spoil(trainer: Trainer) -> None:
        if trainer.env_steps == 150:
            with torch.no_grad():
                next(trainer.learner.critic.parameters()).fill_(float("nan"))

    with pytest.raises(DivergenceError, match=r"critic (loss nan|holds values that are not finite)"):
        runs.train(config, tmp_path / "run", save_every=50, on_step=spoil)
    assert all(bool(t.isfinite().all()) for t in tensors(tmp_path / "run").values() if t.is_floating_point())
    runs.evaluate_run(tmp_path / "run", 2)


def test_seeds_of_training_evaluation_and_logs_never_meet() -> None:
    assert TRAINING_SEEDS <= FIRST_SEED < HELD_OUT_SEED
    assert FIRST_SEED + 100_000 < HELD_OUT_SEED


def test_evaluation_sees_each_seed_once_and_in_order(lake: str) -> None:
    asked: list[int] = []

    def first(scenes: Any, /) -> RealArray:
        asked.append(len(scenes))
        return np.log(np.eye(4)[[0] * len(scenes)] + 1e-300)

    results = evaluate(EnvironmentSpec(lake), first, 60)
    assert [result.seed for result in results] == list(range(HELD_OUT_SEED, HELD_OUT_SEED + 60))
    assert asked == [1], "all begin in the one scene, and it stays"
    numeric = evaluate(EnvironmentSpec(lake), first, 60, numeric=True)
    assert max(asked) == 50, "side by side, but not without bound"
    assert numeric == results
    assert figures(results)["success"] == 0.0 and {result.steps for result in results} == {100}


def test_what_is_drawn_depends_on_the_episode_and_the_policy_alone(lake: str) -> None:
    asked: list[int] = []

    def any_phrase(scenes: Any, /) -> RealArray:
        asked.append(len(scenes))
        return np.full((len(scenes), 4), -np.log(4))

    def run(episodes: int, first: int, temperature: float | None = 1.0) -> list[EpisodeResult]:
        return evaluate(EnvironmentSpec(lake), any_phrase, episodes, first, temperature=temperature)

    together = run(60, HELD_OUT_SEED)
    assert len({result.steps for result in together}) > 5, "it is drawn, and each episode by itself"
    assert run(60, HELD_OUT_SEED) == together
    assert run(3, HELD_OUT_SEED + 57) == together[57:], "whatever runs beside it"
    assert {result.steps for result in run(60, HELD_OUT_SEED, None)} == {100}, "by default the environment's: greedy"


def test_choices_are_drawn_from_another_stream_than_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    uniforms: list[float] = []

    def drawn(log_pi: RealArray, temperature: float, uniform: float) -> tuple[int, float]:
        uniforms.append(uniform)
        return 0, 0.0

    monkeypatch.setattr(evaluation, "draw", drawn)
    evaluate(EnvironmentSpec("navigate"), lambda scenes: np.zeros((len(scenes), 6)), 1, 17)
    assert len(uniforms) > 3 and not np.isin(uniforms, np.random.default_rng([17, 0]).random(200)).any()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["Nope-v1"], "unknown environment 'Nope-v1'; valid: Acrobot-v1"),
        (["CartPole-v1", "--set", "learner.bet=1"], "unknown key 'learner.bet'; valid: actor_batch"),
        (["CartPole-v1", "--set", "learner"], "valid: KEY=VALUE"),
        (["CartPole-v1", "--steps", "0"], "steps: Input should be greater than 0"),
        (["Pendulum-v1"], "are no closed list; valid: Discrete or MultiDiscrete"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip()
    assert problem in said and "\n" not in said
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_loaded_leaves_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mended command must not be refused for the settings of one that never began."""
    out = tmp_path / "run"
    assert main(["train", "CartPole-v1", "--model", "/no/such/model", "--out", str(out)]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert not out.exists()


def test_eval_of_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(tmp_path)]) == 2
    assert "no run of `llmagent train`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["navigate", "MountainCar-v0"])
def test_environments_without_a_description_of_their_own(name: str) -> None:
    env = make_environment(EnvironmentSpec(name))
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert first == again and first in env.observation_space
    scenes = {env.step(len(env.phrases) - 1)[0] for _ in range(20)}
    assert len(scenes) > 3
    env.close()


def test_an_environment_that_nobody_ends_is_cut_off_and_its_temperature_is_found() -> None:
    env = make_environment(EnvironmentSpec("CliffWalking-v1"))
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(MAX_STEPS)]
    assert ends[-1] == (False, True) and not any(map(any, ends[:-1]))
    assert learner_settings(env)["target_entropy"] == 0.5
    env.close()
