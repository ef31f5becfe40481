"""All kinds of tasks of a run, each with a `Track` of its own, of which one is open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmagent_ros.errors import ModelError
from llmagent_ros.learning.change import Alarm
from llmagent_ros.learning.fresh_start import misfits
from llmagent_ros.learning.rl.protocols import AdaptedModel, SceneMirror
from llmagent_ros.learning.standing import Beginning, Offer, Standing
from llmagent_ros.learning.track import Judge, Track, TrackConfig
from llmagent_ros.learning.track_folders import TrackFolders
from llmagent_ros.learning.watch import Surprise


class Tracks:
    """Learning one kind of task never changes another, and what was learned before a change stays. Not thread-safe.

    Args:
        out: folder of the run. model: whose adapter is that of the open track; as it is, it is the initial one.
        start: tells what a kind of task begins with for which no skill was found; asked each time.
        seed, mirror, judge, surprise: see `Track`.

    Raises:
        StoreError, ModelError: as `Track`.

    Attributes:
        current: the open one; before a kind of task is known, one without a wording.
    """

    def __init__(
        self,
        out: Path,
        phrases: Sequence[str],
        model: AdaptedModel,
        config: TrackConfig,
        *,
        seed: int = 0,
        mirror: SceneMirror | None = None,
        judge: Judge | None = None,
        surprise: Surprise | None = None,
        start: Callable[[], Beginning] | None = None,
    ) -> None:
        self._folders = TrackFolders(out)
        self._start = start or (lambda: Beginning(why="begins with the initial adapter"))
        self._phrases, self._model, self._config = phrases, model, config
        first = model.adapter_state()
        self._values: dict[str, Any] = {"seed": seed, "mirror": mirror, "judge": judge, "first": first}
        self._values["surprise"] = surprise
        self.current = self._open(self._folders.latest, Beginning())

    def enter(self, wording: str, beginning: Beginning | None = None) -> str | None:
        """Leaves the open track for that of another kind of task.

        A beginning that does not fit the model counts as none. One that comes when the kind's track is open already
        still counts while nothing was learned there.

        Returns:
            With what it begins, in words; None where that kind's is open already, and goes on as it is.
        """
        beginning = beginning or Beginning()
        if wording == self.current.wording:
            return self._begin_late(beginning)
        if self.current.wording or len(self.current.replay):  # else nothing was done yet
            self.current.save()
        self.current.close()
        try:
            self.current = self._open(wording, beginning)
        except ModelError as error:
            if beginning.empty:
                raise
            beginning = Beginning(why=f"begins with nothing: {error}")
            self.current = self._open(wording, beginning)
        return beginning.why

    def begin_anew(self, alarm: Alarm, skills: Sequence[Beginning]) -> str:
        """Robot or world have changed: another track takes over, with the steps since the change.

        It begins with what explains those best (`fresh_start`): with one of these skills, with what was learned before,
        or with what all tasks begin with. The track before goes back to what its skill has, and is opened again when a
        later change makes its skill the best.

        Args:
            alarm: of the open track, which has a deployed version.

        Returns:
            With what it begins and what the errors of all were, in words.
        """
        before = self.current
        first = before.since(alarm)
        best, told = self._best(before, first, skills)
        again = next((f for f in self._folders.former(before.wording) if _skill_of(f) in best.parents), None)
        seen = before.replay.recent(len(before.replay) - first)
        self._folders.renew(before.wording, again)
        before.set_aside()
        before.close()
        self.current = self._open(before.wording, dataclasses.replace(best, changed=str(alarm)))
        self.current.take_over(seen)
        return told

    def confirm(self, offer: Offer, skill_id: str) -> None:
        """See `Standing.confirm`; of whichever track the offer came from."""
        folder = offer.bundle.parent.parent
        if self.current.folder == folder:
            self.current.confirm(offer, skill_id)
            return
        standing = Standing.read(folder)
        if standing is not None:
            standing.confirm(offer, skill_id)
            standing.write(folder)

    def close(self) -> None:
        self.current.close()

    # --- inside -----------------------------------------------------------------------------------------

    def _begin_late(self, beginning: Beginning) -> str | None:
        try:
            return beginning.why if self.current.begin_late(beginning) else None
        except ModelError as error:
            return f"goes on with what it began with: {error}"

    def _open(self, wording: str, beginning: Beginning) -> Track:
        folder = self._folders.enter(wording) if wording else self._folders.folder("")
        begun = dataclasses.replace(self._start(), changed=beginning.changed) if beginning.empty else beginning
        return Track(folder, wording, self._phrases, self._model, self._config, beginning=begun, **self._values)

    def _best(self, before: Track, first: int, skills: Sequence[Beginning]) -> tuple[Beginning, str]:
        deployed, own = before.deployed(), before.standing.skill_id
        why = "begins with what it had learned"
        learned = Beginning(deployed.critic, deployed.adapter, parents=(own,), why=why, beta=deployed.beta)
        beginnings = [self._start(), learned, *(each for each in skills if own not in each.parents)]
        errors = misfits([each.critic for each in beginnings], before.learner, first)
        best = beginnings[int(errors.argmin())]
        told = ", ".join(f"{error:.3g} {each.why}" for each, error in zip(beginnings, errors, strict=True))
        return best, f"{best.why} (mean error of the values of steps since the change: {told})"


def _skill_of(folder: Path) -> str | None:
    standing = Standing.read(folder)
    return standing.skill_id if standing is not None and standing.skill_id else None
