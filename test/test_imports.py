"""Imports point one way: foundation <- capability folders <- nodes or experiments <- cli."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "llmagent_ros"
FOUNDATION = {
    "types", "errors", "config", "contract", "bundle", "optimiser_state", "durable", "locking", "messages", "geometry",
    "__init__",
}  # fmt: skip
TOP = {"nodes", "experiments", "cli"}  # nodes and experiments compose the others, each without the other
ROS = {"rclpy", "rcl_interfaces", "action_msgs", "builtin_interfaces", "rosidl_runtime_py", "ament_index_python"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(module: str) -> str:
    """The part of the package that a dotted module belongs to: "types", "policy", "nodes" …"""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def part_of_file(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module that a source imports, anywhere in it, relative imports resolved; submodules of `from` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".")
                kept = here[: len(here) - node.level + (1 if is_package else 0)]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(source: str, path: Path) -> list[str]:
    """The imports of one module that point the wrong way."""
    own = part_of_file(path)
    module = ".".join(["llmagent_ros", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    found = []
    for name in imported(source, module, path.stem == "__init__"):
        root = name.split(".")[0]
        is_ros = root in ROS or root.endswith(("_msgs", "_srvs", "_interfaces"))
        # config may ask the ament index where the installed share folder is
        if is_ros and own != "nodes" and not (own == "config" and root == "ament_index_python"):
            found.append(f"{own} imports ROS: {name}")
        if root != "llmagent_ros":
            continue
        target = part(name)
        if not (PACKAGE / target).is_dir() and not (PACKAGE / f"{target}.py").is_file():
            target = "__init__"  # from llmagent_ros import __version__
        allowed = {own} | FOUNDATION
        if own in FOUNDATION:
            allowed = FOUNDATION
        elif own in TOP:
            allowed = {*FOUNDATION, own, target} - (TOP - {own} if own != "cli" else set())
        if target not in allowed:
            found.append(f"{own} imports {name}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("place", "source", "wrong"),
    [
        ("policy/x.py", "from llmagent_ros.learning.rl import replay", True),
        ("policy/x.py", "from llmagent_ros import learning", True),
        ("policy/x.py", "from ..learning import rl", True),
        ("policy/x.py", "def f():\n    import rclpy", True),
        ("policy/x.py", "import sensor_msgs.msg", True),
        ("policy/x.py", "from . import scoring\nfrom llmagent_ros import types, errors", False),
        ("types.py", "import llmagent_ros.policy.scoring", True),
        ("contract.py", "from llmagent_ros.errors import ConfigError", False),
        ("nodes/x.py", "import rclpy\nfrom llmagent_ros.policy import scoring\nfrom .wire import scene", False),
        ("nodes/x.py", "from llmagent_ros.cli import main", True),
        ("experiments/x.py", "from llmagent_ros.nodes import process", True),
        ("nodes/x.py", "from llmagent_ros.experiments import training", True),
        ("experiments/x.py", "from llmagent_ros.learning import rl\nfrom llmagent_ros.policy import logs", False),
        ("cli/x.py", "from llmagent_ros.experiments import runs", False),
        ("cli/x.py", "from llmagent_ros.launching import description\nfrom llmagent_ros import __version__", False),
        ("cli/x.py", "from llmagent_ros.nodes import task_client", False),
        ("learning/rl/x.py", "from ..meta import reptile\nfrom .. import evolution", False),
    ],
)
def test_the_check_can_fail(place: str, source: str, wrong: bool) -> None:
    assert bool(violations(source, PACKAGE / place)) is wrong
