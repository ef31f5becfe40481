"""Learn an initial adapter and critic from a family of tasks, from which a new task needs a few episodes.

    llmagent meta-train changes --start runs/navigate-0 --out runs/meta-0
    llmagent train "changes:delay of 2" --start runs/meta-0 --steps 500
    llmagent meta-train changes --method fomaml --set meta.inner_updates=20

FAMILY is a file of config/families, or a path to one of your own. The robot does episodes of all members that are there
to learn from, in turn; those held out are never met. The same command goes on with a run that was interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "learn an initial adapter from a family of tasks"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "meta-train", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", metavar="FAMILY")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/meta-FAMILY-SEED)")
    parser.add_argument("--method", choices=("reptile", "fomaml", "joint"), help="default: reptile")
    parser.add_argument("--start", type=Path, metavar="RUN", help="a run's folder, or a bundle, to begin with")
    parser.add_argument("--steps", type=int, default=40_000, help="of all members together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    parser.add_argument("--robot", default="sim_diffdrive", help="contract (default: %(default)s)")
    parser.add_argument("--model", default="", help="Hugging Face name or path (default: the base that ships)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="any setting")
    return parser


def run(args: argparse.Namespace) -> int:
    from llmagent_ros import config
    from llmagent_ros.cli._settings import bundle_of, put_setting
    from llmagent_ros.experiments.meta_training import MetaTrainConfig, meta_train

    settings: dict[str, Any] = {"family": args.family, "robot": args.robot, "steps": args.steps, "seed": args.seed}
    settings["model"] = {"model": args.model}
    if args.start is not None:
        settings["start"] = bundle_of(args.start)
    if args.method is not None:
        settings["meta"] = {"method": args.method}
    for setting in args.settings:
        put_setting(settings, setting)
    meta = config.build(MetaTrainConfig, settings, "llmagent meta-train")
    out = args.out or Path("runs") / f"meta-{Path(args.family).stem}-{args.seed}"
    print(f"learning from the family {args.family} for {meta.steps:,} steps in {out}", flush=True)
    try:
        summary = meta_train(meta, out, say=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on with {out}", flush=True)
        raise
    if summary is not None:
        print(f"{summary['episodes']} episodes, {summary['updates']:,} updates in {summary['wall_s']:.0f} s")
    return 0
