"""The classifier of scenes in a thread of its own: a large base takes longer than a person's button may wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmagent_ros.contract import RobotContract
from llmagent_ros.errors import ModelError
from llmagent_ros.outcomes.claims import Authority, Claim
from llmagent_ros.outcomes.classifier import Streak, load, scene_text
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig

if TYPE_CHECKING:
    from llmagent_ros.nodes.base import Node

REASON = "recognised"
STOP_TIMEOUT = 5.0  # s of wall time that the end waits for the scene under way


@dataclass(frozen=True)
class JudgedScene:
    """task: its id."""

    task: str
    probability: float


class SceneJudge:
    """Says of scenes that their task is fulfilled, when enough in a row look so. The newest scene waits, others go.

    Args:
        folder: of the classifier. config: of the base. consecutive: scenes in a row.
        work: starts its thread; see `Node.work`.

    Raises:
        ModelError: the classifier is missing, damaged, unusable or of another base; or the base cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        config: LanguageModelConfig,
        contract: RobotContract,
        consecutive: int,
        work: Callable[[Callable[[], None], str], threading.Thread],
    ) -> None:
        self._classifier, self._contract = load(folder), contract
        self._model = LanguageModel(config, contract.phrases)
        try:
            self._classifier.check(self._model.feature_digest)
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from error
        assert self._classifier.threshold is not None, "checked"
        self.last = 0.0  # probability of the newest scene
        self._streak = Streak(self._classifier.threshold, consecutive)
        self._judged: deque[JudgedScene] = deque(maxlen=64)
        self._changed = threading.Condition()  # guards _waiting, _stopped
        self._waiting: tuple[str, str] | None = None  # task id, text
        self._stopped = False
        self._classifier.probabilities(self._model.features(["nothing seen."]).cpu().numpy())  # the first pass is slow
        self._thread = work(self._run, "judge")

    def knows(self, instruction: str) -> bool:
        """Whether it was fitted to instructions like this one, about whichever object."""
        return self._contract.generalised(instruction).lower() in self._classifier.wordings

    def offer(self, task: str, instruction: str, text: str) -> None:
        """A scene of a task, by its id, to be judged."""
        with self._changed:
            self._waiting = (task, scene_text(instruction, text))
            self._changed.notify_all()

    def claim(self, task: str) -> Claim | None:
        """What the scenes of a task that were judged since the last call say."""
        enough = False
        while self._judged:
            scene = self._judged.popleft()
            self.last = scene.probability
            enough = (self._streak.take(scene.task, scene.probability) and scene.task == task) or enough
        return Claim(Authority.CLASSIFIER, True, REASON) if enough else None

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        while self._judge():
            pass

    def _judge(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopped)
            if self._stopped or self._waiting is None:
                return False
            (task, text), self._waiting = self._waiting, None
        probability = self._classifier.probabilities(self._model.features([text]).cpu().numpy())[0]
        self._judged.append(JudgedScene(task, float(probability)))
        return True


def judge_of(
    node: Node, folder: Path, base: Mapping[str, Any], contract: RobotContract, consecutive: int, threads: int
) -> SceneJudge:
    """The judge of a node. base: of LanguageModelConfig."""
    torch.set_num_threads(threads)
    judge = SceneJudge(folder.expanduser(), LanguageModelConfig(**base), contract, consecutive, node.work)
    node.get_logger().info(f"scenes are judged by {folder}, {consecutive} in a row")
    return judge
