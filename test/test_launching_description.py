"""From launch files to command lines. Expected is what launch_ros 0.26 (Jazzy) made of the same elements."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import yaml
from launching_support import Workspace

from llmagent_ros import config
from llmagent_ros.cli import meta_train
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.launching import description, document
from llmagent_ros.launching.description import Launch
from llmagent_ros.perception.gymnasium_text import ROBOT_TEMPERATURE

SHIPPED = sorted((config.share_dir() / "launch").glob("*.launch.xml"))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace(tmp_path)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(workspace.prefix))
    for name in ("a", "b", "c"):
        workspace.script(name, "")
    return workspace


def expand(workspace: Workspace, content: str, **given: str) -> Launch:
    scratch = workspace.prefix.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return description.expand(workspace.launch_file(content), given, scratch, {"HOME": "/home/me"})


def command(launch: Launch, index: int = 0) -> list[str]:
    """A command line without its program, parameter files replaced by what is in them."""
    words = launch.processes[index].command[1:]
    return [str(yaml.safe_load(Path(word).read_text())) if "launch_params_" in word else word for word in words]


def parameter(workspace: Workspace, attributes: str, **given: str) -> object:
    node = f'<node pkg="dummy" exec="a"><param name="p" {attributes}/></node>'
    launch = expand(workspace, f'<arg name="n" default="3"/>{node}', **given)
    return yaml.safe_load(Path(launch.processes[0].command[-1]).read_text())["/**"]["ros__parameters"]["p"]


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ('value="3"', 3),
        ('value="3.5"', 3.5),
        ('value="true"', True),
        ('value="yes"', True),
        ('value="hello"', "hello"),
        ('value="\'3\'"', "3"),
        ('value="$(var n)"', 3),
        ('value="\'$(var n)\'"', 3),
        ('value="$(var n)" type="str"', "3"),
        ('value="1" type="float"', 1.0),
        ('value="1e-3" type="float"', 0.001),
        ('value="1e-3"', "1e-3"),
        ('value="[1, 2]"', [1, 2]),
        ('value="[a, b]"', ["a", "b"]),
        ('value="[$(var n), 4]"', [3, 4]),
        ('value="[1, 2.5]" type="list_of_float"', [1.0, 2.5]),
        ('value="" type="str"', ""),
        ('value="2026-11-23" type="str"', "2026-11-23"),
        ('value="$(var n)" type="yaml"', 3),
    ],
)
def test_parameters_have_the_types_that_launch_gives_them(workspace: Workspace, attributes: str, value: object) -> None:
    found = parameter(workspace, attributes)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "attributes",
    ['value="2026-11-23"', 'value="null"', 'value="[1, a]"', 'value="x" type="int"', 'value="1" type="integer"',
     'value="{a: 1}"', 'value="[]"', 'value="1.5" type="int"', ""],
)  # fmt: skip
def test_what_no_parameter_can_be_is_refused(workspace: Workspace, attributes: str) -> None:
    with pytest.raises(ConfigError, match=r"test\.launch\.xml:1: "):
        parameter(workspace, attributes)


def test_a_node_with_everything(workspace: Workspace) -> None:
    launch = expand(workspace, """
        <arg name="who" default="me"/>
        <set_env name="ONE" value="1$(env HOME)"/>
        <node pkg="dummy" exec="a" name="n" namespace="ns" args="-x $(var who) 'two words'" ros_args="--log-level debug"
              exec_name="label" output="screen" respawn="$(equals $(var who) me)" respawn_delay="0.5" cwd="/">
          <param name="i" value="1"/>
          <param name="deep"><param name="er" value="2"/></param>
          <remap from="x" to="y/$(var who)"/>
          <env name="TWO" value="$(env ONE)2"/>
        </node>""")
    spec = launch.processes[0]
    assert command(launch) == [
        "-x", "me", "two words", "--ros-args", "--log-level", "debug",
        "--ros-args", "-r", "__node:=n", "-r", "__ns:=/ns",
        "--params-file", "{'/ns/n': {'ros__parameters': {'i': 1}}}",
        "--params-file", "{'/ns/n': {'ros__parameters': {'deep.er': 2}}}",
        "-r", "x:=y/me",
    ]  # fmt: skip
    assert (spec.name, spec.output, spec.cwd) == ("label-1", "screen", Path("/"))
    assert (spec.respawn, spec.respawn_delay) == (True, 0.5)
    assert spec.environment == {"HOME": "/home/me", "ONE": "1/home/me", "TWO": "1/home/me2"}


def test_groups_scope_namespaces_parameters_remaps_environment_and_values(workspace: Workspace) -> None:
    launch = expand(workspace, """
        <let name="n" value="1"/>
        <group>
          <push_ros_namespace namespace="outer"/>
          <set_parameter name="use_sim_time" value="true"/>
          <set_remap from="r1" to="r2"/>
          <set_env name="E" value="set"/>
          <let name="n" value="2"/>
          <group>
            <push-ros-namespace namespace="in"/>
            <node pkg="dummy" exec="a" args="$(var n)"/>
          </group>
          <node pkg="dummy" exec="b" namespace="/abs/"><remap from="q" to="p"/></node>
        </group>
        <group scoped="false"><let name="n" value="4"/></group>
        <node pkg="dummy" exec="c" args="$(var n)"/>""")
    sim_time = ["-p", "use_sim_time:=True"]
    assert command(launch, 0) == ["2", "--ros-args", "-r", "__ns:=/outer/in", *sim_time, "-r", "r1:=r2"]
    assert command(launch, 1) == ["--ros-args", "-r", "__ns:=/abs", *sim_time, "-r", "r1:=r2", "-r", "q:=p"]
    assert command(launch, 2) == ["4", "--ros-args"]
    assert [spec.environment.get("E") for spec in launch.processes] == ["set", "set", None]


def test_conditions_and_names_count_only_what_starts(workspace: Workspace) -> None:
    launch = expand(workspace, """
        <arg name="flag" default="False"/>
        <node pkg="dummy" exec="a" if="$(var flag)"/>
        <node pkg="dummy" exec="b" unless="$(var flag)"/>
        <group if="$(var flag)"><node pkg="dummy" exec="missing"/></group>
        <node pkg="dummy" exec="c" if="1"/>""")
    assert [spec.name for spec in launch.processes] == ["b-1", "c-2"]


def test_includes_take_arguments_and_know_their_own_folder(workspace: Workspace) -> None:
    inner = workspace.share / "sub" / "inner.launch.xml"
    inner.parent.mkdir()
    inner.write_text("""<launch>
        <arg name="who" default="nobody"/><arg name="other" default="$(var who)-2"/>
        <node pkg="dummy" exec="a" args="$(var who) $(var other) $(dirname)"/></launch>""")
    launch = expand(workspace, """
        <group><include file="$(dirname)/sub/inner.launch.xml"><arg name="who" value="you"/></include></group>
        <include file="$(find-pkg-share dummy)/sub/inner.launch.xml"/>
        <node pkg="dummy" exec="b" args="$(dirname)"/>""", other="given")
    assert command(launch, 0) == ["you", "given", str(inner.parent), "--ros-args"]
    assert command(launch, 1) == ["nobody", "given", str(inner.parent), "--ros-args"]
    assert command(launch, 2) == [str(workspace.share), "--ros-args"]


def test_a_file_that_includes_itself_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="include itself"):
        expand(workspace, '<include file="$(filename)"/>')


@pytest.mark.parametrize(("learn", "temperature"), [("true", 1.0), ("false", ROBOT_TEMPERATURE)])
def test_the_policy_explores_where_something_is_learned(tmp_path: Path, learn: str, temperature: float) -> None:
    (path,) = (path for path in SHIPPED if path.name == "sim.launch.xml")
    launch = description.expand(path, {"learn": learn}, tmp_path, dict(os.environ))
    (policy,) = (number for number, spec in enumerate(launch.processes) if spec.name.startswith("policy_node"))
    assert any(f"{{'temperature': {temperature}}}" in word for word in command(launch, policy))


@pytest.mark.parametrize("file", ["sim", "robot"])
@pytest.mark.parametrize("chat", ["true", "false"])
def test_what_learns_beside_a_run_has_the_prompt_of_its_policy(tmp_path: Path, file: str, chat: str) -> None:
    path = config.share_dir() / "launch" / f"{file}.launch.xml"
    given = {"robot": "sim_diffdrive", "meta": "true", "chat": chat}
    launch = description.expand(path, given, tmp_path, dict(os.environ))
    number = next(n for n, spec in enumerate(launch.processes) if spec.name.startswith("meta"))
    args = meta_train.add_parser(argparse.ArgumentParser().add_subparsers()).parse_args(command(launch, number)[1:])
    assert args.params == config.share_dir() / "config" / "params" / "learner.yaml"
    assert meta_train._settings(args)["model"] == {"model": "", "chat": chat == "true"}


def test_the_last_of_an_argument_given_twice_counts() -> None:
    assert description.parse_arguments(["a:=1", "b:=x:=y", "a:=2"]) == {"a": "2", "b": "x:=y"}
    for word in ("a", ":=1", "a:=", "a=1"):
        with pytest.raises(ConfigError, match="expected name:=value"):
            description.parse_arguments([word])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_launch_files_expand(path: Path, tmp_path: Path) -> None:
    """Every node's executable, parameter file and argument exists, with and without the live view."""
    given = {"robot": "sim_diffdrive"}
    for environment in ({}, {"LLMAGENT_TTY": "/dev/pts/0"}):
        launch = description.expand(path, given, tmp_path, {**os.environ, **environment})
        shown = any(spec.name.startswith("console_node") for spec in launch.processes)
        assert shown == (bool(environment) and "console" in {argument.name for argument in launch.arguments})


