"""Families of tasks: their members by name, drawn the same each time, and learned from together."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from models_support import save_tiny_model
from runs_support import same, tensors

from llmagent_ros import config
from llmagent_ros.bundle import latest_bundle
from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.adaptation import adapt, adaptation_config
from llmagent_ros.experiments.bench.adapt import AFTER, known_all
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.exploration import explore
from llmagent_ros.experiments.families import is_member, load_family, shipped_families
from llmagent_ros.experiments.meta_training import MetaTrainConfig, MetaTrainer, meta_train
from llmagent_ros.experiments.training import Trainer
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.watch import episode_figures
from llmagent_ros.policy.surprise import surprise
from llmagent_ros.simulation.task import load_task

FAMILY: dict[str, Any] = {
    "family": "few",
    "task": "navigate",
    "train": {"unchanged": {}, "worn": {"members": 2, "drawn": {"left_wheel": [0.5, 0.9]}}},
    "held_out": {
        "swapped": {"variation": {"swapped": True}},
        "leave": {"task": "leave", "instructions": ["flee {object}"]},
    },
}
SMALL = {
    "warmup": 20, "batch_size": 16, "updates_per_step": 1.0, "actor_every": 8, "actor_batch": 4,
    "critic": {"heads": 3, "width": 16},
}  # fmt: skip


@pytest.fixture
def few(tmp_path: Path) -> str:
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(FAMILY, sort_keys=False))
    return str(path)


def changed(tmp_path: Path, **values: Any) -> str:
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(FAMILY | values, sort_keys=False))
    return str(path)


# --- the files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_families())
def test_what_ships_is_valid_and_nothing_is_learned_of_what_is_held_out(name: str) -> None:
    family = load_family(name)
    train, held_out = family.members("train"), family.members("held_out")
    assert len(held_out) >= 10 and not set(train) & set(held_out)
    known = [task.variation for task in train.values()]
    assert all(task.variation not in known for task in held_out.values())


def test_members_have_names_and_numbers_of_their_own_that_stay(few: str) -> None:
    members = load_family(few).members("train")
    assert list(members) == ["unchanged", "worn 1", "worn 2"]
    wheels = [task.variation.left_wheel for task in members.values()]
    assert wheels[0] == 1.0 and 0.5 <= wheels[1] != wheels[2] <= 0.9
    assert members == load_family(few).members("train")


def test_a_member_is_an_environment(few: str) -> None:
    assert is_member(f"{few}:leave") and is_member("changes:delay of 2")
    assert not is_member("navigate") and not is_member("toy_support:Corridor-v0")
    env = make_environment(EnvironmentSpec(f"{few}:leave"))
    scene, _ = env.reset(seed=0)
    assert scene.startswith("flee ") and env.env.unwrapped.simulator.task.goal == "leave"  # type: ignore[attr-defined]
    env.close()
    env = make_environment(EnvironmentSpec(f"{few}:swapped"))
    env.reset(seed=0)
    assert env.env.unwrapped.simulator.task.variation.swapped  # type: ignore[attr-defined]
    env.close()


def test_a_name_that_there_is_not_lists_those_there_are(few: str) -> None:
    with pytest.raises(UnknownNameError, match=r"'bent'.*leave, swapped, unchanged, worn 1, worn 2"):
        make_environment(EnvironmentSpec(f"{few}:bent"))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"held_out": {"unchanged": {}}}, "unchanged: to learn from or held out, not both"),
        ({"train": {"x": {"variation": {"wings": 2}}}}, "unknown key 'variation.wings'"),
        ({"train": {"x": {"drawn": {"left_wheel": [0.0, 0.1]}}}}, "variation.left_wheel"),
        ({"train": {"x": {"members": 0}}}, "train.x.members"),
        ({"train": {}}, "train"),
        ({"test": {}}, "unknown key 'test'"),
    ],
)
def test_a_family_that_is_wrong_is_refused(tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_family(changed(tmp_path, **values))


def test_the_base_reads_of_changed_robots_too_and_of_none_that_is_held_out() -> None:
    family, task = load_family("changes"), load_task("explore")
    rng = np.random.default_rng(0)
    drawn = [family.draw(task, rng) for _ in range(300)]
    assert len({each.variation for each in drawn}) > 100
    assert all(each.instructions == task.instructions and each.reward == task.reward for each in drawn)
    held_out = [each.variation for each in family.members("held_out").values()]
    assert not any(each.variation in held_out for each in drawn)
    assert min(each.variation.left_wheel for each in drawn) >= 0.5
    steps = list(explore(EnvironmentSpec("explore"), 7, 60))
    assert steps == list(explore(EnvironmentSpec("explore"), 7, 60))


# --- meta-training ------------------------------------------------------------------------------------------------


def configured(few: str, folder: Path, steps: int = 150, **values: Any) -> MetaTrainConfig:
    model = folder / "tiny"
    if not model.exists():
        save_tiny_model(model)
    settings = {
        "family": few, "steps": steps, "ready": 30, "model": {"model": str(model), "rank": 2}, "learner": SMALL,
        "meta": {"inner_updates": 6},
    }  # fmt: skip
    return config.build(MetaTrainConfig, settings | values, "test")


def test_all_members_have_their_turn_and_a_replay_of_their_own(few: str, tmp_path: Path) -> None:
    met: list[str] = []
    made = configured(few, tmp_path, turns="rounds")
    trainer = MetaTrainer(made, tmp_path / "run", lambda *told: met.append(told[1]))
    for _ in range(3):
        trainer.run_episode()
        assert trainer.meta.updates == 0 or trainer.episode == 3, "not from some members alone"
    for _ in range(3):
        trainer.run_episode()
    stored = [len(replay) for replay in trainer.replays]
    trainer.close()
    assert sorted(met[:3]) == sorted(met[3:]) == ["unchanged", "worn 1", "worn 2"]
    assert all(stored) and sum(stored) == trainer.env_steps and trainer.meta.updates > 0


@pytest.mark.parametrize("method", ["reptile", "fomaml"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(few: str, tmp_path: Path, method: str) -> None:
    config = configured(few, tmp_path, meta={"method": method, "inner_updates": 6})
    meta_train(config, tmp_path / "whole", save_every=60)
    trainer = MetaTrainer(config, tmp_path / "half")
    while trainer.env_steps < 60:
        trainer.run_episode()
    trainer.save()
    trainer.run_episode()  # what comes after the checkpoint is lost, and made again
    trainer.close()
    meta_train(config, tmp_path / "half", save_every=60)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "half"))


def test_what_a_run_has_stored_is_learned_from_as_well_and_stays_as_it_is(few: str, tmp_path: Path) -> None:
    made = configured(few, tmp_path)
    settings = {"steps": 40, "model": {"model": made.model.model, "rank": 2}, "learner": SMALL}
    runs.train(runs.make_config("navigate", settings, "test"), tmp_path / "skill")
    stored = (tmp_path / "skill" / "replay.sqlite").read_bytes()
    with_it = configured(few, tmp_path, experience=str(tmp_path / "skill"))
    meta_train(with_it, tmp_path / "whole", save_every=60)
    trainer = MetaTrainer(with_it, tmp_path / "half")
    assert [len(replay) for replay in trainer.meta.replays] == [0, 0, 0, 40]
    while trainer.env_steps < 60:
        trainer.run_episode()
    assert 3 in trainer.meta.tasks()
    trainer.save()
    trainer.close()
    meta_train(with_it, tmp_path / "half", save_every=60)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "half"))
    meta_train(made, tmp_path / "without", save_every=60)
    assert not same(tensors(tmp_path / "whole"), tensors(tmp_path / "without"))
    assert (tmp_path / "skill" / "replay.sqlite").read_bytes() == stored
    with pytest.raises(ConfigError, match=r"experience .*no folder of a run; it has no replay.sqlite"):
        MetaTrainer(configured(few, tmp_path, experience=str(tmp_path)), tmp_path / "none")


def test_what_was_learned_begins_a_run_and_the_command_says_how_to_go_on(
    few: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = configured(few, tmp_path, 60)
    words = ["meta-train", few, "--steps", "60", "--out", str(tmp_path / "meta"), "--model", made.model.model]
    words += ["--method", "joint", "--set", "model.rank=2", "--set", "ready=30"]
    words += [word for key, value in SMALL.items() if key != "critic" for word in ("--set", f"learner.{key}={value}")]
    assert main([*words, "--set", "learner.critic.heads=3", "--set", "learner.critic.width=16"]) == 0
    assert "worn 1: " in capsys.readouterr().out
    start = ["train", f"{few}:swapped", "--start", str(tmp_path / "meta"), "--steps", "30", "--evaluate", "0"]
    start += ["--model", made.model.model, "--set", "model.rank=2", "--out", str(tmp_path / "run")]
    start += ["--set", "learner.critic.heads=3", "--set", "learner.critic.width=16"]
    assert main(start) == 0
    newest = latest_bundle(tmp_path / "meta" / "bundles")
    assert newest is not None and runs.read_config(tmp_path / "run").start == str(newest)
    assert main([*start[:2], "--start", str(tmp_path), "--steps", "30"]) == 2
    assert "neither a bundle nor the folder of a run that has one" in capsys.readouterr().err


def test_a_folder_of_another_run_is_refused(few: str, tmp_path: Path) -> None:
    meta_train(configured(few, tmp_path, 30), tmp_path / "run")
    with pytest.raises(ConfigError, match="other settings"):
        meta_train(configured(few, tmp_path, 30, seed=1), tmp_path / "run")
    meta_train(configured(few, tmp_path, 60), tmp_path / "run")  # longer is no other run
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["finished"]


def test_a_kill_loses_nothing_that_was_saved(few: str, tmp_path: Path) -> None:
    made = configured(few, tmp_path, 5000)
    words = [sys.executable, "-m", "llmagent_ros.cli.main", "meta-train", few, "--model", made.model.model]
    words += ["--set", "model.rank=2", "--steps", "5000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "episode 3," in line:
            break
    process.kill()
    process.wait(30)
    process.stdout.close()
    phrases = make_environment(EnvironmentSpec("navigate")).phrases
    stored = 0
    for path in sorted((tmp_path / "run" / "tasks").glob("*/replay.sqlite")):
        with Replay(path, phrases) as replay:
            stored += len(replay)
    assert stored > 3


# --- a few episodes of a change -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "ends"),
    [
        ([0.9, 0.9, 0.9, 0.9], False),  # success after 5 episodes is a figure too
        ([0.1, 0.2, 0.3, 0.4, 0.8], True),
        ([0.1, 0.8, 0.3, 0.4, 0.4], True),  # it could once: the first time counts
        ([0.1, 0.2, 0.3, 0.4, 0.79], False),
        ([0.1, 0.2, 0.3, 0.4, 0.79, 0.8], True),
    ],
)
def test_the_benchmark_measures_on_until_its_figures_are_known(successes: list[float], ends: bool) -> None:
    points = [{"episodes": count, "success": each} for count, each in zip(AFTER, successes, strict=False)]
    assert known_all(points, goal=0.8) == ends


def test_success_is_measured_after_so_many_episodes(few: str, tmp_path: Path) -> None:
    made = configured(few, tmp_path)
    plain = adaptation_config("navigate", "", 0)
    assert plain.learner.updates_per_step == 8.0
    config = runs.make_config(
        f"{few}:swapped", {"steps": 10_000, "model": {"model": made.model.model, "rank": 2}, "learner": SMALL}, "test"
    )
    points = adapt(config, tmp_path / "run", (0, 2), 2, lambda line: None)
    assert [point["episodes"] for point in points] == [0, 2] and points[0]["env_steps"] == 0 < points[1]["env_steps"]
    again = adapt(config, tmp_path / "run", (0, 2), 2, lambda line: None)  # as after an interruption
    assert again == points
    ended = adapt(config, tmp_path / "run", (0, 2), 2, lambda line: None, lambda told: told[-1]["env_steps"] == 0)
    assert ended == points[:1]


def test_figures_of_an_episode(few: str, tmp_path: Path) -> None:
    made = configured(few, tmp_path)
    config = runs.make_config(
        f"{few}:unchanged", {"steps": 1000, "model": {"model": made.model.model, "rank": 2}, "learner": SMALL}, "test"
    )
    trainer = Trainer(config, tmp_path / "run")
    trainer.run_episode()
    episode = trainer.replay.recent(len(trainer.replay))
    told = episode_figures(partial(surprise, trainer.model), trainer.learner, 0, episode, False)
    trainer.close()
    assert set(told) == {"surprise", "error", "failure"} and told["failure"] == 1.0
    assert all(np.isfinite(value) and value > 0 for value in told.values())
