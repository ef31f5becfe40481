"""Run a benchmark: the method and its peers in one run, every seed shown.

    llmagent bench cartpole                      # the full one: 5 seeds, hours on 2 cores
    llmagent bench cartpole --seeds 1 --only llmagent
    llmagent bench cartpole --report             # only print and draw what is there
    llmagent bench quick                         # minutes: speed, one seed, nothing is kept

Results go to benchmarks/results/NAME.json seed by seed; the same command goes on with what is missing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

HELP = "run a benchmark, with its peers"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = "cartpole, navigate, transfer, demos, speed, devices, knowledge, continual, adapt, evolve, faults or quick"
    parser.add_argument("name", metavar="NAME", help=names)
    parser.add_argument("--seeds", type=int, metavar="N", help="0 to N-1 (default: 5; of faults 20)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps, skills or texts (default: the bench's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/NAME.json")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the learning curves of all seeds")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="some of the methods (default: all)")
    parser.add_argument("--ablations", action="store_true", help="the method without each of its parts as well")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="keep the runs there, to go on inside a seed")
    parser.add_argument("--report", action="store_true", help="measure nothing, print and draw what is there")
    return parser


def run(args: argparse.Namespace) -> int:
    from llmagent_ros.errors import UnknownNameError
    from llmagent_ros.experiments.bench import report, running
    from llmagent_ros.experiments.bench.results import Results
    from llmagent_ros.policy.language_model import shipped_base_digest

    if args.name == "quick":
        with tempfile.TemporaryDirectory(prefix="llmagent_bench_") as folder:
            quick = {"name": "speed", "seeds": 1, "workers": 1, "json": Path(folder) / "speed.json"}
            return run(argparse.Namespace(**{**vars(args), **quick}))
    bench = running.bench_named(args.name)
    valid = [*bench.methods(), *bench.ablations()]
    methods = args.only or (valid if args.ablations else bench.methods())
    for method in methods:
        if method not in valid:
            raise UnknownNameError("method", method, valid)
    steps = args.steps or bench.STEPS
    path = args.json or Path("benchmarks") / "results" / f"{args.name}.json"
    config, base = bench.configuration(steps), shipped_base_digest()
    results = Results(path, args.name, config, base, bench.read, any_settings=args.report)
    if not args.report:
        seeds = getattr(bench, "SEEDS", 5) if args.seeds is None else args.seeds
        running.run(args.name, results, methods, seeds, steps, args.workers, args.scratch)
    print(report.table(bench.FIGURES, *results.summary()))
    if results.other_settings:
        print(f"measured with other settings: {', '.join(results.other_settings)}")
    for method, count in results.of_other_bases().items():
        print(f"not counted: {count} of {method}, measured with another base; without --report they are made anew")
    if not args.report:
        print(f"\nwritten: {path}")
    if args.plot is not None:
        bench.draw(results, args.plot)
        print(f"drawn: {args.plot}")
    return 0
