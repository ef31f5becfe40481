"""kill -9 at random moments of store, update, delete and index save: what was acknowledged is there, whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from knowledge_support import HashEmbedder, make_bundle

from llmagent_ros.errors import LlmAgentError
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.skill import Skill

CONFIG = KnowledgeConfig(save_every=3)
KILLS = 30


def write_for_ever(folder: Path, bundles: list[Path], known: dict[str, list[str]], seed: int, out: int) -> None:
    """Announces each operation before it ("try") and acknowledges it after ("done"), one JSON line each."""
    rng = random.Random(seed)
    knowledge = Knowledge(folder, HashEmbedder(), CONFIG)

    def say(*line: object) -> None:
        os.write(out, (json.dumps(line) + "\n").encode())

    for n in range(100_000):
        what = rng.choice(["store", "store", "update", "delete"]) if known else "store"
        if what == "delete" and len(known) > 5:
            skill_id = rng.choice(sorted(known))
            say("try", "delete", skill_id, "")
            knowledge.delete(skill_id)
            del known[skill_id]
            say("done", "delete", skill_id, "")
            continue
        description = f"skill {seed} {n}"
        skill = Skill(description, (f"do {description}",), attempts=n)
        if what == "update":
            skill = replace(skill, id=rng.choice(sorted(known)))
        say("try", "put", skill.id, description)
        stored = knowledge.store(skill, rng.choice([*bundles, None]))
        known[stored.id] = [description, stored.digest]
        say("done", "put", stored.id, description, stored.digest)


def child(folder: Path, bundles: list[Path], known: dict[str, list[str]], seed: int) -> tuple[int, int]:
    """A forked writer: (process id, read end of its report)."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reading)
            write_for_ever(folder, bundles, dict(known), seed, writing)
        finally:
            os._exit(status)
    os.close(writing)
    return process, reading


def run(folder: Path, kills: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    bundles = [folder / "in" / name for name in "ab"]
    for value, path in enumerate(bundles):
        make_bundle(path, float(value))
    known: dict[str, list[str]] = {}
    figures = {"kills": 0, "acknowledged": 0, "in_flight": 0, "lost": 0, "corrupt": 0}
    for turn in range(kills):
        process, report = child(folder / "k", bundles, known, seed * 1000 + turn)
        with os.fdopen(report, "rb") as lines:
            # At a random moment after a random number of lines (each line comes right before or after a write).
            said = [lines.readline() for _ in range(rng.randrange(8))]
            time.sleep(rng.uniform(0.0, 0.01))
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            said = [json.loads(line) for line in said + lines.read().splitlines()]
        figures["kills"] += os.WIFSIGNALED(status)
        pending = said[-1] if said and said[-1][0] == "try" else None
        for _, what, skill_id, *rest in (line for line in said if line[0] == "done"):
            figures["acknowledged"] += 1
            if what == "put":
                known[skill_id] = rest
            else:
                del known[skill_id]
        figures["in_flight"] += pending is not None
        check(folder / "k", known, pending, figures)
    return figures


def check(folder: Path, known: dict[str, list[str]], pending: list[str] | None, figures: dict[str, int]) -> None:
    """Compares the store with what was acknowledged; the operation in flight may have happened or not."""
    with Knowledge(folder, HashEmbedder(), CONFIG) as knowledge:
        figures["corrupt"] += len(knowledge.verify())
        there = {skill.id: [skill.description, skill.digest] for skill in knowledge.skills()}
        for skill in knowledge.skills():
            try:
                if skill.digest:
                    knowledge.bundle(skill)
            except LlmAgentError:
                figures["corrupt"] += 1
            best = knowledge.retrieve(skill.description, k=1)
            figures["lost"] += not best or best[0].skill.id != skill.id
        for skill_id in known.keys() | there.keys():
            expected, actual = known.get(skill_id), there.get(skill_id)
            if expected != actual and not explained(pending, skill_id, actual):
                figures["lost"] += 1
    known.clear()
    known.update(there)


def explained(pending: list[str] | None, skill_id: str, actual: list[str] | None) -> bool:
    if pending is None:
        return False
    _, what, target, description = pending
    if what == "delete":
        return target == skill_id and actual is None
    return target in {"", skill_id} and actual is not None and actual[0] == description


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    # A process of its own without torch's or FAISS's threads, so that it can fork a writer for each kill.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(tmp_path), str(KILLS), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] == KILLS
    assert figures["acknowledged"] > KILLS
    assert figures["in_flight"] > KILLS // 4  # many kills hit an operation, not the gap between two
    assert (figures["lost"], figures["corrupt"]) == (0, 0)


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
