"""The live view as a process, on a terminal that is not its own, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_support import Graph

from llmagent_interfaces.msg import Decision, Task, Transition
from llmagent_ros.nodes import qos


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A terminal: what the test reads from, and its name for whoever draws on it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 132, 0, 0))
    os.set_blocking(master, False)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def read(master: int) -> str:
    """What has come meanwhile; a terminal gives at most some kilobytes at a time."""
    try:
        return os.read(master, 1 << 20).decode(errors="replace")
    except BlockingIOError:
        return ""


def test_it_draws_on_the_terminal_of_the_launch_and_gives_it_back(
    tmp_path: Path, terminal: tuple[int, str]
) -> None:
    master, name = terminal
    with Graph(tmp_path) as graph:
        graph.environment |= {"LLMAGENT_TTY": name, "TERM": "xterm"}
        console = graph.start("console", screen="always")
        task = graph.publisher(Task, "task", qos.LATEST)
        decision = graph.publisher(Decision, "decision")
        task.publish(Task(id="1", instruction="go to the red ball"))
        decision.publish(
            Decision(
                scene="ball ahead", candidates=["left", "right"], probabilities=[0.2, 0.8], values=[0.0, 0.0],
                action="right", source="policy", adapter="v000012",
            )
        )  # fmt: skip
        shown = ""

        def seen() -> bool:
            nonlocal shown
            shown += read(master)
            return all(text in shown for text in ("go to the red ball", "ball ahead", "v000012"))

        graph.until(seen, "nothing is shown")
        assert "\x1b[?1049h" in shown, "the alternate screen"
        assert max(len(line) for line in shown.splitlines()) > 100, "as wide as the terminal is"
        console.stop()
        given_back = "\x1b[?1049l"

        def ended() -> bool:  # nobody reads else, and what it draws fits no longer
            nonlocal shown
            shown += read(master)
            return console.code is not None and given_back in shown and "episodes 0" in shown

        graph.until(ended, "it does not give the terminal back")
        assert console.code == 0
        assert shown.rindex(given_back) > shown.rindex("\x1b[?1049h")
        assert console.said == ""


def test_it_names_a_node_that_no_longer_reports(tmp_path: Path, terminal: tuple[int, str]) -> None:
    master, name = terminal
    with Graph(tmp_path) as graph:
        graph.environment |= {"LLMAGENT_TTY": name, "TERM": "xterm"}
        graph.start("console", screen="always")
        diagnostics = graph.publisher(DiagnosticArray, "/diagnostics")
        report = DiagnosticArray(status=[DiagnosticStatus(name=name) for name in ("/policy", "/lidar_driver")])
        shown = ""

        def seen(text: str) -> bool:
            nonlocal shown
            shown += read(master)
            return text in shown

        diagnostics.publish(report)
        graph.until(lambda: seen("policy: no report for 5 s"), "its silence is not told")
        diagnostics.publish(report)
        graph.until(lambda: seen("policy: reports again"), "its return is not told")
        assert "lidar" not in shown, "others report as they like"


def test_without_a_terminal_it_prints_lines_or_says_so(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        lines = graph.start("console", screen="never", plain_period=0.1)
        graph.until(lambda: lines.said.count("episodes 0 |") >= 2, "no lines")
        assert "\x1b" not in lines.said


def test_it_counts_an_episode_that_the_policy_cut_off(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        console = graph.start("console", screen="never", plain_period=0.1)
        decision = graph.publisher(Decision, "decision")
        transition = graph.publisher(Transition, "transition")
        said = Decision(run="r", candidates=["left"], probabilities=[1.0], values=[0.0], action="left", source="policy")
        for episode in (0, 1):
            said.episode, said.header.stamp.sec = episode, 1 + episode
            decision.publish(said)
        transition.publish(Transition(run="r", episode=0, step=0, truncated=True))
        graph.until(lambda: "episodes 1 |" in console.said, "the episode is not counted")
