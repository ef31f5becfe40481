"""kill -9 in the middle of appending: what was acknowledged is there, whole, and the store opens again."""

from __future__ import annotations

import multiprocessing
import random
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from llmagent_ros.errors import StoreError
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.types import Transition

KILLS = 25
_CONTEXT = multiprocessing.get_context("forkserver")


def make(life: int, step: int) -> Transition:
    scene = f"scene {life} {step} " + "x" * (step * 37 % 400)
    return Transition(
        f"run {life}", life, step, f"task {step % 5}", scene, "go", life + step / 8, "after", False, False
    )


def batch_size(step: int) -> int:
    return 1 + step % 3 if step % 2 else 3


def append_forever(path: Path, life: int, acknowledgements: Connection) -> None:
    replay = Replay(path)
    replay.use_base("base", 4)
    step = 0
    while True:
        count = batch_size(step)
        replay.append([make(life, step + k) for k in range(count)])
        acknowledgements.send(count)
        for text_id, _ in replay.missing_features(8):
            replay.put_features([text_id], [[text_id % 100] * 4])
        step += count


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    _CONTEXT.set_forkserver_preload(["llmagent_ros.learning.rl.replay"])
    chance = random.Random(0)
    acknowledged: dict[int, int] = {}
    for life in range(KILLS):
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=append_forever, args=(path, life, sender), daemon=True)
        process.start()
        sender.close()
        acknowledged[life] = sum(_next(receiver) for _ in range(chance.randrange(1, 12)))
        process.join(chance.uniform(0.0, 0.012))  # to die at any point of the next append
        if life == 3:
            with pytest.raises(StoreError, match=f"process {process.pid}"):
                Replay(path)
        process.kill()
        process.join(20)
        assert process.exitcode == -9
        acknowledged[life] += _drain(receiver)
    boundaries = {0}
    for _ in range(1000):
        boundaries.add(max(boundaries) + batch_size(max(boundaries)))
    with Replay(path) as replay:
        for life, count in acknowledged.items():
            stored = replay.episode(f"run {life}", life)
            assert len(stored) >= count
            assert stored == [make(life, step) for step in range(len(stored))]
            assert len(stored) <= count + 3  # at most the append whose acknowledgement was cut off
            assert len(stored) in boundaries  # and that one whole
        replay.use_base("base", 4)
        missing = {text_id for text_id, _ in replay.missing_features(100_000)}
        for text_id in range(int(replay.at(range(len(replay)), 1, 1.0).scene_id.max()) + 1):
            if text_id not in missing:
                assert replay.features([text_id]).tolist() == [[text_id % 100] * 4]


def _next(receiver: Connection) -> int:
    assert receiver.poll(60), "the appending process says nothing"
    return int(receiver.recv())


def _drain(receiver: Connection) -> int:
    """What was still sent before the end; a message may be cut in half."""
    total = 0
    try:
        while receiver.poll(0):
            total += receiver.recv()
    except (EOFError, OSError):
        pass
    receiver.close()
    return total
