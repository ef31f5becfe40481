"""Meta-learning beside runs: from what they have stored, which it never changes, and within its limits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_support import save_tiny_model
from ros_support import DEADLINE

from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.cli.main import main
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.experiments.meta_replays import MetaReplays, MetaReplaysConfig
from llmagent_ros.learning.meta.methods import MetaConfig
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import CriticConfig
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.policy.language_model import LanguageModelConfig
from llmagent_ros.types import Transition

PHRASES = load_contract("sim_diffdrive").phrases
LEARNER = LearnerConfig(batch_size=8, actor_every=4, actor_batch=4, critic=CriticConfig(heads=2, width=8))
META = MetaConfig(inner_updates=4)


def steps(first: int, episodes: int, good: str) -> list[Transition]:
    """Episodes of one step, of which those with the good phrase are worth something."""
    rng = np.random.default_rng(first)
    made = []
    for number in range(first, first + episodes):
        action = PHRASES[int(rng.integers(len(PHRASES)))]
        reward = 1.0 if action == good else 0.0
        made.append(Transition("r", number, 0, "go", f"cell {number % 5}.", action, reward, "end.", True, False))
    return made


class Beside:
    """A run that stores, and what learns beside it."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.base = save_tiny_model(folder / "base" / "llama")
        self.replays: list[Replay] = []

    def task(self, good: str, name: str = "", episodes: int = 40) -> Replay:
        replay = Replay(self.run / name / "replay.sqlite", PHRASES)
        self.replays.append(replay)
        replay.append(steps(0, episodes, good))
        return replay

    def config(self, **values: Any) -> MetaReplaysConfig:
        model = LanguageModelConfig(model=str(self.base), rank=2)
        given = {"ready": 20, "publish_every": 40, "learner": LEARNER, "meta": META, "model": model}
        return MetaReplaysConfig(**{"runs": (str(self.run),), **given, **values})

    def learn(self, **values: Any) -> tuple[MetaReplays, list[str]]:
        said: list[str] = []
        learning = MetaReplays(self.config(**values), self.run / "meta", said.append)
        said.append(learning.run(threading.Event(), follow=False))
        learning.close()
        return learning, said


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    made = Beside(tmp_path)
    yield made
    for replay in made.replays:
        replay.close()


def test_it_learns_from_all_tasks_and_changes_none(beside: Beside) -> None:
    for name, good in (("", "forward"), ("tasks/01", "turn left")):
        beside.task(good, name)
    before = {path: path.read_bytes() for path in beside.run.rglob("replay.sqlite")}
    learning, said = beside.learn(updates_per_step=4.0)
    assert said[-1] == "nothing more to learn from"
    assert learning.meta is not None and learning.meta.updates == 4 * 80 and len(learning.meta.tasks()) == 2
    newest = latest_bundle(beside.run / "meta" / "bundles")
    assert newest is not None
    bundle = load_bundle(newest)
    assert bundle.meta["meta_updates"] == 320 and bundle.meta["phrases"] == list(PHRASES)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(beside.run.glob("*.features")), "features of its own"
    learner = learning.meta.learner
    scenes = [f"cell {k}." for k in range(5)]
    values = learner.average.values(learner.model.features(scenes)).mean(0)
    good = [PHRASES.index("forward"), PHRASES.index("turn left")]
    assert set(values.topk(2).indices.tolist()) == set(good), "what is good in one of the tasks"


def test_it_waits_for_enough_tasks_and_sees_new_ones(beside: Beside) -> None:
    first = beside.task("forward")
    learning = MetaReplays(beside.config(), beside.run / "meta")
    assert learning.look() == 40
    while learning.learn():
        pass
    assert learning.meta is not None and learning.meta.updates == 0, "one task is not many"
    beside.task("back", "tasks/01", episodes=10)
    assert learning.look() == 10
    while learning.learn():
        pass
    assert learning.meta.updates == 0, "the second one has too few steps"
    beside.replays[1].append(steps(10, 20, "back"))
    first.append(steps(40, 10, "forward"))
    assert learning.look() == 30 and learning.look() == 0
    while learning.learn():
        pass
    assert learning.meta.updates == 80
    learning.close()


def test_it_goes_on_from_its_newest_bundle(beside: Beside) -> None:
    for name in ("", "tasks/01"):
        beside.task("forward", name)
    beside.learn()
    newest = latest_bundle(beside.run / "meta" / "bundles")
    assert newest is not None
    kept = load_bundle(newest)
    again = MetaReplays(beside.config(), beside.run / "meta")
    again.look()
    assert again.meta is not None
    assert all(torch.equal(t, again.meta.learner.average.state()[n]) for n, t in kept.critic.items())
    assert again.meta.updates == kept.meta["meta_updates"] == 80
    while again.learn():
        pass
    again.publish()
    assert again.meta.updates == 80 and latest_bundle(beside.run / "meta" / "bundles") == newest, "nothing is new"
    again.close()


def test_limits_and_settings(beside: Beside) -> None:
    for name in ("", "tasks/01"):
        beside.task("forward", name)
    _, said = beside.learn(minutes=1e-9)
    assert "minutes are over" in said[-1]
    with pytest.raises(StoreError, match="MB used; the limit is 1"):
        beside.learn(memory_mb=1.0)
    with pytest.raises(ConfigError, match="no run to learn from"):
        beside.config(runs=())


def test_a_replay_of_other_phrases_is_named(beside: Beside) -> None:
    beside.run.mkdir()
    with Replay(beside.run / "replay.sqlite", ("up", "down")) as replay:
        replay.append([Transition("r", 0, 0, "go", "cell.", "up", 0.0, "end.", True, False)])
    with pytest.raises(StoreError, match="'up', which is not in the vocabulary"):
        beside.learn()


def test_the_command_follows_a_run_until_it_is_interrupted(
    beside: Beside, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["meta-train"]) == 2
    assert main(["meta-train", "changes", "--runs", "x"]) == 2
    assert "either a FAMILY or --runs" in capsys.readouterr().err
    for name in ("", "tasks/01"):
        beside.task("forward", name)
    params = tmp_path / "learner.yaml"
    params.write_text("/**:\n  ros__parameters: {rank: 2, publish_every: 7, rl: {batch_size: 8, beta: 0.3}}\n")
    settings = {"ready": 20, "publish_every": 40, "meta.inner_updates": 4}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "llmagent_ros.cli.main", "meta-train", "--runs", str(beside.run), "--follow"]
    process = subprocess.Popen(
        [*command, "--params", params, "--model", str(beside.base), "--niceness", "0", *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("80 steps of 2 tasks" in line for line in lines)
        beside.replays[0].append(steps(40, 40, "forward"))
        assert any("120 steps of 2 tasks" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.communicate(timeout=DEADLINE)[0]
        assert process.returncode == 0
    finally:
        process.kill()
    newest = latest_bundle(beside.run / "meta" / "bundles")
    assert newest is not None
    bundle = load_bundle(newest)
    assert bundle.adapter_config["r"] == 2 and bundle.meta["beta"] == 0.3, "as the learner whose parameters were given"
