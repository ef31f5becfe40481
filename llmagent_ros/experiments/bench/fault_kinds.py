"""The faults of `llmagent bench faults`: how each begins, from when on it can be seen, and how it ends."""

from __future__ import annotations

import cmath
import math
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from llmagent_ros.bundle import ADAPTER, BASE_KEY, Bundle, bundle_digest, latest_bundle, load_bundle, save_bundle
from llmagent_ros.contract import load_mobile_contract
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.experiments.bench.fault_graph import Answer, FaultGraph

CONTRACT = load_mobile_contract("sim_diffdrive")
COMMAND_TIMEOUT = CLOCK_TIMEOUT = DRIVER_TIMEOUT = 1.5 * CONTRACT.control_period  # s, as docs/safety.md promises
REPEATS = 0.1  # m, rad that a robot may move while its scan stays the same, as docs/safety.md promises
JUMP = 0.5  # m, rad between two readings of odometry, which no robot of the benchmark moves: it is in another world
RECENT = 1.0  # s
CLOCK = 0.01  # s between two messages of the injector's clock
LAST = 1.6  # s for which a fault lasts at least; the longest time-out is 0.6 s
PERSON = 60.0  # s for a person to have the robot
BUNDLE = 120.0  # s for the learner to have published something
WORSE = 3.0  # standard deviations of the tensors of a worse adapter, over those of the one before
Visible = Callable[[FaultGraph], float | None]


