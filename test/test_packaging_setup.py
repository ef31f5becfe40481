"""tools/setup_venv.py: at once when there is nothing to do, one clear line when something is missing."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tools", "requirements", "llmagent_interfaces", "launch", "config", "sim")
COPIED = (*FOLDERS, "setup.py", "setup.cfg", "package.xml")
DEADLINE = 60.0  # s


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the set-up reads of a checkout, and nothing else."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    return root


def command(root: Path) -> list[str]:
    return [sys.executable, str(root / "tools" / "setup_venv.py")]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("ROS_DISTRO", "PYTHON", "CXX")}
    return {**kept, **changes}


def set_up(root: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root), env=environment(**changes), capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def fake_python(folder: Path, version: str = "3|11", venv: int = 1, include: str = "") -> str:
    """A program that answers as such a Python would."""
    path = folder / "fakepython"
    answer = f"{version}|{venv}|0|{include or sysconfig.get_path('include')}|{path}"
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return str(path)


def tools_without(folder: Path, *missing: str) -> str:
    """A PATH on which these programs are not."""
    names = {"c++", "g++", "clang++", "make", "sh", "env"} - set(missing)
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name in names:
        (bin_folder / name).symlink_to("/bin/true")
    return str(bin_folder)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (lambda tmp: {"PYTHON": fake_python(tmp, "3|9")}, "Python 3.11 or 3.12 is needed (found: Python 3.9 ("),
        (lambda tmp: {"PYTHON": fake_python(tmp, "3|13")}, "Python 3.11 or 3.12 is needed (found: Python 3.13 ("),
        (lambda tmp: {"PYTHON": "/no/such/python"}, "Python 3.11 or 3.12 is needed (found: none)"),
        (lambda tmp: {"PYTHON": fake_python(tmp, venv=0)}, "has no venv module; install it"),
        (lambda tmp: {"PYTHON": fake_python(tmp, include="/nowhere")}, "has no C headers; install them"),
        (lambda tmp: {"PATH": tools_without(tmp, "c++", "g++", "clang++")}, "no C++ compiler; install one"),
        (lambda tmp: {"PATH": tools_without(tmp, "make")}, "no make; install it"),
        (lambda tmp: {"PYTHON": fake_python(tmp), "ROS_DISTRO": "jazzy"}, "ROS 2 jazzy is sourced, but no Python"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    checkout: Path, tmp_path: Path, changes: Callable[[Path], dict[str, str]], problem: str
) -> None:
    result = set_up(checkout, **changes(tmp_path))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()


def test_after_a_cut_off_run_it_starts_clean_and_without_a_network_fails_in_one_line(checkout: Path) -> None:
    (checkout / ".venv" / "half").mkdir(parents=True)
    (checkout / ".venv" / "pip.running").touch()
    result = set_up(checkout, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(checkout), PIP_CONFIG_FILE=os.devnull)
    assert "removing .venv: the last set-up did not finish" in result.stdout
    assert not (checkout / ".venv" / "half").exists()
    assert result.returncode == 2
    assert result.stderr.startswith("error: pip could not install the requirements; check the network")
    assert "log/setup.log" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "ERROR: " in (checkout / "log" / "setup.log").read_text()
    assert "as it was" not in result.stderr  # nothing had been set up


def ready(root: Path) -> None:
    """Make the checkout look like one that has been set up."""
    answer = subprocess.run(
        [sys.executable, "-B", "-c", "import setup_venv; print(setup_venv.input_hash())"],
        cwd=root / "tools", env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    (root / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "llmagent"):
        if not (root / ".venv" / "bin" / name).exists():
            (root / ".venv" / "bin" / name).symlink_to("/bin/true")
    (root / ".venv" / "setup.stamp").write_text(answer.stdout.strip())


def wheel(folder: Path, name: str, file: str, needs: str = "") -> None:
    """A wheel of version 1.0 with one file, and perhaps a requirement."""
    info = f"{name}-1.0.dist-info"
    texts = {
        file: "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*texts, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**texts, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


@pytest.fixture
def installed(checkout: Path) -> Path:
    """A checkout that requires nothing, set up."""
    for path in (checkout / "requirements").iterdir():
        path.write_text("")
    subprocess.run([sys.executable, "-m", "venv", checkout / ".venv"], check=True)
    ready(checkout)
    assert set_up(checkout).stdout == ""
    return checkout


@pytest.mark.parametrize("began", [False, True])
def test_an_update_that_fails_costs_nothing_before_pip_installs(installed: Path, began: bool) -> None:
    """A robot in the field: git pull, a set-up without a network, and git checkout back."""
    wheel(installed, "a_good", "a_good.py")
    wheel(installed, "bad", "bad/../../../../out.py", "Requires-Dist: a_good\n")  # after it, and refused only then
    core = installed / "requirements" / "core.txt"
    core.write_text(f"a_good==1.0\n{'bad' if began else 'absent'}==1.0\n")
    update = set_up(
        installed, PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(installed), PIP_CONFIG_FILE=os.devnull
    )
    assert (update.returncode, update.stderr.count("\n")) == (2, 1)
    assert ("what was set up before is as it was" in update.stderr) is not began
    assert bool(list((installed / ".venv").glob("lib/python*/site-packages/a_good.py"))) is began
    core.write_text("")
    back = set_up(installed, PYTHON="/no/such/python")
    assert back.returncode == (2 if began else 0), "a half installed one is not used"


def test_new_packages_are_not_taken_for_those_of_the_commit_before(installed: Path) -> None:
    """pip was done, a later step failed, and git checkout back."""
    (installed / ".venv" / "bin" / "colcon").symlink_to("/bin/false")
    core = installed / "requirements" / "core.txt"
    core.write_text("# changed\n")
    update = set_up(installed, PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    assert "the interfaces could not be built" in update.stderr
    core.write_text("")
    assert "Python 3.11 or 3.12 is needed" in set_up(installed, PYTHON="/no/such/python").stderr


def test_with_nothing_to_do_it_is_silent_and_quick(checkout: Path) -> None:
    ready(checkout)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = set_up(checkout, PATH="/nowhere")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # s, however busy the machine is
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def shared(root: Path) -> dict[str, Path]:
    """What `ros2 launch` finds in the share folder: it walks through folders, but not through links to folders."""
    share = root / ".venv" / "share" / "llmagent_ros"
    found = [Path(folder) / name for folder, _, names in os.walk(share) for name in names]
    return {str(path.relative_to(share)): path.resolve() for path in found}


def expected(root: Path) -> dict[str, Path]:
    files = [path for name in ("launch", "config", "sim") for path in (root / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path for path in (root / "package.xml", *files)}


def test_every_data_file_is_found_in_the_share_folder_also_new_ones(checkout: Path) -> None:
    ready(checkout)
    share = checkout / ".venv" / "share" / "llmagent_ros"
    share.mkdir(parents=True)
    for name in ("launch", "config", "sim", "package.xml"):  # as set-ups made them once
        (share / name).symlink_to(checkout / name)
    assert set_up(checkout).returncode == 0
    assert "launch/include/agent.launch.xml" in shared(checkout)
    assert shared(checkout) == expected(checkout)
    (checkout / "launch" / "teleop.launch.xml").unlink()
    (checkout / "config" / "more").mkdir()
    (checkout / "config" / "more" / "new.yaml").touch()
    assert set_up(checkout).returncode == 0
    assert shared(checkout) == expected(checkout)
    assert (checkout / "sim" / "worlds" / "clutter.yaml").is_file()


@pytest.mark.parametrize(
    "change",
    ["requirements/core.txt", "llmagent_interfaces/msg/Scene.msg", "setup.py", "tools/setup_venv.py", "new.msg"],
)
def test_every_input_counts(checkout: Path, change: str) -> None:
    ready(checkout)
    path = checkout / ("llmagent_interfaces/msg/New.msg" if change == "new.msg" else change)
    with path.open("a") as handle:
        handle.write("\n# changed\n")
    result = set_up(checkout, PYTHON="/no/such/python")
    assert "Python 3.11 or 3.12 is needed" in result.stderr


@pytest.mark.parametrize("damage", ["pip.running", "bin/llmagent", "bin/python", "setup.stamp"])
def test_a_set_up_that_was_cut_off_is_noticed(checkout: Path, damage: str) -> None:
    ready(checkout)
    path = checkout / ".venv" / damage
    if damage == "pip.running":
        path.touch()
    else:
        path.unlink()
    assert "Python 3.11 or 3.12 is needed" in set_up(checkout, PYTHON="/no/such/python").stderr


def test_a_second_one_waits_for_the_first(checkout: Path) -> None:
    ready(checkout)
    (checkout / "log").mkdir()
    with (checkout / "log" / "setup.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        process = subprocess.Popen(command(checkout), env=environment(), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert "another set-up is running" in process.stdout.readline()
        assert process.poll() is None
    assert process.wait(timeout=DEADLINE) == 0
