"""kill -9 at random moments of whatever a store writes: what was acknowledged is there, whole. The engine counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmagent_ros.experiments.bench import crash

KILLS = 30


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    # A process of its own without torch's or FAISS's threads, so that it can fork a writer for each kill.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "llmagent_ros.experiments.bench.crash", str(tmp_path), str(KILLS), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["crashes"] == KILLS
    assert figures["acknowledged"] > KILLS
    assert figures["in_flight"] > KILLS // 4  # many kills hit an operation, not the gap between two
    assert (figures["lost"], figures["corrupt"]) == (0, 0)


OLD, NEW = ["old", "", []], ["new", "", []]
MANY = [f"skill {number}" for number in range(5)]


def put(*numbers: int) -> dict[str, Any]:
    return {str(number): [MANY[number], "", []] for number in numbers}


@pytest.mark.parametrize(
    ("pending", "differ", "explained"),
    [
        (("put", "", "new"), {"b": NEW}, True),
        (("put", "", "new"), {"a": NEW}, False),  # a new one is no update of another
        (("put", "", "new"), {"b": OLD}, False),
        (("put", "a", "new"), {"a": NEW}, True),
        (("put", "a", "new"), {"b": NEW}, False),
        (("put", "a", "new"), {"a": None}, False),
        (("put", "a", "new"), {"a": NEW, "b": NEW}, False),
        (("delete", "a", ""), {"a": None}, True),
        (("delete", "a", ""), {"a": NEW}, False),
        (("delete", "a", ""), {"b": None}, False),
        (("many", "", MANY), put(0, 1), True),
        (("many", "", MANY), put(0, 1, 2, 3), True),
        (("many", "", MANY), put(0, 1, 2, 3, 4), True),
        (("many", "", MANY), put(0), False),  # half a batch
        (("many", "", MANY), put(2, 3), False),  # the second batch without the first
        (("many", "", MANY), {**put(0), "a": None}, False),
        (("put", "", "new"), {}, True),
    ],
)
def test_only_the_operation_in_flight_explains_a_difference(
    pending: tuple[Any, ...], differ: dict[str, Any], explained: bool
) -> None:
    assert crash._explained(["try", "tag", *pending], {"a": OLD}, differ) is explained