@pytest.mark.parametrize(
    ("file", "name", "value", "valid"),
    [
        ("sim", "episodes", "x", "int()"),
        ("sim", "seed", "1.5", "int()"),
        ("sim", "speed", "fast", "float"),
        ("sim", "learn", "yes", "valid: false, true"),
        ("robot", "seed", "x", "int()"),
        ("robot", "part", "half", "valid: all, compute, robot"),
        ("robot", "learn", "1", "valid: false, true"),
        ("robot", "teleop", "maybe", "valid: false, true"),
        ("robot", "judge", "maybe", "valid: false, true"),
        ("robot", "use_sim_time", "maybe", "valid: false, true"),
        ("teleop", "use_sim_time", "maybe", "valid: false, true"),
    ],
)
def test_a_badly_typed_argument_is_refused_before_the_first_node(
    tmp_path: Path, file: str, name: str, value: str, valid: str
) -> None:
    """`ros2 launch` reads types and conditions node by node: what it meets late leaves the first nodes running."""
    path = config.share_dir() / "launch" / f"{file}.launch.xml"
    lines = path.read_text().splitlines()
    starts = next(number for number, line in enumerate(lines, start=1) if "<group>" in line)
    with pytest.raises(ConfigError, match=rf"\b{name}\b") as caught:
        description.expand(path, {"robot": "sim_diffdrive", name: value}, tmp_path, os.environ)
    place, _, problem = str(caught.value).removeprefix(f"{path}:").partition(": ")
    assert int(place) < starts
    assert repr(value) in problem and valid in problem


