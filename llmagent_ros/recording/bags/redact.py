"""Taking topics and texts out of a bag, so that no byte of them is left in what is kept."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmagent_ros.durable import make_folder, sync
from llmagent_ros.errors import ConfigError, LlmAgentError, StoreError, UnknownNameError
from llmagent_ros.recording.bags.mcap_file import FileSummary, McapFile
from llmagent_ros.recording.bags.metadata import write_metadata
from llmagent_ros.recording.bags.reader import Bag, FileContent, read_file
from llmagent_ros.recording.bags.repair import REDACTING, held, sweep
from llmagent_ros.recording.bags.topics import CDR, ROS2MSG, BagTopic

REPLACEMENT = "redacted"  # YAML and instructions stay what they are with it
_SHORTEST = 2  # characters of a text; a shorter one stands everywhere
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_HERE = -100  # AT_FDCWD


@dataclass(frozen=True)
class Redaction:
    """What was done. removed: messages of the chosen topics. changed: messages that held a text."""

    removed: int
    changed: int
    kept: int


def redact(bag: Bag, topics: Collection[str], texts: Sequence[str], out: Path) -> Redaction:
    """Writes a bag anew without some topics and texts; the original stays as it is.

    Texts are replaced in every string of every message, in the bag's own facts and in what is kept of it elsewhere,
    whatever their case. What was written is then searched for them. What a killed redaction left is deleted.

    Args:
        topics: names as in the bag. out: folder, must not be there yet.

    Raises:
        ConfigError: nothing to redact, a topic that the bag does not have, too short a text, or `out` is there.
        StoreError: the bag is damaged or of an encoding that cannot be read, or the disk is full; or a text is left
            where it cannot be replaced, such as in a name of a topic or in a picture. Nothing is left of `out` then.
    """
    _check(bag, topics, texts)
    sweep(bag.path.parent, REDACTING)
    with _working_folder(out) as work:
        if out.exists():
            raise ConfigError(f"{out}: is there already; give a new folder")
        done = _write(bag, set(topics), texts, work, out.name)
        work.rename(out)
        sync(out.parent)
    return done


def redact_in_place(bag: Bag, topics: Collection[str], texts: Sequence[str]) -> Redaction:
    """The same, with the result in the place of the original, which is deleted: there is always one of them, whole.

    Raises:
        ConfigError, StoreError: as `redact`; the original is kept then. StoreError also where it cannot be deleted.
    """
    if not bag.path.is_dir() or bag.metadata is None:
        raise ConfigError(f"{bag.path}: only the folder of a finished bag is redacted in place; give --out")
    path = bag.path.resolve()  # not a link to it
    with held(path) as alone:
        if not alone:
            raise StoreError(f"{path}: is being redacted already, or cannot be locked; give --out")
        bag = Bag(path)  # as it is, now that nobody else redacts it
        _check(bag, topics, texts)
        with _working_folder(path) as work:
            done = _write(bag, set(topics), texts, work, path.name)
            _exchange(work, path)
            try:
                shutil.rmtree(work)  # the original, by now
            except OSError as error:
                raise StoreError(f"{work}: the original, cannot be deleted: {error.strerror}") from error
    return done


@contextlib.contextmanager
def _working_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that is gone afterwards, unless it has got another name.

    Raises:
        StoreError: it cannot be made, or an OSError came of what was done with it.
    """
    try:
        make_folder(out.parent)
        sweep(out.parent, REDACTING)
        work = Path(tempfile.mkdtemp(prefix=f"{REDACTING}{out.name}.", dir=out.parent))
        try:
            work.chmod(0o755)  # mkdtemp's 0700 would outlive the rename
            with held(work):
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}") from error


def _check(bag: Bag, topics: Collection[str], texts: Sequence[str]) -> None:
    if not topics and not texts:
        raise ConfigError("redact: nothing to take out; give --topics or --texts")
    for name in topics:
        if name not in bag.topics:
            raise UnknownNameError(f"topic of {bag.path}", name, bag.topics)
    for topic in bag.topics.values():
        if topic.name not in topics and (topic.encoding, topic.definition_encoding) != (CDR, ROS2MSG):
            said = f"messages as {topic.encoding!r}, defined as {topic.definition_encoding!r}"
            raise StoreError(f"{bag.path}: {topic.name} has {said}; valid: {CDR}, {ROS2MSG}; or take it out too")
    for text in texts:
        if len(text) < _SHORTEST:
            raise ConfigError(f"redact: text {text!r} is too short; valid: at least {_SHORTEST} characters")
        if text.lower() in REPLACEMENT:
            raise ConfigError(f"redact: text {text!r} is part of {REPLACEMENT!r}, which stands for what was taken out")


def _pattern(text: str) -> str:
    """Matches a text whatever its case, with each character as it is or as JSON escapes it."""
    characters = []
    for character in text:
        ways = {character, character.lower(), character.upper()}
        ways |= {json.dumps(way)[1:-1] for way in ways}
        one = re.escape(character) if character.isascii() and character.isalnum() else "|".join(map(re.escape, ways))
        characters.append(f"(?:{one})")
    return "".join(characters)


