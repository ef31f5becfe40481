"""Taking topics and texts out of a bag, so that no byte of them is left in what is kept."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmagent_ros.durable import sync
from llmagent_ros.errors import ConfigError, LlmAgentError, StoreError, UnknownNameError
from llmagent_ros.recording.bags.mcap_file import FileSummary, McapFile
from llmagent_ros.recording.bags.metadata import METADATA, write_metadata
from llmagent_ros.recording.bags.reader import Bag, FileContent, read_file
from llmagent_ros.recording.bags.repair import TRASH, discard
from llmagent_ros.recording.bags.topics import BagTopic

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
    whatever their case. What was written is then searched for them byte by byte.

    Args:
        topics: names as in the bag. out: folder, must not be there yet.

    Raises:
        ConfigError: nothing to redact, a topic that the bag does not have, too short a text, or `out` is there.
        StoreError: the bag is damaged or the disk full; or a text is left where it cannot be replaced, such as in a
            name of a topic or in a picture. Nothing is left of `out` then.
    """
    _check(bag, topics, texts)
    if out.exists():
        raise ConfigError(f"{out}: is there already; give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    work.chmod(0o755)
    try:
        done = _write(bag, set(topics), _Replacer(texts), work, out.name)
        _search(work, texts)
        work.rename(out)
        sync(out.parent)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)  # of what failed; after the rename there is none
    return done


def redact_in_place(bag: Bag, topics: Collection[str], texts: Sequence[str]) -> Redaction:
    """The same, with the result in the place of the original, which is deleted: there is always one of them, whole.

    Raises:
        ConfigError, StoreError: as `redact`; the original is kept then.
    """
    if not bag.path.is_dir() or bag.metadata is None:
        raise ConfigError(f"{bag.path}: only the folder of a finished bag is redacted in place; give --out")
    new = bag.path.with_name(f"{TRASH}redacted-{bag.path.name}")  # of a kill the next recorder clears it away
    shutil.rmtree(new, ignore_errors=True)  # of a redaction that was killed
    # its files bear the name of the bag, not of the folder that they are in for a moment
    done = redact(bag, topics, texts, new)
    for file in new.glob("*.mcap"):
        file.rename(file.with_name(file.name.replace(new.name, bag.path.name, 1)))
    text = (new / METADATA).read_text(encoding="utf-8").replace(new.name, bag.path.name)
    (new / METADATA).write_text(text, encoding="utf-8")
    _exchange(new, bag.path)
    discard(new)  # the original, by now
    return done


def _check(bag: Bag, topics: Collection[str], texts: Sequence[str]) -> None:
    if not topics and not texts:
        raise ConfigError("redact: nothing to take out; give --topics or --texts")
    for topic in topics:
        if topic not in bag.topics:
            raise UnknownNameError(f"topic of {bag.path}", topic, bag.topics)
    for text in texts:
        if len(text) < _SHORTEST:
            raise ConfigError(f"redact: text {text!r} is too short; valid: at least {_SHORTEST} characters")
        if text.lower() in REPLACEMENT:
            raise ConfigError(f"redact: text {text!r} is part of {REPLACEMENT!r}, which stands for what was taken out")


class _Replacer:
    """Replaces texts in strings, whatever their case, longest first."""

    def __init__(self, texts: Sequence[str]) -> None:
        longest = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest)), re.IGNORECASE) if texts else None

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


def _write(bag: Bag, topics: set[str], replacer: _Replacer, folder: Path, name: str) -> Redaction:
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
    return Redaction(removed, changed, kept)


def _search(folder: Path, texts: Sequence[str]) -> None:
    """Raises StoreError where a text is left, in whatever is written compressed too."""
    wanted = [text.encode().lower() for text in texts]
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
            _refuse(path, repr((name, values)).encode(), wanted, "in its metadata")


def _refuse(path: Path, data: bytes, wanted: Sequence[bytes], where: str = "") -> None:
    lower = data.lower()
    for text in wanted:
        if text in lower:
            raise StoreError(f"{path.name}: {text.decode()!r} is left {where}; redact that topic too, or another text")


def _exchange(one: Path, other: Path) -> None:
    """Lets two folders change their names in one step.

    Raises:
        StoreError: the file system cannot do that; nothing has changed.
    """
    rename: Callable[..., int] | None = None
    with contextlib.suppress(AttributeError):  # a C library without it
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    if rename is None or rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) != 0:
        reason = os.strerror(ctypes.get_errno()) if rename is not None else "not supported"
        shutil.rmtree(one, ignore_errors=True)
        raise StoreError(f"{other}: cannot be replaced in one step ({reason}); give --out")
    sync(other.parent)
