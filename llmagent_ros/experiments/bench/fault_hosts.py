"""Faults of the machines: a full disk, and a link between two of them that is cut. Both need rights on this one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llmagent_ros.errors import LlmAgentError
from llmagent_ros.experiments.bench.fault_graph import FaultGraph

DISK_MB = 64
HEARTBEAT_TIMEOUT = 0.5  # s, as docs/safety.md promises


class NotPossible(LlmAgentError):
    """This machine does not allow it."""


def _root(*command: object) -> None:
    """Raises NotPossible where the command fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30.0, check=False)
    except FileNotFoundError as error:
        raise NotPossible(f"there is no {words[0]}") from error
    if done.returncode:
        raise NotPossible(f"{' '.join(words[:3])}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


# --- a full disk ------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of DISK_MB. Raises NotPossible."""
    folder.mkdir()
    _root("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def fill(folder: Path) -> Path:
    """Fills a file system; the file that does."""
    path = folder / "filler"
    try:
        with path.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        return path
    raise LlmAgentError(f"{folder} cannot be filled")


# --- a link that is cut -------------------------------------------------------------------------------------


class Link:
    """Two network namespaces with a cable between them; as a context it leaves nothing behind.

    Raises:
        NotPossible: this machine does not allow it.
    """

    def __init__(self) -> None:
        number = os.getpid() % 10_000
        self.names = f"llm{number}a", f"llm{number}b"
        self._ends = f"llmv{number}a", f"llmv{number}b"
        self._stack = ExitStack()

    def __enter__(self) -> Link:
        with ExitStack() as stack:
            for name in self.names:
                _root("ip", "netns", "add", name)
                stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
            _root("ip", "link", "add", self._ends[0], "type", "veth", "peer", "name", self._ends[1])
            for number, (name, end) in enumerate(zip(self.names, self._ends, strict=True), start=1):
                _root("ip", "link", "set", end, "netns", name)
                _root("ip", "-n", name, "addr", "add", f"10.77.77.{number}/24", "dev", end)
                for device in ("lo", end):
                    _root("ip", "-n", name, "link", "set", device, "up")
                _root("ip", "-n", name, "route", "add", "default", "dev", end)  # of multicast, for the discovery
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inside(self, end: int) -> Sequence[str]:
        """The words before a command that runs at this end."""
        return "ip", "netns", "exec", self.names[end]

    def cut(self) -> float:
        """When it was done."""
        _root("ip", "-n", self.names[0], "link", "set", self._ends[0], "down")
        return time.monotonic()

    def mend(self) -> None:
        _root("ip", "-n", self.names[0], "link", "set", self._ends[0], "up")
        _root("ip", "-n", self.names[0], "route", "replace", "default", "dev", self._ends[0])


class SplitGraph(FaultGraph):
    """A robot at one end of a link, the policy's machine at the other."""

    def __init__(self, folder: Path, link: Link) -> None:
        self._link = link
        super().__init__(folder)

    def _start(self) -> None:
        # without shared memory, which knows nothing of network namespaces
        self._environment.pop("FASTRTPS_DEFAULT_PROFILES_FILE", None)  # it may keep to one host
        self._environment |= {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
        here, there = self._link.inside(0), self._link.inside(1)
        seen = ["--ros-args", "-r", "raw/odom:=odom"]
        observer = self.run("observer", "-m", "llmagent_ros.nodes.fault_observer", *seen, before=here, talks=True)
        self.follow(observer)
        simulated = ["--ros-args", "-p", "mode:=realtime", "-p", f"task:={self.task()}"]
        self.run("sim", "-m", "llmagent_ros.nodes.sim_node", *simulated, before=here)
        common = ["robot", "robot:=sim_diffdrive", "use_sim_time:=true", "console:=false"]
        words = ["-m", "llmagent_ros.cli.main", "launch", *common]
        self.launch = self.run("launch", *words, "part:=robot", f"out:={self.out}", before=here)
        self.run("compute", *words, "part:=compute", "learn:=false", f"out:={self.folder / 'compute'}", before=there)
        asks = ["--ros-args", "-p", "use_sim_time:=true", "-p", "learn:=false"]
        self.run("runner", "-m", "llmagent_ros.nodes.runner_node", *asks, before=here)
