"""`llmagent launch` with real processes and real signals."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import psutil
import pytest
from launching_support import DEADLINE, Workspace, running, wait_until

WAITS = """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # one that comes right after the word is not lost
    say({name!r} + "_up")
    signal.sigwait([signal.SIGINT])
    say({name!r} + "_down", str(time.monotonic()))
"""
IGNORES = """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    say({name!r} + "_up")
    while True:
        time.sleep(60)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def test_a_required_process_ends_the_launch_with_its_exit_code(workspace: Workspace) -> None:
    workspace.script("stays", WAITS.format(name="stays"))
    workspace.script("ends", """
        while not Path(os.environ["SEEN"], "stays_up").exists():
            time.sleep(0.01)
        sys.exit(7)
    """)
    file = workspace.launch_file('<node pkg="dummy" exec="stays"/><node pkg="dummy" exec="ends" on_exit="shutdown"/>')
    result = workspace.run(file)
    assert result.returncode == 7
    assert "ends-2 died: exit code 7" in result.stdout
    assert "ends-2 was required" in result.stdout
    assert (workspace.seen / "stays_down").exists()


def test_a_required_process_that_succeeds_ends_it_with_0_even_when_another_died(workspace: Workspace) -> None:
    workspace.script("dies", "say('died'); os.kill(os.getpid(), signal.SIGSEGV)")
    workspace.script("ends", """
        died = Path(os.environ["SEEN"], "died")
        while not died.exists() or Path("/proc", died.read_text()).exists():  # until its end has been taken note of
            time.sleep(0.01)
    """)
    file = workspace.launch_file('<node pkg="dummy" exec="dies"/><node pkg="dummy" exec="ends" on_exit="shutdown"/>')
    result = workspace.run(file)
    assert result.returncode == 0
    assert "dies-1 died: killed by SIGSEGV" in result.stdout


def test_the_last_words_of_one_that_dies_are_shown(workspace: Workspace) -> None:
    workspace.script("dies", "print('what I was doing'); sys.exit(3)")
    result = workspace.run(workspace.launch_file('<node pkg="dummy" exec="dies" output="own_log"/>'))
    assert result.returncode == 3
    assert "[dies-1] what I was doing" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_reverse_order(workspace: Workspace, number: signal.Signals) -> None:
    names = ["first", "second", "third"]
    for name in names:
        workspace.script(name, WAITS.format(name=name))
    file = workspace.launch_file("".join(f'<node pkg="dummy" exec="{name}"/>' for name in names))
    process = workspace.start(file, patient=True)
    for name in names:
        workspace.wait(f"{name}_up")
    process.send_signal(number)
    code, _, err = finish(process)
    assert (code, err) == (128 + number, "")
    stopped_at = [float(workspace.wait(f"{name}_down")) for name in names]
    assert stopped_at == sorted(stopped_at, reverse=True)


def test_what_ignores_signals_is_down_within_5_s_with_its_grandchildren(workspace: Workspace, tmp_path: Path) -> None:
    """One stubborn process, a stubborn child in its group, and a stubborn one that left for a session of its own."""
    workspace.script("grandchild", IGNORES.format(name="grandchild"))
    workspace.script("escaped", IGNORES.format(name="escaped"))
    workspace.script("stubborn", f"""
        here = Path(sys.argv[0]).parent
        subprocess.Popen([here / "grandchild"])
        subprocess.Popen([here / "escaped"], start_new_session=True)
        {IGNORES.format(name="stubborn")}
    """.replace("\n    ", "\n        "))
    process = workspace.start(workspace.launch_file('<node pkg="dummy" exec="stubborn"/>'))
    pids = [workspace.wait(f"{name}_up") for name in ("stubborn", "grandchild", "escaped")]
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    log = next((tmp_path / "log").rglob("launch.log")).read_text().splitlines()
    words = "SIGINT received", "stubborn-1 stopped"
    told, ended = (next(float(line.split()[0]) for line in log if word in line) for word in words)
    assert ended - told < 5.0, "by the launch's own clock"
    assert code == 130
    assert "SIGTERM" in out
    assert "SIGKILL" in out
    assert not any(running(pid) for pid in pids)


def test_more_signals_make_it_hurry(workspace: Workspace) -> None:
    workspace.script("stubborn", IGNORES.format(name="stubborn"))
    process = workspace.start(workspace.launch_file('<node pkg="dummy" exec="stubborn"/>'), patient=True)
    workspace.wait("stubborn_up")
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    for word in ("SIGINT received", "SIGTERM", "died|stopped"):
        for line in process.stdout:
            if any(option in line for option in word.split("|")):
                break
        process.send_signal(signal.SIGINT)
    process.wait(timeout=DEADLINE)  # without them, minutes


