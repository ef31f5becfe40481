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
from llmagent_ros.recording.bags.reader import Bag


@dataclass(frozen=True)
class BagEntry:
    """A bag in a list.

    Attributes:
        began: ns of the wall clock. duration: s. success: None while the episode has no end.
        adapters: names of those that acted, in order. finished: whether it has its metadata.yaml.
    """

    path: Path
    run: str
    episode: int
    task: str
    began: int
    duration: float
    steps: int
    success: bool | None
    reason: str
    reward: float
    adapters: tuple[str, ...]
    messages: int
    nbytes: int
    finished: bool


def entry(path: Path) -> BagEntry:
    """A bag's entry; that of an unfinished one is found out from its messages.

    Raises:
        StoreError: its metadata is damaged.
    """
    bag = Bag(path)
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
    return BagEntry(
        path=path,
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
        finished=bag.metadata is not None or path.is_file(),
    )


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
        problems.append(f"{path}: not finished (no {METADATA}); the next start of its recorder mends it")
    if bag.metadata is not None:
        said = {name: count for name, count in bag.metadata.counts.items() if count}
        if said != dict(counts):
            problems.append(f"{path}: {METADATA} counts {sum(said.values())} messages, there are {counts.total()}")
    contract = bag.facts.get("contract")
    if contract is not None and hashlib.sha256(contract.encode()).hexdigest() != bag.facts.get("contract_sha256"):
        problems.append(f"{path}: the contract in it is not the one that its hash is of")
    return problems
