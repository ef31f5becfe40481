"""Measures one store from a process of its own, as memory is best measured: searches, retrievals, and what it takes.

    python -m llmagent_ros.experiments.bench.knowledge_probe STORE QUERIES

QUERIES is a JSON list of texts. Prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmagent_ros.knowledge.embedding import SentenceEmbedder
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.search import candidates

K = 5
# None, a tenth of the skills, some of these, and a handful.
FILTERS: tuple[dict[str, Any], ...] = (
    {"contract": "robot_3"},
    {"min_success_rate": 0.9},
    {"contract": "robot_3", "min_success_rate": 0.9},
    {"contract": "rare"},
)


def measure(folder: Path, queries: list[str]) -> dict[str, Any]:
    """What `python -m` prints.

    Returns:
        nearest: ids of the K nearest vectors of each query; index_ms, retrieve_ms, filtered_ms: of each call, without
        the text's embedding; open_s; resident_bytes, peak_bytes: what the process grew by, with all of that done.
    """
    embedder = SentenceEmbedder()
    vectors = embedder.embed(queries)  # (queries, d); remembered from now on
    gc.collect()
    before = _memory()
    began = time.perf_counter()
    with Knowledge(folder, embedder) as knowledge:
        opened = time.perf_counter() - began
        nearest: list[list[int]] = []
        index_ms = [
            _ms(lambda v=vector: nearest.append(knowledge.index.search(v, candidates(K))[0][:K].tolist()))  # type: ignore[misc]
            for vector in vectors
        ]
        retrieve_ms = [_ms(lambda t=text: knowledge.retrieve(t, K)) for text in queries]  # type: ignore[misc]
        filtered_ms = [
            [_ms(lambda t=text, c=chosen: knowledge.retrieve(t, K, **c)) for text in queries]  # type: ignore[misc]
            for chosen in FILTERS
        ]
        after = _memory()
    grown = {"resident_bytes": after["VmRSS"] - before["VmRSS"], "peak_bytes": after["VmHWM"] - before["VmRSS"]}
    times = {"index_ms": index_ms, "retrieve_ms": retrieve_ms, "filtered_ms": filtered_ms}
    return {"nearest": nearest, **times, "open_s": opened, **grown}


def _ms(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return 1e3 * (time.perf_counter() - began)


def _memory() -> dict[str, int]:
    """What Linux says of this process, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(told[name].split()[0]) for name in ("VmRSS", "VmHWM")}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
