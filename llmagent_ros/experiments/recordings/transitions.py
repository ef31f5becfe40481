"""Transitions from wherever they are kept, and into a replay."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmagent_ros import messages
from llmagent_ros.contract import MobileContract, RobotContract
from llmagent_ros.errors import ConfigError, LlmAgentError, StoreError
from llmagent_ros.learning.rl.replay import Replay, ReplayConfig
from llmagent_ros.learning.rl.replay_rows import check_transition
from llmagent_ros.learning.rl.replay_store import TransitionStore
from llmagent_ros.perception.quantities import SceneQuantities
from llmagent_ros.recording.bags.facts import TRANSITION
from llmagent_ros.recording.bags.reader import Bag, find_bags
from llmagent_ros.recording.datasets.lerobot import INFO, DatasetFormat, read_lerobot
from llmagent_ros.recording.datasets.parquet import read_parquet
from llmagent_ros.types import Transition

REPLAY = "replay.sqlite"
_BATCH = 1000  # transitions that are stored at once
_EVERY = 1 << 31  # episodes


@dataclass
class Gaps:
    """What was asked for and is missing, a line for each bag, at its path.

    Attributes:
        cut: unfinished bags, of which what can be read was taken. refused: of which nothing was.
    """

    cut: dict[Path, str] = field(default_factory=dict)
    refused: dict[Path, str] = field(default_factory=dict)


def bag_transitions(bag: Bag) -> list[Transition]:
    """The steps in a bag, in their order, each once; of an unfinished one those that can be read, see `bag.problems`.

    Raises:
        StoreError: it is finished and damaged, or holds what is no transition.
    """
    found: dict[tuple[str, int, int], Transition] = {}
    for _, message in bag.decoded((TRANSITION,)):
        step = messages.transition_from_message(message)
        found.setdefault((step.run, step.episode, step.step), step)
    if bag.metadata is not None and bag.problems:
        raise StoreError(f"{bag.path}: damaged: {'; '.join(bag.problems)}")
    return sorted(found.values(), key=lambda step: (step.run, step.episode, step.step))


def replay_transitions(path: Path) -> Iterator[Transition]:
    """Everything in a replay, episode by episode; also while a learner writes.

    Raises:
        StoreError: it cannot be read.
    """
    with Replay(path, read_only=True) as replay:
        for episode in replay.episodes(last=_EVERY):
            yield from replay.episode(episode.run, episode.episode)


def replays(run: Path) -> list[Path]:
    """The replays of a run that hold something: that of its first kind of task, and those of further ones.

    Raises:
        StoreError: one cannot be read.
    """
    paths = [run / REPLAY, *sorted(run.glob(f"tasks/*/{REPLAY}"))]
    return [path for path in paths if path.is_file() and _holds_any(path)]


def _holds_any(replay: Path) -> bool:
    store = TransitionStore(replay, read_only=True, max_bytes=ReplayConfig().max_bytes)
    with contextlib.closing(store):
        return store.transitions > 0


def kept_transitions(path: Path, gaps: Gaps | None = None) -> Iterator[Transition]:
    """The transitions of a run (its replays, else its bags), of a replay, a bag, a folder of bags, or a data set.

    Args:
        gaps: gets the bags that are damaged or cut off; without it a damaged one is an error.

    Raises:
        ConfigError: it is none of these. StoreError: it is damaged.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such run, bag or data set")
    if path.suffix == ".parquet":
        yield from read_parquet(path)
    elif path.suffix == ".sqlite":
        yield from replay_transitions(path)
    elif (path / INFO).is_file():
        yield from read_lerobot(path)
    elif path.is_dir() and replays(path):
        for replay in replays(path):
            yield from replay_transitions(replay)
    else:
        for bag in find_bags(path):
            yield from _known_transitions(bag, gaps)


def _known_transitions(path: Path, gaps: Gaps | None) -> list[Transition]:
    """Those of one bag, none where it is damaged and `gaps` got it."""
    try:
        bag = Bag(path)
        found = bag_transitions(bag)
    except LlmAgentError as error:
        if gaps is None:
            raise
        gaps.refused[path] = str(error)
        return []
    if gaps is not None and bag.problems:
        gaps.cut[path] = f"{path}: not finished, so only its beginning was taken: {'; '.join(bag.problems)}"
    return found


def store(path: Path, transitions: Iterable[Transition], vocabulary: Sequence[str] = ()) -> tuple[int, int]:
    """Puts transitions into a replay, which is made if missing; how many came, and how many of them were new.

    Where there are none, or the first of them cannot be stored, no replay is made.

    Raises:
        ConfigError: one is malformed or of another vocabulary; those before it are stored. StoreError: the replay is
            in use by a learner, damaged or full.
    """
    came = new = 0
    waiting = iter(transitions)
    batch = list(itertools.islice(waiting, _BATCH))
    for step in batch:
        check_transition(step, vocabulary)
    if not batch:
        return 0, 0
    with Replay(path, vocabulary) as replay:
        while batch:
            came += len(batch)
            new += replay.append(batch)
            batch = list(itertools.islice(waiting, _BATCH))
    return came, new


def dataset_format(contract: RobotContract | None, transitions: Iterable[Transition]) -> DatasetFormat:
    """What a data set says of a robot's steps; without a contract their phrases in the order of their coming.

    Numbers of scenes and velocities are those of a base that drives.
    """
    if contract is None:
        phrases = tuple(dict.fromkeys(step.action for step in transitions))
        return DatasetFormat(fps=1, robot="", phrases=phrases)
    fps = 1.0 / contract.control_period
    if not isinstance(contract, MobileContract):  # what an arm's phrase does depends on where its joints are
        return DatasetFormat(fps=fps, robot=contract.robot, phrases=contract.phrases)
    known, quantities = contract, SceneQuantities(contract)

    def command(phrase: str) -> NDArray[np.float32]:
        velocity = known.command(phrase)
        return np.array([velocity.linear, velocity.angular], np.float32)

    return DatasetFormat(
        fps=fps,
        robot=known.robot,
        phrases=known.phrases,
        state_names=quantities.names,
        state=quantities.read,
        action_names=("linear", "angular"),
        command=command,
    )
