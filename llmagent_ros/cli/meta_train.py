"""Learn an initial adapter and critic from many tasks, from which a new one needs a few episodes.

    llmagent meta-train changes --start runs/navigate-0 --out runs/meta-0
    llmagent train "changes:delay of 2" --start runs/meta-0 --steps 500
    llmagent meta-train changes --method fomaml --set meta.inner_updates=20
    llmagent meta-train --runs runs/s0 --follow        # beside a run of the graph, from what it stores

FAMILY is a file of config/families, or a path to one of your own. The robot does episodes of all members that are there
to learn from, more of those in which it fails (--set turns=rounds: of all alike); those held out are never met. With
the folder of a run to --start, it learns on from what that run stored as well. The same command goes on with a run that
was interrupted.
With --runs nothing is driven: each kind of task of these runs is a task to learn from. With --follow it goes on with
what they store until it is interrupted; the learner of RUN begins new kinds of tasks with the newest of RUN/meta.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

HELP = "learn an initial adapter from a family of tasks"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "meta-train", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", metavar="FAMILY", nargs="?", default="")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/meta-FAMILY-SEED, or RUN/meta)")
    parser.add_argument("--method", choices=("reptile", "fomaml", "joint"), help="default: reptile")
    parser.add_argument("--start", type=Path, metavar="RUN", help="a run's folder, or a bundle, to begin with")
    parser.add_argument("--steps", type=int, default=40_000, help="of all members together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    parser.add_argument("--robot", default="sim_diffdrive", help="contract (default: %(default)s)")
    parser.add_argument("--model", help="Hugging Face name or path (default: the base that ships)")
    parser.add_argument("--params", type=Path, metavar="FILE", help="parameters of a learner node, to learn as it does")
    beside = parser.add_argument_group("from what runs have stored, in place of FAMILY")
    beside.add_argument("--runs", nargs="+", metavar="RUN", help="folders of runs")
    beside.add_argument("--follow", action="store_true", help="go on with what they store, until interrupted")
    beside.add_argument("--minutes", type=float, metavar="M", help="of wall time (default: no limit)")
    beside.add_argument("--memory-mb", type=float, metavar="M", help="resident (default: no limit)")
    beside.add_argument("--niceness", type=int, default=10, help="0 to 19 (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="any setting")
    return parser


def run(args: argparse.Namespace) -> int:
    from llmagent_ros.errors import ConfigError

    if bool(args.family) == bool(args.runs):
        raise ConfigError("meta-train: either a FAMILY or --runs RUN [RUN ...]")
    return _from_runs(args) if args.runs else _from_family(args)


def _settings(args: argparse.Namespace, **values: Any) -> dict[str, Any]:
    """What both ways have in common, and `values`."""
    from llmagent_ros.cli._settings import bundle_of, of_learner, put_setting

    settings: dict[str, Any] = {"robot": args.robot, "seed": args.seed, **values}
    settings |= {} if args.params is None else of_learner(args.params)
    if args.model is not None:
        settings.setdefault("model", {})["model"] = args.model
    if args.start is not None:
        settings["start"] = bundle_of(args.start)
    if args.method is not None:
        settings["meta"] = {"method": args.method}
    for setting in args.settings:
        put_setting(settings, setting)
    return settings


def _from_runs(args: argparse.Namespace) -> int:
    from llmagent_ros import config
    from llmagent_ros.errors import ConfigError
    from llmagent_ros.experiments.meta_replays import MetaReplays, MetaReplaysConfig

    values = {"runs": args.runs, "minutes": args.minutes, "memory_mb": args.memory_mb}
    given = {name: value for name, value in values.items() if value is not None}
    if missing := [run for run in args.runs if not Path(run).is_dir()]:
        if not args.follow:
            raise ConfigError(f"--runs {', '.join(missing)}: no such folder; with --follow it need not be there yet")
        print(f"not there yet: {', '.join(missing)}", flush=True)
    meta = config.build(MetaReplaysConfig, _settings(args, **given), "llmagent meta-train")
    out = args.out or Path(args.runs[0]) / "meta"
    os.nice(args.niceness)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    learning = MetaReplays(meta, out, lambda line: print(line, flush=True))
    try:
        print(f"learning from {', '.join(args.runs)} in {out}", flush=True)
        print(learning.run(stop, follow=args.follow), flush=True)
    finally:
        learning.close()
    return 0


def _from_family(args: argparse.Namespace) -> int:
    from llmagent_ros import config
    from llmagent_ros.experiments.meta_training import MetaTrainConfig, meta_train
    from llmagent_ros.experiments.training import REPLAY

    settings = _settings(args, family=args.family, steps=args.steps)
    if args.start is not None and (args.start / REPLAY).is_file():
        settings.setdefault("experience", str(args.start))
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
