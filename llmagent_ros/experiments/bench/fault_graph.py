"""The graph that the fault benchmark spoils: a launch, an injector and an observer, each in processes of its own.

Times are s of the system's monotonic clock, which all of them share.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

from llmagent_ros.errors import LlmAgentError
from llmagent_ros.experiments.bench.graph_processes import GraphProcesses, processes_below
from llmagent_ros.learning.rl.replay import Replay

LAUNCH = Path(__file__).parent / "faults.launch.xml"
START = 180.0  # s until the robot drives
_ANSWER = 10.0  # s for the injector
_EVENTS = 50_000  # of each kind that are kept
_RECENT = 2000  # transitions of a replay that are looked at; the policy keeps as many
_THERE = 60.0  # s for a node to be there again
_STEPS = 300  # control periods of an episode
Event = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the injector says when it has taken a fault.

    Attributes:
        at: when. offset: monotonic clock less the simulator's. sound: when the last sound reading of each sensor was
            acquired. clock_at: when the clock was last passed on.
    """

    at: float
    offset: float
    sound: Mapping[str, float]
    clock_at: float


class FaultGraph(GraphProcesses):
    """Starts everything; as a context it leaves nothing behind.

    Args:
        folder: for logs and the run. out: of the run; None: below `folder`. watched: with bags and the live view.
    """

    def __init__(self, folder: Path, out: Path | None = None, *, watched: bool = False) -> None:
        super().__init__(folder)
        self.out, self.watched = out or folder / "out", watched
        self._events: defaultdict[str, deque[Event]] = defaultdict(lambda: deque(maxlen=_EVENTS))
        self._lock = threading.Lock()  # of the events
        self._safe: set[tuple[str, int, int]] = set()  # transitions that were in a replay
        self.kills: Counter[str] = Counter()  # by node
        self._answers: queue.Queue[str] = queue.Queue()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        observer = self.run("observer", "-m", "llmagent_ros.nodes.fault_observer", talks=True)
        self._injector = self.run("injector", "-m", "llmagent_ros.nodes.fault_injector", talks=True)
        self.follow(observer)
        self._read(self._injector, self._answers.put)
        words = ["-m", "llmagent_ros.cli.main", "launch", LAUNCH, f"task:={self.task()}", f"out:={self.out}"]
        self.launch = self.run("launch", *words, f"watched:={str(self.watched).lower()}")

    def task(self) -> Path:
        """A task file for long episodes."""
        path = self.folder / "task.yaml"
        told = {"task": "faults", "world": "clutter", "instructions": ["go to the {object}"], "max_steps": _STEPS}
        path.write_text(yaml.safe_dump(told), encoding="utf-8")
        return path

    def _note(self, line: str) -> None:
        event = json.loads(line)
        with self._lock:
            self._events[event["kind"]].append(event)

    def follow(self, observer: subprocess.Popen[str]) -> None:
        """Takes what an observer says from now on."""
        self._read(observer, self._note)

    def _read(self, process: subprocess.Popen[str], take: Callable[[str], object]) -> None:
        assert process.stdout is not None
        stream: IO[str] = process.stdout

        def read() -> None:
            for line in stream:
                take(line)

        threading.Thread(target=read, daemon=True).start()

    def __enter__(self) -> FaultGraph:
        return self

    # --- what is seen -----------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self.launch.poll() is not None

    def since(self, at: float, kind: str) -> list[Event]:
        """Events of a kind from then on, in their order."""
        found: list[Event] = []
        with self._lock:
            for event in reversed(self._events[kind]):
                if event["at"] < at:
                    break
                found.append(event)
        return found[::-1]

    def drives(self, since: float) -> bool:
        """Whether the policy has made the robot move after `since`."""
        told = [event["at"] for event in self.since(since, "cmd") if event["linear"] or event["angular"]]
        return len(told) >= 3 and bool(self.since(since, "policy"))

    def follows(self, since: float) -> bool:
        """Whether the guard has followed the policy after `since`, though something may have been in the way."""
        said = any(event.get("source") == "policy" for event in self.since(since, "guard"))
        return self.drives(since) or (said and bool(self.since(since, "policy")))

    def wait_until_it_drives(self) -> None:
        """Raises LlmAgentError where it does not."""
        began = time.monotonic()
        self.wait(lambda: self.ended or self.drives(max(began, time.monotonic() - 1.0)), START)
        if self.ended or not self.drives(began):
            raise LlmAgentError(f"the robot does not drive; {self.last_words('launch')}")

    def stored(self, last: int | None = None) -> set[tuple[str, int, int]]:
        """Keys of transitions that are safe in a replay of the run: of all, or of the last ones."""
        found: set[tuple[str, int, int]] = set()
        for path in sorted(self.out.rglob("replay.sqlite")):
            with Replay(path, read_only=True) as replay:
                count = len(replay) if last is None else min(last, len(replay))
                found |= {(each.run, each.episode, each.step) for each in replay.recent(count)}
        return found

    def missing(self) -> set[tuple[str, int, int]]:
        """Keys of transitions that were published and are in no replay yet."""
        published = {(e["run"], e["episode"], e["step"]) for e in self.since(0.0, "transition")}
        if published - self._safe:
            self._safe |= self.stored(_RECENT)
        return published - self._safe

    # --- what is done to it -----------------------------------------------------------------------------

    def inject(self, fault: str, **values: Any) -> Answer:
        """Tells the injector; what it answers.

        Raises:
            LlmAgentError: it does not.
        """
        assert self._injector.stdin is not None
        self._injector.stdin.write(json.dumps({"fault": fault, **values}) + "\n")
        self._injector.stdin.flush()
        try:
            told = json.loads(self._answers.get(timeout=_ANSWER))
        except queue.Empty as error:
            raise LlmAgentError(f"the injector has not answered within {_ANSWER:.0f} s") from error
        return Answer(told["at"], told["at"] - told["clock"], told["sound"], told["clock_at"])

    def signal(self, node: str, number: signal.Signals) -> float:
        """Sends a signal to a node of the launch, which may just be started again; when.

        Raises:
            LlmAgentError: it does not run.
        """
        self.kills[node] += number == signal.SIGKILL
        found: list[psutil.Process] = []  # kept: by the next look it may be gone

        def there() -> bool:
            found.extend(self._of(node))
            return bool(found)

        if not self.wait(there, _THERE):
            raise LlmAgentError(f"node {node} does not run")
        found[0].send_signal(number)
        return time.monotonic()

    def runs(self, node: str) -> bool:
        """Whether a node of the launch does."""
        return bool(self._of(node))

    def _of(self, node: str) -> list[psutil.Process]:
        return [child for child in processes_below(self.launch.pid) if _is(child, node)]


def _is(process: psutil.Process, node: str) -> bool:
    try:
        return any(Path(word).name == f"{node}_node" for word in process.cmdline()[:2])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
