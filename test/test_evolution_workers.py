"""Worker processes: each result once, and a worker that crashes, hangs or grows is that job's failure alone."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import workers_support

from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments.evolution.workers import (
    FAILED,
    TRACE,
    Job,
    ProcessWorkers,
    WorkersConfig,
    check_memory,
    open_backend,
)


def squares(numbers: range) -> list[Job]:
    return [{"what": "square", "number": number} for number in numbers]


def test_every_job_gives_its_result_once_and_a_failure_is_its_own() -> None:
    workers = ProcessWorkers(WorkersConfig(workers=2, timeout=600.0), workers_support.do)
    try:
        bad: list[Job] = [{"what": what} for what in ("raise", "die", "diverge", "exit")]
        results = dict(workers.run([*squares(range(5)), *bad, *squares(range(5, 10))]))
        assert [results[n] for n in range(5)] == [{"square": n * n} for n in range(5)]
        assert [results[n] for n in range(9, 14)] == [{"square": n * n} for n in range(5, 10)]
        assert results[5][FAILED] == "ValueError: of this member"
        assert "workers_support.py" in results[5][TRACE] and "in do" in results[5][TRACE]
        assert results[6][FAILED] == "its process died (SIGKILL)"
        assert results[7][FAILED] == "loss nan"
        assert results[8][FAILED] == "its process died (exit code 3)"

        facts = [result for _, result in workers.run([{"what": "facts", "sleep": 0.2}] * 4)]
        assert all(each["nice"] == min(19, os.nice(0) + 10) for each in facts)
        assert all(each["OMP_NUM_THREADS"] == "1" and each["torch"] == 1 for each in facts)
        assert {each["pid"] for each in facts} & {os.getpid()} == set()
        assert os.environ.get("TOKENIZERS_PARALLELISM") != "false", "only the workers' environment was changed"

        asked = iter([True, True, False])
        some = [number for number, _ in workers.run(squares(range(5)), lambda: next(asked, False))]
        assert len(some) < 5, "none was begun after the first no, and what ran came to its end"
    finally:
        processes = [psutil.Process(worker.process.pid) for worker in workers._workers]
        workers.close()
    assert processes and not any(process.is_running() for process in processes)


def test_a_job_that_takes_too_long_or_too_much_is_ended() -> None:
    patient = WorkersConfig(workers=2, timeout=600.0)  # s, however busy the machine is
    workers = ProcessWorkers(patient, workers_support.do)
    try:
        list(workers.run(squares(range(2))))  # both have begun by now
        slow: Job = {"what": "square", "number": 1, "sleep": 600.0}
        workers.config = dataclasses.replace(patient, timeout=2.0)
        assert dict(workers.run([slow])) == {0: {FAILED: "took longer than 2 s", TRACE: ""}}
        workers.config = patient
        list(workers.run(squares(range(2))))
        used = max(psutil.Process(w.process.pid).memory_info().rss for w in workers._workers) / 1e6
        workers.config = dataclasses.replace(patient, memory_mb=used + 300)
        results = dict(workers.run([{"what": "grow"}, *squares(range(1, 3))]))
        assert f"the limit is {used + 300:.0f}" in results[0][FAILED] and "MB" in results[0][FAILED]
        assert [results[n] for n in (1, 2)] == [{"square": 1}, {"square": 4}]
    finally:
        workers.close()


PARENT = """
import sys, time
from workers_support import do
from llmagent_ros.experiments.evolution.workers import ProcessWorkers, WorkersConfig
if __name__ == "__main__":
    workers = ProcessWorkers(WorkersConfig(workers=1), do)
    list(workers.run([{"what": "square", "number": 1}]))
    print(workers._workers[0].process.pid, flush=True)
    list(workers.run([{"what": "square", "number": 1, "says": "begun", "sleep": 600.0}]))
"""


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    begun = parent.stdout.readline()  # so that it is in the middle of its job
    assert begun == "begun\n" and worker.is_running()
    parent.kill()
    parent.wait(60)
    worker.wait(timeout=60)


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory 5 MB; a worker needs 300"):
        check_memory(WorkersConfig(memory_mb=5.0))
    check_memory(WorkersConfig(memory_mb=0.0))


def test_ray_that_is_not_installed_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as import has it where there is none
    with pytest.raises(ConfigError, match=r"Ray is not installed; pip install '\.\[ray\]'"):
        open_backend(WorkersConfig(backend="ray"), workers_support.do)


def test_ray_gives_what_processes_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real Ray, where it is installed."""
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
    workers = open_backend(WorkersConfig(backend="ray", workers=2, timeout=60.0), workers_support.do)
    try:
        jobs: list[Job] = [*squares(range(4)), {"what": "raise"}, {"what": "die"}, {"what": "diverge"}]
        jobs += [{"what": "facts"}]
        results = dict(workers.run(jobs))
        assert [results[n] for n in range(4)] == [{"square": n * n} for n in range(4)]
        assert results[4][FAILED] == "ValueError: of this member" and results[6][FAILED] == "loss nan"
        assert re.fullmatch(r"its task died \(\w+\)", results[5][FAILED])
        assert results[7]["nice"] >= 10 and results[7]["torch"] == 1
        workers.config = WorkersConfig(backend="ray", workers=2, timeout=3.0)  # type: ignore[attr-defined]
        slow: list[Job] = [{"what": "square", "number": 1, "sleep": 60.0}, *squares(range(3, 4))]
        assert dict(workers.run(slow)) == {0: {FAILED: "took longer than 3 s", TRACE: ""}, 1: {"square": 9}}
    finally:
        workers.close()
