"""The same jobs on a Ray cluster. The folder of the evolution must be one that all of its machines see."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.evolution.workers import FAILED, TRACE, Job, Result, WorkersConfig, failure

_LOOK = 1.0  # s between two looks at times


class RayWorkers:
    """Tasks of Ray, each with one CPU; which cluster says RAY_ADDRESS, and without it Ray starts on this machine.

    Ray itself ends a task that uses more memory than it may (its memory monitor); `memory_mb` is what a task asks for.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(self, config: WorkersConfig, run: Callable[[Job], Result]) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("backend ray: Ray is not installed; pip install '.[ray]'") from error
        self._ray: Any = ray
        self.config = config
        if not ray.is_initialized():
            where = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"num_cpus": config.workers}
            ray.init(log_to_driver=False, include_dashboard=False, **where)
        memory = {"memory": int(config.memory_mb * 1e6)} if config.memory_mb else {}
        self._task = ray.remote(num_cpus=1, max_retries=0, **memory)(_less_urgent)
        self._do = run

    def run(self, jobs: Sequence[Job], more: Callable[[], bool] = lambda: True) -> Iterator[tuple[int, Result]]:
        waiting, running = deque(enumerate(jobs)), dict[Any, tuple[int, float]]()
        try:
            while waiting or running:
                if waiting and not more():
                    waiting.clear()
                while waiting and len(running) < self.config.workers:
                    number, job = waiting.popleft()
                    running[self._task.remote(self._do, job, self.config.niceness)] = number, time.monotonic()
                if not running:
                    break
                ended, _ = self._ray.wait(list(running), num_returns=1, timeout=_LOOK)
                for reference in ended:
                    yield running.pop(reference)[0], self._result(reference)
                for reference, (number, since) in list(running.items()):
                    if time.monotonic() - since > self.config.timeout:
                        self._ray.cancel(reference, force=True)
                        del running[reference]
                        yield number, {FAILED: f"took longer than {self.config.timeout:.0f} s", TRACE: ""}
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        self._ray.shutdown()

    def _result(self, reference: Any) -> Result:
        try:
            result: Result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # the job raised it
            return failure(error.cause or error, str(error))
        except self._ray.exceptions.RayError as error:  # its process or its machine died, or could not begin it
            return {FAILED: f"its task died ({type(error).__name__})", TRACE: str(error)}
        return result


def _less_urgent(run: Callable[[Job], Result], job: Job, niceness: int) -> Result:
    """On a worker of the cluster, which may have done other jobs."""
    os.nice(max(0, niceness - os.nice(0)))
    return run(job)
