"""How this installation is started from nothing, as systemd does: the Python, and the setup files before it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHELL = "/bin/bash"


@dataclass(frozen=True)
class Installation:
    """How `llmagent` is run.

    Attributes:
        python: the interpreter that has the package, by the path of its virtual environment. script: `llmagent` itself,
            not as a module: Python would look for modules in the folder of the run first.
        setups: files to source, in this order; none where everything lies in the virtual environment.
    """

    python: Path
    script: Path
    setups: tuple[Path, ...] = ()

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The words that run `llmagent` with these arguments; the shell, where there is one, becomes it."""
        words = [str(self.python), str(self.script), *arguments]
        if not self.setups:
            return words
        sourced = " && ".join(f"source {shlex.quote(str(path))}" for path in self.setups)
        return [SHELL, "-c", f'{sourced} && exec "$0" "$@"', *words]


def installation(
    script: Path,
    environment: Mapping[str, str] = os.environ,
    prefix: str = sys.prefix,
    base_prefix: str = sys.base_prefix,
) -> Installation:
    """The running one.

    An installed ROS 2 is known by AMENT_PREFIX_PATH, a workspace by COLCON_PREFIX_PATH, as their setup files leave
    them; the virtual environment comes between the two, as the README has it.

    Args:
        script: `llmagent`. prefix, base_prefix: of the interpreter; they differ in a virtual environment.
    """
    own = Path(prefix)
    workspaces = _setups(environment, "COLCON_PREFIX_PATH", own)
    underlays = [path for path in _setups(environment, "AMENT_PREFIX_PATH", own) if path not in workspaces]
    activate = own / "bin" / "activate"
    between = [activate] if prefix != base_prefix and activate.is_file() else []
    setups = [*underlays, *between, *workspaces] if underlays or workspaces else []
    return Installation(Path(sys.executable), script, tuple(setups))


def _setups(environment: Mapping[str, str], variable: str, own: Path) -> list[Path]:
    """The setup files of the prefixes in a variable, the lowest first."""
    prefixes = [Path(part) for part in environment.get(variable, "").split(os.pathsep) if part]
    files = [prefix / "setup.bash" for prefix in reversed(prefixes) if prefix != own]
    return list(dict.fromkeys(path for path in files if path.is_file()))
