"""Changed robots in the simulator, met through a calibration: in training, after an interruption and from files."""

from __future__ import annotations

import json
import re
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models_support import save_tiny_model
from runs_support import same, tensors

from llmagent_ros import config as configuration
from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.calibrated import CalibratedText
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evaluation import evaluate
from llmagent_ros.experiments.meta_training import CONFIG, MetaTrainConfig, MetaTrainer
from llmagent_ros.experiments.training import BUNDLES, TrainConfig, Trainer

SWAPPED, REVERSED = "changes:swapped, left wheel at 0.7", "changes:reversed, right wheel at 0.8"
SMALL = {"warmup": 40, "batch_size": 32, "updates_per_step": 0.5, "actor_every": 10, "actor_batch": 8}
FAMILY = """
family: two
task: navigate
train:
  swapped: {variation: {swapped: true}}
  left wheel worn: {drawn: {left_wheel: [0.5, 0.6]}}
"""


def configured(folder: Path, environment: str, steps: int) -> TrainConfig:
    model = folder / "tiny"
    if not model.exists():
        save_tiny_model(model)
    values = {"steps": steps, "calibrate": True, "model": {"model": str(model), "rank": 2}, "learner": SMALL}
    return runs.make_config(environment, values, "test")


@pytest.mark.parametrize("name", [SWAPPED, REVERSED])
def test_a_changed_robot_turns_and_drives_as_it_is_told(name: str) -> None:
    env = CalibratedText(make_environment(EnvironmentSpec(name)))
    try:
        for seed in range(3):
            env.reset(seed=seed)
            for known in islice(cycle(["turn left", "turn left", "back", "turn right", "forward"]), 10):
                if any(env.step(env.phrases.index(known))[2:4]):
                    break
        assert env.calibration.active
        env.reset(seed=5)
        before = env.unwrapped.simulator.pose()  # type: ignore[attr-defined]
        scene = env.step(env.phrases.index("turn left"))[0]
        after = env.unwrapped.simulator.pose()  # type: ignore[attr-defined]
        assert np.sin(after[2] - before[2]) > 0.2, "to the left, in truth"
        assert re.search(r"moving -?0\.\d turning 1\.\d\. did turn left -?0\.\d turning 1\.\d\.$", scene)
    finally:
        env.close()


def test_each_evaluated_episode_begins_with_what_training_has_measured(tmp_path: Path) -> None:
    env = CalibratedText(make_environment(EnvironmentSpec(SWAPPED)))
    try:
        env.reset(seed=0)
        for known in ("turn left", "turn right", "turn left"):
            env.step(env.phrases.index(known))
        known_state = env.calibration.state()
        lane = CalibratedText(make_environment(EnvironmentSpec(SWAPPED)), known_state, keep=False)
        lane.reset(seed=1)
        lane.step(lane.phrases.index("turn left"))
        assert lane.calibration.state() != known_state
        lane.reset(seed=2)
        assert lane.calibration.state() == known_state
        lane.close()
    finally:
        env.close()


def test_files_give_what_training_had_measured(tmp_path: Path) -> None:
    config = configured(tmp_path, SWAPPED, 120)
    told: list[Any] = []

    def measure(trainer: Trainer) -> None:
        if trainer.done:
            assert trainer.calibration is not None and trainer.calibration.active
            results = evaluate(config.spec, trainer.log_probabilities, 3, seen_as=trainer.seen_as)
            told.extend([trainer.calibration.state(), results])

    runs.train(config, tmp_path / "run", on_step=measure)
    newest = latest_bundle(tmp_path / "run" / BUNDLES)
    assert newest is not None and load_bundle(newest).meta["calibration"] == told[0]
    assert runs.evaluate_run(tmp_path / "run", 3)[1] == told[1]
    own = (tmp_path / "run" / "evaluation.json").read_bytes()
    runs.evaluate_run(tmp_path / "run", 1, robot="sim_scout")
    assert (tmp_path / "run" / "evaluation.json").read_bytes() == own
    assert json.loads((tmp_path / "run" / "evaluation-sim_scout.json").read_text())["robot"] == "sim_scout"


def test_what_was_measured_of_one_robot_says_nothing_of_another(tmp_path: Path) -> None:
    runs.train(configured(tmp_path, SWAPPED, 120), tmp_path / "run")
    for robot, active in (("", True), ("sim_scout", False)):
        policy = runs.SavedPolicy(tmp_path / "run", robot=robot)
        env = policy.seen_as(make_environment(policy.spec))
        assert isinstance(env, CalibratedText) and env.calibration.active is active
        env.close()


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    config = configured(tmp_path, REVERSED, 240)
    runs.train(config, tmp_path / "whole", save_every=60)

    def stop(trainer: Trainer) -> None:
        if trainer.env_steps == 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(config, tmp_path / "parts", save_every=60, on_step=stop)
    runs.train(config, tmp_path / "parts", save_every=60)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))


def test_meta_training_calibrates_each_member_and_goes_on_exactly(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny")
    path = tmp_path / "two.yaml"
    path.write_text(FAMILY)
    model = {"model": str(tmp_path / "tiny"), "rank": 2}
    values = {"family": str(path), "calibrate": True, "model": model, "learner": SMALL, "ready": 64}
    config = configuration.build(MetaTrainConfig, values, "test")
    told = []
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        for stop in stops:
            trainer = MetaTrainer(config, tmp_path / name)
            while trainer.episode < stop:
                trainer.run_episode()
            trainer.save()
            told.append(trainer._calibrations())
            trainer.close()
    assert told[0] == told[2] and set(told[0]) == {"0", "1"} and told[0]["0"] != told[0]["1"]
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))
    assert not (tmp_path / "whole" / CONFIG).exists()


def test_there_must_be_a_robot(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="calibrate: there is no robot in gymnasium_cartpole"):
        Trainer(configured(tmp_path, "CartPole-v1", 10), tmp_path / "run")
