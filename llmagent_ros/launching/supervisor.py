"""Runs the processes of a launch in one thread: a selector over their output, a pipe for signals, and deadlines."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from llmagent_ros.launching import processes
from llmagent_ros.launching.output import LineBuffer, Writer
from llmagent_ros.launching.process import ProcessSpec
from llmagent_ros.launching.stopping import Stop
from llmagent_ros.launching.terminal import PAINTER, TERMINAL, USERS, Terminal

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LEFTOVERS = 1.0  # s that what a dead process has left behind gets between SIGTERM and SIGKILL
TELLER = "recorder_node"  # the executable whose last lines, the table of the run, are shown at the end
WRONG_USE = 2  # exit code of a node whose configuration is wrong: starting it again would not help
_LONGEST_WAIT = 60.0
_WIND_DOWN_WAIT = 0.02


def _program(child: _Child) -> str:
    return Path(child.spec.command[0]).name


@dataclass
class _Child:
    """A process that is to run: the running one, if any, and how it has fared."""

    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    streams: dict[IO[bytes], LineBuffer] = field(default_factory=dict)
    restart_at: float | None = None
    restarts: int = 0
    ended_with: int | None = None
    traceback: list[tuple[str, bool]] = field(default_factory=list)  # written while stopping, held back to its end


class Supervisor:
    """Starts processes in order, shows what they write, and stops them all in reverse order.

    The launch ends when a required process does (with its exit code), when a stopping signal arrives (128 + n), or
    when nothing is left to run (with the exit code of the first that failed). Stopping takes at most 5 s.

    Args:
        specs: in start order. writer: where output goes; not closed here.
    """

    def __init__(self, specs: Sequence[ProcessSpec], writer: Writer) -> None:
        self._children = [_Child(spec) for spec in specs]
        self._writer = writer
        self._selector = selectors.DefaultSelector()
        self._signals: list[signal.Signals] = []
        self._leftovers: list[tuple[float, int]] = []  # (when to kill, process group)
        self._stop = Stop()
        self._code: int | None = None
        self._terminal = Terminal(next((s.environment[TERMINAL] for s in specs if TERMINAL in s.environment), None))
        self._problems: list[str] = []  # said while the live view may have hidden them

    def run(self) -> int:
        """Run to the end. Call from the main thread of a process without other threads.

        Returns:
            the launch's exit code.
        """
        processes.adopt_orphans()
        with self._receive_signals():
            try:
                self._run()
            except BaseException:
                self._wind_down()
                raise
            finally:
                processes.signal_all(processes.descendants(), signal.SIGKILL)
                self._give_terminal_back()
                self._selector.close()
        failures = [child.ended_with for child in self._children if child.ended_with]
        return self._code if self._code is not None else processes.shell_code(failures[0]) if failures else 0

    def _give_terminal_back(self) -> None:
        """At the end: the terminal as it was, then what the live view has hidden."""
        painters = [child for child in self._children if _program(child) == PAINTER]
        killed = any(child.process is not None or (child.ended_with or 0) < 0 for child in painters)
        self._terminal.restore(painted=killed)
        for child in self._children:
            if _program(child) == TELLER:
                self._writer.reveal(child.spec.name)
        if painters:
            for problem in self._problems:
                self._writer.say(problem, problem=True)

    def _run(self) -> None:
        for child in self._children:
            if self._stop.began is None:
                self._start(child)
        while self._alive() and not self._stop.expired():
            self._step()
        processes.signal_all(processes.descendants(), signal.SIGKILL)
        self._read(0.0)
        for child in self._children:
            self._let_go(child)

    def _alive(self) -> bool:
        return any(child.process is not None or child.restart_at is not None for child in self._children)

    def _step(self) -> None:
        """Wait for something to happen, or for the next deadline, and deal with it."""
        self._read(self._time_to_wait())
        while self._signals:
            self._on_signal(self._signals.pop(0))
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, child.process)
        processes.reap_orphans([child.process.pid for child in self._children if child.process is not None])
        if self._writer.broken:
            self._begin_stop("nobody reads the output", 128 + signal.SIGPIPE)
        self._restart_due()
        self._kill_leftovers()
        if self._stop.began is not None:
            self._go_on_stopping()

    def _time_to_wait(self) -> float:
        deadlines = [child.restart_at for child in self._children if child.restart_at is not None]
        deadlines += [when for when, _ in self._leftovers]
        deadlines += self._stop.deadlines()
        return max(0.0, min([when - time.monotonic() for when in deadlines], default=_LONGEST_WAIT))

    # --- starting and ending -----------------------------------------------------------------------------------

    def _start(self, child: _Child) -> None:
        spec = child.spec
        child.restart_at = None
        try:
            child.process = processes.start(spec, split_errors=spec.output == "log")
        except OSError as error:
            child.ended_with = 2
            self._writer.say(f"{spec.name} cannot be started: {spec.command[0]}: {error.strerror}", problem=True)
            self._begin_stop(f"{spec.name} cannot be started", 2)
            return
        for stream in (child.process.stdout, child.process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                child.streams[stream] = LineBuffer()
                self._selector.register(stream, selectors.EVENT_READ, child)
        self._writer.say(f"{spec.name} started, pid {child.process.pid}")

    def _ended(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        """Read what is left, report, clear away what it has left behind, and restart or end the launch."""
        name, code = child.spec.name, process.returncode
        for stream in list(child.streams):
            self._drain(child, stream)
            self._close(child, stream)
        child.process = None
        child.ended_with = code
        self._let_go(child)
        if processes.signal_group(process.pid, signal.SIGTERM):
            self._leftovers.append((time.monotonic() + LEFTOVERS, process.pid))
        stopping = self._stop.began is not None
        if code == 0:
            self._writer.say(f"{name} finished")
        elif stopping:
            self._writer.say(f"{name} stopped: {processes.describe_exit(code)}")
        else:
            if code < 0 and _program(child) in USERS:
                self._terminal.restore(painted=_program(child) == PAINTER)
            self._writer.reveal(name)
            self._problems.append(f"{name} died: {processes.describe_exit(code)}")
            self._writer.say(self._problems[-1], problem=True)
        if stopping:
            return
        spec = child.spec
        if spec.required:
            self._begin_stop(f"{name} was required", processes.shell_code(code))
        elif spec.respawn and code == WRONG_USE:
            self._begin_stop(f"{name} cannot run as it was asked to", code)
        elif spec.respawn and (spec.max_retries < 0 or child.restarts < spec.max_retries):
            child.restarts += 1
            child.restart_at = time.monotonic() + spec.respawn_delay
        elif spec.respawn:
            self._begin_stop(f"{name} died {child.restarts + 1} times", processes.shell_code(code))

    def _restart_due(self) -> None:
        for child in self._children:
            if child.restart_at is not None and child.restart_at <= time.monotonic():
                self._start(child)

    def _kill_leftovers(self) -> None:
        now = time.monotonic()
        for when, group in self._leftovers:
            if when <= now:
                processes.signal_group(group, signal.SIGKILL)
        self._leftovers = [entry for entry in self._leftovers if entry[0] > now]

    # --- output ------------------------------------------------------------------------------------------------

    def _read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, _Child):
                self._drain(key.data, key.fileobj)  # type: ignore[arg-type]
            else:
                os.read(key.fd, 4096)  # the signal's number; its handler has noted it

    def _discard(self, timeout: float) -> None:
        """Keep the pipes empty, so that no process waits for room in one instead of stopping."""
        for key, _ in self._selector.select(timeout):
            try:
                ended = not os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if ended:
                self._selector.unregister(key.fileobj)

    def _drain(self, child: _Child, stream: IO[bytes]) -> None:
        """Take what can be read now, in bounded portions so that a talkative process does not hold up the others."""
        for _ in range(16):
            try:
                data = os.read(stream.fileno(), 65536)
            except BlockingIOError:
                return
            for line in child.streams[stream].feed(data):
                self._line(child, stream, line)
            if not data:
                self._close(child, stream)
                return

    def _close(self, child: _Child, stream: IO[bytes]) -> None:
        if stream in child.streams:
            for line in child.streams.pop(stream).flush():
                self._line(child, stream, line)
            self._selector.unregister(stream)
            stream.close()

    def _line(self, child: _Child, stream: IO[bytes], text: str) -> None:
        error = child.process is not None and stream is child.process.stderr
        if child.traceback or (self._stop.began is not None and text.startswith("Traceback (most recent")):
            child.traceback.append((text, error))
        else:
            self._writer.line(child.spec.name, text, child.spec.output, error)

    def _let_go(self, child: _Child) -> None:
        """Show a traceback that was held back, unless it only says that Python got the Ctrl-C while it was starting."""
        lines, child.traceback = child.traceback, []
        interrupted = child.ended_with == -signal.SIGINT and any(text == "KeyboardInterrupt" for text, _ in lines)
        for text, error in lines if not interrupted else ():
            self._writer.line(child.spec.name, text, child.spec.output, error)

    # --- stopping ----------------------------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.began is None:
            self._begin_stop(f"{number.name} received", 128 + number)
        else:
            self._stop.hurry()

    def _begin_stop(self, reason: str, code: int) -> None:
        if self._stop.began is not None:
            return
        self._code = code
        for child in self._children:
            child.restart_at = None
        self._stop.begin(len(self._running()))
        self._writer.say(f"{reason}: stopping everything")

    def _running(self) -> list[_Child]:
        """In stopping order: the last started first."""
        return [child for child in reversed(self._children) if child.process is not None]

    def _go_on_stopping(self) -> None:
        """Tell the next process in turn, and all that are left when their time is up."""
        running = self._running()
        now = time.monotonic()
        self._tell_in_turn(running, now)
        for number in self._stop.escalation(now):
            self._insist(running, number)
            for child in running:
                self._writer.say(f"{child.spec.name} has not stopped: {number.name}", problem=True)

    def _wind_down(self) -> None:
        """The orderly stop after a defect, which may lie in the output: what is still written is thrown away."""
        if self._stop.began is None:
            self._stop.begin(len(self._running()))
        while (running := self._running()) and not self._stop.expired():
            now = time.monotonic()
            self._tell_in_turn(running, now)
            for number in self._stop.escalation(now):
                self._insist(running, number)
            self._discard(_WIND_DOWN_WAIT)
            for child in running:
                if child.process is not None and child.process.poll() is not None:
                    child.process = None

    def _tell_in_turn(self, running: list[_Child], now: float) -> None:
        stop = self._stop
        if stop.told and all(child.spec.name != stop.told[-1] for child in running):
            stop.end_turn(now)
        pending = [child for child in running if child.spec.name not in stop.told]
        while pending and stop.turn_over(now):
            child = pending.pop(0)
            stop.told.append(child.spec.name)
            self._signal(child, signal.SIGINT)
            stop.next_turn(now)
        if not pending:
            stop.end_turns()

    def _insist(self, running: list[_Child], number: signal.Signals) -> None:
        for child in running:
            self._signal(child, number)
        processes.signal_all(processes.descendants(), number)

    def _signal(self, child: _Child, number: signal.Signals) -> None:
        if child.process is not None:
            processes.signal_group(child.process.pid, number)

    @contextmanager
    def _receive_signals(self) -> Iterator[None]:
        """Turn stopping signals and deaths of children into something the selector sees."""
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(signal.Signals(number))

        self._selector.register(reader, selectors.EVENT_READ, None)
        old_handlers = {number: signal.signal(number, note) for number in STOPPING_SIGNALS}
        old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)
