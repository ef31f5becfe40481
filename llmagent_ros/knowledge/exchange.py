"""Skills out of a store into folders of their own, and back: to publish one, or to take one over from another robot.

A folder is a bundle (`llmagent_ros/bundle.py`), which PEFT loads as an adapter, with two more files:

    skill.json   all that the store knows of the skill, and the SHA-256 of that
    README.md    a model card for a person
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from llmagent_ros import config
from llmagent_ros.bundle import ADAPTER, MANIFEST, MAX_BYTES, Bundle, bundle_files, load_bundle
from llmagent_ros.durable import write_folder
from llmagent_ros.errors import ConfigError, ModelError, StoreError, UnknownNameError
from llmagent_ros.knowledge.audit import Cause
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.skill import Skill, check_id, check_skill, is_contract, wilson_lower_bound
from llmagent_ros.types import Lesson

FORMAT = "llmagent-skill"
VERSION = 1
SKILL = "skill.json"
CARD = "README.md"
_MAX_SKILL_BYTES = 1 << 24
_HISTORY = 1000  # lines of the log that go along
_Time = Annotated[float, Field(ge=0, lt=253_402_300_800)]  # s since the epoch, up to the year 9999
_CONTENT = (
    "description", "instructions", "contract", "lessons", "attempts", "successes", "digest", "parents",
)  # fmt: skip


@config_dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class _Told:
    """The skill of a skill.json; see Skill."""

    id: str
    description: str
    instructions: tuple[str, ...]
    contract: str
    lessons: tuple[Lesson, ...]
    attempts: int
    successes: int
    digest: str
    created: _Time
    updated: _Time
    parents: tuple[str, ...]


def export_skill(knowledge: Knowledge, skill_id: str, folder: Path) -> Skill:
    """Writes a skill to a folder: whole and on the disk when this returns, or not there. Returns the skill.

    Raises:
        UnknownNameError: no skill has this id. ModelError: its bundle is damaged.
        StoreError: the folder exists already, or cannot be written.
    """
    skill = knowledge.get(skill_id)
    if os.path.lexists(folder):
        raise StoreError(f"{folder}: already exists; an export never overwrites")
    contents: dict[str, bytes] = {}
    bundle = None
    if skill.path is not None:
        bundle = knowledge.bundle(skill)
        contents |= bundle_files(skill.path, knowledge.config.max_bundle_bytes)
    history = [dataclasses.asdict(entry) for entry in knowledge.audit(skill_id, _HISTORY)]
    contents[SKILL] = _skill_file(skill, history)
    contents[CARD] = card(skill, bundle).encode()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, contents)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            raise StoreError(f"{folder}: already exists; an export never overwrites") from error
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from error
    return skill


def import_skill(
    knowledge: Knowledge,
    folder: Path,
    *,
    description: str = "",
    as_new: bool = False,
    actor: str = "",
    reason: str = "",
) -> Skill:
    """Stores the skill of an exported folder, or of a plain bundle, as a new one; returns it as stored.

    Args:
        description: what it does, for a bundle that does not come with a skill.json.
        as_new: it gets an id of its own instead of the one that it had.

    Raises:
        ModelError: a file is damaged, missing, or does not belong there. ConfigError: a field is wrong.
        StoreError: the store has a skill with this id.
    """
    data: dict[str, Any] = {"folder": folder.name}
    skill, bundle = read_folder(folder, description, knowledge.config.max_bundle_bytes)
    if not skill.id:
        return knowledge.store(skill, bundle, cause=Cause(reason, actor, data))
    if as_new:
        data["id"] = skill.id
        skill = replace(skill, id=secrets.token_hex(8))
    else:
        _check_free(knowledge, skill)
    return knowledge.restore(skill, bundle, cause=Cause(reason, actor, data))


def read_folder(folder: Path, description: str = "", max_bytes: int = MAX_BYTES) -> tuple[Skill, Path | None]:
    """The skill of an exported folder, or one without an id of a plain bundle; and where its bundle is, if it has one.

    Args:
        description: as of `import_skill`. max_bytes: of the bundle.

    Raises:
        ModelError, ConfigError: as `import_skill`.
    """
    bundle = folder if os.path.lexists(folder / MANIFEST) else None
    if not os.path.lexists(folder / SKILL):
        if bundle is None:
            raise ModelError(f"{folder}: neither {SKILL} nor {MANIFEST}: not an exported skill, and not a bundle")
        if not description:
            raise ConfigError(f"{folder}: a bundle without {SKILL}; say what it does with a description")
        skill = Skill(description, contract=_robot(load_bundle(folder, max_bytes)))
        check_skill(skill)
        return skill, bundle
    if description:
        raise ConfigError(f"{folder}: comes with a description of its own, in {SKILL}")
    skill = read_skill(folder)
    found = load_bundle(folder, max_bytes).digest if bundle is not None else ""
    if found != skill.digest:
        raise ModelError(
            f"{folder}: {SKILL} is of the bundle {skill.digest or '(none)'}, but {found or 'none'} is there"
        )
    return skill, bundle


def read_skill(folder: Path) -> Skill:
    """The skill of an exported folder, its hash and every field checked. Its path is None.

    Raises:
        ModelError: skill.json is damaged or of another format. ConfigError: a field is wrong.
    """
    where = folder / SKILL
    try:
        told = json.loads(_read(where))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not JSON: {str(error)[:200]}") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("version") != VERSION:
        raise ModelError(f"{where}: not of the format {FORMAT}, version {VERSION}")
    values = told.get("skill")
    if not isinstance(values, dict) or _hash(values) != told.get("sha256"):
        raise ModelError(f"{where}: damaged: the SHA-256 of the skill is not the one that it says")
    skill = Skill(**{**vars(config.build(_Told, values, str(where))), "path": None})
    try:
        check_id(skill.id)
        check_skill(skill)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return skill


def card(skill: Skill, bundle: Bundle | None) -> str:
    """What a person reads of a skill, in Markdown, with the head that model hubs read."""
    lines = ["---", "library_name: peft", "tags: [robotics, llmagent_ros]", "---", f"# {_line(skill.description)}", ""]
    lines.append("A skill of a robot that acts by a language model, learned with llmagent_ros.")
    bound = wilson_lower_bound(skill.successes, skill.attempts)
    share = f", at least {bound:.0%} by the 95 % Wilson interval" if skill.attempts else ""
    rows = {
        "Robot contract": f"`{skill.contract}`" if skill.contract else "any",
        "Succeeded": f"{skill.successes} of {skill.attempts} episodes{share}",
        "Learned on": "; ".join(f'"{_line(text)}"' for text in skill.instructions) or "(nothing told)",
        "Made from": ", ".join(f"`{_line(parent)}`" for parent in skill.parents) or "no other skill",
        "Id": f"`{skill.id}`",
        "Stored, updated": f"{_date(skill.created)}, {_date(skill.updated)}",
    }
    if bundle is not None:
        rows["Base"] = f"SHA-256 `{bundle.base_digest}`; it belongs to no other"
        rows["Bundle"] = f"SHA-256 `{bundle.digest}`"
        if bundle.adapter is not None:
            rows["Adapter"] = f"LoRA in PEFT's layout, {len(bundle.adapter)} tensors (`{ADAPTER}`)"
    lines += ["", *(f"- **{name}**: {text}" for name, text in rows.items())]
    if skill.lessons:
        lines += ["", "## Lessons", "", "Held so often of so many times (recent ones count more):", ""]
        lines += [f"- {_line(str(lesson))}" for lesson in skill.lessons]
    lines += ["", "## Use", ""]
    if bundle is not None and bundle.adapter is not None:
        lines += [
            "    PeftModel.from_pretrained(base, FOLDER)            # the adapter, with the base that it belongs to"
        ]
    lines += ["    llmagent skills import FOLDER --store DIR          # the whole skill, into another store", ""]
    return "\n".join(lines)


def _check_free(knowledge: Knowledge, skill: Skill) -> None:
    try:
        there = knowledge.get(skill.id)
    except UnknownNameError:
        return
    if all(getattr(there, name) == getattr(skill, name) for name in _CONTENT):
        raise StoreError(f"skill {skill.id}: the store has it already, with the same content")
    raise StoreError(
        f"skill {skill.id}: the store has another skill with this id; as a new one it gets its own (--as-new)"
    )


def _skill_file(skill: Skill, history: list[dict[str, Any]]) -> bytes:
    values = dataclasses.asdict(skill)
    del values["path"]  # of this machine
    told = {"format": FORMAT, "version": VERSION, "sha256": _hash(values), "skill": values, "history": history}
    return (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()


def _hash(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        # Without following links, and without waiting for what is no file.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelError(f"{path}: not a plain file")
            data = file.read(_MAX_SKILL_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path}: cannot be read: {reason}") from error
    if len(data) > _MAX_SKILL_BYTES:
        raise ModelError(f"{path}: larger than {_MAX_SKILL_BYTES} bytes")
    return data


def _robot(bundle: Bundle) -> str:
    """The contract that a bundle was learned with, where its writer said so."""
    robot = bundle.meta.get("robot", "")
    return robot if isinstance(robot, str) and is_contract(robot) else ""


def _line(text: str) -> str:
    return " ".join(text.split())


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
