"""The life of a process that runs nodes: start, signals, spinning, the end and its exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.nodes.base import ManagedNode

_SPIN_WAIT = 0.1  # s; a signal is noticed at the latest after it


def main(factory: Callable[[], Node], argv: list[str] | None = None) -> None:
    """Runs one node as a process; see `run`."""
    run([factory], argv)


def run(factories: Sequence[Callable[[], Node]], argv: list[str] | None = None) -> NoReturn:
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


def _run(factories: Sequence[Callable[[], Node]], argv: list[str] | None) -> int:
    on_signal = _OnSignal()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    nodes: list[Node] = []
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
    for node in reversed(nodes):
        code = max(code, _close(node))
    return max(code, _attempt(rclpy.try_shutdown))


def _init(argv: list[str] | None) -> None:
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # arguments after --ros-args
        raise ConfigError(str(error).splitlines()[0]) from error


def _spin_all(nodes: Sequence[Node], stop: threading.Event) -> int:
    """Spins until `stop` is set or one of the nodes has finished; the highest exit code."""
    if len(nodes) == 1:
        return _spin(nodes[0], stop)

    def spin(node: Node) -> int:
        try:
            return _spin(node, stop)
        finally:
            stop.set()

    with ThreadPoolExecutor(len(nodes), thread_name_prefix="spin") as pool:
        running = [pool.submit(spin, node) for node in nodes]
        stop.wait()
    return max(done.result() for done in running)


def _spin(node: Node, stop: threading.Event) -> int:
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


def _close(node: Node) -> int:
    """Lets the node end what it does (a last zero command, an open file), then destroys it; the exit code of that."""
    close = getattr(node, "close", lambda: None)
    return max(_attempt(close), _attempt(node.destroy_node))


def _attempt(step: Callable[[], object]) -> int:
    """A step of the end; its exit code. Whatever goes wrong is said, and the other steps go on: the last is a zero."""
    try:
        step()
    except LlmAgentError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0
