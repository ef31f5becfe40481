"""Mending bags whose recorder was killed: their whole chunks are kept, and they become bags like others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmagent_ros.errors import LlmAgentError, StoreError
from llmagent_ros.recording.bags.facts import TELLING, EpisodeFacts
from llmagent_ros.recording.bags.mcap_file import LIBRARY, FileSummary, McapFile
from llmagent_ros.recording.bags.metadata import METADATA, write_metadata
from llmagent_ros.recording.bags.reader import Bag, FileContent, is_bag, read_file
from llmagent_ros.recording.bags.topics import BagTopic

TRASH = ".trash-"  # begins the name of what is being deleted
REDACTING = f"{TRASH}redacted-"  # and of what is being redacted


class UnmendableError(StoreError):
    """A bag is damaged, or not of ours, so that mending it would lose what is in it."""


@dataclass
class Repairs:
    """What became of unfinished bags. mended: those that are finished now. left: why others are not, a line each."""

    mended: list[Path] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def repair_all(folder: Path) -> Repairs:
    """Mends every unfinished bag in a folder and clears away what a kill left half deleted.

    Nobody else may be recording there. A bag that cannot be mended is left as it is, and so is what is no bag.

    Raises:
        StoreError: the disk is full.
    """
    repairs = Repairs()
    if not folder.is_dir():
        return repairs
    sweep(folder, TRASH)
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith(".") or (path / METADATA).is_file():
            continue
        if not is_bag(path):
            _remove_empty(path)  # killed before its first file
            continue
        try:
            if repair(path):
                repairs.mended.append(path)
        except UnmendableError as error:
            repairs.left.append(str(error))
    return repairs


def repair(path: Path) -> bool:
    """Gives a bag folder without metadata.yaml what it lacks; False where it holds no whole chunk and was removed.

    Raises:
        UnmendableError: a file in it is damaged or of another writer; all of it is left as it is.
        StoreError: it cannot be written.
    """
    topics: dict[str, BagTopic] = {}
    files = [(file, *_look(file, topics)) for file in Bag(path).files]
    summaries: list[FileSummary] = []
    for file, content, summary in files:
        if not summary.messages:
            file.unlink()
            continue
        if not content.whole or content.problem:
            _copy_whole(file, content)
        summaries.append(summary)
    if not summaries:
        _remove_empty(path)
        return False
    write_metadata(path, topics.values(), summaries, _facts(Bag(path)) | {"mended": "true"})
    return True


def _look(path: Path, topics: dict[str, BagTopic]) -> tuple[FileContent, FileSummary]:
    """What a file holds.

    Raises:
        UnmendableError: more is wrong with it than that it is cut off, or it is not ours.
    """
    content, summary = FileContent(), FileSummary(path.name)
    for message in read_file(path, content):
        summary.count(message)
    if content.written_by is not None and not content.written_by.startswith(LIBRARY):
        raise UnmendableError(f"{path}: recorded by {content.written_by!r} and not finished; left as it is")
    if content.problem and not content.cut:
        raise UnmendableError(f"{path}: damaged, so left as it is: {content.problem}")
    for topic in content.topics.values():
        topics.setdefault(topic.name, topic)
    return content, summary


def _remove_empty(path: Path) -> None:
    """Removes a folder if there is nothing in it that others have put there."""
    if not any(path.iterdir()):
        path.rmdir()


def _copy_whole(path: Path, content: FileContent) -> None:
    """Writes the sound beginning of a file anew, with index and footer, in its place."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # of a mending that was killed
    facts = dict(content.notes[0][1]) if content.notes else {}
    copy = McapFile(temporary, facts)
    try:
        for name, values in content.notes[1:]:
            copy.note(name, values)
        for message in read_file(path, FileContent()):
            copy.write(message)
        copy.finish()
        temporary.replace(path)
    except (OSError, LlmAgentError) as error:
        copy.abandon()
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be mended: {error}") from error


def _facts(bag: Bag) -> dict[str, str]:
    facts = EpisodeFacts(bag.facts)
    for message, decoded in bag.decoded(TELLING):
        facts.take(message.topic.type, decoded)
    return facts.facts()


def discard(path: Path) -> None:
    """Deletes a bag so that no half of it is ever taken for one.

    Raises:
        StoreError: it cannot be deleted.
    """
    trash = path.with_name(f"{TRASH}{os.getpid()}-{path.name}")
    try:
        path.rename(trash)
        shutil.rmtree(trash)
    except OSError as error:
        raise StoreError(f"{path}: cannot be deleted: {error.strerror}") from error


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Keeps a folder from being swept, or held by another, meanwhile; what a kill leaves is not held.

    Yields whether it is: not where another holds it, and not where the file system cannot lock folders.
    """
    descriptor = -1
    try:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def sweep(folder: Path, prefix: str) -> None:
    """Deletes what a kill left half deleted or half redacted in a folder, but nothing that is `held`.

    Args:
        prefix: `TRASH`: all of it. `REDACTING`: of redactions only.
    """
    for path in [*folder.glob(f"{prefix}*"), *folder.glob(f".{prefix}*")]:  # two dots: of redactions before
        with held(path) as alone:
            if alone:
                shutil.rmtree(path, ignore_errors=True)
