"""Tests of the real graph: nodes as processes of their own, in a ROS domain that no other test uses."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor, TimeoutException

from llmagent_ros.nodes import qos

DEADLINE = 60.0  # s: only to fail instead of hanging
BACKLOG = 10  # messages of a topic that may wait for a node: the depth of most
ROOT = Path(__file__).resolve().parent.parent
_DOMAINS = range(1, 101)  # above, the ports of DDS reach into the ephemeral ones of Linux
T = TypeVar("T")


def _is_busy(number: int) -> bool:
    """Whether a process of this machine takes part in a ROS domain: one of its first ports of DDS is in use."""
    for participant in range(12):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * number + 2 * participant))
            except OSError:
                return True
    return False


class Domain:
    """A ROS domain id that nobody else on this machine holds; freed with the process at the latest."""

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir()) / "llmagent_ros_domains"
        folder.mkdir(mode=0o777, exist_ok=True)
        for number in random.SystemRandom().sample(_DOMAINS, len(_DOMAINS)):
            descriptor = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            if _is_busy(number):  # somebody's robot, or a launch by hand
                os.close(descriptor)
                continue
            self.number, self._descriptor = number, descriptor
            return
        raise RuntimeError("every ROS domain id is in use")

    def free(self) -> None:
        os.close(self._descriptor)


class Process:
    """A node that runs; what it says is kept in a file."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as file:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        return self.popen.poll()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def kill(self) -> None:
        """As with kill -9."""
        self.stop(signal.SIGKILL)
        self.popen.wait(DEADLINE)

    @property
    def children(self) -> list[psutil.Process]:
        """The processes below it, grandchildren too."""
        try:
            return psutil.Process(self.popen.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill_all(self) -> None:
        """As with kill -9, and what it has started as well."""
        children = self.children
        self.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _words(prefix: str, parameters: Mapping[str, Any]) -> list[str]:
    """Parameters as the words after --ros-args."""
    words = []
    for key, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value) if value != "" else "''"
        words += ["-p", f"{prefix}{key.replace('__', '.')}:={text}"]
    return words


class Graph:
    """A node of the test among nodes in processes of their own; a context manager that leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domain = Domain()
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain.number),
            "ROS_LOG_DIR": str(folder / "log"),
            "PYTHONUNBUFFERED": "1",
        }
        self.environment.pop("LLMAGENT_TTY", None)
        self.context = Context()
        rclpy.init(context=self.context, domain_id=self.domain.number)
        self.node = rclpy.create_node("tester", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._processes: list[Process] = []

    def __enter__(self) -> Graph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill_all()
            if kind is not None:
                print(f"--- {process.log.name}\n{process.said}")
        self._executor.remove_node(self.node)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        self.domain.free()

    def start(self, name: str, *, module: str = "", **parameters: Any) -> Process:
        """Starts a node of the package; "." in parameter names is written "__"."""
        return self.run(name, "-m", f"llmagent_ros.nodes.{module or name}_node", "--ros-args", *_words("", parameters))

    def compose(self, **nodes: Mapping[str, Any]) -> Process:
        """Starts nodes of the package in one process, each with its parameters."""
        words = [word for name, given in nodes.items() for word in _words(f"{name}:", given)]
        return self.run("composed", "-m", "llmagent_ros.nodes.compose", *nodes, "--ros-args", *words)

    def launch(self, file: str, **arguments: Any) -> Process:
        """`llmagent launch` in this domain."""
        words = [f"{name}:={str(value).lower() if value is True else value}" for name, value in arguments.items()]
        return self.run("launch", "-m", "llmagent_ros.cli.main", "launch", file, *words)

    def run(self, name: str, *words: object) -> Process:
        """Starts Python with these arguments; its log is named `name`."""
        process = Process([sys.executable, *map(str, words)], self.folder / f"{name}.log", self.environment)
        self._processes.append(process)
        return process

    def until(self, condition: Callable[[], T], problem: str, seconds: float = DEADLINE) -> T:
        """Lets the test's node work until the condition holds; its value."""
        limit = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > limit:
                said = "\n".join(f"--- {process.log.name}\n{process.said}" for process in self._processes)
                raise AssertionError(f"{problem}\n{said}")
            self.spin_once()
        return value

    def spin_once(self) -> None:
        """Lets the test's node do one thing."""
        self._executor.spin_once(timeout_sec=0.02)

    def exit_code(self, process: Process) -> int:
        """The exit code of a process that is about to end."""
        self.until(lambda: process.code is not None, f"{process.log.name} has not ended")
        assert process.code is not None
        return process.code

    def publisher(self, kind: type, topic: str, profile: Any = qos.COMMAND, *, readers: int = 1) -> Any:
        """A publisher that as many subscriptions have found."""
        publisher = self.node.create_publisher(kind, topic, profile)
        self.until(lambda: publisher.get_subscription_count() >= readers, f"nobody subscribes {topic}")
        return publisher

    def collect(self, kind: type, topic: str, profile: Any = qos.COMMAND, *, writers: int = 1) -> list[Any]:
        """A list that fills with the messages of a topic that so many publish."""
        messages: list[Any] = []
        self.node.create_subscription(kind, topic, messages.append, profile)
        self.until(lambda: self.node.count_publishers(topic) >= writers, f"nobody publishes {topic}")
        return messages

    def call(self, kind: type, name: str, request: Any, *, again: float = DEADLINE) -> Any:
        """A service's answer.

        Args:
            again: s after which the request is repeated; a server that was killed looks ready for some time.
        """
        client = self.node.create_client(kind, name)
        result = self._ask(client, request, again)
        self.node.destroy_client(client)
        return result

    def catch_up(self, *nodes: str) -> None:
        """Until nodes have handled what had reached them, and the test what they had said by then.

        A node takes of each topic one message before a request that came later, in whatever order it takes topics.
        And whoever answers has found what publishes and subscribes here, which was announced before the client.
        """
        for name in nodes:
            client = self.node.create_client(GetParameters, f"{name}/get_parameters")
            for _ in range(BACKLOG + 1):
                self._ask(client, GetParameters.Request(), again=1.0)
            self.node.destroy_client(client)
        while self._handle_what_is_there():
            pass

    def _ask(self, client: Any, request: Any, again: float) -> Any:
        self.until(client.service_is_ready, f"no service {client.srv_name}")
        asked: list[tuple[float, Any]] = []

        def answer() -> Any:
            if not asked or time.monotonic() - asked[-1][0] > again:
                asked.append((time.monotonic(), client.call_async(request)))
            return next((future.result() for _, future in asked if future.done()), None)

        return self.until(answer, f"no answer from {client.srv_name}")

    def _handle_what_is_there(self) -> bool:
        """One thing of each topic, without waiting; whether there was any."""
        handled = False
        with suppress(TimeoutException):
            while True:
                task, _, _ = self._executor.wait_for_ready_callbacks(timeout_sec=0)
                handled = True
                task()
                task.result()
        return handled
