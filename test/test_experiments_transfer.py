"""Other words and other robots: what each phrase means is told by what it does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, contract_path, load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.bench import navigate, transfer
from llmagent_ros.experiments.bench.results import Results
from llmagent_ros.policy.grounding import Grounding
from llmagent_ros.simulation.task import load_task

ROBOT = load_contract("sim_diffdrive")


def renamed(phrases: list[str]) -> MobileContract:
    plain = yaml.safe_load(contract_path("sim_diffdrive").read_text())
    plain["actions"] = dict(zip(phrases, plain["actions"].values(), strict=True))
    return config.build(MobileContract, plain, "test")


@pytest.mark.parametrize("phrases", transfer.words()["synonyms"])
def test_synonyms_mean_what_they_do(phrases: list[str]) -> None:
    assert list(ROBOT.meaning(renamed(phrases)).items()) == list(zip(phrases, ROBOT.phrases, strict=True))


def test_a_slow_robot_means_the_same_by_the_same_words() -> None:
    scout = load_contract("sim_scout")
    assert all(phrase == meaning for phrase, meaning in ROBOT.meaning(scout).items())


def test_scenes_and_choices_are_translated() -> None:
    grounding = Grounding(("forward", "back", "turn left"), {"retreat": "back", "rotate": "turn left", "go": "forward"})
    scene = "go to the red ball. red ball ahead at 1.0. did go, retreat, rotate."
    assert grounding.scene(scene) == "go to the red ball. red ball ahead at 1.0. did forward, back, turn left."
    assert grounding.scene("clear. free unknown. did nothing.") == "clear. free unknown. did nothing."
    ways = "clear ahead 1.0. free retreat 0.3 go 1.2. moving 0.1 turning 0.0. did go."
    assert grounding.scene(ways) == "clear ahead 1.0. free forward 1.2 back 0.3. moving 0.1 turning 0.0. did forward."
    assert grounding.log_probabilities(np.array([[-1.0, -2.0, -3.0]])).tolist() == [[-2.0, -3.0, -1.0]]
    hostile = f"free {'go unknown ' * 2000}x. free go 1.2.3. clear."  # no time is lost on what is no list of ways
    assert grounding.scene(hostile) == hostile


@pytest.mark.parametrize(
    ("meaning", "problem"),
    [
        ({"go": "fly", "x": "back"}, "'fly' is none of the known"),
        ({"go": "forward"}, "nothing that is spoken means 'back'"),
    ],
)
def test_what_cannot_be_translated_is_refused(meaning: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Grounding(("forward", "back"), meaning)


def test_the_words_are_unseen() -> None:
    words = transfer.words()
    known = {*load_task("explore").instructions, *load_task("navigate").instructions}
    assert len(words["wordings"]) == len(set(words["wordings"])) == 50
    assert not known & set(words["wordings"]) and all("{object}" in wording for wording in words["wordings"])
    spoken = [phrase for phrases in words["synonyms"] for phrase in phrases]
    assert len(spoken) == len(set(spoken)) == 30 and not set(spoken) & set(ROBOT.phrases)
    for wording in words["wordings"]:  # as the task of a scene, on any robot
        assert ROBOT.refusal(wording.format(object="red ball")) == ""


def test_losses_are_points_and_shares(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json", "transfer", {})
    results.add("llmagent", 0, {"own": 0.9, "second_robot": 0.72, "synonyms": [0.9, 0.8], "wordings": [0.5, 1.0]})
    figures, peers = transfer.read(results)
    assert figures["synonym_loss"]["value"] == pytest.approx(5.0) and peers == {}
    assert figures["wording_loss"]["value"] == pytest.approx(15.0)
    assert figures["second_robot_share"]["value"] == pytest.approx(0.8)


def test_an_interrupted_run_is_gone_on_with_as_navigate_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole measurement, small: navigate's evaluations of the run that it shares are made, none is left out."""
    monkeypatch.setattr(navigate, "GOAL", dataclasses.replace(navigate.GOAL, every=20, episodes=2))
    monkeypatch.setattr(transfer, "WORLDS", 2)
    monkeypatch.setattr(transfer, "WORLDS_OF_A_VOCABULARY", 1)
    monkeypatch.setattr(transfer, "WORLDS_OF_A_WORDING", 1)
    few = {name: each[:1] for name, each in transfer.words().items()}
    monkeypatch.setattr(transfer, "words", lambda: few)
    told = transfer.measure("llmagent", 0, 40, tmp_path, lambda text: None)
    assert [len(told[name]) for name in ("synonyms", "wordings")] == [1, 1] and 0.0 <= told["own"] <= 1.0
    curve = navigate.measure("llmagent", 0, 40, tmp_path, lambda text: None)["curve"]
    assert [point["env_steps"] for point in curve] == [20, 40]