def test_what_a_dead_process_leaves_behind_is_stopped(workspace: Workspace) -> None:
    workspace.script("left", IGNORES.format(name="left"))
    workspace.script("parent", """
        subprocess.Popen([Path(sys.argv[0]).parent / "left"])
        while not Path(os.environ["SEEN"], "left_up").exists():
            time.sleep(0.01)
        sys.exit(4)
    """)
    workspace.script("stays", WAITS.format(name="stays"))
    file = workspace.launch_file('<node pkg="dummy" exec="parent"/><node pkg="dummy" exec="stays"/>')
    process = workspace.start(file)
    pid = workspace.wait("left_up")
    wait_until(lambda: not running(pid), "the orphan is still there")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


def test_adopted_orphans_are_reaped_and_exit_codes_stay_right(workspace: Workspace) -> None:
    workspace.script("flaky", """
        for _ in range(3):
            subprocess.Popen(["sleep", "0.01"], start_new_session=True)
        count = len(list(Path(os.environ["SEEN"]).glob("run*")))
        say(f"run{count}")
        sys.exit(5 if count < 10 else 6)
    """)
    workspace.script("stays", WAITS.format(name="stays"))
    flaky = '<node pkg="dummy" exec="flaky" respawn="true" respawn_delay="0.01" respawn_max_retries="20"/>'
    process = workspace.start(workspace.launch_file(f'{flaky}<node pkg="dummy" exec="stays"/>'))
    workspace.wait("run12")
    launch = psutil.Process(process.pid)

    def zombies() -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child for child in launch.children() if child.status() == psutil.STATUS_ZOMBIE]
        return []

    assert len(zombies()) < 10
    code, out, _ = finish(process)
    assert code == 6
    assert out.count("flaky-1 died: exit code 5") == 10
    assert out.count("flaky-1 died: exit code 6") == 11


def test_a_launch_that_is_killed_takes_its_processes_along(workspace: Workspace) -> None:
    workspace.script("node", WAITS.format(name="node"))
    process = workspace.start(workspace.launch_file('<node pkg="dummy" exec="node"/>'))
    pid = workspace.wait("node_up")
    process.kill()
    process.communicate()
    wait_until(lambda: not running(pid), "the node outlived its launch")
    assert workspace.wait("node_down")


def test_respawn_starts_again_until_the_retries_are_used_up(workspace: Workspace) -> None:
    workspace.script("flaky", """
        count = len(list(Path(os.environ["SEEN"]).glob("run*")))
        say(f"run{count}")
        sys.exit(5)
    """)
    file = workspace.launch_file(
        '<node pkg="dummy" exec="flaky" respawn="true" respawn_delay="0.01" respawn_max_retries="2"/>'
    )
    result = workspace.run(file)
    assert result.returncode == 5
    assert len(list(workspace.seen.glob("run*"))) == 3


def test_nothing_respawns_while_stopping(workspace: Workspace) -> None:
    workspace.script("node", WAITS.format(name="node"))
    process = workspace.start(workspace.launch_file('<node pkg="dummy" exec="node" respawn="true"/>'))
    workspace.wait("node_up")
    (workspace.seen / "node_up").unlink()
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert not (workspace.seen / "node_up").exists()


def test_lines_of_several_processes_are_prefixed_and_never_mixed(workspace: Workspace) -> None:
    workspace.script("talks", """
        for number in range(300):
            os.write(1, f"{sys.argv[1]} {number} ".encode())
            os.write(1, b"x" * 50 + b"\\n")
        os.write(1, "unfinished é".encode())
    """)
    nodes = "".join(f'<executable cmd="$(exec-in-pkg talks dummy) {name}" output="screen"/>' for name in "abc")
    result = workspace.run(workspace.launch_file(nodes))
    lines = [line for line in result.stdout.splitlines() if "[launch]" not in line]
    assert "\x1b" not in result.stdout
    for number, name in enumerate("abc", start=1):
        own = [line for line in lines if line.startswith(f"[talks-{number}] ")]
        assert own[:-1] == [f"[talks-{number}] {name} {i} {'x' * 50}" for i in range(300)]
        assert own[-1] == f"[talks-{number}] unfinished é"
    assert len(lines) == 903


