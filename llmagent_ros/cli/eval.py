"""Measure what `llmagent train` has saved: episodes on held-out seeds, from the files alone.

    llmagent eval runs/navigate-0 --episodes 100
    llmagent eval runs/navigate-0 --robot sim_scout      # what another robot makes of it, untrained

prints a table and writes OUT/evaluation.json, with --robot OUT/evaluation-ROBOT.json. The same files give the same
figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "measure a saved policy on held-out episodes"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "eval", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of a run")
    parser.add_argument("--episodes", type=int, default=100, help="default: %(default)s")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="0: the most probable phrase; default: the environment's"
    )
    parser.add_argument("--robot", default="", metavar="ROBOT", help="another robot: a contract's name or path")
    parser.add_argument("--no-critic", action="store_true", help="the language model and its adapter choose alone")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    evaluate(
        *(args.out, args.episodes),
        critic=not args.no_critic,
        temperature=args.temperature,
        robot=args.robot,
        as_json=args.json,
    )
    return 0


def evaluate(
    out: Path,
    episodes: int,
    *,
    critic: bool,
    temperature: float | None = None,
    robot: str = "",
    as_json: bool = False,
) -> None:
    """Measures and prints."""
    from llmagent_ros.errors import ConfigError
    from llmagent_ros.experiments import runs

    if episodes < 1:
        raise ConfigError(f"--episodes {episodes}; valid: at least 1")
    if temperature is not None and not 0.0 <= temperature <= 1.0:
        raise ConfigError(f"--temperature {temperature}; valid: from 0 to 1")

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {episodes} episodes", end="" if done < episodes else "\n", file=sys.stderr, flush=True)

    figures, _ = runs.evaluate_run(
        out, episodes, critic=critic, temperature=temperature, robot=robot, progress=progress
    )
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    width = max(map(len, figures))
    print(f"{episodes} episodes of {out}{f' with {robot}' if robot else ''} on held-out seeds:")
    for name, value in figures.items():
        print(f"  {name:<{width}}  {value:.4g}")
