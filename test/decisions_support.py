"""Decisions as the log keeps them, and what is known of them later."""

from __future__ import annotations

import itertools
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from llmagent_ros.recording.decision_rows import DECISIONS, DecisionRecord
from llmagent_ros.recording.decisions import DecisionLog
from llmagent_ros.types import Decision, Outcome, Source, Velocity, Verdict

PHRASES = ("forward", "turn left", "turn right")


def decision(
    action: str = "forward",
    probabilities: tuple[float, ...] = (0.5, 0.375, 0.125),
    values: tuple[float, ...] = (0.75, 0.5, -0.25),
    source: Source = Source.POLICY,
    log_probability: float | None = None,
) -> Decision:
    drawn = float(np.log(probabilities[PHRASES.index(action)])) if log_probability is None else log_probability
    weights = np.array(probabilities, np.float32), np.array(values, np.float32)
    return Decision(action, drawn, PHRASES, *weights, adapter="v000012", source=source)


def record(step: int, episode: int = 0, **changes: Any) -> DecisionRecord:
    """A decision of a run: no two are alike."""
    values: dict[str, Any] = {
        "run": "run",
        "episode": episode,
        "step": step,
        "task_id": f"task {episode}",
        "task": "",
        "stamp": 0.5 * step,
        "scene": f"go to the red ball. red ball left {step}. clear ahead 0.7.",
        "prompt_prefix": "lesson: turn left. ",
        "decision": decision(),
        "compute_ms": 12.5,
    }
    return DecisionRecord(**(values | changes))


def verdict(
    stamp: float, *, reason: str | None = None, limited: tuple[str, ...] = (), source: Any = "policy"
) -> Verdict:
    """One that passed if there is neither a reason for a stop nor a limit."""
    given = Velocity() if reason else Velocity(0.25, -0.5)
    return Verdict(given, "stop" if reason else source, reason, limited, stamp, Velocity(0.5, -0.5))


def same(one: DecisionRecord, other: DecisionRecord, *, but: tuple[str, ...] = ()) -> bool:
    """Whether two records are equal, their arrays bit by bit."""
    return all(
        _equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__ if name not in but
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Decision):
        return all(_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return bool(one == other) and type(one) is type(other)


def put_forever(out: Path, life: int, told: Connection) -> None:
    """Says after each commit how many decisions of this life are safe."""
    log = DecisionLog(out / DECISIONS, delay=1000.0)
    for step in itertools.count():
        log.put(record(step, episode=life, scene=f"{life} {step} " + "x" * (step * 37 % 400)))
        log.on_verdict(verdict(0.5 * step))
        log.on_outcome("run", life, step, Outcome(step / 8), "")
        if step % 7 == 6:
            log.flush()
            told.send(step + 1)
