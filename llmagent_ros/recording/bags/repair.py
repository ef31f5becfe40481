"""Mending bags whose recorder was killed: their whole chunks are kept, and they become bags like others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from llmagent_ros.errors import LlmAgentError, StoreError
from llmagent_ros.recording.bags.facts import TELLING, EpisodeFacts
from llmagent_ros.recording.bags.mcap_file import FileSummary, McapFile
from llmagent_ros.recording.bags.metadata import METADATA, write_metadata
from llmagent_ros.recording.bags.reader import Bag, FileContent, is_bag, read_file
from llmagent_ros.recording.bags.topics import BagTopic

TRASH = ".trash-"  # begins the name of what is being deleted


def repair_all(folder: Path) -> list[Path]:
    """Mends every unfinished bag in a folder and clears away what a kill left half deleted; the mended ones.

    Nobody else may be writing there. A bag that cannot be mended is left as it is.

    Raises:
        StoreError: the disk is full.
    """
    mended: list[Path] = []
    if not folder.is_dir():
        return mended
    for path in sorted(folder.iterdir()):
        if path.name.startswith(TRASH):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and not path.name.startswith(".") and not (path / METADATA).is_file():
            if is_bag(path):
                if repair(path):
                    mended.append(path)
            elif not any(path.iterdir()):
                path.rmdir()  # killed before its first file
    return mended


def repair(path: Path) -> bool:
    """Gives a bag folder without metadata.yaml what it lacks; False where it holds no whole chunk and was removed.

    Raises:
        StoreError: it cannot be written.
    """
    bag = Bag(path)
    summaries: list[FileSummary] = []
    topics: dict[str, BagTopic] = {}
    for file in bag.files:
        summary = _mend_file(file, topics)
        if summary is not None:
            summaries.append(summary)
    if not summaries:
        shutil.rmtree(path)
        return False
    write_metadata(path, topics.values(), summaries, _facts(Bag(path)) | {"mended": "true"})
    return True


def _mend_file(path: Path, topics: dict[str, BagTopic]) -> FileSummary | None:
    """What a file holds, after it has got a footer if it had none; None where it holds nothing and was removed."""
    content, summary = FileContent(), FileSummary(path.name)
    for message in read_file(path, content):
        summary.count(message)
    for topic in content.topics.values():
        topics.setdefault(topic.name, topic)
    if not summary.messages:
        path.unlink()
        return None
    if not content.whole or content.problem:
        _copy_whole(path, content)
    return summary


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
