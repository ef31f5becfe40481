"""Where jobs run: processes of this machine, or a Ray cluster. What they give does not depend on where."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Annotated, Any, Literal, Protocol

import psutil
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.experiments.end_with_parent import end_with_parent

Job = dict[str, Any]
Result = dict[str, Any]
FAILED, TRACE = "failed", "trace"
"""In a result: why a job gave none, in a line; and where, for whoever mends it."""

_LOOK = 0.25  # s between two looks at times and memory
_GRACE = 5.0  # s that a worker has to end
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM")


@checked_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class WorkersConfig:
    """How jobs are run; no result depends on it, unless a limit is met.

    Attributes:
        backend: "processes" of this machine, or "ray". workers: jobs at the same time.
        memory_mb: of one worker, resident; beyond it the worker is ended and its member counts as failed. 0: no limit.
        timeout: s that one job may take; then likewise.
        niceness: of the workers, so that they take no time from what has to answer in time.
    """

    backend: Literal["processes", "ray"] = "processes"
    workers: Annotated[int, Field(ge=1, le=10_000)] = 2
    memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0
    niceness: Annotated[int, Field(ge=0, le=19)] = 10


class Backend(Protocol):
    """What runs jobs."""

    def run(self, jobs: Sequence[Job], more: Callable[[], bool] = lambda: True) -> Iterator[tuple[int, Result]]:
        """The number of each job and what it gave, as they end. One that failed gives {"failed": why, "trace": where}.

        Where the iteration is broken off, what was running is ended.

        Args:
            more: asked before a job is begun; from the first no on, none is, and those that run come to their end.
        """
        ...

    def close(self) -> None: ...


def open_backend(config: WorkersConfig, run: Callable[[Job], Result]) -> Backend:
    """A backend.

    Args:
        run: does a job; found by its module and name in other processes.

    Raises:
        ConfigError: Ray is asked for and not installed.
    """
    if config.backend == "ray":
        from llmagent_ros.experiments.evolution.ray_workers import RayWorkers

        return RayWorkers(config, run)
    return ProcessWorkers(config, run)


def failure(error: BaseException, trace: str = "") -> Result:
    """What a job gives that raised this. trace: where, if the error does not say itself."""
    name = "" if isinstance(error, LlmAgentError) else f"{type(error).__name__}: "
    return {FAILED: f"{name}{' '.join(str(error).split())}", TRACE: trace or "".join(traceback.format_exception(error))}


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    number: int = -1  # of the job it does; -1: none
    since: float = 0.0
    watched: psutil.Process | None = field(default=None)


class ProcessWorkers:
    """Processes that are started anew (spawn), each with one thread, less urgent than others, and watched.

    Memory is the resident size as the operating system tells it, looked at four times a second: a limit on addresses
    (RLIMIT_AS) would count the gigabytes that libraries reserve and never touch.
    """

    def __init__(self, config: WorkersConfig, run: Callable[[Job], Result]) -> None:
        self.config, self._run = config, run
        self._context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
        self._workers: list[_Worker] = []

    def run(self, jobs: Sequence[Job], more: Callable[[], bool] = lambda: True) -> Iterator[tuple[int, Result]]:
        waiting = deque(enumerate(jobs))
        try:
            while waiting or any(worker.number >= 0 for worker in self._workers):
                if waiting and not more():
                    waiting.clear()
                self._give_out(waiting)
                yield from self._look()
        finally:
            for worker in [each for each in self._workers if each.number >= 0]:
                self._end(worker)

    def close(self) -> None:
        for worker in list(self._workers):
            self._end(worker)

    # --- inside -------------------------------------------------------------------------------------------

    def _give_out(self, waiting: deque[tuple[int, Job]]) -> None:
        while waiting:
            worker = next((each for each in self._workers if each.number < 0), None)
            if worker is None:
                if len(self._workers) >= self.config.workers:
                    return
                worker = self._start()
            number, job = waiting.popleft()
            worker.number, worker.since = number, time.monotonic()
            try:
                worker.pipe.send(job)
            except (BrokenPipeError, ConnectionResetError):  # it died while it waited; a new one takes the job
                self._end(worker)
                waiting.appendleft((number, job))

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        with _environment(_ONE_THREAD):
            process = self._context.Process(
                target=_work, args=(theirs, self._run, self.config.niceness), name="evolution worker", daemon=True
            )
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        with contextlib.suppress(psutil.NoSuchProcess):  # dead at once: found out at the next look
            worker.watched = psutil.Process(process.pid)
        self._workers.append(worker)
        return worker

    def _look(self) -> Iterator[tuple[int, Result]]:
        """What ended meanwhile, waiting for it a moment."""
        busy = {worker.pipe: worker for worker in self._workers if worker.number >= 0}
        if not busy:
            return
        ready = wait(list(busy), timeout=_LOOK)
        for pipe, worker in busy.items():
            number, result = worker.number, None
            if pipe in ready:
                try:
                    result = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    result = {FAILED: f"its process died ({self._end(worker)})", TRACE: ""}
                else:
                    worker.number = -1
                    if FAILED in result:  # it ends; the next job is for a new one
                        self._end(worker)
            elif (reason := self._exceeds(worker)) is not None:
                self._end(worker)
                result = {FAILED: reason, TRACE: ""}
            if result is not None:
                yield number, result

    def _exceeds(self, worker: _Worker) -> str | None:
        taken = time.monotonic() - worker.since
        if taken > self.config.timeout:
            return f"took longer than {self.config.timeout:.0f} s"
        if not self.config.memory_mb or worker.watched is None:
            return None
        try:
            used = worker.watched.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            return None  # its pipe says so at the next look
        return f"used {used:.0f} MB; the limit is {self.config.memory_mb:.0f}" if used > self.config.memory_mb else None

    def _end(self, worker: _Worker) -> str:
        """Ends a worker, and says in words how it ended."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(0.1)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join(_GRACE)
        code = worker.process.exitcode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"


def _work(pipe: Connection, run: Callable[[Job], Result], niceness: int) -> None:
    """A worker's whole life; it ends with its pipe, with its parent, however that ends, or with a job that fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent says what is to be done
    os.nice(niceness)
    end_with_parent()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            result = run(job)
        except Exception as error:  # what it leaves behind in this process is not known
            pipe.send(failure(error))
            return
        pipe.send(result)


@contextlib.contextmanager
def _environment(names: Sequence[str]) -> Iterator[None]:
    """Libraries that start threads read how many from the environment when they are imported."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: "false" if name == "TOKENIZERS_PARALLELISM" else "1" for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_memory(config: WorkersConfig) -> None:
    """Raises ConfigError where the limit is less than a worker needs before it has done anything."""
    least = 300.0  # MB: Python with torch
    if 0 < config.memory_mb < least:
        raise ConfigError(f"memory {config.memory_mb:g} MB; a worker needs {least:g} to begin with")
