"""What a person wants to know of bags: what is in them, and whether they are sound."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.recording.bags.facts import TELLING, EpisodeFacts
from llmagent_ros.recording.bags.metadata import METADATA
from llmagent_ros.recording.bags.reader import Bag, folder_bytes


@dataclass(frozen=True)
class BagEntry:
    """A bag in a list.

    Attributes:
        began: ns of the wall clock. duration: s. success: None while the episode has no end.
        adapters: names of those that acted, in order. finished: whether it has its metadata.yaml.
        problem: why nothing else is known of it; empty: it is.
    """

    path: Path
    run: str = ""
    episode: int = -1
    task: str = ""
    began: int = 0
    duration: float = 0.0
    steps: int = 0
    success: bool | None = None
    reason: str = ""
    reward: float = 0.0
    adapters: tuple[str, ...] = ()
    messages: int = 0
    nbytes: int = 0
    finished: bool = False
    problem: str = ""


def entry(path: Path) -> BagEntry:
    """A bag's entry; that of an unfinished one is found out from its messages. See `problem` for a damaged one."""
    try:
        return _entry(Bag(path))
    except (ConfigError, StoreError) as error:
        return BagEntry(path, nbytes=folder_bytes(path), problem=str(error))


def _entry(bag: Bag) -> BagEntry:
    facts, messages, start, duration = dict(bag.facts), 0, 0, 0
    if bag.metadata is not None:
        messages, start, duration = bag.metadata.messages, bag.metadata.start, bag.metadata.duration
    else:
        found, times = EpisodeFacts(facts), []
        for message in bag.messages():
            times.append(message.log_time)
            if message.topic.type in TELLING:
                found.take(message.topic.type, bag.codec.decode(message.topic.type, message.data))
        facts = found.facts()
        messages, start = len(times), min(times, default=0)
        duration = max(times, default=0) - start
    ended = facts.get("ended") == "true"
    try:
        return BagEntry(
            path=bag.path,
            run=facts.get("run", ""),
            episode=int(facts.get("episode", -1)),
            task=facts.get("task", ""),
            began=start,
            duration=duration * 1e-9,
            steps=int(facts.get("steps", 0)),
            success=facts.get("success") == "true" if ended else None,
            reason=facts.get("reason", ""),
            reward=float(facts.get("reward", 0.0)),
            adapters=tuple(each["name"] for each in json.loads(facts.get("adapters", "[]"))),
            messages=messages,
            nbytes=bag.nbytes,
            finished=bag.metadata is not None or bag.path.is_file(),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{bag.path}: its facts are not those of an episode: {error!r}") from error


def verify(path: Path) -> list[str]:
    """What is wrong with a bag; empty when it is sound.

    Looked at are the checksum of every chunk, that every message decodes, the counts in metadata.yaml, the contract's
    hash, and that it is finished.
    """
    try:
        bag = Bag(path)
    except (ConfigError, StoreError) as error:
        return [str(error)]
    problems = []
    counts: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    try:
        for message in bag.messages():
            counts[message.topic.name] += 1
            try:
                bag.codec.decode(message.topic.type, message.data)
            except StoreError:
                broken[message.topic.name] += 1
    except StoreError as error:
        problems.append(str(error))
    problems += [f"{path}: {problem}" for problem in bag.problems]
    problems += [f"{path}: {count} messages of {name} do not decode" for name, count in broken.items()]
    if bag.metadata is None and path.is_dir():
        then = "leaves it as it is, since it is damaged" if bag.damaged else "mends it"
        problems.append(f"{path}: not finished (no {METADATA}); the next start of its recorder {then}")
    if bag.metadata is not None:
        said = {name: count for name, count in bag.metadata.counts.items() if count}
        if said != dict(counts):
            problems.append(f"{path}: {METADATA} counts {sum(said.values())} messages, there are {counts.total()}")
    contract = bag.facts.get("contract")
    if contract is not None and hashlib.sha256(contract.encode()).hexdigest() != bag.facts.get("contract_sha256"):
        problems.append(f"{path}: the contract in it is not the one that its hash is of")
    return problems
