"""From the labelled episodes that runs have stored to a classifier of scenes, calibrated and measured on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.training import REPLAY
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.outcomes import classifier as classifiers
from llmagent_ros.outcomes.classifier import SceneClassifier, scene_text
from llmagent_ros.outcomes.diagram import reliability_png
from llmagent_ros.outcomes.measures import Floats, Labels, choose_threshold, measure, reliability
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig
from llmagent_ros.recording.episodes import EPISODES, read_episodes
from llmagent_ros.types import Transition

_MOST_EPISODES = 100_000  # of one store
_BATCH = 64  # scenes whose features are computed at once
_SHARES = (0.5, 0.25, 0.25)  # of the episodes: to fit, to calibrate, held out
_LEAST = 8  # episodes of success, and of failure or with other scenes, that there must be
_LEAST_TRUE = 5  # successes of the calibration split that a threshold must find


@config_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class OutcomeFitConfig:
    """How a classifier is fitted.

    Attributes:
        runs: folders with replays. robot: their contract. seed: of the split.
        last: how many scenes at the end of a successful episode count as success; more than 1 where somebody looks for
            a while before they say so.
        precision: wished share of true ones among the scenes that count as success.
        model: the base. threads: of torch on the CPU.
    """

    runs: tuple[str, ...]
    robot: str = "sim_diffdrive"
    seed: Annotated[int, Field(ge=0)] = 0
    last: Annotated[int, Field(ge=1, le=100)] = 1
    precision: Annotated[float, Field(gt=0, le=1)] = 0.95
    model: LanguageModelConfig = Field(default_factory=LanguageModelConfig)
    threads: Annotated[int, Field(gt=0)] = 1


@dataclass(frozen=True)
class LabelledScenes:
    """Scenes of episodes that have ended.

    Attributes:
        texts: (N,). labels: (N,), whether the task is fulfilled there. episodes: (N,), number of each scene's episode.
        succeeded: (E,), of each episode. instructions: that they were about.
    """

    texts: list[str]
    labels: Labels
    episodes: NDArray[np.int64]
    succeeded: Labels
    instructions: frozenset[str]


def collect(runs: Sequence[Path], last: int = 1) -> LabelledScenes:
    """The scenes of all episodes in the replays of runs, those of further kinds of tasks too; each episode once.

    An episode succeeded when episodes.csv of any of the runs says so; one that is not listed (a demonstration), when
    it terminated with a reward above 0. Those that have not ended are left out. Positives are its last scenes;
    negatives the others, and all scenes of failures.

    Raises:
        ConfigError: a run has no replay. StoreError: one is damaged.
    """
    texts: list[str] = []
    labels: list[bool] = []
    numbers: list[int] = []
    succeeded: list[bool] = []
    instructions: set[str] = set()
    for steps, success in _episodes(runs):
        scenes = [*(step.scene for step in steps), steps[-1].next_scene]
        texts += [scene_text(steps[-1].task, scene) for scene in scenes]
        positives = min(last, len(steps)) if success else 0  # the first scene was no success
        labels += [False] * (len(scenes) - positives) + [True] * positives
        numbers += [len(succeeded)] * len(scenes)
        succeeded.append(success)
        instructions.add(steps[-1].task)
    return LabelledScenes(
        texts, np.array(labels, bool), np.array(numbers, np.int64), np.array(succeeded, bool), frozenset(instructions)
    )


def _episodes(runs: Sequence[Path]) -> Iterator[tuple[list[Transition], bool]]:
    """Each ended episode once, however many replays have it: a copy must not be held out from its original."""
    told = {key: success for run in runs for key, success in _told(run).items()}  # replays may have those of others
    seen: set[tuple[str, int]] = set()
    for path in [path for run in runs for path in _replays(run)]:
        with Replay(path, read_only=True) as replay:
            for summary in replay.episodes(_MOST_EPISODES):
                key = (summary.run, summary.episode)
                if key in seen:
                    continue
                steps = replay.episode(*key)
                if steps[-1].terminated or steps[-1].truncated:
                    seen.add(key)
                    well = steps[-1].terminated and steps[-1].reward > 0
                    yield steps, told.get(key, well)


def _replays(run: Path) -> list[Path]:
    replays = [path for path in (run / REPLAY, *sorted(run.glob(f"tasks/*/{REPLAY}"))) if path.is_file()]
    if not replays:
        raise ConfigError(f"{run}: no {REPLAY}; give the folder of a run that `make sim` or `llmagent train` made")
    return replays


def _told(run: Path) -> dict[tuple[str, int], bool]:
    """Whether an episode succeeded, by (run, episode), of those that the run has listed."""
    listed = run / EPISODES
    return {(each.run, each.episode): each.success for each in read_episodes(listed)} if listed.is_file() else {}


def split(succeeded: Labels, seed: int) -> list[NDArray[np.int64]]:
    """Episodes to fit, to calibrate and held out, successes and others shared out alike.

    Raises:
        ConfigError: there are too few of either.
    """
    rng = np.random.default_rng(seed)
    parts: list[list[int]] = [[], [], []]
    for wanted in (True, False):
        own = rng.permutation(np.flatnonzero(succeeded == wanted))
        if wanted and len(own) < _LEAST:
            raise ConfigError(f"only {len(own)} episodes of success; at least {_LEAST} are needed to fit a classifier")
        ends = np.cumsum(np.array(_SHARES) * len(own)).round().astype(int)
        for part, chosen in zip(parts, np.split(own, ends[:-1]), strict=True):
            part += chosen.tolist()
    return [np.array(sorted(part), np.int64) for part in parts]


def fit_outcomes(
    config: OutcomeFitConfig, out: Path, progress: Callable[[int, int], None] = lambda done, of: None
) -> SceneClassifier:
    """Fits, calibrates, measures and saves a classifier; whether it may judge is for its `threshold` to say.

    Raises:
        ConfigError: too few episodes, or no replay. StoreError: OUT is there already, or a store is damaged.
        ModelError: the base cannot be loaded.
    """
    torch.set_num_threads(config.threads)
    contract = load_contract(config.robot)
    scenes = collect([Path(run) for run in config.runs], config.last)
    parts = split(scenes.succeeded, config.seed)
    model = LanguageModel(config.model, contract.phrases)
    features = _features(model, scenes.texts, progress)
    fitting, calibrating, held_out = (np.isin(scenes.episodes, part) for part in parts)
    wordings = tuple(sorted({contract.generalised(instruction).lower() for instruction in scenes.instructions}))
    digest, labels = model.feature_digest, scenes.labels
    fitted = classifiers.fit(
        features[fitting], labels[fitting], scenes.episodes[fitting], feature_digest=digest, wordings=wordings
    )
    fitted = classifiers.calibrated(fitted, features[calibrating], labels[calibrating])
    known = fitted.probabilities(features[calibrating])
    threshold, best = choose_threshold(known, labels[calibrating], config.precision, _LEAST_TRUE)
    probabilities, truth = fitted.probabilities(features[held_out]), labels[held_out]
    measures = measure(probabilities, truth, len(parts[2]), 1.0 if threshold is None else threshold)
    bins = reliability(probabilities, truth)
    about: dict[str, Any] = {
        **fitted.about,
        "runs": list(config.runs),
        "robot": contract.robot,
        "model": config.model.model or "shipped base",
        "seed": config.seed,
        "last": config.last,
        "calibration": "Platt scaling",
        "wished": config.precision,
        "best_precision": best,
        "episodes": {"fit": len(parts[0]), "calibration": len(parts[1]), "held_out": len(parts[2])},
        "successes": int(scenes.succeeded.sum()),
        "held_out": dataclasses.asdict(measures),
        "held_out_episodes": _by_episode(probabilities, scenes.episodes[held_out], scenes.succeeded, truth, threshold),
        "bins": [dataclasses.asdict(each) for each in bins],
    }
    made = SceneClassifier(fitted.tensors, digest, wordings, threshold, about)
    title = f"Is the task fulfilled in this scene? {', '.join(wordings)[:60]}"
    classifiers.save(made, out, reliability_png(bins, probabilities, truth, measures, title))
    return made


def _by_episode(
    probabilities: Floats, episodes: NDArray[np.int64], succeeded: Labels, labels: Labels, threshold: float | None
) -> dict[str, int]:
    """What the robot would notice of it: successes that are seen, and episodes that would have ended too early."""
    above = probabilities >= (np.inf if threshold is None else threshold)
    early = np.unique(episodes[above & ~labels])
    seen = np.setdiff1d(np.unique(episodes[above & labels]), early)
    held_out = np.unique(episodes)
    return {
        "episodes": len(held_out),
        "successes": int(succeeded[held_out].sum()),
        "seen": len(seen),
        "ended_early": len(early),
    }


def _features(model: LanguageModel, texts: Sequence[str], progress: Callable[[int, int], None]) -> Floats:
    """(N, D). Each text once: many are the next scene of one step and the scene of the following."""
    unique = sorted(set(texts), key=len)  # alike in length: little padding
    rows = []
    for start in range(0, len(unique), _BATCH):
        rows.append(model.features(unique[start : start + _BATCH]).cpu().numpy())
        progress(min(start + _BATCH, len(unique)), len(unique))
    at = {text: number for number, text in enumerate(unique)}
    return np.concatenate(rows).astype(np.float64)[[at[text] for text in texts]]
