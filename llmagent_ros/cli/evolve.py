"""Evolve a population: adapters, their structure and their settings, in parallel simulation.

    llmagent evolve navigate --population 8 --generations 10 --slice 2000 --out runs/evolve-0
    llmagent evolve changes --start runs/meta-0            # a family: each generation learns the next of its tasks
    llmagent evolve navigate --fresh --genes learner.beta learner.gamma model.rank   # settings alone
    llmagent evolve navigate --backend ray --workers 64    # on a cluster; pip install '.[ray]'

Members learn for a slice of steps from what their parents had learned, race on held-out episodes, and the best have
children. The same command goes on with a run that was interrupted. The best one is in OUT/best (llmagent train --start,
llmagent eval), its settings in OUT/settings.yaml (llmagent train --config).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "evolve a population of adapters and settings"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evolve", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", metavar="ENVIRONMENT|FAMILY")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/evolve-ENVIRONMENT-SEED)")
    parser.add_argument("--population", type=int, default=8, metavar="N", help="members (default: %(default)s)")
    parser.add_argument("--generations", type=int, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--keep", type=int, default=0, metavar="N", help="that have children (default: a quarter)")
    parser.add_argument("--slice", type=int, default=2000, metavar="STEPS", help="of a member in a generation")
    parser.add_argument("--steps", type=int, default=0, metavar="TOTAL", help="of all at most (0: no limit)")
    parser.add_argument("--minutes", type=float, default=0.0, metavar="M", help="no job is begun later (0: no limit)")
    parser.add_argument("--memory-mb", type=float, default=0.0, metavar="M", help="of one worker (0: no limit)")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="of one job (default: %(default)g)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="jobs at a time (default: %(default)s)")
    parser.add_argument("--niceness", type=int, default=10, help="of the workers, 0 to 19 (default: %(default)s)")
    parser.add_argument("--backend", default="processes", help="processes (default) or ray")
    parser.add_argument("--start", type=Path, metavar="RUN", help="a run's folder, or a bundle, to begin with")
    parser.add_argument("--skills", type=Path, metavar="DIR", help="store of skills to keep the best one in")
    parser.add_argument("--fresh", action="store_true", help="members inherit settings alone, and learn from the start")
    parser.add_argument("--fitness", default="return", help="return (default) or success, of held-out episodes")
    parser.add_argument("--genes", nargs="+", default=["usual"], metavar="GENE", help="that vary: usual, all, or names")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    parser.add_argument("--robot", default="sim_diffdrive", help="contract (default: %(default)s)")
    parser.add_argument("--model", default="", help="Hugging Face name or path (default: the base that ships)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with settings of all members")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="any setting of all members; race.*, breeding.* and mixture are the evolution's own",
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> int:
    from llmagent_ros import config
    from llmagent_ros.cli._table import table
    from llmagent_ros.errors import ConfigError
    from llmagent_ros.experiments.evolution import best
    from llmagent_ros.experiments.evolution.config import EvolutionConfig
    from llmagent_ros.experiments.evolution.evolution import Evolution
    from llmagent_ros.experiments.evolution.workers import WorkersConfig, check_memory

    if not 0.0 <= args.minutes < float("inf"):
        raise ConfigError(f"--minutes {args.minutes}; valid: at least 0")
    asked = config.build(EvolutionConfig, _settings(args), "llmagent evolve")
    limits = {key: getattr(args, key) for key in ("backend", "workers", "memory_mb", "timeout", "niceness")}
    workers = config.build(WorkersConfig, limits, "llmagent evolve")
    check_memory(workers)
    out = args.out or Path("runs") / f"evolve-{Path(args.environment).stem}-{args.seed}"
    evolution = Evolution(asked, out, workers, minutes=args.minutes, say=lambda line: print(line, flush=True))
    print(f"evolving {asked.population} members for {asked.generations} generations in {out}", flush=True)
    try:
        summary = evolution.run()
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on with {out}", flush=True)
        raise
    steps, tests = summary["env_steps"], summary["evaluation_steps"]
    print(f"{summary['generations']} generations, {steps:,} env steps and {tests:,} of evaluations, ", end="")
    print(f"{len(summary['failures'])} failures, {summary['wall_s'] / 60:.0f} min; ended by {summary['ended']}")
    if summary["best"] is None:
        print("no generation was finished; the same command with more time goes on")
        return 0
    print(table(best.HEADER, best.rows(summary["kept"], evolution.space.default)))
    print(f"best: {out / best.BEST} (llmagent train --start, llmagent eval); settings: {out / best.SETTINGS}")
    if args.skills is not None:
        _keep(args.skills, out, asked.start, summary)
    return 0


def _keep(store: Path, out: Path, start: str, summary: dict[str, Any]) -> None:
    from llmagent_ros.experiments.evolution.keeping import keep_skill
    from llmagent_ros.knowledge.embedding import SentenceEmbedder
    from llmagent_ros.knowledge.knowledge import Knowledge

    with Knowledge(store, SentenceEmbedder()) as knowledge:
        skill = keep_skill(knowledge, out, start, summary)
    print(f"skill {skill.id}, {skill.description!r}, {skill.successes} of {skill.attempts} episodes succeeded")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Of the evolution; those of its members below "settings"."""
    from llmagent_ros.cli._settings import bundle_of, put_setting
    from llmagent_ros.config import read_yaml
    from llmagent_ros.experiments.evolution.config import merged

    names = ("environment", "robot", "population", "generations", "keep", "slice", "steps", "seed", "fitness")
    values: dict[str, Any] = {name: getattr(args, name) for name in names}
    values["genes"] = tuple(args.genes)
    values["settings"] = read_yaml(args.config) if args.config is not None else {}
    values["breeding"] = {"inherit": not args.fresh}
    if args.model:
        values["settings"] = merged(values["settings"], {"model": {"model": args.model}})
    if args.start is not None:
        values["start"] = str(Path(bundle_of(args.start)).resolve())
    for setting in args.settings:
        own = setting.partition(".")[0].partition("=")[0] in ("race", "breeding", "mixture")
        put_setting(values if own else values["settings"], setting)
    return values
