"""Skills to and from value types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from llmagent_interfaces.msg import Beginning as BeginningMessage
from llmagent_interfaces.msg import Lesson as LessonMessage
from llmagent_interfaces.msg import Skill as SkillMessage
from llmagent_interfaces.srv import StoreSkill
from llmagent_ros.bundle import load_bundle
from llmagent_ros.errors import ModelError
from llmagent_ros.knowledge.skill import Found, Skill
from llmagent_ros.knowledge.start import Start
from llmagent_ros.learning.gate import Record
from llmagent_ros.learning.merging import merge_adapters, merge_critics
from llmagent_ros.learning.rl.protocols import AdaptedModel
from llmagent_ros.learning.standing import Beginning, Offer, usable
from llmagent_ros.types import Lesson


def lessons_to_messages(lessons: Iterable[Lesson]) -> list[LessonMessage]:
    return [LessonMessage(text=one.text, support=float(one.support), against=float(one.against)) for one in lessons]


def lessons_from_messages(messages: Iterable[LessonMessage]) -> tuple[Lesson, ...]:
    return tuple(Lesson(message.text, message.support, message.against) for message in messages)


def skill_to_message(skill: Skill, similarity: float = 0.0) -> SkillMessage:
    return SkillMessage(
        id=skill.id,
        description=skill.description,
        instructions=list(skill.instructions),
        contract=skill.contract,
        path=str(skill.path) if skill.path is not None else "",
        digest=skill.digest,
        lessons=lessons_to_messages(skill.lessons),
        parents=list(skill.parents),
        attempts=skill.attempts,
        successes=skill.successes,
        similarity=float(similarity),
    )


def skill_from_message(message: SkillMessage) -> tuple[Skill, Path | None]:
    """What the message says of a skill, and the folder of its bundle, None if it names none.

    Digest and times are not the message's to set.
    """
    skill = Skill(
        id=message.id,
        description=message.description,
        instructions=tuple(message.instructions),
        contract=message.contract,
        lessons=lessons_from_messages(message.lessons),
        parents=tuple(message.parents),
        attempts=message.attempts,
        successes=message.successes,
    )
    return skill, Path(message.path) if message.path else None


def found_from_message(message: SkillMessage) -> Found:
    """A skill as it was found, with the bundle that it has in the store."""
    skill, path = skill_from_message(message)
    return Found(replace(skill, digest=message.digest, path=path), message.similarity)


def start_to_message(start: Start) -> BeginningMessage:
    best = start.skills[0].skill if start.skills else Skill("")
    return BeginningMessage(
        kind=start.kind,
        why=start.why,
        ids=[found.skill.id for found in start.skills],
        weights=[float(weight) for weight in start.weights],
        paths=[str(found.skill.path) for found in start.skills],
        digests=[found.skill.digest for found in start.skills],
        attempts=best.attempts,
        successes=best.successes,
    )


def beginning_from_message(message: BeginningMessage, model: AdaptedModel) -> Beginning:
    """What a track begins with, read from the bundles and merged.

    Raises:
        ModelError: a bundle is damaged or not the announced one, or they have no exact merge.
    """
    bundles = [load_bundle(Path(path)) for path in message.paths]
    for bundle, path, digest in zip(bundles, message.paths, message.digests, strict=True):
        if bundle.digest != digest:
            raise ModelError(f"{path}: digest {bundle.digest[:12]}, announced {digest[:12]}")
    if not bundles:
        return Beginning(why=message.why)
    same = message.kind == "same"
    parts = [usable(bundle, model) for bundle in bundles]
    critics = [critic for critic, _ in parts if critic is not None]
    adapters = [adapter for _, adapter in parts if adapter is not None]
    return Beginning(
        critic=merge_critics(critics, message.weights) if len(critics) == len(parts) else None,
        adapter=merge_adapters(adapters, message.weights) if len(adapters) == len(parts) else None,
        parents=() if same else tuple(message.ids),
        skill_id=message.ids[0] if same else "",
        record=Record(message.successes, message.attempts) if same else None,
        why=message.why,
        beta=bundles[0].beta if len(bundles) == 1 else None,
    )


def beginning_from_skill(message: SkillMessage, model: AdaptedModel) -> Beginning | None:
    """What a track may begin with, of a skill; None where it has no critic of this base and vocabulary.

    Raises:
        ModelError: the bundle is damaged or not the one that the message tells of.
    """
    if not message.path:
        return None
    bundle = load_bundle(Path(message.path))
    if bundle.digest != message.digest:
        raise ModelError(f"{message.path}: digest {bundle.digest[:12]}, told {message.digest[:12]}")
    critic, adapter = usable(bundle, model)
    if critic is None:
        return None
    why = f"begins with {message.description!r} ({message.id})"
    return Beginning(critic, adapter, parents=(message.id,), why=why, beta=bundle.beta)


def offer_to_request(offer: Offer, contract: str) -> StoreSkill.Request:
    """What stores an offered version. contract: name of the robot's."""
    skill = SkillMessage(
        id=offer.skill_id,
        description=offer.description,
        instructions=list(offer.instructions),
        contract=contract,
        path=str(offer.bundle.resolve()),
        lessons=lessons_to_messages(offer.lessons),
        parents=list(offer.parents),
        attempts=offer.record.attempts,
        successes=offer.record.successes,
    )
    return StoreSkill.Request(skill=skill, reason=f"{offer.ruling.says}: {offer.ruling.why}")
