"""Write what was experienced as a data set that others read.

    llmagent export runs/s0 --to lerobot datasets/s0          # LeRobot's layout, version 3.0
    llmagent export runs/s0 --to parquet s0.parquet           # one row for each transition
    llmagent export runs/s0/bags/BAG --to lerobot datasets/one

Of a run its replays are taken, which hold every step; without any, its bags. A damaged bag is left out and named, and
the exit code is 1 then. docs/recording.md lists the columns.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llmagent_ros.cli._gaps import warn_of

if TYPE_CHECKING:
    from llmagent_ros.contract import RobotContract
    from llmagent_ros.experiments.recordings.transitions import Gaps

HELP = "write a run or bags as a data set: LeRobot or Parquet"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a run, a bag, a folder of bags, or a replay")
    parser.add_argument("--to", required=True, choices=("lerobot", "parquet"), help="the format")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder (lerobot) or file (parquet)")
    parser.add_argument(
        "--robot",
        default="",
        metavar="CONTRACT",
        help="whose numbers and velocities go into a LeRobot data set (default: the one in the bags, else none)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 when a damaged bag was left out; 2 when there is nothing to export."""
    from llmagent_ros.experiments.recordings.transitions import Gaps

    gaps = Gaps()
    try:
        told = _write(args, gaps)
    finally:
        code = warn_of(gaps)
    said = ", ".join(f"{count} {name}" for name, count in told.items())
    print(json.dumps({**told, "out": str(args.out)}, indent=2) if args.json else f"{args.out}: {said}")
    return code


def _write(args: argparse.Namespace, gaps: Gaps) -> dict[str, int]:
    """How many of what were written."""
    from llmagent_ros.errors import ConfigError
    from llmagent_ros.experiments.recordings.transitions import dataset_format, kept_transitions
    from llmagent_ros.recording.datasets.lerobot import write_lerobot
    from llmagent_ros.recording.datasets.parquet import write_parquet

    contract, found = _contract(args.source, args.robot), kept_transitions(args.source, gaps)
    if args.to == "lerobot":
        form = dataset_format(contract, kept_transitions(args.source, gaps))
        episodes, steps = write_lerobot(args.out, found, form)
        return {"episodes": episodes, "steps": steps}
    facts = {"source": args.source.name, "robot": contract.robot if contract is not None else ""}
    steps = write_parquet(args.out, found, facts)
    if not steps:
        args.out.unlink()
        raise ConfigError(f"{args.source}: nothing to export: there are no transitions")
    return {"steps": steps}


def _contract(source: Path, robot: str) -> RobotContract | None:
    from llmagent_ros.contract import load_contract
    from llmagent_ros.errors import ConfigError, StoreError
    from llmagent_ros.experiments.recordings.contracts import recorded_contract
    from llmagent_ros.recording.bags.reader import Bag, find_bags

    if robot:
        return load_contract(robot)
    try:
        paths = find_bags(source)
    except ConfigError:  # a run that was not recorded
        return None
    for path in paths:
        try:
            bag = Bag(path)
        except (ConfigError, StoreError):  # damaged; who takes its transitions says so
            continue
        return recorded_contract(bag) if "contract" in bag.facts else None
    return None
