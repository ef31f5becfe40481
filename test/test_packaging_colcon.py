"""`colcon build` in a copy of the checkout, as a ROS 2 workspace does it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "package.xml", "setup.py", "setup.cfg", "pyproject.toml", "colcon_defaults.yaml", "resource",
    "launch", "config", "sim", "llmagent_ros", "llmagent_interfaces",
)  # fmt: skip
COLCON = Path(sys.executable).parent / "colcon"

pytestmark = pytest.mark.skipif(
    not COLCON.exists() and shutil.which("colcon") is None, reason="there is no colcon here"
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    return root


def colcon(workspace: Path, *words: str) -> str:
    path = f"{COLCON.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "AMENT_PREFIX_PATH": sys.prefix, "COLCON_HOME": str(workspace)}
    result = subprocess.run(
        ["colcon", *words], cwd=workspace, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(workspace: Path) -> Path:
    """The prefix of llmagent_ros; its interfaces come from the environment, where the set-up has built them."""
    colcon(workspace, "build", "--packages-select", "llmagent_ros")
    return workspace / "install" / "llmagent_ros"


def test_colcon_finds_both_packages_from_the_root(workspace: Path) -> None:
    lines = [line.split() for line in colcon(workspace, "list").splitlines()]
    assert sorted((name, kind) for name, _, kind in lines) == [
        ("llmagent_interfaces", "(ros.ament_cmake)"),
        ("llmagent_ros", "(ros.ament_python)"),
    ]


def test_every_data_file_is_in_the_share_folder(installed: Path) -> None:
    share = installed / "share" / "llmagent_ros"
    for folder in ("launch", "config", "sim"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (share / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert (installed / "share" / "ament_index" / "resource_index" / "packages" / "llmagent_ros").is_file()


def test_code_and_shipped_models_are_installed(installed: Path) -> None:
    package = next(installed.glob("lib/python3*/site-packages/llmagent_ros"))
    wanted = list((ROOT / "llmagent_ros").rglob("*.py"))
    wanted += [path for path in (ROOT / "llmagent_ros" / "models").rglob("*") if path.is_file()]
    for path in wanted:
        if "__pycache__" not in path.parts:
            assert (package / path.relative_to(ROOT / "llmagent_ros")).is_file(), path


def test_executables_use_the_python_of_whoever_runs_them(installed: Path) -> None:
    """So that torch in an activated virtual environment is found by `ros2 run` and `ros2 launch`."""
    scripts = sorted((installed / "lib" / "llmagent_ros").iterdir())
    assert "sim_node" in [script.name for script in scripts]
    assert {script.read_text().splitlines()[0] for script in scripts} == {"#!/usr/bin/env python3"}


def test_the_installed_command_reads_the_installed_launch_files(installed: Path, tmp_path: Path) -> None:
    site = next(installed.glob("lib/python3*/site-packages"))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "AMENT_PREFIX_PATH": f"{installed}{os.pathsep}{sys.prefix}",
    }
    command = [str(installed / "lib" / "llmagent_ros" / "llmagent"), "launch", "sim", "--dry-run"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"{installed}/share/llmagent_ros/config/params/sim.yaml" in result.stdout
