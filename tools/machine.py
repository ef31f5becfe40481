"""What the set-up finds on a machine: a suitable Python, whether ROS 2 is installed, a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 10), (3, 12)
WHEEL_PYTHONS = ((3, 11), (3, 12))  # the ROS 2 wheels exist for these
PROBE = (
    "import sys, sysconfig, importlib.util as u\n"
    "have = lambda name: int(u.find_spec(name) is not None)\n"
    "print(*sys.version_info[:2], have('venv') and have('ensurepip'), have('rclpy'), "
    "sysconfig.get_path('include'), sys.executable if sys.prefix == sys.base_prefix else sys._base_executable, sep='|')"
)


class SetupError(Exception):
    """What is wrong and what to do about it, in one line."""


class Interpreter:
    """A Python: its path, version, and what it can import.

    `base` is itself, or the Python that its virtual environment was made with.
    """

    def __init__(self, path: str, answer: str) -> None:
        major, minor, venv, rclpy, include, self.base = answer.strip().split("|")
        self.path = path
        self.version = (int(major), int(minor))
        self.has_venv = venv == "1"
        self.has_rclpy = rclpy == "1"
        self.has_headers = (Path(include) / "Python.h").is_file()

    def __str__(self) -> str:
        return f"Python {self.version[0]}.{self.version[1]} ({self.path})"


def find_interpreter() -> Interpreter:
    """The first suitable Python: $PYTHON, the one running this, python3, python3.12 … python3.10.

    Where ROS 2 is sourced, only one that can import its rclpy.
    """
    chosen = os.environ.get("PYTHON")
    names = [chosen] if chosen else [sys.executable, "python3", "python3.12", "python3.11", "python3.10"]
    found = {i.path: i for i in map(outside_venv, names) if i is not None}
    ros = os.environ.get("ROS_DISTRO")
    if ros:
        usable = [i for i in found.values() if i.has_rclpy and OLDEST <= i.version <= NEWEST]
    else:
        usable = [i for i in found.values() if i.version in WHEEL_PYTHONS or (i.has_rclpy and i.version >= OLDEST)]
    if usable:
        return next((i for i in usable if i.has_venv), usable[0])
    seen = ", ".join(str(i) for i in found.values()) or "none"
    if ros:
        raise SetupError(f"ROS 2 {ros} is sourced, but no Python here imports its rclpy (found: {seen}); "
                         "install ros-" + ros + "-rclpy, or unset ROS_DISTRO to use the wheels")
    raise SetupError(f"Python 3.11 or 3.12 is needed (found: {seen}); install one, or name it: make setup PYTHON=…")


def outside_venv(name: str) -> Interpreter | None:
    """`probe`, but of what a virtual environment was made with: one with the wheels in it is not an installed ROS 2."""
    python = probe(name)
    return python if python is None or python.base == python.path else probe(python.base)


def probe(name: str) -> Interpreter | None:
    """What a Python says about itself, or None where it does not run."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        answer = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Interpreter(path, answer.stdout) if answer.returncode == 0 else None


def check_tools(python: Interpreter, ros_installed: bool) -> None:
    """Refuse early, before minutes of downloads, when something only the system can give is missing."""
    version = f"{python.version[0]}.{python.version[1]}"
    if not python.has_venv:
        raise SetupError(f"{python} has no venv module; install it (Debian, Ubuntu: sudo apt install "
                         f"python{version}-venv) and run this again")
    compiler = os.environ.get("CXX", "").split()
    if not any(shutil.which(name) for name in (*compiler[:1], "c++", "g++", "clang++")):
        raise SetupError("no C++ compiler; install one (Debian, Ubuntu: sudo apt install g++) and run this again")
    if not shutil.which("make"):
        raise SetupError("no make; install it (Debian, Ubuntu: sudo apt install make) and run this again")
    if not python.has_headers:
        raise SetupError(f"{python} has no C headers; install them (Debian, Ubuntu: sudo apt install "
                         f"python{version}-dev) and run this again")
    if ros_installed and not shutil.which("colcon"):
        raise SetupError("ROS 2 is installed but colcon is not; install it (sudo apt install "
                         "python3-colcon-common-extensions) and run this again")
