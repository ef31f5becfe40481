"""Which message goes into the bag of which episode."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from llmagent_ros.durable import make_folder
from llmagent_ros.errors import StoreError
from llmagent_ros.locking import HOLDER, FileLock
from llmagent_ros.messages import Message, key
from llmagent_ros.recording.bags.codec import Codec
from llmagent_ros.recording.bags.facts import DECISION, OUTCOME, TELLING, TRANSITION, EpisodeFacts
from llmagent_ros.recording.bags.reader import is_bag
from llmagent_ros.recording.bags.repair import UnmendableError, repair, repair_all
from llmagent_ros.recording.bags.retention import Retention
from llmagent_ros.recording.bags.topics import BagMessage, header_stamp
from llmagent_ros.recording.bags.writer import BagWriter

Role = Literal["sensor", "task", "scene", "latched", "other"]
LOCK = ".lock"  # in the folder of the bags
_PAST = 256  # readings of a topic from before an episode, at most
_PAST_BYTES = 16 << 20  # of them all
_EARLY = 64  # messages of an episode that may come before its task: topics are not in step with one another
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@validated(config=ConfigDict(extra="forbid"), frozen=True)
class BagsConfig:
    """How bags are kept.

    Attributes:
        bags_mb: room for all of them, MB; the oldest go. file_mb: after which the next file of a bag begins, MB.
        flush_period: s of wall time after which what came is in the file. linger: s of wall time for which a bag stays
            open after its episode, for what comes late.
        before: s by which readings may be older than the newest at the beginning of an episode and still go into its
            bag: longer than the time-outs of the contract.
    """

    bags_mb: Positive = 2000.0
    file_mb: Positive = 64.0
    flush_period: Positive = 1.0
    linger: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    before: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0


@dataclass
class _Open:
    """A bag that is being written. begun, over: stamps of its task and of its end, ns. ended: the latter, steady s."""

    writer: BagWriter
    facts: EpisodeFacts
    task_id: str
    episode: int
    begun: int
    over: int | None = None
    ended: float | None = None
    run: str = ""
    full: bool = False


@dataclass
class Counts:
    """messages: written. lost: that could not be, as the disk or the room was full. episodes: finished bags."""

    messages: int = 0
    lost: int = 0
    episodes: int = 0
    mended: int = 0


class EpisodeRecorder:
    """Sorts messages into bags, one for each task. Not thread-safe; see `BagThread`.

    A bag begins with the task, the readings right before it and what is latched (`Role`), and stays open for `linger`
    after the task is over or another began. What names its task or episode goes into that one's bag, whatever came in
    between; everything else into the newest. Bags that a kill left unfinished are mended when this is made; `left` says
    which could not be.

    Where a bag cannot be written, its beginning stays, `problem` says why, what follows of it counts as lost, and the
    next episode is tried again.

    Args:
        folder: of the bags. facts: that every bag gets. definitions: of the types in `TELLING`.

    Raises:
        StoreError: another recorder has the folder, or an unfinished bag cannot be mended, as the disk is full.
    """

    def __init__(
        self, folder: Path, config: BagsConfig, facts: Mapping[str, str], definitions: Mapping[str, str]
    ) -> None:
        self.folder, self.config, self.facts = folder, config, dict(facts)
        self.problem = ""
        self._codec = Codec(definitions, str(folder))
        make_folder(folder)
        busy = f"process {HOLDER} records there already; stop it, or give this recorder another out folder"
        self._lock = FileLock(folder / LOCK, f"{folder}: {busy}")
        try:
            repairs = repair_all(folder)
            self._retention = Retention(folder, int(config.bags_mb * 1e6))
        except BaseException:
            self._lock.release()
            raise
        self.counts, self.left = Counts(mended=len(repairs.mended)), repairs.left
        self._open: list[_Open] = []  # at most two, the newest last
        self._abandoned: list[Path] = []
        self._latched: dict[str, BagMessage] = {}
        self._past: dict[str, deque[BagMessage]] = {}
        self._early: deque[tuple[BagMessage, Role, Message | None]] = deque(maxlen=_EARLY)
        self._flushed = time.monotonic()
        # as perception has it: in lockstep nothing overtakes, else a reading may come a second late
        self._late = 0 if self.facts.get("mode") == "lockstep" else 1_000_000_000

    @property
    def nbytes(self) -> int:
        """Of all bags."""
        return self._retention.nbytes + self._open_bytes

    @property
    def deleted(self) -> int:
        """How many bags have gone for want of room."""
        return self._retention.deleted

    def take(self, message: BagMessage, role: Role) -> None:
        """Takes a message in the order of arrival."""
        decoded = None
        if message.topic.type in TELLING:
            try:
                decoded = self._codec.decode(message.topic.type, message.data)
            except StoreError as error:
                self._lose(error)
                return
        if role == "latched":
            self._latched[message.topic.name] = message
        elif role == "sensor":
            self._remember(message)
        elif role == "task":
            self._on_task(message, decoded)
            return
        bag = self._owner(message, role, decoded)
        if bag is not None:
            self._write(bag, message, decoded)
        elif role == "scene" or decoded is not None:
            self._early.append((message, role, decoded))

    def tick(self) -> None:
        """Flushes, closes bags whose time is over, and makes room; to be called several times a second."""
        now = time.monotonic()
        for bag in list(self._open):
            if bag.ended is not None and now - bag.ended >= self.config.linger:
                self._close(bag)
        if now - self._flushed < self.config.flush_period:
            return
        self._flushed = now
        for bag in list(self._open):
            if self._attempt(bag, bag.writer.flush):
                self.problem = ""
        self._keep_room()

    def close(self) -> None:
        """Finishes what is open, and lets another recorder have the folder."""
        for bag in list(self._open):
            self._close(bag)
        self._lock.release()

    # --- which bag -----------------------------------------------------------------------------------------

    def _on_task(self, message: BagMessage, task: Message) -> None:
        if not task.id:  # the one before is over
            if self._open:
                self._end(self._open[-1])
                self._open[-1].over = key(task.header.stamp)
                self._write(self._open[-1], message, task)
            return
        known = next((bag for bag in self._open if bag.task_id == task.id), None)
        if known is None:
            for bag in self._open:
                self._end(bag)
            for bag in self._open[:-1]:
                self._close(bag)
            known = self._begin(message, task)
        if known is not None:
            self._write(known, message, task)

    def _owner(self, message: BagMessage, role: Role, decoded: Message | None) -> _Open | None:
        if not self._open:
            return None
        newest, kind = self._open[-1], message.topic.type
        if role == "scene" or kind == DECISION:  # they name their task, which is like no other text
            return next((bag for bag in self._open if bag.task_id.encode() in message.data), None)
        if kind == TRANSITION and decoded is not None:
            own = [bag for bag in self._open if bag.episode == decoded.episode and bag.run in ("", decoded.run)]
            return own[-1] if own else None
        if kind == OUTCOME and decoded is not None and key(decoded.header.stamp) <= newest.begun:
            return self._open[0]
        if role == "sensor":
            return self._owner_of_reading(header_stamp(message.data))
        return newest

    def _owner_of_reading(self, stamp: int) -> _Open | None:
        """The last readings of an episode may come after its end, and then belong to it still."""
        newest = self._open[-1]
        for bag in self._open:
            late = bag.over is not None and bag.begun <= stamp <= bag.over
            if late and (bag is newest or stamp < newest.begun):
                return bag
        return None if newest.ended is not None else newest

    def _remember(self, message: BagMessage) -> None:
        """Keeps the newest readings of each topic for the bag that begins next."""
        stamp, past = header_stamp(message.data), self._past.setdefault(message.topic.name, deque(maxlen=_PAST))
        if past and stamp < header_stamp(past[-1].data) - self._late:  # a world that began anew
            for each in self._past.values():
                each.clear()
        past.append(message)
        oldest = stamp - int(self.config.before * 1e9)
        held = sum(len(each.data) for each in past)
        while len(past) > 1 and (header_stamp(past[0].data) < oldest or held > _PAST_BYTES):
            held -= len(past.popleft().data)

    # --- writing --------------------------------------------------------------------------------------------

    def _begin(self, message: BagMessage, task: Message) -> _Open | None:
        self._keep_room()
        self._mend_abandoned()
        facts = EpisodeFacts({**self.facts, "began": str(message.log_time)})
        facts.take(message.topic.type, task)
        path = self._new_folder(message.log_time, task.episode)
        try:
            writer = BagWriter(path, facts.facts(), int(self.config.file_mb * 1e6))
        except StoreError as error:
            self._lose(error)
            return None
        bag = _Open(writer, facts, task.id, task.episode, key(task.header.stamp))
        self._open.append(bag)
        for each in self._latched.values():  # they came long ago and hold still
            held = BagMessage(each.topic, each.data, message.log_time, each.publish_time, each.sequence)
            self._write(bag, held, None)
        for each in sorted((each for past in self._past.values() for each in past), key=lambda past: past.log_time):
            self._write(bag, each, None)
        self._take_early(bag)
        return bag

    def _take_early(self, bag: _Open) -> None:
        """What came before the task that it belongs to; the rest is of tasks that were never seen."""
        waiting, self._early = list(self._early), deque(maxlen=_EARLY)
        for message, role, decoded in waiting:
            if message.topic.type == OUTCOME and decoded is not None and key(decoded.header.stamp) <= bag.begun:
                continue
            if self._owner(message, role, decoded) is bag:
                self._write(bag, message, decoded)

    def _new_folder(self, began: int, episode: int) -> Path:
        moment = datetime.fromtimestamp(began * 1e-9, timezone.utc).strftime("%Y_%m_%d-%H_%M_%S")
        path = self.folder / f"{moment}_episode_{episode:06d}"
        number = 1
        while path.exists():
            number += 1
            path = path.with_name(f"{moment}_episode_{episode:06d}_{number}")
        return path

    def _write(self, bag: _Open, message: BagMessage, decoded: Message | None) -> None:
        if bag.full or bag not in self._open:
            self.counts.lost += 1
            return
        if not self._attempt(bag, lambda: bag.writer.write(message)):
            return
        self.counts.messages += 1
        if decoded is None:
            return
        if message.topic.type == DECISION:
            bag.run = decoded.run
        if bag.facts.take(message.topic.type, decoded):
            adapter = {"name": decoded.adapter, "digest": getattr(decoded, "adapter_digest", "")}
            self._attempt(bag, lambda: bag.writer.note("llmagent.adapter", adapter))

    def _attempt(self, bag: _Open, write: Callable[[], None]) -> bool:
        """Whether it was written; if not the bag is let go of as it is."""
        try:
            write()
        except StoreError as error:
            self._open.remove(bag)
            bag.writer.abandon()
            self._abandoned.append(bag.writer.folder)
            self._lose(error)
            return False
        return True

    def _lose(self, error: StoreError) -> None:
        self.counts.lost += 1
        self.problem = str(error)

    def _mend_abandoned(self) -> None:
        """What a full disk has cut off becomes a bag as soon as there is room for its index."""
        for path in list(self._abandoned):
            try:
                if is_bag(path) and repair(path):
                    self._retention.add(path)
            except UnmendableError as error:  # nor will it be the next time
                self.problem = str(error)
            except StoreError as error:
                self.problem = str(error)
                return
            self._abandoned.remove(path)

    def _end(self, bag: _Open) -> None:
        bag.ended = bag.ended or time.monotonic()

    def _close(self, bag: _Open) -> None:
        bag.writer.facts.update(bag.facts.facts())
        if bag.full:
            bag.writer.facts["full"] = "true"
        if not self._attempt(bag, bag.writer.close):
            return
        self.problem = ""
        self._open.remove(bag)
        self._retention.add(bag.writer.folder)
        self._keep_room()
        self.counts.episodes += 1  # last: who reads it finds the folder as it is to be

    def _keep_room(self) -> None:
        try:
            fits = self._retention.make_room(self._open_bytes)
        except StoreError as error:
            self.problem = str(error)
            return
        if not fits and self._open:
            self._open[-1].full = True  # one episode alone takes all the room: its beginning stays

    @property
    def _open_bytes(self) -> int:
        return sum(bag.writer.nbytes for bag in self._open)
