"""What workers do: plain data in, plain data out, files in the folder of the evolution. Nothing else is shared.

    train       makes a member's folder out of its parents', learns for a slice, and measures it
    evaluate    measures a member on further repetitions
    mixture     measures a mixture of members, and keeps it as a bundle where it is told a folder

The same job gives the same result wherever it runs (the same kind of machine and versions provided). A folder appears
under its name when it is whole; a job that was interrupted is done again from its beginning.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from llmagent_ros.bundle import Bundle, latest_bundle, load_bundle, save_bundle
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import DivergenceError, ModelError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.continual import merge_bundles
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evaluation import Policy, evaluate
from llmagent_ros.experiments.evolution.scenes import with_history
from llmagent_ros.experiments.training import BUNDLES, TrainConfig, Trainer
from llmagent_ros.learning.evolution.genes import Heritage
from llmagent_ros.learning.evolution.lineage import LINEAGE
from llmagent_ros.learning.rl.critic import build_critic
from llmagent_ros.policy.deployment import read_deployment
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.text_policy import TextPolicy

Job = dict[str, Any]
Result = dict[str, Any]
SELECTION_SEEDS = 3_000_000  # of the episodes that selection looks at; final evaluations lie below
_PER_GENERATION = 10_000
_MIXED, _START = "mixed", "start"


def run_job(job: Job) -> Result:
    """Does a job.

    Returns:
        fitness, successes, steps, ends: of each repetition, in their order; and of "train" env_steps and base_digest.

    Raises:
        DivergenceError: the member's losses or results are not finite. LlmAgentError: something does not fit.
    """
    torch.set_num_threads(1)
    return {"train": _train, "evaluate": _evaluate, "mixture": _mixture}[job["kind"]](job)


# --- train ------------------------------------------------------------------------------------------------


def _train(job: Job) -> Result:
    out = Path(job["folder"])
    partial = _partial(out)
    spec, config = _configured(job, partial)
    _inherit(job["parents"], Heritage[job["inherited"].upper()], partial)
    start = partial / _START
    config = dataclasses.replace(config, start=str(start) if start.exists() else "")
    trainer = Trainer(config, partial, meta={LINEAGE: job["lineage"], "environment": spec.name}, name=out.name)
    try:
        before = trainer.env_steps
        _go_on(trainer, partial / _MIXED, job["steps"])
        while not trainer.done:
            trainer.run_episode()
        trainer.save()
        result = _measured(job, spec, trainer.log_probabilities)
        result |= {"env_steps": trainer.env_steps - before, "base_digest": trainer.model.base_digest}
    finally:
        trainer.close()
    kept = dataclasses.replace(config, start="", steps=trainer.env_steps)
    write_atomic(partial / runs.CONFIG, (json.dumps(dataclasses.asdict(kept), indent=2) + "\n").encode())
    for folder in (start, partial / _MIXED):
        shutil.rmtree(folder, ignore_errors=True)
    _appear(partial, out)
    return result


def _configured(job: Job, folder: Path) -> tuple[EnvironmentSpec, TrainConfig]:
    settings = dict(job["settings"])
    scene = settings.pop("scene", {})
    spec = EnvironmentSpec(job["environment"], job["robot"])
    if "history" in scene:
        spec = with_history(spec, int(scene["history"]), Path(job["scenes"]))
    if settings.get("prompt") and settings.get("model", {}).get("chat"):  # an answer begins by itself
        settings["prompt"] = {"separator": "", **settings["prompt"]}
    values = {**settings, "robot": spec.robot, "steps": job["steps"], "seed": job["seed"]}
    return spec, runs.make_config(spec.name, values, f"member {folder.name}")


def _inherit(parents: list[list[Any]], heritage: Heritage, folder: Path) -> None:
    """What a member goes on with, put into its folder: a whole run, or a bundle to start from."""
    folder.mkdir(parents=True)
    if not parents or heritage is Heritage.NOTHING:
        return
    bundles = [_bundle(Path(path)) for path, _ in parents]
    if heritage is Heritage.RUN:
        _fork(Path(parents[0][0]), folder)
        if len(parents) > 1:
            merge_bundles(folder / _MIXED, bundles, [weight for _, weight in parents])
    elif heritage is Heritage.BUNDLE:
        merge_bundles(folder / _START, bundles, [weight for _, weight in parents])
    else:
        first = bundles[0]
        save_bundle(folder / _START, adapter=None, adapter_config={}, critic=first.critic, meta=first.meta)


def _fork(parent: Path, folder: Path) -> None:
    """Everything that learning goes on with; a parent's folder stays as it is."""
    ignored = shutil.ignore_patterns("*.lock", BUNDLES, runs.CONFIG)
    shutil.copytree(parent, folder, ignore=ignored, dirs_exist_ok=True)


