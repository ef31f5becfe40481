"""Whether robot, sensors and world are still those of a replay: what each of its episodes shows, to the detector.

`learning.change` decides by three figures of an episode: how surprised the base is, how far the critic is off, and
whether it failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from llmagent_ros.errors import StoreError
from llmagent_ros.learning.change import Alarm, ChangeConfig, ChangeDetector
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.types import FloatArray, Transition

Surprise = Callable[[Sequence[Transition]], FloatArray]
"""How little the base expected what came of each transition's action, (N,); see `policy.surprise`."""

_MOST = 4000  # transitions that are looked at; of more, as after an import, only the newest


class Watch:
    """Looks at each episode of a learner's replay once, after its end and in the order in which they end.

    What is stored before it is made counts as seen. Not thread-safe.
    """

    def __init__(self, learner: Learner, surprise: Surprise, config: ChangeConfig | None = None) -> None:
        self._learner, self._surprise = learner, surprise
        self.detector = ChangeDetector(config)
        self._begun: deque[int] = deque(maxlen=1000)  # position of the first transition of each episode looked at
        self.skip()

    def skip(self) -> None:
        """What is stored by now will not be looked at."""
        self._seen = self._read = len(self._learner.replay)
        self._going_on: list[Transition] = []  # the episode that has begun, of which is read as far as _read

    def look(self) -> Alarm | None:
        """Takes the episodes that ended since it last looked; the first alarm of one of them, until it is dismissed.

        The features of their scenes must be prepared. An episode whose end is not stored is left out as soon as
        another one has begun.
        """
        for first, episode in self._ended() if self.detector.alarm is None else ():
            self._begun.append(first)
            if self.detector.add(episode_figures(self._surprise, self._learner, first, episode)) is not None:
                break
        return self.detector.alarm

    def since(self, alarm: Alarm) -> int:
        """Position of the first transition of the episodes that the alarm rests on."""
        begun = list(self._begun)[-alarm.episodes :]
        return begun[0] if begun else self._seen

    def dismiss(self) -> None:
        """What gave the alarm was something else; what was usual before is so again."""
        self.detector.dismiss()
        self.skip()

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return {"seen": self._seen, "begun": list(self._begun), "detector": self.detector.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`.

        Raises:
            StoreError: it has seen more than the replay holds.
        """
        if state["seen"] > len(self._learner.replay):
            raise StoreError(f"{self._learner.replay.path}: {len(self._learner.replay)} transitions, of which "
                             f"{state['seen']} were looked at")  # fmt: skip
        self.skip()
        self._seen = self._read = int(state["seen"])
        self._begun = deque(state["begun"], maxlen=self._begun.maxlen)
        self.detector.load_state(state["detector"])

    def _ended(self) -> Iterator[tuple[int, list[Transition]]]:
        """Position of the first transition, and all, of each episode that has ended since. Each one is read once."""
        stored = len(self._learner.replay)
        if stored - self._read > _MOST:
            self._seen = self._read = stored - _MOST
            self._going_on = []
        new = self._learner.replay.recent(stored - self._read) if stored > self._read else []
        for one in new:
            episode = self._going_on
            if episode and (one.run, one.episode) != (episode[0].run, episode[0].episode):
                episode.clear()
                self._seen = self._read
            episode.append(one)
            self._read += 1
            if one.terminated or one.truncated:
                first, self._seen, self._going_on = self._seen, self._read, []
                yield first, episode


def episode_figures(
    surprise: Surprise, learner: Learner, first: int, transitions: Sequence[Transition], success: bool | None = None
) -> dict[str, float]:
    """What a change shows in, of an episode that begins at a position of the learner's replay.

    Args:
        success: None: as `Replay.endings` tells it.

    Returns:
        surprise: mean over the steps, nats a token. error: mean of `Learner.errors`. failure: 1 or 0.
    """
    if success is None:
        success = transitions[-1].terminated and transitions[-1].reward > 0
    errors = learner.errors(np.arange(first, first + len(transitions)))
    return {
        "surprise": float(surprise(transitions).mean()),
        "error": float(errors.mean()),
        "failure": float(not success),
    }