class _Replacer:
    """Replaces texts in strings, longest first; see `_pattern`."""

    def __init__(self, texts: Sequence[str]) -> None:
        longest = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_pattern, longest)), re.IGNORECASE) if texts else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def text(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(REPLACEMENT, text)

    def facts(self, facts: Mapping[str, str]) -> dict[str, str]:
        """The facts without the texts; the contract's hash is that of what is left of it."""
        new = {key: self.text(value) for key, value in facts.items()}
        if "contract" in new:
            new["contract_sha256"] = hashlib.sha256(new["contract"].encode()).hexdigest()
        return new

    def message(self, message: Any) -> bool:
        """Replaces in a decoded message, in place; whether anything was."""
        changed = False
        for name in message.__dataclass_fields__:
            value = getattr(message, name)
            if isinstance(value, str) and name != "__msgtype__":
                new: Any = self.text(value)
                different = new != value
            elif isinstance(value, list):
                new, different = self._list(value)
            elif hasattr(value, "__dataclass_fields__"):
                new, different = value, self.message(value)
            else:
                continue
            if different:
                object.__setattr__(message, name, new)
                changed = True
        return changed

    def _list(self, values: list[Any]) -> tuple[list[Any], bool]:
        if values and isinstance(values[0], str):
            new = [self.text(value) for value in values]
            return new, new != values
        changed = [self.message(value) for value in values if hasattr(value, "__dataclass_fields__")]
        return values, any(changed)


def _write(bag: Bag, topics: set[str], texts: Sequence[str], folder: Path, name: str) -> Redaction:
    """Writes a bag of a name into an empty folder, and searches what was written for the texts."""
    replacer = _Replacer(texts)
    removed = changed = kept = 0
    summaries: list[FileSummary] = []
    found: dict[str, BagTopic] = {}
    facts = replacer.facts(bag.facts) | {"redacted": "true"}
    for number, path in enumerate(bag.files):
        file = McapFile(folder / f"{name}_{number}.mcap", facts)
        try:
            content = FileContent()
            for message in read_file(path, content):
                if message.topic.name in topics:
                    removed += 1
                    continue
                decoded = bag.codec.decode(message.topic.type, message.data) if replacer else None
                if decoded is not None and replacer.message(decoded):
                    message = replace(message, data=bag.codec.encode(message.topic.type, decoded))
                    changed += 1
                found.setdefault(message.topic.name, message.topic)
                file.write(message)
                kept += 1
            if not content.whole or content.problem:
                raise StoreError(f"{path}: damaged, so not redacted: {content.problem or 'it has no footer'}")
            for title, values in content.notes:
                if title not in ("llmagent", "llmagent.end", "rosbag2"):
                    file.note(title, replacer.facts(values))
            summaries.append(file.finish())
        except LlmAgentError:
            file.abandon()
            raise
    write_metadata(folder, found.values(), summaries, facts)
    _search(folder, texts)
    return Redaction(removed, changed, kept)


def _search(folder: Path, texts: Sequence[str]) -> None:
    """Raises StoreError where a text is left, in whatever is written compressed too."""
    wanted = {text: re.compile(_pattern(text), re.IGNORECASE) for text in texts}
    for path in folder.iterdir():
        if path.suffix != ".mcap":
            _refuse(path, path.read_bytes(), wanted)
            continue
        content = FileContent()
        for message in read_file(path, content):
            _refuse(path, message.data, wanted, f"in a message of {message.topic.name}")
        for topic in content.topics.values():
            _refuse(path, f"{topic.name} {topic.type} {topic.definition}".encode(), wanted, f"in what {topic.name} is")
        for name, values in content.notes:
            _refuse(path, "\n".join((name, *values, *values.values())).encode(), wanted, "in its metadata")


def _refuse(path: Path, data: bytes, wanted: Mapping[str, re.Pattern[str]], where: str = "") -> None:
    said = data.decode("utf-8", "replace")
    for text, pattern in wanted.items():
        if pattern.search(said):
            raise StoreError(f"{path.name}: {text!r} is left {where}; redact that topic too, or another text")


def _exchange(one: Path, other: Path) -> None:
    """Lets two folders change their names in one step, for good.

    Raises:
        StoreError: the file system cannot do that. OSError: it fails. Nothing has changed then.
    """
    rename: Callable[..., int] | None = None
    with contextlib.suppress(AttributeError):  # a C library without it
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    paths = (_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    if rename is None or rename(*paths) != 0:
        reason = os.strerror(ctypes.get_errno()) if rename is not None else "not supported"
        raise StoreError(f"{other}: cannot be replaced in one step ({reason}); give --out")
    try:
        sync(other.parent)
    except OSError:
        rename(*paths)  # else a power cut might leave the name to what is deleted next
        raise
