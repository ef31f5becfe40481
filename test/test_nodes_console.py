"""The live view as a process, on a terminal that is not its own, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from pathlib import Path

from ros_support import Graph

from llmagent_interfaces.msg import Decision, Task
from llmagent_ros.nodes import qos


def read(master: int) -> str:
    try:
        return os.read(master, 1 << 20).decode(errors="replace")
    except BlockingIOError:
        return ""


def test_it_draws_on_the_terminal_of_the_launch_and_gives_it_back(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 132, 0, 0))
    os.set_blocking(master, False)
    with Graph(tmp_path) as graph:
        graph.environment |= {"LLMAGENT_TTY": os.ttyname(slave), "TERM": "xterm"}
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
        assert graph.exit_code(console) == 0
        shown += read(master)
        assert shown.rindex("\x1b[?1049l") > shown.rindex("\x1b[?1049h") and "episodes 0" in shown
        assert console.said == ""
    os.close(master)
    os.close(slave)


def test_without_a_terminal_it_prints_lines_or_says_so(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        lines = graph.start("console", screen="never", plain_period=0.1)
        graph.until(lambda: lines.said.count("episodes 0 |") >= 2, "no lines")
        assert "\x1b" not in lines.said