def _go_on(trainer: Trainer, mixed: Path, steps: int) -> None:
    """So many steps more, with the tensors of a mixture where there is one.

    All members of a generation have the same seed, and by their own episodes the same worlds, whoever they go on from.
    """
    trainer.branch()
    trainer.extend(steps)
    if trainer.learner.updates:  # by another number of updates a step: what came before is neither owed nor made up for
        trainer.learner.updates = int(trainer.config.learner.updates_per_step * len(trainer.replay))
    if mixed.exists():
        bundle = load_bundle(mixed)
        trainer.learner.go_back_to(bundle.critic, bundle.adapter or {}, bundle.beta)


# --- evaluate, mixture ------------------------------------------------------------------------------------


def _evaluate(job: Job) -> Result:
    policy = runs.SavedPolicy(Path(job["folder"]))
    return _measured(job, policy.config.spec, policy.log_probabilities)


def _mixture(job: Job) -> Result:
    """Of members of one structure; their critics mix as well."""
    folder = Path(job["folder"])
    first = Path(job["parents"][0][0])
    config = runs.read_config(first)
    partial = _partial(folder)
    partial.mkdir(parents=True)
    bundles = [_bundle(Path(path)) for path, _ in job["parents"]]
    merged = partial / BUNDLES / "v000000"
    merge_bundles(merged, bundles, [weight for _, weight in job["parents"]], {LINEAGE: job["lineage"]})
    env = make_environment(config.spec)
    env.close()
    model = LanguageModel(config.model, env.phrases, config.prompt)
    deployment = read_deployment(merged, model, build_critic)
    policy = TextPolicy(model)
    policy.swap(deployment.adapter, deployment.values, beta=deployment.beta, name=deployment.name)
    result = _measured(job, config.spec, lambda scenes: policy.distribution(scenes)[0].numpy())
    if job["keep"]:
        write_atomic(partial / runs.CONFIG, (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())
        _appear(partial, folder)
    else:
        shutil.rmtree(partial)
    return result


def _bundle(folder: Path) -> Bundle:
    """Of a run's folder, or of a bundle's own."""
    newest = latest_bundle(folder / BUNDLES) if (folder / BUNDLES).is_dir() else folder
    if newest is None:
        raise ModelError(f"{folder}: has no bundle")
    return load_bundle(newest)


# --- both -------------------------------------------------------------------------------------------------


def _measured(job: Job, spec: EnvironmentSpec, policy: Policy) -> Result:
    """Repetitions `first` to `first + count` of a generation: the same seeds for all of its members."""
    seed = SELECTION_SEEDS + job["generation"] * _PER_GENERATION + job["first"]
    results = evaluate(spec, policy, job["count"], seed) if job["count"] else []
    fitness = [float(each.success) if job["fitness"] == "success" else each.total_reward for each in results]
    if not all(map(math.isfinite, fitness)):
        raise DivergenceError(f"returns that are not finite: {fitness}")
    return {
        "fitness": fitness,
        "successes": [each.success for each in results],
        "steps": [each.steps for each in results],
        "ends": [each.reason for each in results],
    }


def _partial(folder: Path) -> Path:
    """A name of this process's own beside a folder, with nothing there."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def _appear(partial: Path, folder: Path) -> None:
    """Under its name, whole; what an interrupted evolution left there goes."""
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
