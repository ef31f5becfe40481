"""Where the ament index says packages are, and their executables; read without ament_index_python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llmagent_ros import config
from llmagent_ros.errors import ConfigError, UnknownNameError

OWN = "llmagent_ros"
_INDEX = Path("share/ament_index/resource_index/packages")


def prefixes() -> list[Path]:
    """The running environment's prefix, then those of AMENT_PREFIX_PATH, in order."""
    listed = [part for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    return [Path(part) for part in dict.fromkeys([sys.prefix, *listed])]


def prefix(package: str) -> Path:
    """The prefix that a package is installed in.

    Raises:
        UnknownNameError: it is in none of `prefixes`; the packages that are, are listed.
    """
    for candidate in prefixes():
        if (candidate / _INDEX / package).is_file():
            return candidate
    if package == OWN:
        return Path(sys.prefix)
    found = {path.name for root in prefixes() if (root / _INDEX).is_dir() for path in (root / _INDEX).iterdir()}
    raise UnknownNameError("package", package, found | {OWN})


def share(package: str) -> Path:
    """A package's share folder; for this package that of `config.share_dir`, so that a checkout's files are meant.

    Raises:
        UnknownNameError: there is no such package.
    """
    return config.share_dir() if package == OWN else prefix(package) / "share" / package


def executable(package: str, name: str) -> Path:
    """An executable of a package: in lib/<package>, or for this package beside the running Python.

    Raises:
        UnknownNameError: the package has none of that name; its executables are listed.
    """
    folders = [prefix(package) / "lib" / package]
    if package == OWN:
        folders.append(Path(sys.prefix) / "bin")
    for folder in folders:
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
    own_scripts = "*_node" if package == OWN else "*"
    found = {path.name for folder in folders if folder.is_dir() for path in folder.glob(own_scripts) if path.is_file()}
    raise UnknownNameError(f"executable of package {package}", name, found)


def launch_file(name: str) -> Path:
    """A launch file by path, or by its name in this package's launch folder ("sim" or "sim.launch.xml").

    Raises:
        UnknownNameError: neither. ConfigError: it is not XML.
    """
    folder = config.share_dir() / "launch"
    for path in (Path(name).expanduser(), folder / name, folder / f"{name}.launch.xml"):
        if path.is_file():
            if path.suffix != ".xml":
                raise ConfigError(f"{path}: only launch files in XML can be run here; ros2 launch runs the others")
            return path.resolve()
    raise UnknownNameError("launch file", name, [*launch_files(), "path to a .launch.xml file"])


def launch_files() -> list[str]:
    """The names of the launch files that ship."""
    folder = config.share_dir() / "launch"
    return sorted(path.name.removesuffix(".launch.xml") for path in folder.glob("*.launch.xml"))
