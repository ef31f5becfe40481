"""The `llmagent` command. Every module of this folder with `add_parser` and `run` is a subcommand of its name, with "-"
for "_"; modules whose names begin with "_" are none.

A subcommand's module is imported only when it is asked for, so that `llmagent --help` stays fast:

    HELP = "one line"                                          # read without importing the module
    def add_parser(subparsers) -> argparse.ArgumentParser: …   # the parser named like the module
    def run(args: argparse.Namespace) -> int: …                # the exit code
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from llmagent_ros import __version__
from llmagent_ros.console.text import printable
from llmagent_ros.errors import LlmAgentError, UnknownNameError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; an error that a person can mend is one line on standard error and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except LlmAgentError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `llmagent … | head`: nobody reads on, and the interpreter must not try to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:  # a folder that one may not read, a name that is too long, a disk that is full
        return _refuse(str(error) if error.filename is None else f"{error.filename}: {error.strerror}")


def commands() -> dict[str, str]:
    """The subcommands that are there, with their one-line help."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "main") and not path.stem.startswith("_"):
            found[path.stem.replace("_", "-")] = _help(path)
    return found


def _refuse(problem: str) -> int:
    print(f"llmagent: {printable(' '.join(problem.split()))}", file=sys.stderr)
    return EXIT_ERROR


def _dispatch(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="llmagent", description="A language model as the learning policy of a robot.", epilog=_listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"llmagent {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of those below; llmagent COMMAND --help tells more")
    if not words:
        parser.print_help()
        return EXIT_ERROR
    if words[0].startswith("-"):
        parser.parse_args(words)
    module = _load(words[0])
    subparsers = argparse.ArgumentParser(prog="llmagent").add_subparsers(metavar="COMMAND")
    return int(module.run(_parse(module.add_parser(subparsers), words[1:])))


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Options may stand before, between and after other arguments, where the parser has no subparsers of its own."""
    try:
        return parser.parse_intermixed_args(words)
    except TypeError:  # what argparse says to subparsers
        return parser.parse_args(words)


def _load(name: str) -> ModuleType:
    if name not in commands():
        raise UnknownNameError("command", name, commands())
    return importlib.import_module(f"llmagent_ros.cli.{name.replace('-', '_')}")


def _listing() -> str:
    rows = commands().items()
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(["commands:", *(f"  {name:<{width}}  {text}" for name, text in rows)])


def _help(path: Path) -> str:
    """The value of HELP in a module, without running it; its docstring's first line where there is none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "HELP" in names:
                return str(node.value.value)
    return (ast.get_docstring(tree) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
