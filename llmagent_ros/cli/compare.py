"""Compare runs by their figures, and draw their learning curves into one picture.

    llmagent compare runs/s0 runs/s1 runs/s2 --plot curves.png

prints a table in Markdown, a row for each folder that `make sim` (argument out) has left.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "compare runs: a table of their figures, and one picture of their learning curves"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUT", help="folder of a run, finished or not")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw success and return over the episodes")
    parser.add_argument("--title", default="Learning curves", help="of the picture")
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit code 0, or 2 when a folder holds no run."""
    from llmagent_ros.recording import comparison

    runs = [comparison.read_run(out) for out in args.runs]
    print(comparison.table(runs))
    if args.plot is not None:
        comparison.plot(runs, args.plot, args.title)
        print(f"\ndrawn: {args.plot}")
    return 0
