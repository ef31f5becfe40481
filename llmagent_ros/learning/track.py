"""What is learned of one kind of task: its replay, its learner, its bundles, and how its skill stands.

    FOLDER/replay.sqlite    every transition of these tasks
    FOLDER/learner/         the learner, to go on with
    FOLDER/bundles/         adapter and critic, the newest few and the deployed one
    FOLDER/skill.json       `Standing`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from llmagent_ros.bundle import Bundle, latest_bundle, load_bundle, next_bundle, prune_bundles
from llmagent_ros.errors import ModelError
from llmagent_ros.learning.change import FEW_EPISODES, Alarm, ChangeConfig
from llmagent_ros.learning.gate import Gate, GateConfig, Record, Ruling
from llmagent_ros.learning.lessons import distil_lessons
from llmagent_ros.learning.rl import checkpoint
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.protocols import AdaptedModel, SceneMirror
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.standing import Beginning, Offer, Standing
from llmagent_ros.learning.watch import Surprise, Watch
from llmagent_ros.types import RealArray, Transition

_LESSONS_FROM = 2000  # transitions at most
_TASKS = 8  # instructions that a skill names

Judge = Callable[[Bundle, Sequence[str]], tuple[RealArray, RealArray]]
"""log pi and values, (scenes, phrases), of the policy of a bundle; it may leave its adapter in the model."""


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class TrackConfig:
    """How often what is done.

    Attributes:
        publish_every: critic updates between two bundles. keep: bundles that stay on disk.
        skill_every: episodes between two looks at whether the skill may be replaced; 0: never.
        change: see ChangeConfig.
    """

    rl: LearnerConfig = Field(default_factory=LearnerConfig)
    gate: GateConfig = Field(default_factory=GateConfig)
    publish_every: Annotated[int, Field(gt=0)] = 100
    keep: Annotated[int, Field(ge=2)] = 5
    skill_every: Annotated[int, Field(ge=0)] = 10
    change: ChangeConfig = Field(default_factory=ChangeConfig)


class Track:
    """See the module. Not thread-safe. At most one is open on a model: its adapter is the track's while it is.

    Args:
        wording: the kind of task, in words. first: the adapter that a track without a beginning begins with.
        beginning: of a new track; one that has been learned on goes on from where it was saved.
        surprise: see `learning.watch`; None: changes are not looked for.

    Raises:
        StoreError: the replay is open elsewhere or damaged. ModelError: the beginning does not fit the model.
    """

    def __init__(
        self,
        folder: Path,
        wording: str,
        phrases: Sequence[str],
        model: AdaptedModel,
        config: TrackConfig,
        *,
        seed: int = 0,
        mirror: SceneMirror | None = None,
        first: Mapping[str, Tensor] | None = None,
        beginning: Beginning | None = None,
        judge: Judge | None = None,
        surprise: Surprise | None = None,
    ) -> None:
        self.folder, self.wording, self.config = folder, wording, config
        beginning = beginning or Beginning()
        self._model, self._gate, self._judge = model, Gate(config.gate), judge
        self.standing = self._read_standing(beginning)
        rl = dataclasses.replace(config.rl, **FEW_EPISODES) if self.standing.changed else config.rl
        self.replay = Replay(folder / "replay.sqlite", phrases)
        try:
            if first is not None:
                model.load_adapter_state(first)
            self.learner = Learner(rl, self.replay, model, seed, mirror)
            self._watch = None if surprise is None else Watch(self.learner, surprise, config.change)
            self._begun = not beginning.empty
            self._offered = ""  # bundle that whoever stores it may still have to read
            self._begin(beginning)
            self._exported_at, self.version = self._newest()
        except BaseException:
            self.replay.close()
            raise

    @property
    def settled(self) -> bool:
        """Whether it goes on as it is, whatever is found: it has learned, or began with skills or after a change."""
        standing = self.standing
        return bool(self.learner.updates or standing.skill_id or standing.parents or standing.changed)

    def begin_late(self, beginning: Beginning) -> bool:
        """Begins with skills that were found only now, unless it is `settled`; whether it did.

        Raises:
            ModelError: the beginning does not fit the model; nothing was changed.
        """
        if self.settled or beginning.empty or not (beginning.skill_id or beginning.parents):
            return False
        standing = self.standing
        self.standing = Standing.of(self.wording, beginning)
        try:
            self._start_from(beginning)
        except ModelError:
            self.standing = standing
            raise
        self._begun = True
        self._exported_at, self.version = self._newest()
        return True

    # --- data -------------------------------------------------------------------------------------------

    def observe(self, transitions: Sequence[Transition]) -> int:
        """Stores transitions durably; returns how many were new."""
        return self.learner.observe(transitions)

    @property
    def backlog(self) -> int:
        return self.learner.backlog

    def learn(self, most: int) -> dict[str, float]:
        """At most so many updates, if any are due; their figures, empty where there was nothing to do.

        Raises:
            DivergenceError: see `Learner.update`.
        """
        if self.learner.prepare():
            return {}
        stats: dict[str, float] = {}
        for _ in range(min(self.learner.backlog, most)):
            stats |= self.learner.update()
        return stats

    # --- changes ----------------------------------------------------------------------------------------

    def notice(self) -> Alarm | None:
        """Whether robot, sensors or world have changed, by the episodes that ended since; until it is `set_aside`.

        Looked for once there is a skill to be kept. What was stored must be prepared (`Learner.prepare`).
        """
        if self._watch is None:
            return None
        if not self.standing.deployed:
            self._watch.skip()  # before, errors grow as the critic learns what there is to lose
            return None
        return self._watch.look()

    def since(self, alarm: Alarm) -> int:
        """Position in the replay of the first transition that the alarm rests on."""
        assert self._watch is not None
        return self._watch.since(alarm)

    def set_aside(self) -> None:
        """Back to the deployed version, as it was before the change for which the track is left."""
        assert self._watch is not None
        deployed = self.deployed()
        self.learner.go_back_to(deployed.critic, deployed.adapter or {}, deployed.beta)
        self._watch.dismiss()
        self.export({name: deployed.meta[name] for name in ("robot", "seed") if name in deployed.meta})
        self.save()

    def take_over(self, transitions: Sequence[Transition]) -> None:
        """Stores what was done since the change by which it was begun; of its own version that says nothing."""
        self.observe(transitions)
        if self._watch is not None:
            self._watch.skip()
        self.standing.decided, self.standing.succeeded = self.replay.endings()
        self.standing.looked = self.standing.decided
        self.standing.write(self.folder)

    # --- bundles ----------------------------------------------------------------------------------------

    @property
    def bundles(self) -> Path:
        return self.folder / "bundles"

    @property
    def begun(self) -> bool:
        """Whether what acts on it is not what acts anyhow: it began with something, after a change, or has learned."""
        return self._begun or bool(self.standing.changed) or self.learner.updates > 0

    def deployed(self) -> Bundle:
        """The version that the skill has; there must be one."""
        return load_bundle(self.bundles / self.standing.deployed)

    @property
    def due(self) -> bool:
        """Whether it is time for a bundle."""
        return self.learner.updates - self._exported_at >= self.config.publish_every

    def export(self, meta: Mapping[str, Any]) -> tuple[Path, str]:
        """Writes a bundle; returns its folder and digest."""
        folder = next_bundle(self.bundles)
        digest = self.learner.export(folder, {**meta, "wording": self.wording})
        self._exported_at, self.version = self.learner.updates, folder.name
        prune_bundles(self.bundles, self.config.keep, {folder.name, self.standing.deployed, self._offered} - {""})
        return folder, digest

    # --- the skill --------------------------------------------------------------------------------------

    def look(self) -> Offer | Ruling | None:
        """Whether the skill may be replaced by what was learned since, once in `skill_every` episodes.

        Returns:
            An offer, which the caller stores and confirms; a ruling that says why not; or None when it is
            not time. After "take back" the learner has gone back to the deployed version.
        """
        episodes, successes = self.replay.endings()
        every = self.config.skill_every
        if not every or not self.version or episodes < self.standing.looked + every:
            return None
        self.standing.looked = episodes
        since = Record(successes - self.standing.succeeded, episodes - self.standing.decided)
        ruling = self._rule(since)
        if ruling.says in ("accept", "reject", "take back"):
            self.standing.decided, self.standing.succeeded = episodes, successes
        if ruling.says == "take back":
            deployed = self.deployed()
            self.learner.go_back_to(deployed.critic, deployed.adapter or {}, deployed.beta)
        answer = self._offer(since, ruling) if ruling.says == "accept" else ruling
        self.standing.write(self.folder)
        return answer

    def consider(self, folder: Path) -> Ruling:
        """Whether what was learned elsewhere takes over: when it is not worse on recent scenes than what acts.

        If so, learning goes on from it, and outcomes from now on decide whether it becomes the skill.
        """
        try:
            candidate = load_bundle(folder)
            ruling = self._on_candidate(candidate, folder)
            if ruling.says == "accept":
                adapter = candidate.adapter or self._model.adapter_state()
                self.learner.go_back_to(candidate.critic, adapter, candidate.beta)
        except ModelError as error:
            return Ruling("reject", f"cannot be taken up: {error}")
        if ruling.says == "accept":
            self.standing.looked, self.standing.succeeded = self.replay.endings()
            self.standing.decided = self.standing.looked
            self.standing.write(self.folder)
        return ruling

    def confirm(self, offer: Offer, skill_id: str) -> None:
        """See `Standing.confirm`."""
        self.standing.confirm(offer, skill_id)
        self.standing.write(self.folder)

    def save(self) -> None:
        """Everything that is needed to go on exactly here."""
        watch = {} if self._watch is None else {"watch": self._watch.state()}
        self.learner.save(self.folder / "learner", watch)

    def close(self) -> None:
        self.replay.close()

    # --- inside -----------------------------------------------------------------------------------------

    def _read_standing(self, beginning: Beginning) -> Standing:
        standing = Standing.read(self.folder)
        if standing is None:
            standing = Standing.of(self.wording, beginning)
            if beginning.changed:
                standing.write(self.folder)
        return standing

    def _begin(self, beginning: Beginning) -> None:
        saved = self.folder / "learner"
        if checkpoint.exists(saved):
            callers = self.learner.load(saved)
            if self._watch is not None and "watch" in callers:
                self._watch.load_state(callers["watch"])
        elif not beginning.empty:
            self._start_from(beginning)

    def _start_from(self, beginning: Beginning) -> None:
        self.learner.start_from(beginning.critic, beginning.adapter, beginning.beta)
        if beginning.skill_id:  # what the store has is what a newer version is compared with
            folder = next_bundle(self.bundles)
            self.learner.export(folder, {"wording": self.wording})
            self.standing.deployed = folder.name
        if beginning.skill_id or beginning.parents:
            self.standing.write(self.folder)

    def _newest(self) -> tuple[int, str]:
        """The newest bundle acts; after a death it may know more than the checkpoint, and nothing older may follow."""
        newest = latest_bundle(self.bundles)
        return (0, "") if newest is None else (int(load_bundle(newest).meta.get("updates", 0)), newest.name)

    def _rule(self, since: Record) -> Ruling:
        record = Record(*self.standing.record)
        if not self.standing.deployed and not record.attempts:
            return Ruling("accept", "the first version of this skill", {"candidate": str(since)})
        on_outcomes = self._gate.on_outcomes(record, since)
        if not self.standing.deployed or self._judge is None:  # nothing to compare with on scenes
            return on_outcomes
        drop = self._gate.on_drop(record, since)
        if drop.says == "take back":
            return drop
        on_scenes = self._on_scenes(self._judge, self.standing.deployed, self.bundles / self.version)
        if on_scenes.says == "reject":
            return Ruling("wait", on_scenes.why, on_scenes.data)  # perhaps what is learned next is better
        return Ruling(on_outcomes.says, f"{on_scenes.why}; {on_outcomes.why}", on_scenes.data | on_outcomes.data)

    def _on_candidate(self, candidate: Bundle, folder: Path) -> Ruling:
        if candidate.meta.get("feature_digest") != self._model.feature_digest:
            return Ruling("reject", "made for another base model or prompt")
        if candidate.meta.get("phrases") != list(self._model.phrases) or not candidate.critic:
            return Ruling("reject", "has no critic of these action phrases")
        if not self.version:
            return Ruling("accept", "nothing was learned yet")
        if self._judge is None:
            return Ruling("reject", "nobody can compare it")
        return self._on_scenes(self._judge, self.version, folder)

    def _on_scenes(self, judge: Judge, before: str, after: Path) -> Ruling:
        """before: name of a bundle of this track. after: folder of the one that is to replace it."""
        scenes = list(dict.fromkeys(t.scene for t in self.replay.recent(self.config.gate.scenes)))
        learning = self._model.adapter_state()
        try:
            old, new = (judge(load_bundle(bundle), scenes) for bundle in (self.bundles / before, after))
        except ModelError as error:
            return Ruling("reject", f"cannot be compared: {error}")
        finally:
            self._model.load_adapter_state(learning)
        return self._gate.on_scenes(np.asarray(old[0]), np.asarray(new[0]), np.asarray(old[1]), np.asarray(new[1]))

    def _offer(self, record: Record, ruling: Ruling) -> Offer:
        new = min(len(self.replay) - self.standing.told, _LESSONS_FROM)  # what was told is not told again
        lessons = tuple(distil_lessons(self.replay.recent(max(new, 1)), known=self.standing.lessons))
        held = [lesson.text for lesson in lessons if lesson.support > lesson.against]
        self.standing.told, self.standing.lessons = len(self.replay), held
        self.learner.lessons = tuple(held)  # the policy will read them
        self._offered = self.version
        return Offer(
            self.standing.skill_id,
            self.wording,
            tuple(self.replay.tasks(_TASKS)),
            tuple(self.standing.parents),
            self.bundles / self.version,
            record,
            lessons,
            ruling,
        )