def test_output_log_shows_only_errors_and_keeps_all(workspace: Workspace, tmp_path: Path) -> None:
    workspace.script("both", "print('to out'); print('to err', file=sys.stderr)")
    result = workspace.run(workspace.launch_file('<node pkg="dummy" exec="both"/>'))
    assert "[both-1] to err" in result.stdout
    assert "to out" not in result.stdout
    log = next((tmp_path / "log").rglob("launch.log")).read_text()
    assert "[both-1] to out" in log
    assert "[both-1] to err" in log


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_only_on_a_terminal(workspace: Workspace, extra: dict[str, str], coloured: bool) -> None:
    workspace.script("talks", "print('hello', os.environ['LLMAGENT_TTY'])")
    file = workspace.launch_file('<node pkg="dummy" exec="talks" output="screen"/>')
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    environment = {**workspace.environment, "TERM": "xterm", **extra}
    command = [sys.executable, "-m", "llmagent_ros.cli.main", "launch", str(file)]
    process = subprocess.Popen(command, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    text = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        text += data
    os.close(master)
    assert process.wait(timeout=DEADLINE) == 0
    assert f"hello {name}".encode() in text
    assert (b"\x1b[" in text) is coloured


def test_a_killed_view_gives_the_terminal_back_and_the_table_is_shown(workspace: Workspace) -> None:
    workspace.script("console_node", """
        import tty
        terminal = os.open(os.environ["LLMAGENT_TTY"], os.O_RDWR | os.O_NOCTTY)
        tty.setraw(terminal)
        os.write(terminal, b"\\x1b[?1049h\\x1b[?25l")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    workspace.script("recorder_node", "print('  episodes 3')")
    file = workspace.launch_file(
        '<node pkg="dummy" exec="console_node"/><node pkg="dummy" exec="recorder_node" output="own_log"/>'
    )
    master, slave = pty.openpty()
    modes = termios.tcgetattr(slave)
    command = [sys.executable, "-m", "llmagent_ros.cli.main", "launch", str(file)]
    process = subprocess.Popen(command, stdout=slave, stderr=slave, env=workspace.environment)
    assert process.wait(timeout=DEADLINE) == 137
    assert termios.tcgetattr(slave) == modes
    os.set_blocking(master, False)
    text = b""

    def shown() -> bool:  # a terminal gives some kilobytes at a time
        nonlocal text
        with contextlib.suppress(BlockingIOError):
            text += os.read(master, 65536)
        _, _, after = text.partition(b"\x1b[?1049h")
        _, _, after = after.partition(b"\x1b[?1049l\x1b[?25h")
        return b"died: killed by SIGKILL" in after and b"  episodes 3" in after

    wait_until(shown, "the terminal is not given back, or the table is not shown")
    for end in (master, slave):
        os.close(end)


@pytest.mark.parametrize("shown", [True, False])
def test_only_the_traceback_of_the_interrupt_itself_is_left_out(workspace: Workspace, shown: bool) -> None:
    workspace.script("starts", f"""
        try:
            say("starts_up")
            while True:
                time.sleep(0.05)
        finally:
            if {shown}:
                raise ValueError("a defect")
    """)
    process = workspace.start(workspace.launch_file('<node pkg="dummy" exec="starts" output="screen"/>'))
    workspace.wait("starts_up")
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    assert code == 130
    assert ("Traceback" in out) is ("ValueError: a defect" in out) is shown


def test_a_reader_that_goes_away_ends_the_launch(workspace: Workspace) -> None:
    workspace.script("talks", """
        say("talks_up")
        while True:
            print("line", flush=True)
            time.sleep(0.01)
    """)
    process = workspace.start(workspace.launch_file('<node pkg="dummy" exec="talks" output="screen"/>'))
    pid = workspace.wait("talks_up")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=DEADLINE) == 128 + signal.SIGPIPE
    assert not running(pid)


TALKS_THEN_WAITS = """
    os.write(1, ({text!r} + "\\n").encode() * {times})
    say("talked")
""" + WAITS.format(name="node")


def test_a_log_that_cannot_be_written_is_said_once_and_all_goes_on(workspace: Workspace) -> None:
    workspace.script("node", TALKS_THEN_WAITS.format(text="x" * 99, times=1000))
    file = workspace.launch_file('<node pkg="dummy" exec="node" output="both"/>')
    command = [sys.executable, "-m", "llmagent_ros.cli.main", "launch", str(file)]
    limited = ["sh", "-c", 'ulimit -f 16; exec "$@"', "sh", *command]  # as a full disk: the log ends, with an OSError
    process = subprocess.Popen(
        limited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=workspace.environment
    )
    workspace.wait("talked")
    workspace.wait("node_up")
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, err) == (130, "")
    assert workspace.wait("node_down")
    assert out.count("launch.log cannot be written: File too large; going on without it") == 1
    assert out.count("[node-1] xxx") == 1000


def test_a_screen_that_is_not_utf8_ends_nothing(workspace: Workspace) -> None:
    workspace.script("node", TALKS_THEN_WAITS.format(text="é 🤖", times=1))
    file = workspace.launch_file('<node pkg="dummy" exec="node" output="screen"/>')
    process = workspace.start(file, PYTHONIOENCODING="ascii:strict")
    workspace.wait("node_up")
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, err) == (130, "")
    assert "[node-1] ? ?" in out
    assert workspace.wait("node_down")


def test_a_defect_in_the_launch_stops_everything_in_order_before_it_is_raised(workspace: Workspace) -> None:
    paths = {name: workspace.script(name, WAITS.format(name=name)) for name in ("first", "second")}
    paths["talks"] = workspace.script("talks", """
        while len(list(Path(os.environ["SEEN"]).glob("*_up"))) < 2:
            time.sleep(0.01)
        while True:
            print("x" * 100000, flush=True)
    """)
    program = f"""
        import io, os
        from llmagent_ros.launching import stopping
        from llmagent_ros.launching.output import Writer
        from llmagent_ros.launching.process import ProcessSpec
        from llmagent_ros.launching.supervisor import Supervisor

        class Broken(Writer):
            def line(self, *arguments):
                raise RuntimeError("a defect")

        stopping.TURN = stopping.TURNS = 60.0  # s, on a machine that stalls; "talks" ends at once
        stopping.TERMINATE_AFTER, stopping.KILL_AFTER, stopping.GIVE_UP_AFTER = 100.0, 110.0, 120.0
        paths = {[str(path) for path in paths.values()]}
        specs = [ProcessSpec(path, (path,), dict(os.environ), output="screen") for path in paths]
        Supervisor(specs, Broken(io.StringIO())).run()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(
        command, env=workspace.environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert result.returncode == 1
    assert result.stderr.endswith("RuntimeError: a defect\n")
    assert float(workspace.wait("second_down")) < float(workspace.wait("first_down"))


def test_parameter_files_are_there_while_it_runs_and_gone_after(workspace: Workspace) -> None:
    workspace.script("node", """
        path = sys.argv[sys.argv.index("--params-file") + 1]
        say("path", path)
        say("content", Path(path).read_text())
    """)
    file = workspace.launch_file('<node pkg="dummy" exec="node"><param name="a" value="1"/></node>')
    assert workspace.run(file).returncode == 0
    assert workspace.wait("content").split() == ["/**:", "ros__parameters:", "a:", "1"]
    assert not Path(workspace.wait("path")).exists()


@pytest.mark.parametrize(
    ("content", "words", "problem"),
    [
        ('<node pkg="dummy" exec="good"/>', ["speling:=1"], "unknown launch argument of test.launch.xml 'speling'"),
        ('<node pkg="dummy" exec="good"/>', ["novalue"], "malformed launch argument 'novalue'"),
        ('<node pkg="dummy" exec="good"/><node pkg="dummy" exec="bad"/>', [], "'bad'; valid: good"),
        ('<node pkg="dummy" exec="good"/><node pkg="nope" exec="x"/>', [], "unknown package 'nope'; valid: "),
        ('<node pkg="dummy" exec="good"/><nod/>', [], "unknown tag in <launch> 'nod'; valid: arg,"),
        ('<node pkg="dummy" exec="good" respwan="true"/>', [], "unknown attribute of <node> 'respwan'; valid: args,"),
        ('<node pkg="dummy" exec="good"><param from="/no/such.yaml"/></node>', [], "/no/such.yaml does not exist"),
        ('<node pkg="dummy" exec="good"/><include file="/no/such.launch.xml"/>', [], "/no/such.launch.xml"),
        ('<node pkg="dummy" exec="good"', [], "not well-formed XML"),
        ('<node pkg="dummy" exec="good" if="maybe"/>', [], "'maybe' is no truth value; valid: true, false"),
        ('<node pkg="dummy" exec="good"/><let name="x" value="$(vra y)"/>', [], "unknown substitution 'vra'"),
        ('<arg name="must"/><node pkg="dummy" exec="good"/>', [], "launch argument must must be given"),
        ('<arg name="m" default="c"><choice value="a"/></arg><node pkg="dummy" exec="good"/>', [], "'c'; valid: a"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    workspace: Workspace, content: str, words: list[str], problem: str
) -> None:
    workspace.script("good", "say('started')")
    result = workspace.run(workspace.launch_file(content), *words)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert problem in result.stderr
    assert not (workspace.seen / "started").exists()


def test_an_unknown_file_lists_the_shipped_ones(workspace: Workspace) -> None:
    result = workspace.run("simm")
    assert result.returncode == 2
    assert result.stderr == (
        "llmagent: unknown launch file 'simm'; valid: path to a .launch.xml file, robot, sim, teleop\n"
    )