def test_a_simulation_waits_for_all_that_takes_part_in_it(tmp_path: Path) -> None:
    """What is not waited for misses the first episode."""
    launch = description.expand(config.share_dir() / "launch" / "sim.launch.xml", {}, tmp_path, os.environ)
    number = next(n for n, spec in enumerate(launch.processes) if spec.name.startswith("runner_node"))
    said = " ".join(command(launch, number))
    assert all(f"{{'{name}': True}}" in said for name in ("learn", "knowledge", "recorder"))


def test_the_arguments_of_the_stable_command_line_are_there() -> None:
    names = {argument.name for argument in description.arguments(config.share_dir() / "launch" / "sim.launch.xml")}
    assert {"headless", "task", "episodes", "seed", "model", "console", "out"} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_includes_of_shipped_files_pass_only_declared_arguments(path: Path) -> None:
    """launch itself takes an argument that the included file does not know in silence."""
    for include in _includes(document.read(path)):
        included = Path(include.attributes["file"].replace("$(find-pkg-share llmagent_ros)", str(config.share_dir())))
        declared = {element.attributes["name"] for element in document.declared(document.read(included))}
        assert {argument.attributes["name"] for argument in include.all("arg")} <= declared


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_includes_of_shipped_files_leave_nothing_to_the_command_line(path: Path) -> None:
    """launch hands an argument of the included file that the include does not set through from the command line."""
    own = {element.attributes["name"] for element in document.declared(document.read(path))}
    for include in _includes(document.read(path)):
        included = Path(include.attributes["file"].replace("$(find-pkg-share llmagent_ros)", str(config.share_dir())))
        declared = {element.attributes["name"] for element in document.declared(document.read(included))}
        assert declared - {argument.attributes["name"] for argument in include.all("arg")} <= own


