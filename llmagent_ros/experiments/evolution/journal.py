"""What jobs gave, each in a file of its own that is on disk before anything is made of it.

An evolution is a function of its configuration and of these results, so one that was killed does again only what has no
result yet.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import LlmAgentError, StoreError
from llmagent_ros.experiments.evolution.workers import FAILED, TRACE, Backend, Job, Result

RESULTS, FAILURES = "results", "failures"


class TimeIsUp(LlmAgentError):
    """No further job may be begun; what was done is kept."""


class Journal:
    """Runs jobs that have no result yet.

    Args:
        more: whether jobs may still be begun. on_result: called with (key, result, whether it was there already).
    """

    def __init__(
        self, out: Path, backend: Backend, more: Callable[[], bool], on_result: Callable[[str, Result, bool], None]
    ) -> None:
        self._out, self._backend, self._more, self._on_result = out, backend, more, on_result
        self._episodes = self._steps = 0

    def do(self, generation: int, jobs: Sequence[Job]) -> dict[str, Result]:
        """Results by the jobs' keys.

        Raises:
            TimeIsUp: not all of them may be done any more.
        """
        results: dict[str, Result] = {}
        for job in jobs:
            if (kept := self._read(generation, job["key"])) is not None:
                results[job["key"]] = kept
                self._on_result(job["key"], kept, True)
        missing = [job for job in jobs if job["key"] not in results]
        for number, result in self._backend.run(missing, self._more):
            key = missing[number]["key"]
            results[key] = self._keep(generation, key, result)
            self._on_result(key, result, False)
        if len(results) < len(jobs):
            raise TimeIsUp("the time is up; the same command with more of it goes on")
        self._episodes += sum(len(each.get("steps", ())) for each in results.values())
        self._steps += sum(sum(each.get("steps", ())) for each in results.values())
        return {job["key"]: results[job["key"]] for job in jobs}

    def take_spent(self) -> tuple[int, int]:
        """Episodes and steps of all evaluations since this was last asked, those that were known among them."""
        spent = self._episodes, self._steps
        self._episodes = self._steps = 0
        return spent

    def forget_failures(self, generation: int) -> None:
        """So that the same command tries them again."""
        for path in self._folder(generation).glob("*.json"):
            if FAILED in self._parsed(path):
                path.unlink()

    def clear(self, generation: int) -> None:
        """Drops the results of a generation that is over."""
        shutil.rmtree(self._folder(generation), ignore_errors=True)

    # --- inside -------------------------------------------------------------------------------------------

    def _keep(self, generation: int, key: str, result: Result) -> Result:
        trace = str(result.pop(TRACE, ""))
        if trace:
            write_atomic(self._out / FAILURES / f"{key}.txt", trace.encode())
        write_atomic(self._folder(generation) / f"{key}.json", (json.dumps(result) + "\n").encode())
        return result

    def _read(self, generation: int, key: str) -> Result | None:
        path = self._folder(generation) / f"{key}.json"
        return self._parsed(path) if path.exists() else None

    def _folder(self, generation: int) -> Path:
        return self._out / RESULTS / f"{generation:03d}"

    @staticmethod
    def _parsed(path: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}; without this file its job is done again") from error
        return content
