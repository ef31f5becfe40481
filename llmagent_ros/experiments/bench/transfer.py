"""What a trained navigation policy loses when things change that it was not trained on.

The words for its actions, those of its instruction, and the robot.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from llmagent_ros.config import read_yaml, share_dir
from llmagent_ros.contract import contract_path
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench import navigate
from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.environments import DEFAULT_ROBOT, EnvironmentSpec
from llmagent_ros.experiments.evaluation import HELD_OUT_SEED, EpisodeResult, Policy, evaluate

ENVIRONMENT, SECOND_ROBOT = "navigate", "sim_scout"
STEPS = navigate.STEPS
WORLDS = 100
WORLDS_OF_A_VOCABULARY = 20  # five of them: together the same 100 worlds
WORLDS_OF_A_WORDING = 4

NUMERIC: tuple[str, ...] = ()
FIGURES = (
    Figure("synonym_loss", "points", "of success lost under unseen synonyms of the action phrases", 5, 10, True),
    Figure("wording_loss", "points", "under 50 unseen wordings of the instruction", 5, 10, True),
    Figure("second_robot_share", "share", "of the first robot's success on another one, untrained", 0.90, 0.80),
    Figure("success", "share", "of the trained policy, in its own words, on its own robot"),
)


def words() -> dict[str, Any]:
    """The unseen words: synonyms, a list of vocabularies; wordings of the instruction."""
    text = files("llmagent_ros.experiments.bench").joinpath("transfer_words.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    config = runs.make_config(ENVIRONMENT, {"steps": steps}, "bench transfer")
    return {"train": runs.settings(config), "worlds": WORLDS, "vocabulary": WORLDS_OF_A_VOCABULARY, "words": words()}


def methods() -> list[str]:
    return [OURS]


def ablations() -> list[str]:
    return []


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """Measures the run of `bench navigate` under each change; one that is not in `scratch`, or not whole, is made."""
    trained = navigate.measure(OURS, seed, steps, scratch, say)  # evaluations included
    run = scratch / navigate.run_folder(seed)
    told: dict[str, Any] = {"own": trained["from_files"]["success"]}
    say(f"own words and robot: success {told['own']:.2f}")
    told["second_robot"] = _with_robot(run, SECOND_ROBOT, WORLDS)
    say(f"second robot: success {told['second_robot']:.2f}")
    told["synonyms"] = [_with_synonyms(n, each, run) for n, each in enumerate(words()["synonyms"])]
    say(f"synonyms: success {told['synonyms']}")
    policy = runs.SavedPolicy(run).log_probabilities
    told["wordings"] = [_with_wording(n, each, policy, scratch) for n, each in enumerate(words()["wordings"])]
    say(f"wordings: success {told['wordings']}")
    return told


def _success(spec: EnvironmentSpec, policy: Policy, worlds: int, first: int = HELD_OUT_SEED) -> float:
    results: list[EpisodeResult] = evaluate(spec, policy, worlds, first)
    return sum(result.success for result in results) / len(results)


def _with_robot(run: Path, robot: str, worlds: int, first: int = HELD_OUT_SEED) -> float:
    policy = runs.SavedPolicy(run, robot=robot)
    return _success(policy.spec, policy.log_probabilities, worlds, first)


def _with_synonyms(number: int, phrases: Sequence[str], run: Path) -> float:
    """On a robot whose contract calls its actions otherwise; what each means is told by what it does."""
    plain = read_yaml(contract_path(DEFAULT_ROBOT))
    plain["actions"] = dict(zip(phrases, plain["actions"].values(), strict=True))
    path = run.parent / f"synonyms-{phrases[0].replace(' ', '-')}.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return _with_robot(run, str(path), WORLDS_OF_A_VOCABULARY, HELD_OUT_SEED + number * WORLDS_OF_A_VOCABULARY)


def _with_wording(number: int, wording: str, policy: Policy, scratch: Path) -> float:
    task = read_yaml(share_dir() / "config" / "tasks" / f"{ENVIRONMENT}.yaml")
    task["instructions"] = [wording]
    path = scratch / f"wording-{number}.yaml"
    path.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    first = HELD_OUT_SEED + number * WORLDS_OF_A_WORDING  # together the worlds of 200 seeds
    return _success(EnvironmentSpec(str(path)), policy, WORLDS_OF_A_WORDING, first)


def draw(results: Results, path: Path) -> None:
    raise ConfigError("bench transfer has no learning curves to draw")


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures as `Results.write` takes them; there are no peers."""
    values: dict[str, list[float | None]] = {figure.key: [] for figure in FIGURES}
    for each in results.of(OURS):
        own = each["own"]
        for key in ("synonyms", "wordings"):
            values[f"{key[:-1]}_loss"].append(round(100 * (own - sum(each[key]) / len(each[key])), 6) + 0.0)
        values["second_robot_share"].append(each["second_robot"] / own if own else None)
        values["success"].append(own)
    return entries(FIGURES, values), {}
