"""The knowledge store: found by other words, quickly among a million skills, in little memory, safe from kill -9.

Skills of the large store have descriptions that a grammar makes, all distinct, embedded by the real sentence model;
they are asked for in fresh wordings. Memory and searches are measured in a process of their own, the service through
the real node with several clients, each a process as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.experiments.bench import knowledge_probe
from llmagent_ros.experiments.bench.domain import own_domain
from llmagent_ros.experiments.bench.knowledge_texts import Grammar, Source, embedded, queries, words
from llmagent_ros.experiments.bench.learning import Say
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.knowledge.embedding import EmbedderConfig, SentenceEmbedder
from llmagent_ros.knowledge.index import IdArray, IndexConfig
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import FloatArray

STEPS = 1_000_000  # skills
QUERIES = 1000
CLIENTS, PERIOD = 4, 0.5  # processes that ask, and s between two questions of one
REQUESTS = 250  # of each client
_EXACT = 50_000  # vectors compared at once by the exact search
_DEADLINE = 3600.0  # s for a process to do its part
_END = 60.0  # s for the node to close its store

NUMERIC = (OURS,)  # sentences are read by another model
TIMED = (OURS,)
FIGURES = (
    Figure("paraphrase_top1", "share", "of 200 held-out wordings of 20 skills that find theirs first", 0.99, 0.95),
    Figure("index_p99_ms", "ms", "p99 of one search of the index, one thread", 3, 10, True),
    Figure("service_p99_ms", "ms", "p99 of retrieve_skills over ROS, embedding included, four clients", 25, 50, True),
    Figure("recall_at_5", "share", "of the five nearest by exact search that the index finds", 0.99, 0.95),
    Figure("memory_over_raw", "ratio", "growth of the process with the store over the raw vectors", 1.2, 1.6, True),
    Figure("crashes", "count", "kill -9 of a writer at random moments", 1000, 200),
    Figure("lost", "count", "acknowledged changes that are gone or done by halves after these", 0, 0, True),
    Figure("corrupt", "count", "problems that verify finds after these", 0, 0, True),
    Figure("index_p50_ms", "ms", "median of one search of the index", lower=True),
    Figure("retrieve_p99_ms", "ms", "p99 of retrieving five skills, the embedding left out", lower=True),
    Figure("filtered_p99_ms", "ms", "the same with a filter: the slowest of four", lower=True),
    Figure("service_p50_ms", "ms", "median of retrieve_skills over ROS", lower=True),
    Figure("service_busy_p99_ms", "ms", "p99 when each client asks again at once", lower=True),
    Figure("peak_over_raw", "ratio", "the same growth at its highest, while the store is opened", lower=True),
    Figure("open_s", "s", "to open the store", lower=True),
    Figure("store_ms", "ms", "to store one of many skills, its vector known", lower=True),
)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    load = {"clients": CLIENTS, "period": PERIOD, "requests": REQUESTS}
    store = {"index": vars(IndexConfig()), "embedder": EmbedderConfig().model}
    return {"skills": steps, "queries": QUERIES, "crashes": kills(steps), "words": _digest(words()), **load, **store}


def kills(steps: int) -> int:
    """How many writers are killed: 1,000 with a million skills, fewer in a small run."""
    return min(1000, max(20, steps // 1000))


def methods() -> list[str]:
    return [OURS]


def ablations() -> list[str]:
    return []


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """All figures, on a store of `steps` skills; vectors and store are kept in `scratch`."""
    grammar = Grammar(seed)
    if not 1 <= steps <= grammar.size:
        raise ConfigError(f"--steps {steps}; valid: 1 to {grammar.size:,} skills")
    told: dict[str, Any] = {"paraphrase_top1": paraphrase_top1(say)}
    told |= _crashes(scratch, kills(steps), seed, say)
    embedder = SentenceEmbedder(EmbedderConfig(cache=0, batch=64))
    key = f"{embedder.digest} {seed} {_digest(words()['grammar'])}"
    source = Source(grammar.description, embedder.embed, embedder.dimension)
    vectors = embedded(scratch / f"skills-{seed}.f32", key, steps, source, say)
    store = scratch / f"store-{seed}-{steps}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    told["store_ms"] = build(store, grammar, vectors, say)
    asked = queries(grammar, steps, QUERIES)
    found = _probe(store, asked, scratch / f"queries-{seed}.json")
    exact = nearest(vectors, embedder.embed(asked), knowledge_probe.K)
    told |= _of_probe(found, exact, vectors.nbytes)
    say(", ".join(f"{key} {told[key]:.4g}" for key in ("index_p99_ms", "recall_at_5", "memory_over_raw")))
    numbers = np.random.default_rng(seed).integers(steps, size=2 * CLIENTS * REQUESTS)
    return told | _service(store, [grammar.wording(int(number)) for number in numbers], say)


def paraphrase_top1(say: Say) -> float:
    """Share of the held-out wordings that find their skill first, among all that are in knowledge_words.yaml."""
    told = words()["skills"]
    missed, asked = 0, 0
    with tempfile.TemporaryDirectory() as folder, Knowledge(Path(folder), SentenceEmbedder()) as knowledge:
        knowledge.store_many(Skill(each["description"], tuple(each["wordings"])) for each in told)
        for each in told:
            for text in each["asked"]:
                found = knowledge.retrieve(text, k=1)[0].skill.description
                asked += 1
                if found != each["description"]:
                    missed += 1
                    say(f"{text!r} found {found!r}, not {each['description']!r}")
    return 1.0 - missed / asked


def skill(grammar: Grammar, number: int) -> Skill:
    """Skill `number` of the large store: one in ten of each contract, a handful of a rare one; rates from 0 to 1."""
    attempts = 1 + number % 19
    contract = "rare" if number % 10_007 == 0 else f"robot_{number % 10}"
    return Skill(
        grammar.description(number), contract=contract, attempts=attempts, successes=number * 7919 % (attempts + 1)
    )


def build(folder: Path, grammar: Grammar, vectors: FloatArray, say: Say) -> float:
    """Stores what is not stored yet of the skills with these vectors; ms for each, of this call or the one before."""
    note = folder.with_suffix(".json")
    with Knowledge(folder, SentenceEmbedder()) as knowledge:
        spent = json.loads(note.read_text(encoding="utf-8")) if note.exists() else 0.0
        done = knowledge.count()
        while done < len(vectors):
            began = time.perf_counter()
            part = range(done, min(done + 20 * KnowledgeConfig().batch, len(vectors)))
            knowledge.store_many((skill(grammar, number) for number in part), vectors[part.start : part.stop])
            done, spent = part.stop, spent + time.perf_counter() - began
            note.write_text(json.dumps(spent), encoding="utf-8")
            if done % 100_000 == 0 or done == len(vectors):
                say(f"{done:,} of {len(vectors):,} stored, {1e3 * spent / done:.2f} ms each")
        knowledge.save()
    return 1e3 * float(spent) / len(vectors)


def nearest(vectors: FloatArray, asked: FloatArray, k: int) -> IdArray:
    """Rows of the k nearest vectors of each query by exact search, best first, shape (queries, k)."""
    scores = np.zeros((len(asked), 0), np.float32)
    rows = np.zeros((len(asked), 0), np.int64)
    for start in range(0, len(vectors), _EXACT):
        part = asked @ np.asarray(vectors[start : start + _EXACT]).T  # (queries, part)
        scores = np.concatenate([scores, part], axis=1)
        here = np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)
        rows = np.concatenate([rows, here], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows


def _of_probe(found: dict[str, Any], exact: IdArray, raw: int) -> dict[str, float]:
    # Skills were stored in order into a new store, one text each: row n has the id n + 1.
    pairs = zip(found["nearest"], exact.tolist(), strict=True)
    hits = sum(len(set(one) & {row + 1 for row in rows}) for one, rows in pairs)
    return {
        "recall_at_5": hits / exact.size,
        "index_p50_ms": _percentile(found["index_ms"], 50),
        "index_p99_ms": _percentile(found["index_ms"], 99),
        "retrieve_p99_ms": _percentile(found["retrieve_ms"], 99),
        "filtered_p99_ms": max(_percentile(times, 99) for times in found["filtered_ms"]),
        "memory_over_raw": found["resident_bytes"] / raw,
        "peak_over_raw": found["peak_bytes"] / raw,
        "open_s": found["open_s"],
    }


def _service(store: Path, texts: Sequence[str], say: Say) -> dict[str, float]:
    """Asks for the first half of the texts calmly, for the second as fast as the answers come."""
    half = len(texts) // 2
    with _Node(store) as node:
        calm = node.asked(texts[:half], PERIOD)
        busy = node.asked(texts[half:], 0.0)
    told = {"service_p50_ms": _percentile(calm, 50), "service_p99_ms": _percentile(calm, 99)}
    told["service_busy_p99_ms"] = _percentile(busy, 99)
    say(", ".join(f"{key} {value:.1f}" for key, value in told.items()))
    return told


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def _digest(told: Any) -> str:
    return hashlib.sha256(yaml.safe_dump(told).encode()).hexdigest()[:16]


def _crashes(scratch: Path, count: int, seed: int, say: Say) -> dict[str, int]:
    """`bench.crash` in a process of its own, with a single thread, as it forks."""
    folder = scratch / f"crashes-{seed}-{time.time_ns()}"
    command = [sys.executable, "-m", "llmagent_ros.experiments.bench.crash", str(folder), str(count), str(seed)]
    told: dict[str, int] = json.loads(_output(command, {**os.environ, "OMP_NUM_THREADS": "1"}))
    say(f"{told['crashes']} crashes, {told['in_flight']} in a write: {told['lost']} lost, {told['corrupt']} corrupt")
    return told


def _probe(store: Path, asked: list[str], path: Path) -> dict[str, Any]:
    path.write_text(json.dumps(asked), encoding="utf-8")
    told: dict[str, Any] = json.loads(
        _output([sys.executable, "-m", "llmagent_ros.experiments.bench.knowledge_probe", str(store), str(path)])
    )
    return told


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a process prints.

    Raises:
        LlmAgentError: it failed; with the last line of what it said.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_DEADLINE, check=False)
    if done.returncode:
        raise LlmAgentError(f"{command[2]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout.strip().splitlines()[-1]


class _Node:
    """The knowledge node on a store, in a ROS domain that nobody uses; as a context it ends with it."""

    def __init__(self, store: Path) -> None:
        self._environment = {**os.environ, **own_domain()}
        words = ["-m", "llmagent_ros.nodes.knowledge_node", "--ros-args", "-p", f"store:={store.resolve()}"]
        command = [sys.executable, *words, "--log-level", "error"]
        self._process = subprocess.Popen(command, env=self._environment)

    def __enter__(self) -> _Node:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def asked(self, texts: Sequence[str], period: float) -> list[float]:
        """Milliseconds of every answer that the clients got, each asking for its own part of the texts.

        Raises:
            LlmAgentError: the node or a client ended with an error, or took too long.
        """
        command = [sys.executable, "-m", "llmagent_ros.nodes.service_client", str(period)]
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(CLIENTS) as pool:
            clients = []
            for number in range(CLIENTS):
                path = Path(folder) / f"{number}.json"
                path.write_text(json.dumps(texts[number::CLIENTS]), encoding="utf-8")
                clients.append(self._client([*command, str(path)]))
            answers = [pool.submit(client.communicate) for client in clients]
            try:
                self._await(answers)
            finally:
                for client in clients:
                    client.kill()  # those that have ended take no harm
        for client, answer in zip(clients, answers, strict=True):
            if client.returncode:
                raise LlmAgentError(f"service_client: {(answer.result()[1].strip().splitlines() or ['failed'])[-1]}")
        return [ms for answer in answers for ms in json.loads(answer.result()[0])]

    def _client(self, command: list[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment, stdout=pipe, stderr=pipe, text=True)

    def _await(self, answers: Sequence[Future[tuple[str, str]]]) -> None:
        limit = time.monotonic() + _DEADLINE
        while wait(answers, timeout=1.0).not_done:
            if self._process.poll() is not None:
                raise LlmAgentError(f"the knowledge node ended with exit code {self._process.returncode}")
            if time.monotonic() > limit:
                raise LlmAgentError(f"the service did not answer everybody within {_DEADLINE:.0f} s")


def draw(results: Results, path: Path) -> None:
    raise ConfigError("bench knowledge has no learning curves to draw")


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures as `Results.write` takes them; there are no peers."""
    measured: Sequence[dict[str, Any]] = results.of(OURS)
    return entries(FIGURES, {figure.key: [each[figure.key] for each in measured] for figure in FIGURES}), {}
