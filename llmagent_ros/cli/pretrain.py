"""Make the base model that ships: text logs of random behaviour, a tokenizer, and a small Llama trained on them."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from llmagent_ros.errors import ConfigError

HELP = "make the base model that ships, from text logs of all shipped environments"
CARD = "README.md"
_SHARD_STEPS = 5000
_LOG_STEPS = 30_000
_HELD_OUT = 300  # steps at the end of each environment's logs that are only evaluated on


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser("pretrain", help=HELP, description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the model; OUT.logs and OUT.training are kept to go on with")
    parser.add_argument("--environments", nargs="+", metavar="NAME", help="to log (default: all that ship)")
    parser.add_argument("--robot", default="sim_diffdrive", help="contract, for its tasks (default: %(default)s)")
    parser.add_argument(
        "--log-steps", type=_count, help=f"steps to log of each (default: as for the one that ships, else {_LOG_STEPS})"
    )
    parser.add_argument("--steps", type=_count, default=8000, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    parser.add_argument("--workers", type=_count, default=2, help="processes that log, threads that train (default: 2)")
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from llmagent_ros.experiments import bases
    from llmagent_ros.experiments.environments import BASE_ENVIRONMENTS
    from llmagent_ros.policy import pretraining
    from llmagent_ros.policy.logs import read_log
    from llmagent_ros.policy.prompt import PromptFormat

    args.environments = args.environments or list(BASE_ENVIRONMENTS)
    _check(args)
    logs = {name: [step for path in paths for step in read_log(path)] for name, paths in _log(args).items()}
    held_out = {name: steps[-_HELD_OUT:] for name, steps in logs.items()}
    steps = [step for each in logs.values() for step in each[:-_HELD_OUT]]
    torch.set_num_threads(args.workers)
    config = pretraining.PretrainConfig(steps=args.steps, seed=args.seed)
    form = PromptFormat()
    some = steps[:: max(1, len(steps) // 20_000)]
    tokenizer = pretraining.train_tokenizer(pretraining.corpus(some, form), config.vocabulary)
    model = pretraining.build_model(config, tokenizer)
    size = sum(p.numel() for p in model.parameters())
    print(f"training {size:,} parameters on {len(steps):,} logged steps", flush=True)
    began = time.monotonic()
    training = args.out.with_name(args.out.name + ".training")
    pretraining.train(
        model, tokenizer, form, steps, config, checkpoint=training, progress=_progress(config.steps)
    )
    facts = {
        "parameters": size,
        "logged_steps": len(steps),
        "training_steps": config.steps,
        "components": bases.COMPONENTS,
        "training_minutes": round((time.monotonic() - began) / 60, 1),
        "held_out_perplexity": {
            name: [round(pretraining.perplexity(model, tokenizer, form, each, gist=gist), 3) for gist in (False, True)]
            for name, each in held_out.items()
        },
    }
    pretraining.save(model, tokenizer, args.out)
    bases.add_projection(args.out, [[step.scene for step in each] for each in logs.values()])
    (args.out / CARD).write_text(_card(args, facts, asdict(config)), encoding="utf-8")
    training.unlink(missing_ok=True)
    print(json.dumps(facts, indent=2))
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _check(args: argparse.Namespace) -> None:
    """What can be told before hours of work."""
    from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment

    for name in args.environments:
        make_environment(EnvironmentSpec(name, args.robot)).close()
    if args.out.is_dir() and any(args.out.iterdir()):
        raise ConfigError(f"{args.out}: is not empty; a model is never overwritten")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"{args.out}: is a file; a model is a folder")
    nearest = next(folder for folder in args.out.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(f"{args.out}: nothing can be written in {nearest}")


def _log(args: argparse.Namespace) -> dict[str, list[Path]]:
    """All shards of each environment, in order; those of an interrupted run are taken as they are."""
    from llmagent_ros.experiments.end_with_parent import end_with_parent
    from llmagent_ros.experiments.environments import EnvironmentSpec
    from llmagent_ros.experiments.exploration import write_shard

    folder = args.out.with_name(args.out.name + ".logs")
    jobs = [
        (EnvironmentSpec(name, args.robot), shard, _SHARD_STEPS, folder)
        for name in args.environments
        for shard in range(max(1, -(-_log_steps(args, name) // _SHARD_STEPS)))
    ]
    print(f"logging {_SHARD_STEPS * len(jobs):,} steps of {', '.join(args.environments)} in {folder}", flush=True)
    # spawned: a fork of a process in which simulators and torch have been may hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(args.workers, mp_context=context, initializer=end_with_parent)
    try:
        with _interrupt_later():
            futures = [pool.submit(write_shard, *job) for job in jobs]
        for number, future in enumerate(as_completed(futures), start=1):
            print(f"log {number} of {len(jobs)}: {future.result()}", flush=True)
    except BaseException:  # Ctrl-C too: a shard takes minutes, nobody waits for it
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    paths: dict[str, list[Path]] = {name: [] for name in args.environments}
    for (spec, *_), future in zip(jobs, futures, strict=True):
        paths[spec.name].append(future.result())
    return paths


@contextlib.contextmanager
def _interrupt_later() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: not between a worker's start and its being known.

    Processes that are started in it inherit the mask, so that Ctrl-C is not for them. The mask alone does not do: it is
    that of this thread, and one that a library has started may be told of the signal in its place.
    """
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def _log_steps(args: argparse.Namespace, name: str) -> int:
    from llmagent_ros.experiments.environments import BASE_ENVIRONMENTS

    return int(args.log_steps or BASE_ENVIRONMENTS.get(name, _LOG_STEPS))


