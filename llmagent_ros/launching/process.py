"""What one process is started with: the command line that launch_ros would make of a `<node>` or `<executable>`."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.launching import packages, parameters, substitution
from llmagent_ros.launching.context import Context, ParameterValue
from llmagent_ros.launching.document import Element

OUTPUTS = ("screen", "log", "both", "own_log", "full")
_NODE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMESPACE = re.compile(r"/|(/[A-Za-z_][A-Za-z0-9_]*)+")


@dataclass(frozen=True)
class ProcessSpec:
    """One process to run.

    Attributes:
        name: what its output is prefixed with, e.g. "sim_node-1". command: arguments, the first one a path.
        environment: all of it. cwd: None for that of the launch.
        output: "screen", "log" (standard error also on the screen), "both", "own_log" or "full".
        respawn: start it again when it ends, after respawn_delay s, at most max_retries times (-1: always).
        required: the launch ends when it ends, with its exit code.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path | None = None
    output: str = "log"
    respawn: bool = False
    respawn_delay: float = 0.0
    max_retries: int = -1
    required: bool = False


def node_spec(element: Element, context: Context, number: int) -> ProcessSpec:
    """The process of a `<node>`; `number` makes its name unique.

    Raises:
        ConfigError: something in it is wrong or does not exist.
    """
    name = _optional(element, "name", context)
    if name is not None and not _NODE_NAME.fullmatch(name):
        raise ConfigError(f"node name {name!r}: letters, digits and _, not starting with a digit")
    namespace = _optional(element, "namespace", context)
    if namespace is not None or context.namespace:
        namespace = prefixed_namespace(context.namespace, namespace)
    program = _text(element, "exec", context)
    if "pkg" in element.attributes:
        program = str(packages.executable(_text(element, "pkg", context), program))
    else:
        program = _program(program)
    command = [program, *_words(element, "args", context)]
    if "ros_args" in element.attributes:
        command += ["--ros-args", *_words(element, "ros_args", context)]
    command.append("--ros-args")
    command += ["-r", f"__node:={name}"] if name is not None else []
    command += ["-r", f"__ns:={namespace}"] if namespace is not None else []
    # every node of a process reads "/**"; a full name is known only when both its halves are given
    target = f"{namespace.rstrip('/')}/{name}" if name is not None and namespace is not None else "/**"
    command += _parameter_arguments(element, target, context)
    for source, destination in [*context.remaps, *_pairs(element, "remap", "from", "to", context)]:
        command += ["-r", f"{source}:={destination}"]
    label = _optional(element, "exec_name", context) or Path(program).name
    return _spec(element, context, f"{label}-{number}", command)


def executable_spec(element: Element, context: Context, number: int) -> ProcessSpec:
    """The process of an `<executable>`. Raises as `node_spec`."""
    command = _words(element, "cmd", context)
    if not command:
        raise ConfigError("cmd is empty")
    command[0] = _program(command[0])
    label = _optional(element, "name", context) or Path(command[0]).name
    return _spec(element, context, f"{label}-{number}", command)


def prefixed_namespace(outer: str, namespace: str | None) -> str:
    """A namespace within another one, absolute.

    Raises:
        ConfigError: the result is not a valid ROS namespace.
    """
    if namespace is None or namespace == "":
        joined = outer
    elif namespace.startswith("/") or not outer:
        joined = namespace
    else:
        joined = f"{outer.rstrip('/')}/{namespace}"
    joined = joined if joined.startswith("/") else f"/{joined}"
    joined = joined.rstrip("/") or "/"
    if not _NAMESPACE.fullmatch(joined):
        raise ConfigError(f"namespace {joined!r}: parts of letters, digits and _, separated by /")
    return joined


def _spec(element: Element, context: Context, name: str, command: list[str]) -> ProcessSpec:
    output = _optional(element, "output", context) or "log"
    if output not in OUTPUTS:
        raise UnknownNameError("output", output, OUTPUTS)
    on_exit = element.attributes.get("on_exit")
    if on_exit not in (None, "shutdown"):
        raise UnknownNameError("on_exit", on_exit, ["shutdown"])
    if "launch-prefix" in element.attributes:
        prefix = shlex.split(_text(element, "launch-prefix", context))
        command = [*([_program(prefix[0]), *prefix[1:]] if prefix else []), *command]
    cwd = _optional(element, "cwd", context)
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigError(f"cwd: {cwd} is not a folder")
    return ProcessSpec(
        name=name,
        command=tuple(command),
        environment={**context.environment, **dict(_pairs(element, "env", "name", "value", context))},
        cwd=None if cwd is None else Path(cwd),
        output=output,
        respawn=substitution.as_bool(_optional(element, "respawn", context) or "false", "respawn"),
        respawn_delay=_number(element, "respawn_delay", 0.0, least=0.0),
        max_retries=int(_number(element, "respawn_max_retries", -1, least=-1)),
        required=on_exit == "shutdown",
    )


def _parameter_arguments(element: Element, target: str, context: Context) -> list[str]:
    """Parameters in launch_ros' order: those of the scope, then the node's own."""
    arguments: list[str] = []
    for entry in context.parameters:
        if isinstance(entry, Path):
            arguments += ["--params-file", str(_parameter_file(entry))]
        else:
            arguments += ["-p", parameters.rule(*entry)]
    for child in element.all("param"):
        if "from" in child.attributes:
            path = _parameter_file(Path(_text(child, "from", context)))
            if substitution.as_bool(child.attributes.get("allow_substs", "false"), "allow_substs"):
                path = parameters.substituted(path, context)
        else:
            path = parameters.write(dict(_values(child, context)), target, context)
        arguments += ["--params-file", str(path)]
    return arguments


def _parameter_file(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"parameter file {path} does not exist")
    return path


def _values(param: Element, context: Context, prefix: str = "") -> list[tuple[str, ParameterValue]]:
    """A `<param>` as name and value; one with `<param>`s in it as several, their names joined by dots."""
    if "name" not in param.attributes or ("value" in param.attributes) == bool(param.children):
        raise ConfigError("<param> needs from, or name and value, or name and <param>s in it")
    name = prefix + _text(param, "name", context)
    if param.children:
        return [value for child in param.children for value in _values(child, context, f"{name}.")]
    value = parameters.evaluate(name, param.attributes["value"], param.attributes.get("type"), context)
    return [(name, value)]


def _text(element: Element, name: str, context: Context) -> str:
    return substitution.perform(substitution.parse(element.attributes[name]), context)


def _optional(element: Element, name: str, context: Context) -> str | None:
    return _text(element, name, context) if name in element.attributes else None


def _words(element: Element, name: str, context: Context) -> list[str]:
    split = substitution.split_command(element.attributes.get(name, ""))
    return [substitution.perform(parts, context) for parts in split]


def _pairs(element: Element, tag: str, first: str, second: str, context: Context) -> list[tuple[str, str]]:
    return [(_text(child, first, context), _text(child, second, context)) for child in element.all(tag)]


def _number(element: Element, name: str, default: float, least: float) -> float:
    text = element.attributes.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value >= least:
        raise ConfigError(f"{name}: {text!r} is not a number of at least {least:g}")
    return value


def _program(name: str) -> str:
    """The path of a program, looked up in PATH when it is a bare name."""
    path = shutil.which(name)
    if path is None:
        raise ConfigError(f"executable {name!r} does not exist or may not be run")
    return path
