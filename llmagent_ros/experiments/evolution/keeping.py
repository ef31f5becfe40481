"""The best member as a skill of a store, with where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmagent_ros.bundle import bundle_digest
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.continual import SKILL, told
from llmagent_ros.experiments.evolution.best import BEST, newest_bundle
from llmagent_ros.knowledge.audit import Cause
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.skill import Skill


def keep_skill(knowledge: Knowledge, out: Path, start: str, summary: Mapping[str, Any]) -> Skill:
    """Stores the best of an evolution; once: after that it answers the skill as it is.

    Its parents are the skills whose bundle the evolution began with. Its lineage within the evolution lies in its
    bundle's meta, and in the store's log of changes.

    Args:
        start: the bundle that the first generation began with, empty for none. summary: as `Evolution.run` gives it.

    Raises:
        ConfigError: the evolution has no best one yet. UnknownNameError: its skill was deleted.
    """
    kept = out / SKILL
    if kept.exists():
        return knowledge.get(kept.read_text(encoding="utf-8"))
    best = summary["best"]
    if best is None:
        raise ConfigError(f"{out}: no generation was finished, so there is nothing to keep")
    asked = told(runs.read_config(out / BEST).spec)
    digest = bundle_digest(Path(start)) if start else ""
    attempts = int(best["standing"]["repetitions"])
    skill = Skill(
        description=asked.wording,
        contract=asked.contract,
        attempts=attempts,
        successes=round(best["success"] * attempts),
        parents=tuple(skill.id for skill in knowledge.iterate() if digest and skill.digest == digest),
    )
    lineage = best["member"]["lineage"]
    reason = f"the best of {summary['generations']} generations, made by {lineage['operator']}"
    cause = Cause(reason, "evolution", {"run": out.name, "lineage": lineage, "genes": best["member"]["genes"]})
    stored = knowledge.store(skill, newest_bundle(out / BEST), cause=cause)
    write_atomic(kept, stored.id.encode())
    return stored