def test_a_robot_does_not_take_what_only_a_simulation_is_told(tmp_path: Path) -> None:
    path = config.share_dir() / "launch" / "robot.launch.xml"
    for name, value in (("mode", "lockstep"), ("outcomes", "true")):
        with pytest.raises(UnknownNameError, match=f"launch argument of robot.launch.xml '{name}'; valid: "):
            description.expand(path, {"robot": "sim_diffdrive", name: value}, tmp_path, os.environ)
    launch = description.expand(path, {"robot": "sim_diffdrive"}, tmp_path, os.environ)
    files = [Path(word).read_text() for spec in launch.processes for word in spec.command if "launch_params_" in word]
    assert [text.split()[-2:] for text in files if "mode:" in text] == [["mode:", "realtime"]] * 2
    assert [text.split()[-2:] for text in files if "stepwise:" in text] == [["stepwise:", "false"]]


@pytest.mark.parametrize(
    ("part", "nodes"),
    [
        ("robot", ["bag_recorder", "guard", "perception", "outcome"]),
        ("compute", ["knowledge", "learner", "policy", "recorder"]),
        ("all", ["bag_recorder", "guard", "perception", "knowledge", "learner", "policy", "outcome", "recorder"]),
    ],
)
def test_the_parts_of_a_robot_are_the_whole_and_only_a_split_one_needs_a_heartbeat(
    tmp_path: Path, part: str, nodes: list[str]
) -> None:
    path = config.share_dir() / "launch" / "robot.launch.xml"
    given = {"robot": "sim_diffdrive", "part": part, "record": "true"}
    launch = description.expand(path, given, tmp_path, os.environ)
    assert [spec.name.partition("_node")[0] for spec in launch.processes] == nodes
    files = {word for spec in launch.processes for word in spec.command if word.endswith("guard_split.yaml")}
    assert bool(files) == (part == "robot")
    assert all("heartbeats: [policy]" in Path(file).read_text() for file in files)


def _includes(element: document.Element) -> list[document.Element]:
    found = list(element.all("include"))
    for child in element.children:
        found += _includes(child)
    return found


@pytest.mark.parametrize(("given", "word"), [({}, "--enable"), ({"log_files": "false"}, "--disable")])
def test_every_node_of_a_robot_keeps_a_log_file_unless_told_not_to(
    tmp_path: Path, given: dict[str, str], word: str
) -> None:
    path = config.share_dir() / "launch" / "robot.launch.xml"
    everything = {"robot": "sim_diffdrive", "record": "true", "teleop": "true", "console": "true"}
    launch = description.expand(path, everything | given, tmp_path, os.environ)
    assert len(launch.processes) == 10
    assert all(f"{word}-external-lib-logs" in process.command for process in launch.processes)
