"""Offer what was learned elsewhere to a run that goes on: its learner tries it, if it is not worse.

    llmagent meta-train changes --out runs/meta-0
    llmagent offer runs/meta-0 runs/s0             # the newest bundle of a run
    llmagent offer runs/evolved/best runs/s0       # or a bundle

Between two episodes the learner compares it with what acts, on recent scenes. What is not worse takes over, and
outcomes decide whether it becomes the skill. OUT/candidates/decisions.jsonl says what was decided, and why.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "offer what was learned elsewhere to a run that goes on"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "offer", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle, or the folder of a run that has some")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the run that is to try it")
    return parser


def run(args: argparse.Namespace) -> int:
    from llmagent_ros.cli._settings import bundle_of
    from llmagent_ros.learning.candidates import offer

    folder = offer(Path(bundle_of(args.bundle, "BUNDLE")), args.out)
    print(f"{folder}: waits for the end of the next episode")
    return 0
