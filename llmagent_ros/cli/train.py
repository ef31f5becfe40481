"""Train on an environment without ROS: the same learning as the graph's, for experiments.

    llmagent train navigate --steps 20000 --seed 0 --out runs/navigate-0
    llmagent train CartPole-v1 --set learner.beta=0.03 --set model.rank=4
    llmagent train MountainCar-v0          # any environment of Gymnasium with a closed list of actions
    llmagent train leave --start runs/navigate-0 # begins with what another run has learned
    llmagent train leave --skills runs/skills    # begins with what is known of the like, and is kept there

ENVIRONMENT is a task of the simulated robot, a shipped description, a YAML file of either, or an id of Gymnasium.
The same command goes on with a run that was interrupted. At its end the saved policy is measured (llmagent eval).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmagent_ros.cli._settings import bundle_of, put_setting
from llmagent_ros.config import read_yaml
from llmagent_ros.errors import ConfigError

if TYPE_CHECKING:
    from llmagent_ros.experiments.training import TrainConfig, Trainer

HELP = "train on an environment without ROS"
_REPORT_PERIOD = 10.0  # s


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", metavar="ENVIRONMENT")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/ENVIRONMENT-SEED)")
    parser.add_argument("--steps", type=int, default=20_000, help="of the environment (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    parser.add_argument("--robot", help="contract, for its tasks (default: sim_diffdrive)")
    parser.add_argument("--model", default="", help="Hugging Face name or path (default: the base that ships)")
    parser.add_argument("--start", type=Path, metavar="RUN", help="a run's folder, or a bundle, to begin with")
    parser.add_argument("--skills", type=Path, metavar="DIR", help="store of skills to begin with, and to keep it in")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with settings, as llmagent evolve writes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="any setting")
    parser.add_argument(
        "--decisions", type=float, default=256.0, metavar="MB",
        help="room for the newest decisions, which llmagent explain reads (default: %(default)g; 0: keep none)",
    )  # fmt: skip
    parser.add_argument("--evaluate", type=int, default=100, metavar="N", help="episodes at the end (default: 100)")
    return parser


def run(args: argparse.Namespace) -> int:
    from llmagent_ros.cli.eval import evaluate
    from llmagent_ros.experiments import runs

    settings: dict[str, Any] = read_yaml(args.config) if args.config is not None else {}
    settings |= {"steps": args.steps, "seed": args.seed, "robot": args.robot or settings.get("robot", "sim_diffdrive")}
    settings["model"] = {**settings.get("model", {}), **({"model": args.model} if args.model else {})}
    if args.start is not None and args.skills is not None:
        raise ConfigError("--start and --skills: both say what to begin with; give one")
    if args.start is not None:
        settings["start"] = bundle_of(args.start)
    for setting in args.settings:
        put_setting(settings, setting)
    if not 0.0 <= args.decisions < float("inf"):
        raise ConfigError(f"--decisions {args.decisions}; valid: MB, at least 0")
    config = runs.make_config(args.environment, settings, "llmagent train")
    out = args.out or Path("runs") / f"{Path(args.environment).stem}-{args.seed}"
    print(f"training on {args.environment} for {config.steps:,} steps in {out}", flush=True)
    try:
        if args.skills is None:
            summary = runs.train(config, out, decisions_mb=args.decisions, on_step=_Progress().on_step)
        else:
            summary = _train_with_skills(config, out, args.skills, args.decisions)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on with {out}", flush=True)
        raise
    if summary is not None:
        print(f"{summary['episodes']} episodes, {summary['updates']:,} updates in {summary['wall_s']:.0f} s")
    if args.evaluate:
        evaluate(out, args.evaluate, critic=True)
    return 0


def _train_with_skills(config: TrainConfig, out: Path, store: Path, decisions_mb: float) -> dict[str, Any] | None:
    """Begins with the skills of a store that are like the task, and keeps what was learned there."""
    from llmagent_ros.experiments import runs
    from llmagent_ros.experiments.continual import ContinualLearner
    from llmagent_ros.knowledge.embedding import SentenceEmbedder
    from llmagent_ros.knowledge.knowledge import Knowledge

    with Knowledge(store, SentenceEmbedder()) as knowledge:
        learner = ContinualLearner(knowledge)
        config, start = learner.begin(config, out)
        print(start.why, flush=True)
        summary = runs.train(config, out, decisions_mb=decisions_mb, on_step=_Progress().on_step)
        skill, why = learner.keep(config, out, start)
    counts = f"{skill.successes} of {skill.attempts} episodes succeeded"
    print(f"skill {skill.id}, {skill.description!r}, {counts}; {why}")
    return summary


class _Progress:
    """A line now and then: steps, episodes, what the last ones gave, and how long it will take."""

    def __init__(self) -> None:
        self._began = self._reported = time.monotonic()
        self._first = -1

    def on_step(self, trainer: Trainer) -> None:
        now = time.monotonic()
        if self._first < 0:
            self._first = trainer.env_steps - 1
        if now - self._reported < _REPORT_PERIOD:
            return
        self._reported = now
        steps, target = trainer.env_steps, trainer.config.steps
        rate = (steps - self._first) / (now - self._began)
        recent = trainer.recent_returns
        mean = f"{sum(recent) / len(recent):.4g}" if recent else "-"
        print(
            f"step {steps:,} of {target:,}, episode {trainer.episode}, mean return of the last {len(recent)}: {mean}, "
            f"{trainer.learner.updates:,} updates, {rate:.0f} steps/s, {(target - steps) / rate / 60:.0f} min left",
            flush=True,
        )
