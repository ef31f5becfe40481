"""The faults of `llmagent bench faults`: how each begins, from when on it can be seen, and how it ends."""

from __future__ import annotations

import random
import shutil
import signal
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
CLOCK = 0.01  # s between two messages of the injector's clock
LAST = 1.6  # s for which a fault lasts at least; the longest time-out is 0.6 s
BUNDLE = 120.0  # s for the learner to have published something
WORSE = 3.0  # standard deviations of the tensors of a worse adapter, over those of the one before
Visible = Callable[[FaultGraph], float | None]


@dataclass(frozen=True)
class Fault:
    """One that has begun.

    Attributes:
        at: when, s of the monotonic clock. visible: from when on it can be seen, asked when it is over; None: it need
            not be. lift: ends it. rogue: name of an adapter that must not act.
    """

    at: float
    visible: Visible
    lift: Callable[[], object] = lambda: None
    rogue: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        begin: makes it happen now. stops: whether the robot must stop. recovers: whether it must drive again without
            a person; else the launch ends, as it is meant to. guarded: whether there still is a guard to say zero.
        lasts: s.
    """

    begin: Callable[[FaultGraph, random.Random], Fault]
    stops: bool = True
    recovers: bool = True
    guarded: bool = True
    lasts: float = LAST


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


# --- processes ------------------------------------------------------------------------------------------


def _kill(node: str, visible: str, graph: FaultGraph, rng: random.Random) -> Fault:
    answer = graph.inject("none")
    at = graph.signal(node, signal.SIGKILL)
    return Fault(at, _seen(visible, answer, at))


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
    matters = sensor != "camera" and fault != "reordered"
    visible: Visible = partial(_by_sensor, answer, sensor) if matters else never
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
SPOILT = ("silent", "frozen", "nan", "empty", "reordered", "late", "future")
ADAPTERS = ("damaged", "of another base", "worse")


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
            if (fault, sensor) != ("empty", "odom"):  # a reading of one pose cannot be empty
                stops = sensor != "camera" and fault != "reordered"
                kinds[f"{sensor} {fault}"] = Kind(partial(_spoil, fault, sensor), stops=stops)
    for fault in ("clock jumps ahead", "clock jumps back", "clock stops"):
        kinds[fault] = Kind(partial(_clock, fault))
    kinds["policy floods"] = Kind(_flood, stops=False)
    for wrong in ADAPTERS:
        kinds[f"adapter {wrong}"] = Kind(partial(_adapter, wrong), stops=False)
    kinds["kill perception"] = Kind(partial(_kill, "perception", "policy"), recovers=False)
    kinds["kill guard"] = Kind(partial(_kill, "guard", "driver"), recovers=False, guarded=False)
    for node in ("sim", "runner", "recorder"):
        kinds[f"kill {node}"] = Kind(partial(_kill, node, ""), stops=False, recovers=False)
    return kinds


KINDS = _kinds()
