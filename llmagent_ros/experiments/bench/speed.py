"""What two shortcuts are worth: features that are kept with the transitions, phrases that are scored, not generated.

Both sides of each ratio run alternately in one process on one thread, so that a machine that gets slower slows both.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.training import Trainer
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.policy.language_model import LanguageModel

ENVIRONMENT = "navigate"
STEPS = 600  # of experience that is learned from
_ROUNDS = 12
_CACHED, _RECOMPUTED = 40, 2  # updates of each kind in a round
_DECISIONS = 20  # of each kind in a round
_DEFAULT_LENGTH = 20  # tokens that generate() writes where nobody says how many

NUMERIC: tuple[str, ...] = ()
TIMED = (OURS,)
FIGURES = (
    Figure("cached_over_recomputed", "ratio", "critic updates per second, features kept over computed anew", 50, 20),
    Figure("cached_updates_per_s", "1/s", "critic updates with kept features"),
    Figure("recomputed_updates_per_s", "1/s", "critic updates that compute the features of their batch"),
    Figure("learner_updates_per_s", "1/s", "updates with kept features, those of the adapter among them"),
    Figure("generate_over_decision", "ratio", "p50 of generate() and parsing over p50 of a decision", 10, 5),
    Figure("shortest_over_decision", "ratio", "the same with no more tokens than the longest phrase has"),
    Figure("generate_ms", "ms", "p50 of generate() of the same model, 20 tokens, and parsing", lower=True),
    Figure("shortest_ms", "ms", "the same with no more tokens than the longest phrase has", lower=True),
    Figure("decision_ms", "ms", "p50 of a decision: scores of all phrases, features, values", lower=True),
)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    learner = dataclasses.asdict(LearnerConfig())
    return {"environment": ENVIRONMENT, "steps": steps, "rounds": _ROUNDS, "learner": learner}


def methods() -> list[str]:
    return [OURS]


def ablations() -> list[str]:
    return []


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """All figures, on the experience of one seed."""
    settings = {"steps": steps, "seed": seed, "learner": {"warmup": steps}}
    trainer = Trainer(runs.make_config(ENVIRONMENT, settings, "bench speed"), scratch / f"speed-{seed}")
    try:
        while not trainer.done:
            trainer.run_episode()
        trainer.save()
        say(f"{len(trainer.replay)} transitions")
        return _updates(trainer) | _decisions(trainer)
    finally:
        trainer.close()


def _updates(trainer: Trainer) -> dict[str, float]:
    def learner(**changes: Any) -> Learner:
        config = dataclasses.replace(trainer.config.learner, warmup=1, **changes)
        return Learner(config, trainer.replay, trainer.model)

    cached, anew = learner(actor_every=0), learner(actor_every=0, cache_features=False)
    whole = learner()
    times: dict[str, list[float]] = {"cached": [], "recomputed": [], "learner": []}
    for _ in range(_ROUNDS):
        times["cached"].append(seconds(cached.update, _CACHED))
        times["recomputed"].append(seconds(anew.update, _RECOMPUTED))
        times["learner"].append(seconds(whole.update, trainer.config.learner.actor_every))
    rates = {f"{name}_updates_per_s": 1 / statistics.median(each) for name, each in times.items()}
    return rates | {"cached_over_recomputed": rates["cached_updates_per_s"] / rates["recomputed_updates_per_s"]}


def seconds(act: Callable[[], Any], count: int) -> float:
    """Of one call, over `count` of them."""
    began = time.perf_counter()
    for _ in range(count):
        act()
    return (time.perf_counter() - began) / count


def _decisions(trainer: Trainer) -> dict[str, float]:
    rng = np.random.default_rng(0)
    scenes = [transition.scene for transition in trainer.replay.recent(_ROUNDS * _DECISIONS)]
    longest = max(len(tokens) for tokens in _phrase_tokens(trainer.model))
    ways: dict[str, Callable[[str], Any]] = {
        "decision": lambda scene: trainer.policy.decide(scene, rng),
        "generate": _Generator(trainer.model, _DEFAULT_LENGTH),
        "shortest": _Generator(trainer.model, longest),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for start in range(0, len(scenes), _DECISIONS):
        for name, way in ways.items():
            way(scenes[0])  # what the other way left in the caches is not its fault
            times[name] += [seconds(partial(way, scene), 1) for scene in scenes[start : start + _DECISIONS]]
    median = {name: 1e3 * statistics.median(each) for name, each in times.items()}
    ratios = {f"{name}_over_decision": median[name] / median["decision"] for name in ("generate", "shortest")}
    return ratios | {f"{name}_ms": milliseconds for name, milliseconds in median.items()}


def _phrase_tokens(model: LanguageModel) -> list[list[int]]:
    return [model.tokenizer(model.form.phrase(p), add_special_tokens=False).input_ids for p in model.phrases]


class _Generator:
    """What a robot does that talks to a model: it lets it write, greedily, and looks for a phrase in what it wrote."""

    def __init__(self, model: LanguageModel, tokens: int) -> None:
        self._model, self._tokens = model, tokens

    @torch.inference_mode()
    def __call__(self, scene: str) -> str | None:
        model = self._model
        ids, mask = model.tokenize([model.form.prompt(scene)])
        written = model.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self._tokens,
            do_sample=False,
            pad_token_id=model.tokenizer.pad_token_id,
        )
        text = str(model.tokenizer.decode(written[0, ids.shape[1] :])).strip().lower()
        return next((phrase for phrase in model.phrases if text.startswith(phrase)), None)


def draw(results: Results, path: Path) -> None:
    raise ConfigError("bench speed has no learning curves to draw")


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures as `Results.write` takes them; there are no peers."""
    measured: Sequence[dict[str, Any]] = results.of(OURS)
    return entries(FIGURES, {figure.key: [each[figure.key] for each in measured] for figure in FIGURES}), {}
