"""Episodes that a classifier of scenes can be fitted to."""

from __future__ import annotations

from pathlib import Path

from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.types import Transition


def scene(number: int, distance: float) -> str:
    return f"go to the red ball. red ball left {number % 9 * 10} at {distance:.1f}."


def episode(number: int, *, success: bool | None, near: bool = True) -> list[Transition]:
    """One that drives up to a ball; near: whether it comes to it. success: None: it has not ended."""
    scenes = [scene(number, 1.6 - 0.2 * i) for i in range(5 + near * 3)]
    steps = len(scenes) - 1
    return [
        Transition(
            run="r", episode=number, step=i, task="go to the red ball", scene=scenes[i], action="forward",
            reward=(1.0 if success else -1.0) if i == steps - 1 else -0.01, next_scene=scenes[i + 1],
            terminated=success is not None and i == steps - 1, truncated=False,
        )
        for i in range(steps)
    ]  # fmt: skip


def labelled_run(run: Path) -> Path:
    """A run of 60 episodes, two thirds of which come to the ball."""
    with Replay(run / "replay.sqlite") as replay:
        for number in range(60):
            replay.append(episode(number, success=number % 3 > 0, near=number % 3 > 0))
    return run
