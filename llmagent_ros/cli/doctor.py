"""Check a robot contract against the running graph: is everything there, and as the contract says?

    llmagent doctor my_robot.yaml               # the robot's drivers run; the graph need not
    llmagent doctor turtlebot3_burger --seconds 10 --namespace /tb1
    llmagent doctor my_robot.yaml --json

Topics that are missing, of a wrong type, too slow, stale, from the future, in another frame, or without usable data;
commands that nobody takes, or that somebody sends past the guard; clocks that differ. Exit code 0: no error, 1: errors.
"""

from __future__ import annotations

import argparse

from llmagent_ros.cli._json import json_text
from llmagent_ros.cli._table import table
from llmagent_ros.console.text import printable
from llmagent_ros.errors import ConfigError

HELP = "check a robot contract against the running graph"
_LONGEST = 3600.0  # s


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("robot", metavar="ROBOT", help="contract of config/robots, or a path to a YAML file")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="N", help="to watch (default: %(default)g)")
    parser.add_argument("--namespace", default="/", help="ROS namespace of the robot (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from llmagent_ros.contract import load_contract
    from llmagent_ros.doctor import report
    from llmagent_ros.doctor.examination import examine

    if not 0.0 < args.seconds <= _LONGEST:
        raise ConfigError(f"--seconds {args.seconds}; valid: above 0, up to {_LONGEST:g}")
    contract = load_contract(args.robot)
    from llmagent_ros.nodes.doctor_probe import observe  # only now: a wrong contract is told at once

    found = examine(contract, observe(contract, args.seconds, args.namespace))
    if args.json:
        print(json_text(report.as_json(found)))
        return 0 if found.healthy else 1
    print(table(("of the contract", "topic", "state", "measured"), report.rows(found)))
    if lines := report.advice(found):
        print(printable("\n" + "\n".join(lines)))
    verdict = "the robot is as its contract says" if found.healthy else "the robot is not as its contract says"
    print(f"\n{contract.robot}, watched for {found.seconds:.1f} s: {verdict}")
    return 0 if found.healthy else 1
