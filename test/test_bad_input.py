"""What a person gets wrong: exit code 2, one line with the culprit and the valid choices, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from graph_support import LONG
from ros_support import ROOT, Graph, Process
from safetensors.torch import load_file, save_file

from llmagent_interfaces.srv import ResetSimulation
from llmagent_ros.cli.main import main
from llmagent_ros.policy.language_model import SHIPPED_BASE

ROBOT = ROOT / "config" / "robots" / "sim_diffdrive.yaml"


def check_whole(out: Path) -> None:
    """What a run that did not begin has left is nothing, or complete."""
    for path in out.rglob("*"):
        assert not re.search(r"\.(tmp|partial|old)$|-journal$", path.name), path
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".sqlite":
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    if (out / "episodes.csv").exists():
        assert (out / "episodes.csv").read_text().startswith("run,episode,success")


# --- refused before anything starts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "culprit", "valid"),
    [
        (["sim", "modde:=lockstep"], "argument of sim.launch.xml 'modde'", "valid: calibrate, chat, collision_check"),
        (["sim", "mode:=fast"], "unknown value of launch argument mode 'fast'", "valid: lockstep, realtime"),
        (["sim", "headless:=perhaps"], "launch argument headless 'perhaps'", "valid: auto, false, true"),
        (["sim", "console:=x"], "launch argument console 'x'", "valid: auto, false, true"),
        ([], "launch: no FILE", "valid: robot, sim, teleop"),
        (["simm"], "unknown launch file 'simm'", "robot, sim, teleop"),
        (["sim", "task=navigate"], "'task=navigate'", "name:=value"),
        (["robot"], "robot", "robot"),
    ],
)
def test_wrong_words_of_a_launch(
    words: list[str], culprit: str, valid: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    extra = [f"out:={out}"] if len(words) > 1 else []
    assert main(["launch", *words, *extra]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert culprit in line and valid in line
    assert "started" not in said.out and not out.exists()


# --- refused by the node that it concerns -----------------------------------------------------------------------


def changed_robot(folder: Path, **changes: Any) -> Path:
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(ROBOT.read_text()) | changes))
    return path


def text_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(graph: Graph, process: Process) -> str:
    """Its one line on what is wrong."""
    graph.until(lambda: process.code is not None, "it has not ended", LONG)
    assert process.code == 2, process.said
    (line,) = process.said.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"robot": "sim_diffdriv"}, "unknown robot contract 'sim_diffdriv'; valid: husky, sim_arm, sim_diffdrive"),
        ({"robot": "/no/such/robot.yaml"}, "unknown robot contract '/no/such/robot.yaml'; valid: husky, sim_arm"),
        ({"mode": "fast"}, "mode: Input should be 'lockstep' or 'realtime' (got 'fast')"),
        ({"mode": 3}, "mode: Input should be 'lockstep' or 'realtime' (got 3)"),
        ({"decision_timeout": -1.0}, "decision_timeout: Input should be greater than 0 (got -1.0)"),
        ({"decision_timout": 1.0}, "unknown parameter 'decision_timout'; valid: decision_timeout, mode, robot"),
    ],
)
def test_wrong_parameters_of_a_node(tmp_path: Path, parameters: dict[str, Any], problem: str) -> None:
    with Graph(tmp_path) as graph:
        assert problem in refused(graph, graph.start("perception", **parameters))


def test_wrong_robot_contracts(tmp_path: Path) -> None:
    """In one test, so that the processes start beside each other."""
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    unknown_key = changed_robot(folders[0], sensers={})
    no_choice = changed_robot(folders[1], actions={"forward": {"linear": 0.1, "angular": 0.0}})
    malformed = text_file(folders[2], "robot.yaml", "robot: [sim\nactions: }")
    with Graph(tmp_path) as graph:
        words = ("-m", "llmagent_ros.nodes.perception_node", "--ros-args", "-p")
        robots = (unknown_key, no_choice, malformed)
        processes = [  # each in its namespace: nodes of one name are refused for that
            graph.run(f"perception{n}", *words, f"robot:={path}", "-r", f"__ns:=/robot{n}")
            for n, path in enumerate(robots)
        ]
        lines = [refused(graph, process) for process in processes]
    assert f"{unknown_key}: unknown key 'sensers'; valid: actions, command, control_period, description" in lines[0]
    assert f"{no_choice}: " in lines[1] and "at least two phrases are needed" in lines[1]
    assert f"{malformed}: not valid YAML: " in lines[2]


def test_wrong_files_of_parameters(tmp_path: Path) -> None:
    unknown = text_file(tmp_path, "unknown.yaml", "/**:\n  ros__parameters: {scan_weight: 1.0}\n")
    with Graph(tmp_path) as graph:
        process = graph.run("guard", "-m", "llmagent_ros.nodes.guard_node", "--ros-args", "--params-file", unknown)
        line = refused(graph, process)
    assert "node guard: unknown parameter 'scan_weight'; valid: " in line and "scan_wait" in line


def test_a_model_without_its_tensors(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(SHIPPED_BASE, model)
    tensors = load_file(model / "model.safetensors")
    lost = next(name for name in tensors if "mlp" in name)
    save_file({name: t for name, t in tensors.items() if name != lost}, model / "model.safetensors", {"format": "pt"})
    with Graph(tmp_path) as graph:
        line = refused(graph, graph.start("policy", model=model, out=tmp_path / "out"))
    assert f"model '{model}': 1 tensors missing or of a wrong shape, first '{lost}'" in line
    assert not (tmp_path / "out").exists()


# --- refused by a launch whose nodes have started ----------------------------------------------------------------


def errors(launch: Process) -> set[str]:
    """What its nodes said is wrong."""
    return {line.partition("error: ")[2] for line in launch.said.splitlines() if "] error: " in line}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"task": "nonsense"}, "unknown task 'nonsense'; valid: explore, face, leave, navigate, navigate_delayed, "),
        ({"model": "/no/such/model"}, "model '/no/such/model'"),
    ],
)
def test_a_launch_ends_with_the_code_of_the_node_that_refused(
    tmp_path: Path, arguments: dict[str, Any], problem: str
) -> None:
    with Graph(tmp_path) as graph:
        launch = graph.launch("sim.launch.xml", headless=True, episodes=1, out=tmp_path / "out", **arguments)
        graph.until(lambda: launch.code is not None, "it has not ended", LONG)
        assert launch.code == 2
        (said,) = errors(launch)
        assert said.startswith(problem)
        assert "Traceback" not in launch.said
    check_whole(tmp_path / "out")


def test_a_second_graph_in_the_same_domain_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        first = graph.compose(guard={"mode": "lockstep"}, perception={}, sim={})
        assert graph.call(ResetSimulation, "sim/reset", ResetSimulation.Request()).ok
        second = graph.launch("sim.launch.xml", headless=True, episodes=1, out=tmp_path / "out")
        graph.until(lambda: second.code is not None, "it has not ended", LONG)
        assert second.code == 2
        said = errors(second)
        assert said and all(f"runs already on this machine (process {first.popen.pid}, ROS domain" in e for e in said)
        assert "Traceback" not in second.said
        assert graph.call(ResetSimulation, "sim/reset", ResetSimulation.Request()).ok
        assert first.code is None
        assert first.said == "", "the first has not noticed"
    check_whole(tmp_path / "out")


# --- a full disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for names but for no content."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(("node", "file"), [("recorder", "episodes.csv"), ("learner", "replay.sqlite")])
def test_a_full_disk(full_disk: Path, tmp_path: Path, node: str, file: str) -> None:
    with Graph(tmp_path) as graph:
        line = refused(graph, graph.start(node, out=full_disk / "out"))
    assert str(full_disk / "out" / file) in line
    assert re.search("full|[Nn]o space", line)
    left = [path for path in full_disk.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == [full_disk / "filler"]
