"""Meta-learning from what runs have stored and go on storing, in a process of its own beside them.

OUT/bundles/     the initial adapter and critic, the newest few; the learner of the graph begins with one (its `start`)
OUT/features/    features of the runs' scenes, which this process computes for itself; may be deleted

A run's replays are only read. What a run learned of each kind of task, and of each robot that it changed into, is a
task here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import psutil
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.bundle import latest_bundle, next_bundle, prune_bundles
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.experiments.training import BUNDLES, REPLAY
from llmagent_ros.learning.meta.meta_learner import MetaLearner
from llmagent_ros.learning.meta.methods import MetaConfig
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.standing import start_with
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig

FEATURES = "features"
_KEPT = 3  # bundles
_PREPARED = 16  # scenes whose features are computed as one batch: an interruption waits for it
_POLL = 2.0  # s of wall time between two looks for what was stored since


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class MetaReplaysConfig:
    """What is learned from, how, and how much of the machine it may take.

    Attributes:
        runs: their folders, of the graph or of `llmagent train`; they need not be there yet. robot: their contract.
        start: a bundle to begin with; empty: the newest of OUT, or nothing. seed: of what is drawn.
        meta, learner, model: as of `MetaTrainConfig`.
        tasks: how many must have `ready` transitions before it begins.
        updates_per_step: critic updates for each transition that was stored, those that a method throws away included.
        publish_every: updates between two bundles.
        minutes: of wall time; 0: no limit. memory_mb: resident; beyond it it ends; 0: no limit.
        threads: of torch.
    """

    runs: tuple[str, ...]
    robot: str = "sim_diffdrive"
    start: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    meta: MetaConfig = Field(default_factory=MetaConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    model: LanguageModelConfig = Field(default_factory=LanguageModelConfig)
    tasks: Annotated[int, Field(ge=1)] = 2
    ready: Annotated[int, Field(gt=0)] = 128
    updates_per_step: Annotated[float, Field(gt=0)] = 1.0
    publish_every: Annotated[int, Field(gt=0)] = 400
    minutes: Annotated[float, Field(ge=0)] = 0.0
    memory_mb: Annotated[float, Field(ge=0)] = 0.0
    threads: Annotated[int, Field(gt=0)] = 1

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("meta-learning: no run to learn from")


class MetaReplays:
    """See the module. One thread; everything of a run stays as it is.

    A folder that has bundles is gone on with, from the newest one: updates since then are made again.
    """

    def __init__(self, config: MetaReplaysConfig, out: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.config, self.out, self._say = config, out, say
        torch.set_num_threads(config.threads)
        self.phrases = load_contract(config.robot).phrases
        self.model = LanguageModel(config.model, self.phrases)
        self.replays: dict[Path, Replay] = {}
        self.meta: MetaLearner | None = None
        self._published = 0  # updates by then
        self._until = time.monotonic() + 60 * config.minutes if config.minutes else float("inf")

    def look(self) -> int:
        """Opens replays that were made since and reads what was stored; how many transitions that is."""
        new = sum(replay.refresh() for replay in self.replays.values())
        for run in self.config.runs:
            for path in [Path(run) / REPLAY, *sorted((Path(run) / "tasks").glob(f"*/{REPLAY}"))]:
                if path not in self.replays and path.is_file():
                    new += self._open(path)
        return new

    def learn(self) -> bool:
        """One meta-update, or the features it needs, if there is something to be done.

        Raises:
            DivergenceError: a loss exploded; the bundle on disk is the last good state.
        """
        if self.meta is None:
            return False
        if self.meta.prepare(_PREPARED):
            return True
        due = self.config.updates_per_step * sum(len(replay) for replay in self.replays.values())
        if len(self.meta.tasks()) < self.config.tasks or self.meta.updates + self.meta.method.updates > due:
            return False
        self.meta.update()
        if self.meta.updates - self._published >= self.config.publish_every:
            self.publish()
        return True

    def publish(self) -> None:
        """Writes what was learned as a bundle."""
        if self.meta is None or self.meta.updates == self._published:
            return
        folder = next_bundle(self.out / BUNDLES)
        facts = {"robot": self.config.robot, "seed": self.config.seed, "meta_updates": self.meta.updates}
        self.meta.learner.export(folder, facts)
        prune_bundles(self.out / BUNDLES, _KEPT, set())
        self._published = self.meta.updates
        steps = sum(len(replay) for replay in self.replays.values())
        self._say(f"{folder}: {self.meta.updates:,} updates, {steps:,} steps of {len(self.meta.tasks())} tasks")

    def run(self, stop: threading.Event, *, follow: bool) -> str:
        """Learns until all is learned from, or on with what comes (`follow`); why it ended, in words."""
        while not stop.is_set():
            over = self._over()
            if over:
                break
            if self.learn():
                continue
            if not self.look() and not follow:
                over = "nothing more to learn from"
                break
            stop.wait(_POLL if follow else 0.0)
        self.publish()
        return over or "interrupted"

    def close(self) -> None:
        for replay in self.replays.values():
            replay.close()

    # --- inside -----------------------------------------------------------------------------------------

    def _open(self, path: Path) -> int:
        features = self.out / FEATURES / path.resolve().parent.as_posix().strip("/").replace("/", "-")
        features.mkdir(parents=True, exist_ok=True)
        replay = Replay(path, self.phrases, read_only=True, features=features)
        if self.meta is None:
            learner = Learner(self.config.learner, replay, self.model, self.config.seed)
            config = self.config
            self.meta = MetaLearner(learner, [replay], config.meta, seed=config.seed, ready=config.ready, total=1)
            self._begin(self.meta)
        else:
            self.meta.add(replay)
        self.replays[path] = replay
        self._say(f"{path}: {len(replay):,} transitions")
        return len(replay)

    def _begin(self, meta: MetaLearner) -> None:
        newest = Path(self.config.start) if self.config.start else latest_bundle(self.out / BUNDLES)
        if newest is None:
            return
        bundle = start_with(meta.learner, newest)
        if not self.config.start:
            meta.updates = self._published = int(bundle.meta.get("meta_updates", 0))

    def _over(self) -> str:
        if time.monotonic() > self._until:
            return f"{self.config.minutes:g} minutes are over"
        used = psutil.Process().memory_info().rss / 1e6
        if self.config.memory_mb and used > self.config.memory_mb:
            raise StoreError(f"meta-learning: {used:.0f} MB used; the limit is {self.config.memory_mb:.0f}")
        return ""
