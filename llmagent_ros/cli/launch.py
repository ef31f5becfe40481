"""llmagent launch: run a launch file where `ros2 launch` is not installed, with the same arguments."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from llmagent_ros.errors import ConfigError
from llmagent_ros.launching import description, packages
from llmagent_ros.launching.context import Argument
from llmagent_ros.launching.output import Writer, log_file, wants_colour
from llmagent_ros.launching.process import ProcessSpec
from llmagent_ros.launching.supervisor import Supervisor

HELP = "run a launch file, with the arguments of ros2 launch"
TERMINAL = "LLMAGENT_TTY"  # for processes that draw on the terminal: its path, when the launch has one


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("launch", help=HELP, description=__doc__)
    shipped = ", ".join(packages.launch_files())
    parser.add_argument("file", metavar="FILE", nargs="?", help=f"a launch file of the package ({shipped}), or a path")
    parser.add_argument("arguments", metavar="name:=value", nargs="*", help="launch arguments")
    parser.add_argument("-s", "--show-args", action="store_true", help="say which arguments FILE takes")
    parser.add_argument("-n", "--dry-run", action="store_true", help="print what would be started")
    return parser


def run(args: argparse.Namespace) -> int:
    if args.file is None:
        raise ConfigError(f"launch: no FILE; valid: {', '.join(packages.launch_files())}, or a path")
    path = packages.launch_file(args.file)
    if args.show_args:
        _print_arguments(description.arguments(path))
        return 0
    given = description.parse_arguments(args.arguments)
    with tempfile.TemporaryDirectory(prefix="llmagent_launch_") as scratch:
        launch = description.expand(path, given, Path(scratch), _environment())
        if args.dry_run:
            _print_processes(launch.processes, Path(scratch))
            return 0
        logged = any(spec.output != "screen" for spec in launch.processes)
        log = log_file(os.environ) if logged else None
        writer = Writer(sys.stdout, log, wants_colour(sys.stdout, os.environ))
        try:
            if log is not None:
                writer.say(f"logging to {log}")
            for note in launch.notes:
                writer.say(note)
            return Supervisor(launch.processes, writer).run()
        finally:
            writer.close()


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop(TERMINAL, None)
    if sys.stdout.isatty():
        environment[TERMINAL] = os.ttyname(sys.stdout.fileno())
    return environment


def _print_processes(processes: Sequence[ProcessSpec], scratch: Path) -> None:
    """The command lines, each with the parameter files that are gone afterwards."""
    for spec in processes:
        print(f"{spec.name}: {shlex.join(spec.command)}")
        for path in [Path(word) for word in spec.command if Path(word).parent == scratch]:
            print(textwrap.indent(f"{path}:\n{path.read_text(encoding='utf-8')}", "    "), end="")


def _print_arguments(arguments: list[Argument]) -> None:
    print("Arguments (pass arguments as '<name>:=<value>'):")
    for argument in arguments:
        print(f"\n    '{argument.name}':\n        {argument.description or 'no description given'}")
        if argument.choices:
            print(f"        one of: {', '.join(argument.choices)}")
        print("        (required)" if argument.default is None else f"        (default: {argument.default!r})")
    if not arguments:
        print("\n  No arguments.")
