"""How learning a kind of task begins, how its skill stands, and what of it is offered to be kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path

from torch import Tensor

from llmagent_ros.bundle import Bundle, load_bundle
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ModelError, StoreError
from llmagent_ros.learning.gate import Record, Ruling
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.protocols import AdaptedModel
from llmagent_ros.types import Lesson

STANDING = "skill.json"


@plain_dataclass(frozen=True)
class Beginning:
    """What a new track begins with. parents: ids of skills. skill_id: the one that goes on, empty for a new one.

    record: its outcomes so far, where one goes on. why: in words.
    changed: what happened in place of what the robot is used to, where the task is an old one; else empty.
    beta: the temperature that goes with the critic, where it is known.
    """

    critic: Mapping[str, Tensor] | None = None
    adapter: Mapping[str, Tensor] | None = None
    parents: tuple[str, ...] = ()
    skill_id: str = ""
    record: Record | None = None
    why: str = ""
    changed: str = ""
    beta: float | None = None

    @property
    def empty(self) -> bool:
        """Whether it has neither critic nor adapter."""
        return not self.critic and not self.adapter


def usable(bundle: Bundle, model: AdaptedModel) -> tuple[Mapping[str, Tensor] | None, Mapping[str, Tensor] | None]:
    """What of a bundle can be begun with: the critic, on the same features and phrases, and the adapter, on the same
    base.

    Raises:
        ModelError: an adapter on the same base acts otherwise than the model's own.
    """
    meta = bundle.meta
    fits = (meta.get("feature_digest"), meta.get("phrases")) == (model.feature_digest, list(model.phrases))
    same = bundle.base_digest == model.base_digest
    if same and (otherwise := bundle.acts_otherwise(model.adapter_config())):
        raise ModelError(f"its adapter acts otherwise than the model's: {'; '.join(otherwise)}")
    return (bundle.critic or None) if fits else None, bundle.adapter if same else None


def start_with(learner: Learner, path: Path) -> Bundle:
    """Lets a new learner begin with the adapter and, where the phrases are the same, the critic of a bundle.

    Raises:
        ModelError: it is damaged, or made for another base or prompt.
    """
    bundle = load_bundle(path)
    if bundle.meta.get("feature_digest") != learner.model.feature_digest:
        raise ModelError(f"{path}: made for another base model or prompt")
    try:
        learner.start_from(*usable(bundle, learner.model), bundle.beta)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return bundle


@plain_dataclass
class Standing:
    """How the skill of a track stands; on disk whenever it changes.

    Attributes:
        deployed: name of the bundle that the skill has, empty for none. record: its outcomes when it was accepted.
        decided, looked: episodes when it was last decided, and last looked at. succeeded: of the former, successes.
        told: transitions that lessons were made of. lessons: those of the last offer.
        parents, skill_id, changed: see `Beginning`.
    """

    wording: str
    skill_id: str = ""
    parents: list[str] = dataclasses.field(default_factory=list)
    deployed: str = ""
    record: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    decided: int = 0
    succeeded: int = 0
    looked: int = 0
    told: int = 0
    lessons: list[str] = dataclasses.field(default_factory=list)
    changed: str = ""

    @classmethod
    def of(cls, wording: str, beginning: Beginning) -> Standing:
        """That of a track which begins now."""
        standing = cls(wording, beginning.skill_id, list(beginning.parents), changed=beginning.changed)
        if beginning.record is not None:
            standing.record = [beginning.record.successes, beginning.record.attempts]
        return standing

    @classmethod
    def read(cls, folder: Path) -> Standing | None:
        """Of the track of a folder; None where there is none yet.

        Raises:
            StoreError: the file is damaged.
        """
        path = folder / STANDING
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{path}: cannot be read: {error!r}") from error

    def write(self, folder: Path) -> None:
        write_atomic(folder / STANDING, (json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode())

    def confirm(self, offer: Offer, skill_id: str) -> None:
        """The offer is in the store under this id; an empty one: the skill that it was for is not there any more."""
        self.skill_id = skill_id
        self.deployed = offer.bundle.name if skill_id else ""
        self.record = [offer.record.successes, offer.record.attempts] if skill_id else [0, 0]


@plain_dataclass(frozen=True)
class Offer:
    """A version of the skill that may be stored. bundle: its folder. record: its outcomes. why: what decided it."""

    skill_id: str
    description: str
    instructions: tuple[str, ...]
    parents: tuple[str, ...]
    bundle: Path
    record: Record
    lessons: tuple[Lesson, ...]
    ruling: Ruling