def _progress(steps: int) -> Callable[[int, float, float], None]:
    def show(step: int, loss: float, seconds: float) -> None:
        if step % 100 == 0:
            print(f"step {step} of {steps}, loss {loss:.3f}, {seconds / 60:.1f} min", flush=True)

    return show


def _card(args: argparse.Namespace, facts: Mapping[str, object], settings_of: Mapping[str, object]) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in settings_of.items())
    trained = f"{facts['training_steps']} steps in {facts['training_minutes']} minutes on {args.workers} CPU threads"
    names = " ".join(args.environments)
    command = f"llmagent pretrain OUT --environments {names} --robot {args.robot}"
    command += f" --log-steps {args.log_steps}" if args.log_steps else ""
    perplexities = facts["held_out_perplexity"]
    assert isinstance(perplexities, dict)
    rows = "\n".join(f"| {name} | {plain} | {cue} |" for name, (plain, cue) in perplexities.items())
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The base model of llmagent_ros

A Llama of {facts["parameters"]:,} parameters that reads the scene text of small robots and environments. It is a
starting point for adapters and critics, not a policy: nothing in its data says which action is good.

- **Made by** `{command} --steps {args.steps} --seed {args.seed} --workers {args.workers}`
- **Data**: {facts["logged_steps"]:,} steps of random, sticky behaviour in {names}, logged as text.
  No expert, no demonstration, no reward.
- **Objective**: next token on "scene, action -> next scene" and "scene -> the scene again", mostly through the tokens
  of the prompt's cue alone (`llmagent_ros/policy/pretraining.py`).
- **Training**: {trained}. Settings: {settings}.
- **Features**: `projection.safetensors` holds the {facts["components"]} strongest principal components of the prompt's
  hidden states over the scenes of the logs, within environments.
- **Held-out perplexity** of a token, over {_HELD_OUT} steps at the end of each environment's logs:

  | environment | with the scene in sight | what follows told through the cue alone |
  |---|---|---|
{textwrap.indent(rows, "  ")}

- **Limits**: it knows the words of these scenes and hardly any other; any text has tokens, but it was trained on none.
"""
