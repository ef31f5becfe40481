"""A thread of a node that fails takes the node with it: it must not look alive and do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from ros_support import Graph

NODE = """
from pathlib import Path
from llmagent_ros.nodes import common
from llmagent_ros.nodes.bundle_loader import BundleLoader

class Worker(common.ManagedNode):
    def __init__(self):
        super().__init__("worker")
        self.starts_itself = True

    def activate(self):
        {work}

def fall(*_):
    raise ZeroDivisionError("in a thread")

common.main(Worker)
"""


@pytest.mark.parametrize("work", ["self.work(fall, 'fall')", "BundleLoader(self, fall).load('/bundle', '')"])
def test_an_exception_in_a_thread_ends_the_node(tmp_path: Path, work: str) -> None:
    with Graph(tmp_path) as graph:
        process = graph.run("worker", "-c", NODE.format(work=work))
        assert graph.exit_code(process) == 1
    assert process.said.count("Traceback") == 1 and "ZeroDivisionError: in a thread" in process.said
    assert "[FATAL]" in process.said and "[worker]" in process.said
