"""What ends a node: a thread of it that fails, a configuration that fails, a signal while it starts; and its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from ros_support import Graph

NODE = """
import time
from llmagent_ros.nodes import process
from llmagent_ros.nodes.base import ManagedNode
from llmagent_ros.nodes.bundle_loader import BundleLoader

class Worker(ManagedNode):
    def __init__(self):
        super().__init__("worker")
        self.starts_itself = True

    def configure(self):
        {configure}

    def activate(self):
        {work}

def fall(*_):
    raise ZeroDivisionError("in a thread")

process.main(Worker)
"""


@pytest.mark.parametrize("work", ["self.work(fall, 'fall')", "BundleLoader(self, fall).load('/bundle', '')"])
def test_an_exception_in_a_thread_ends_the_node(tmp_path: Path, work: str) -> None:
    with Graph(tmp_path) as graph:
        process = graph.run("worker", "-c", NODE.format(configure="pass", work=work))
        assert graph.exit_code(process) == 1
    assert process.said.count("Traceback") == 1 and "ZeroDivisionError: in a thread" in process.said
    assert "[FATAL]" in process.said and "[worker]" in process.said


def test_a_configuration_that_fails_by_a_defect_shows_where(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.run("worker", "-c", NODE.format(configure="fall()", work="pass"))
        assert graph.exit_code(process) == 1
    assert process.said.count("Traceback") == 1 and "ZeroDivisionError: in a thread" in process.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_that_is_being_configured(tmp_path: Path, number: signal.Signals) -> None:
    slow = "print('loads', flush=True); time.sleep(3600)"
    with Graph(tmp_path) as graph:
        process = graph.run("worker", "-c", NODE.format(configure=slow, work="pass"))
        graph.until(lambda: "loads" in process.said, "it does not start")
        process.stop(number)
        assert graph.exit_code(process) == 128 + number
    assert "Traceback" not in process.said


SEVERAL = """
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.nodes import process
from llmagent_ros.nodes.base import Node

class Guard(Node):
    finished = 0

    def __init__(self):
        super().__init__("guard")

    def close(self):
        print("a last zero", flush=True)

class Recorder(Node):
    def __init__(self):
        super().__init__("recorder")

    def close(self):
        raise LlmAgentError("the disk is full")

class Console(Node):
    def __init__(self):
        super().__init__("console")

    def close(self):
        raise ZeroDivisionError("in a close")

    def destroy_node(self):
        super().destroy_node()
        raise KeyError("in a destruction")

process.run([Guard, Recorder, Console])
"""


def test_a_node_that_cannot_close_keeps_no_other_from_it(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.run("several", "-c", SEVERAL)
        assert graph.exit_code(process) == 2
    said = [process.said.index(text) for text in ("in a close", "in a destruction", "disk is full", "a last zero")]
    assert said == sorted(said), "in reverse"
