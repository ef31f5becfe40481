"""Say in words why the robot did what it did: what it saw, what it considered, what it chose, what came of it.

    llmagent explain runs/s0               # its episodes, how they ended, and how their steps are named
    llmagent explain runs/s0 1234          # a decision by its number in the run
    llmagent explain runs/s0 41:17         # by episode and step
    llmagent explain runs/s0 last          # the newest; also while the run goes on
    llmagent explain runs/s0 worst         # the last one before the latest collision

The newest decisions of a run are kept, in 256 MB by default (docs/learning.md says more).
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

HELP = "say in words why the robot did what it did at a step of a run"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, finished or not")
    parser.add_argument("step", nargs="?", metavar="STEP", help="a number, EPISODE:STEP, last or worst")
    parser.add_argument("--episodes", type=int, default=30, metavar="N", help="list the last N (default: 30; 0: all)")
    parser.add_argument("--json", action="store_true", help="print what is kept as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit code 0, or 2 when there is no such run or step."""
    from llmagent_ros.cli._json import json_text
    from llmagent_ros.console.text import printable
    from llmagent_ros.errors import ConfigError
    from llmagent_ros.recording import explanation
    from llmagent_ros.recording.decision_reader import DecisionReader

    if args.episodes < 0:
        raise ConfigError(f"--episodes {args.episodes}; valid: at least 0")
    with DecisionReader(args.run) as reader:
        if args.step is not None:
            record = reader.find(args.step)
            if args.json:
                print(json_text(explanation.as_json(record)))
            else:
                print(printable(explanation.explain(record, reader.following(record))))
            return 0
        episodes = reader.episodes()
    shown = episodes[-args.episodes :]
    if args.json:
        print(json_text([dataclasses.asdict(episode) for episode in shown]))
        return 0
    print(printable(explanation.episode_table(shown)))
    left = f"{len(episodes) - len(shown)} earlier ones with --episodes 0. " if len(shown) < len(episodes) else ""
    last = shown[-1]
    print(
        f"\n{left}A step: llmagent explain {args.run} {last.last}, "
        f"or {last.episode}:{last.last_step}, last, or worst (before the latest collision)"
    )
    return 0
