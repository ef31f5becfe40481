"""Skills to and from value types."""

from __future__ import annotations

from pathlib import Path

from llmagent_interfaces.msg import Skill as SkillMessage
from llmagent_ros.knowledge.skill import Skill


def skill_to_message(skill: Skill, similarity: float = 0.0) -> SkillMessage:
    return SkillMessage(
        id=skill.id,
        description=skill.description,
        instructions=list(skill.instructions),
        contract=skill.contract,
        path=str(skill.path) if skill.path is not None else "",
        digest=skill.digest,
        lessons=list(skill.lessons),
        attempts=skill.attempts,
        successes=skill.successes,
        similarity=float(similarity),
    )


def skill_from_message(message: SkillMessage) -> tuple[Skill, Path | None]:
    """What the message says of a skill, and the folder of its bundle, None if it names none.

    Digest, times and parents are not the message's to set.
    """
    skill = Skill(
        id=message.id,
        description=message.description,
        instructions=tuple(message.instructions),
        contract=message.contract,
        lessons=tuple(message.lessons),
        attempts=message.attempts,
        successes=message.successes,
    )
    return skill, Path(message.path) if message.path else None
