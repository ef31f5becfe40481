"""What every node shares: its life as a process, its parameters, its diagnostics."""

from __future__ import annotations

import dataclasses
import fcntl
import gc
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node as RosNode
from rclpy.signals import SignalHandlerOptions

from llmagent_ros import config
from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.nodes import qos

T = TypeVar("T")
_SPIN_WAIT = 0.1  # s; a signal is noticed at the latest after it
_BUILT_IN = ("use_sim_time", "start_type_description_service", "qos_overrides")


def main(factory: Callable[[], RosNode], argv: list[str] | None = None) -> None:
    """Runs one node as a process; see `run`."""
    run([factory], argv)


def run(factories: Sequence[Callable[[], RosNode]], argv: list[str] | None = None) -> NoReturn:
    """Runs nodes in this process until SIGINT, SIGTERM, or the `finished` attribute of one holds an exit code.

    Each has a thread and an executor of its own, so that the callbacks of one node stay serial and no node waits for
    another. They start in the order given and close in reverse.

    Exit code: the highest of the nodes', else 0; 2 with one line on standard error for an LlmAgentError; 1 with its
    traceback for anything else, since that is a defect; 128 + the signal's number when it comes while they configure.
    """
    code = _run(factories, argv)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Everything of ours is closed by now, and torch takes seconds to take its operator tables apart.
    os._exit(code)


class _Interrupted(BaseException):
    """A signal came while a node loads what it needs; no `except Exception` of a library keeps it."""


class _OnSignal:
    """Handler of SIGINT and SIGTERM: sets `stop`, and raises while `starting`, since nobody looks at that for long."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.starting = False

    def __call__(self, number: int, _: object) -> None:
        self.stop.set()
        if self.starting:
            self.starting = False
            raise _Interrupted(number)


def _run(factories: Sequence[Callable[[], RosNode]], argv: list[str] | None) -> int:
    on_signal = _OnSignal()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    nodes: list[RosNode] = []
    code = 0
    try:
        _init(argv)
        for factory in factories:
            node = factory()
            nodes.append(node)
            if isinstance(node, ManagedNode) and node.starts_itself:
                on_signal.starting = True
                node.autostart()
                on_signal.starting = False
        gc.collect()
        gc.freeze()  # what is loaded stays; looking through all of it in the middle of a run holds a decision up
        code = _spin_all(nodes, on_signal.stop)
    except _Interrupted as interrupted:
        code = 128 + int(interrupted.args[0])
    except LlmAgentError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        code = 2
    except ExternalShutdownException:
        pass
    except Exception:
        traceback.print_exc()
        code = 1
    on_signal.starting = False
    try:
        for node in reversed(nodes):
            code = max(code, _close(node))
        rclpy.try_shutdown()
    except Exception:
        traceback.print_exc()
        code = max(code, 1)
    return code


def _init(argv: list[str] | None) -> None:
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # arguments after --ros-args
        raise ConfigError(str(error).splitlines()[0]) from error


def hold_name(node: RosNode) -> TextIO:
    """Holds a node's name in its ROS domain on this machine while the file is open; with the process it is free again.

    Raises:
        ConfigError: another process has it; two nodes of one name would both command the robot.
    """
    domain = node.context.get_domain_id()
    name = node.get_fully_qualified_name()
    folder = Path(tempfile.gettempdir()) / f"llmagent_ros-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = (folder / f"domain-{domain}{name.replace('/', '_')}.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "?"
        file.close()
        raise ConfigError(
            f"node {name} runs already on this machine (process {holder}, ROS domain {domain}); "
            "stop it, or take another ROS_DOMAIN_ID or namespace"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _spin_all(nodes: Sequence[RosNode], stop: threading.Event) -> int:
    """Spins until `stop` is set or one of the nodes has finished; the highest exit code."""
    if len(nodes) == 1:
        return _spin(nodes[0], stop)

    def spin(node: RosNode) -> int:
        try:
            return _spin(node, stop)
        finally:
            stop.set()

    with ThreadPoolExecutor(len(nodes), thread_name_prefix="spin") as pool:
        running = [pool.submit(spin, node) for node in nodes]
        stop.wait()
    return max(done.result() for done in running)


def _spin(node: RosNode, stop: threading.Event) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=_SPIN_WAIT)
            finished = getattr(node, "finished", None)
            if finished is not None:
                return int(finished)
    finally:
        executor.remove_node(node)
        executor.shutdown(timeout_sec=1.0)
    return 0


def _close(node: RosNode) -> int:
    """Lets the node end what it does (a last zero command, an open file), then destroys it; the exit code of that."""
    try:
        close = getattr(node, "close", None)
        if close is not None:
            close()
    except LlmAgentError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    finally:
        node.destroy_node()
    return 0


def parameters(node: RosNode, kind: type[T], fixed: Mapping[str, Any] | None = None) -> T:
    """Declares a config dataclass as ROS parameters and returns it with the values that were set.

    A nested dataclass becomes a prefix ("critic.heads"). The node must have been made with
    `automatically_declare_parameters_from_overrides=True`, so that unknown names can be told.

    Args:
        fixed: values that are not parameters.

    Raises:
        ConfigError: an unknown parameter (the valid ones are listed) or a wrong value.
    """
    names = _leaves(kind, fixed or {})
    declared: dict[str, Any] = dict(node.get_parameters_by_prefix(""))
    given = {
        name: parameter.value
        for name, parameter in declared.items()
        if not name.startswith(_BUILT_IN)
    }
    unknown = sorted(set(given) - set(names))
    if unknown:
        valid = ", ".join(sorted(names))
        raise ConfigError(f"node {node.get_name()}: unknown parameter {unknown[0]!r}; valid: {valid}")
    values: dict[str, Any] = dict(fixed or {})
    for name, value in given.items():
        _put(values, name.split("."), value)
    built = config.build(kind, values, f"node {node.get_name()}, parameters")
    for name in sorted(set(names) - set(given)):
        default = _get(built, name.split("."))
        if default is not None and default != ():  # ROS cannot type an empty list
            node.declare_parameter(name, list(default) if isinstance(default, tuple) else default)
    return built


def _leaves(kind: Any, fixed: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for field in dataclasses.fields(kind):
        if not prefix and field.name in fixed:
            continue
        nested = _dataclass_of(kind, field)
        name = prefix + field.name
        names += _leaves(nested, {}, f"{name}.") if nested else [name]
    return names


def _dataclass_of(kind: Any, field: dataclasses.Field[Any]) -> Any:
    import typing

    hint = typing.get_type_hints(kind).get(field.name)
    return hint if dataclasses.is_dataclass(hint) else None


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def _get(built: Any, path: list[str]) -> Any:
    for part in path:
        built = getattr(built, part)
    return built


class Node(RosNode):
    """A node that holds its name from before it has topics until the process ends (see `hold_name`)."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._name_lock = hold_name(self)

    def destroy_node(self) -> None:
        super().destroy_node()
        self._name_lock.close()


