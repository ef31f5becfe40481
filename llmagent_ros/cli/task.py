"""Give the running robot one instruction and watch it work; Ctrl-C cancels."""

from __future__ import annotations

import argparse

HELP = "give the running robot one instruction and watch it; Ctrl-C cancels"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser("task", help=HELP, description=__doc__)
    parser.add_argument("instruction", help='in plain language, e.g. "go to the red ball"')
    parser.add_argument("--time-limit", type=float, default=0.0, help="s of ROS time after which it ends; 0: none")
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when the instruction was carried out, 1 when not."""
    from llmagent_ros.console.text import clean
    from llmagent_ros.nodes.task_client import execute

    def show(step: int, scene: str, action: str, reward: float) -> None:
        if not args.quiet:
            print(f"{step:4d}  {clean(action):<12}  return {reward:+.2f}  {clean(scene)}", flush=True)

    success, reason, steps, reward = execute(args.instruction, args.time_limit, show)
    print(f"{'done' if success else 'not done'}: {clean(reason)} after {steps} steps, return {reward:+.2f}")
    return 0 if success else 1