@dataclass(frozen=True)
class Fault:
    """One that has begun.

    Attributes:
        at: when, s of the monotonic clock. visible: from when on it can be seen, asked when it is over; None: it need
            not be. lift: ends it. rogue: name of an adapter that must not act. back: whether what it took away is
            there again, asked after its end besides whether the robot drives.
    """

    at: float
    visible: Visible
    lift: Callable[[], object] = lambda: None
    rogue: str = ""
    back: Callable[[FaultGraph], bool] = lambda graph: True


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        begin: makes it happen now. stops: whether the robot must stop. recovers: whether it must drive again without
            a person; else the launch ends, as it is meant to. guarded: whether there still is a guard to say zero.
        lasts: s. hides: whether only motion can show it; then it lasts so long from when it can be told when it shows.
        watched: whether bag recorder and console run. returns: whether what it kills is started again.
    """

    begin: Callable[[FaultGraph, random.Random], Fault]
    stops: bool = True
    recovers: bool = True
    guarded: bool = True
    lasts: float = LAST
    hides: bool = False
    watched: bool = False
    returns: bool = True


def never(graph: FaultGraph) -> None:
    """Nothing must be seen."""


def _by_policy(offset: float, at: float, graph: FaultGraph) -> float | None:
    """The last command of the policy is stale."""
    stamps = [event["stamp"] for event in graph.since(at - 10.0, "policy")]
    return max(stamps) + offset + COMMAND_TIMEOUT if stamps else None


def _by_sensor(answer: Answer, sensor: str, graph: FaultGraph) -> float | None:
    """The last sound reading is stale."""
    timeout = CONTRACT.sensors.scan.timeout if sensor == "scan" else CONTRACT.sensors.odom.timeout
    return answer.sound[sensor] + answer.offset + timeout


def _by_motion(answer: Answer, graph: FaultGraph) -> float | None:
    """The last scan that may be believed is stale: that of the moment when the robot had moved too far for another.

    None: it has not moved that far since the last sound one. The way is the sum of the steps of the simulator's
    odometry, each turned into the frame of that scan. How far its clock is from ours is told by the fastest reading of
    the second before, since a simulator on a busy machine falls behind while the robot waits to move.
    """
    sound = answer.sound["scan"]
    readings = graph.since(answer.at - 10.0, "odom")
    first = max((k for k, event in enumerate(readings) if event["stamp"] <= sound), default=0)
    place, turned = 0j, 0.0
    for last, now in zip(readings[first:], readings[first + 1 :], strict=False):
        step = complex(now["x"] - last["x"], now["y"] - last["y"]) * cmath.rect(1.0, -last["yaw"])
        yaw = math.remainder(now["yaw"] - last["yaw"], 2 * math.pi)
        if max(abs(step), abs(yaw)) > JUMP:
            continue
        place, turned = place + step * cmath.rect(1.0, turned), turned + yaw
        if abs(place) > REPEATS or abs(turned) > REPEATS:
            offset = min(event["at"] - event["stamp"] for event in readings if 0.0 <= now["at"] - event["at"] <= RECENT)
            return float(now["stamp"] + offset + CONTRACT.sensors.scan.timeout)
    return None


# --- processes ------------------------------------------------------------------------------------------


def _kill(node: str, visible: str, graph: FaultGraph, rng: random.Random) -> Fault:
    answer = graph.inject("none")
    at = graph.signal(node, signal.SIGKILL)
    return Fault(at, _seen(visible, answer, at), back=lambda graph: graph.runs(node))


def _kill_for_good(node: str, graph: FaultGraph, rng: random.Random) -> Fault:
    """One that nobody starts again, and that nobody needs."""
    return Fault(graph.signal(node, signal.SIGKILL), never)


def _kill_teleop(graph: FaultGraph, rng: random.Random) -> Fault:
    """While a person drives: what they wanted last must not go on."""
    words = ["-m", "llmagent_ros.nodes.teleop_node", "--ros-args", "-p", "use_sim_time:=true", "-p", "keyboard:=never"]
    teleop, asked = graph.run("teleop", *words), time.monotonic()
    try:
        graph.inject("person")
        if not graph.wait(lambda: any(e.get("source") == "teleop" for e in graph.since(asked, "guard")), PERSON):
            raise LlmAgentError(f"a person does not get the robot within {PERSON:.0f} s")
    finally:
        at = time.monotonic()
        teleop.kill()
        teleop.wait()
    gone = at + LAST  # it is more than the time-out of a person's commands

    def back(graph: FaultGraph) -> bool:
        said = graph.since(gone, "guard")
        return bool(said) and not any(event.get("source") == "teleop" for event in said)

    return Fault(at, never, lambda: graph.inject("none"), back=back)


def _pause(node: str, visible: str, graph: FaultGraph, rng: random.Random) -> Fault:
    answer = graph.inject("none")
    at = graph.signal(node, signal.SIGSTOP)
    return Fault(at, _seen(visible, answer, at), lambda: graph.signal(node, signal.SIGCONT))


def _seen(visible: str, answer: Answer, at: float) -> Visible:
    if visible == "policy":
        return partial(_by_policy, answer.offset, at)
    if visible == "clock":
        return lambda graph: graph.inject("none").clock_at + CLOCK_TIMEOUT
    if visible == "driver":  # there is no guard; the robot's driver stops it when commands cease
        return lambda graph: max(event["at"] for event in graph.since(at - 10.0, "cmd")) + DRIVER_TIMEOUT
    return never


# --- sensors and clock ----------------------------------------------------------------------------------


def _spoil(fault: str, sensor: str, graph: FaultGraph, rng: random.Random) -> Fault:
    answer = graph.inject(fault, of=sensor)
    visible: Visible = never
    if _matters(sensor, fault):
        visible = partial(_by_motion, answer) if fault == "repeated" else partial(_by_sensor, answer, sensor)
    return Fault(answer.at, visible, lambda: graph.inject("none"))


def _clock(fault: str, graph: FaultGraph, rng: random.Random) -> Fault:
    answer = graph.inject(fault)
    later = CLOCK_TIMEOUT if fault == "clock stops" else 0.0

    def visible(graph: FaultGraph) -> float:
        # a clock that jumps is seen with the first message that does; one that stops, a time-out after its last
        return (answer.clock_at if later else answer.at + CLOCK) + later

    return Fault(answer.at, visible, lambda: graph.inject("none"))


# --- policy and adapter -----------------------------------------------------------------------------------


def _flood(graph: FaultGraph, rng: random.Random) -> Fault:
    answer = graph.inject("flood")
    return Fault(answer.at, never, lambda: graph.inject("none"))


def _adapter(wrong: str, graph: FaultGraph, rng: random.Random) -> Fault:
    """Announces a bundle that is like the newest one, but for what is wrong with it."""
    if not graph.wait(lambda: latest_bundle(graph.out / "bundles") is not None, BUNDLE):
        raise LlmAgentError(f"the learner has published nothing within {BUNDLE:.0f} s")
    newest = latest_bundle(graph.out / "bundles")
    assert newest is not None
    bundle, name = load_bundle(newest), f"rogue{rng.randrange(10**9)}"
    folder = graph.folder / "bundles" / name
    if wrong == "damaged":
        digest = _damaged(newest, folder, rng)
    else:
        digest = _other(bundle, folder, wrong, rng)
    base = "0" * 64 if wrong == "of another base" else str(bundle.meta[BASE_KEY])
    wording = CONTRACT.generalised("go to the red ball")
    answer = graph.inject("adapter", name=name, path=str(folder), digest=digest, base=base, wording=wording)
    return Fault(answer.at, never, rogue="" if wrong == "worse" else name)


def _damaged(newest: Path, folder: Path, rng: random.Random) -> str:
    digest = bundle_digest(newest)
    shutil.copytree(newest, folder)
    path = folder / ADAPTER
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 100)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))
    return digest


def _other(bundle: Bundle, folder: Path, wrong: str, rng: random.Random) -> str:
    generator = torch.Generator().manual_seed(rng.randrange(2**31))

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        spread = WORSE * float(tensor.float().std() if tensor.numel() > 1 else 1.0) + 1e-3
        return (spread * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)

    meta, adapter, critic = dict(bundle.meta), bundle.adapter, bundle.critic
    if wrong == "of another base":
        meta |= {BASE_KEY: "0" * 64, "feature_digest": "0" * 64}
    else:
        adapter = {key: noise(tensor) for key, tensor in adapter.items()} if adapter is not None else None
        critic = {key: noise(t) if t.is_floating_point() else t for key, t in critic.items()}
    save_bundle(folder, adapter=adapter, adapter_config=bundle.adapter_config, critic=critic, meta=meta)
    return bundle_digest(folder)


SENSORS = ("scan", "odom", "camera")
SPOILT = ("silent", "frozen", "repeated", "nan", "empty", "reordered", "late", "future")
UNTOLD = {("empty", "odom"), ("repeated", "odom")}  # a pose cannot be empty, and may be the same as long as it likes
ADAPTERS = ("damaged", "of another base", "worse")


def _matters(sensor: str, fault: str) -> bool:
    return sensor != "camera" and fault != "reordered"


def _kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for node in ("policy", "learner", "knowledge"):
        kinds[f"kill {node}"] = Kind(partial(_kill, node, "policy" if node == "policy" else ""), node == "policy")
    for node in ("policy", "perception"):
        kinds[f"pause {node}"] = Kind(partial(_pause, node, "policy"))
    kinds["pause sim"] = Kind(partial(_pause, "sim", "clock"))
    kinds["pause guard"] = Kind(partial(_pause, "guard", "driver"), guarded=False)
    for node in ("learner", "knowledge", "recorder", "runner"):
        kinds[f"pause {node}"] = Kind(partial(_pause, node, ""), stops=False)
    for sensor in SENSORS:
        for fault in SPOILT:
            if (fault, sensor) not in UNTOLD:
                stops = _matters(sensor, fault)
                hides = stops and fault == "repeated"
                kinds[f"{sensor} {fault}"] = Kind(partial(_spoil, fault, sensor), stops=stops, hides=hides)
    for fault in ("clock jumps ahead", "clock jumps back", "clock stops"):
        kinds[fault] = Kind(partial(_clock, fault))
    kinds["policy floods"] = Kind(_flood, stops=False)
    for wrong in ADAPTERS:
        kinds[f"adapter {wrong}"] = Kind(partial(_adapter, wrong), stops=False)
    kinds["kill teleop"] = Kind(_kill_teleop, stops=False)
    kinds["kill perception"] = Kind(partial(_kill, "perception", "policy"), recovers=False)
    kinds["kill guard"] = Kind(partial(_kill, "guard", "driver"), recovers=False, guarded=False)
    for node in ("sim", "runner", "recorder"):
        kinds[f"kill {node}"] = Kind(partial(_kill, node, ""), stops=False, recovers=False)
    # last, since they need a graph of their own, and what comes before has ended one
    kinds["kill bag_recorder"] = Kind(partial(_kill, "bag_recorder", ""), stops=False, watched=True)
    kinds["kill console"] = Kind(partial(_kill_for_good, "console"), stops=False, watched=True, returns=False)
    return kinds


KINDS = _kinds()