class Diagnostics:
    """Publishes the state of one component on /diagnostics as text key-values."""

    def __init__(self, node: RosNode, hardware: str = "") -> None:
        self._node = node
        self._hardware = hardware
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.COMMAND)

    def publish(self, message: str, values: Mapping[str, Any], *, level: bytes = DiagnosticStatus.OK) -> None:
        status = DiagnosticStatus(level=level, name=self._node.get_fully_qualified_name(), message=message)
        status.hardware_id = self._hardware
        status.values = [KeyValue(key=str(key), value=str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


class ManagedNode(LifecycleNode):
    """A lifecycle node that can bring itself up (`autostart`) and turns LlmAgentErrors into failed transitions.

    Subclasses implement `configure`, `activate`, `deactivate` and `cleanup`, and set `starts_itself`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self._name_lock = hold_name(self)
        self.finished: int | None = None
        self.starts_itself = False  # whether `run` configures and activates it, once it has its name
        self._error: Exception | None = None
        self._starting = False

    def autostart(self) -> None:
        """Configures and activates.

        Raises:
            Exception: what made it fail; an LlmAgentError if a person can mend it.
        """
        self._starting = True
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise self._error or LlmAgentError(f"node {self.get_name()}: did not start")
        self._starting = False

    def destroy_node(self) -> None:
        super().destroy_node()
        self._name_lock.close()

    def work(self, task: Callable[[], None], name: str) -> threading.Thread:
        """A started thread. An exception that leaves `task` ends the node with its traceback and exit code 1.

        A node whose thread is gone looks alive and does nothing: better that it dies and is started again.
        """

        def run() -> None:
            try:
                task()
            except Exception:
                self.fail()

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def fail(self) -> None:
        """Ends the node because of the exception that is being handled, a defect. From any thread."""
        self.get_logger().fatal(traceback.format_exc())
        self.finished = 1

    def configure(self) -> None: ...

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    def cleanup(self) -> None: ...

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        return self._guarded(self.configure)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        super().on_activate(state)
        return self._guarded(self.activate)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        result = self._guarded(self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        return self._guarded(self.cleanup)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        return self._guarded(self.close)

    def close(self) -> None:
        """Ends everything, whatever the state; a second call does nothing."""
        self.deactivate()
        self.cleanup()

    def _guarded(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        self._error = None
        try:
            step()
        except Exception as error:
            self._error = error
            if not self._starting:  # else it is raised, and said once
                known = isinstance(error, LlmAgentError)
                self.get_logger().error(str(error) if known else traceback.format_exc())
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS
