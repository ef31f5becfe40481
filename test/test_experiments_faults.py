"""The benchmark of faults: its figures by hand, hostile texts for real, and one injection into the real graph."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from llmagent_ros.bundle import load_bundle, save_bundle
from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, LlmAgentError, ModelError
from llmagent_ros.experiments.bench import fault_hosts, fault_kinds, faults, hostile
from llmagent_ros.experiments.bench.fault_graph import Answer, FaultGraph
from llmagent_ros.experiments.bench.results import Results


class Seen:
    """Stands for a graph of which these events were seen."""

    ended = False

    def __init__(self, **events: list[dict[str, Any]]) -> None:
        self._events = events

    def since(self, at: float, kind: str) -> list[dict[str, Any]]:
        return [event for event in self._events.get(kind, []) if event["at"] >= at]


def commands(*told: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"at": at, "linear": linear, "angular": 0.0} for at, linear in told]


def stop_of(kind: str, seen: Seen, visible: float | None, lifted: float = 12.0) -> dict[str, Any]:
    return faults.stopped(seen, faults.KINDS[kind], 10.0, visible, lifted)  # type: ignore[arg-type]


# --- figures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "stop_ms"),
    [
        ([(10.1, 0.5), (10.65, 0.5), (10.7, 0.0), (11.0, 0.0)], 100.0),
        ([(10.1, 0.5), (10.3, 0.0), (11.0, 0.0)], 0.0),  # before it had to
        ([(10.1, 0.5), (10.7, 0.0), (11.0, 0.2), (11.5, 0.0), (12.5, 0.3)], 900.0),  # it did not last; later is later
        ([(10.1, 0.5), (11.9, 0.5)], None),
    ],
)
def test_when_it_stopped_by_hand(told: list[tuple[float, float]], stop_ms: float | None) -> None:
    assert stop_of("pause policy", Seen(cmd=commands(*told)), 10.6) == {"stop_ms": pytest.approx(stop_ms)}


def test_without_a_guard_the_robot_itself_must_stand() -> None:
    seen = Seen(odom=commands((10.1, 0.5), (10.7, 0.3), (10.8, 0.01), (10.9, 0.0)))
    assert stop_of("pause guard", seen, 10.6) == {"driver_stop_ms": pytest.approx(200.0)}
    assert stop_of("pause guard", Seen(odom=commands((11.9, 0.5))), 10.6) == {"driver_stop_ms": None}


@pytest.mark.parametrize(
    ("speeds", "count"),
    [
        ([0.0, 0.5, 0.6, 0.0, -0.6], 0),
        ([0.61], 1),
        ([math.nan, math.inf], 2),
        ([0.6, -0.6, 0.3], 0),
    ],
)
def test_violations_by_hand(speeds: list[float], count: int) -> None:
    assert faults.violations(commands(*((float(at), speed) for at, speed in enumerate(speeds)))) == count


def test_growth_beyond_a_control_period_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = dataclasses.replace(faults.CONTRACT.limits, linear_acceleration=0.5)  # 0.2 m/s in 0.4 s
    monkeypatch.setattr(faults, "CONTRACT", dataclasses.replace(faults.CONTRACT, limits=limits))
    speeds = [0.0, 0.2, 0.4, 0.6, 0.0, -0.2, 0.0, 0.3, -0.3, -0.1]
    assert faults.violations(commands(*((float(at), speed) for at, speed in enumerate(speeds)))) == 2


def result(**values: Any) -> dict[str, Any]:
    told = {"stops": True, "recovers": True, "recovered": True, "recovery_s": 1.0, "limit_violations": 0}
    return {**told, "collisions": 0, "transitions_lost": 0, "guard_p99_ms": 0.5, **values}


def test_the_worst_stop_counts_and_one_that_never_came_is_worse(tmp_path: Path) -> None:
    results = Results(tmp_path / "faults.json", "faults", faults.configuration(50))
    for seed, stop in enumerate((10.0, 120.0)):
        results.add("scan nan", seed, result(stop_ms=stop, guard_p99_ms=seed))
    results.add("kill guard", 0, result(recovers=False, recovered=None, driver_stop_ms=40.0, collisions=1))
    results.add("link cut", 0, {"skipped": "no rights"})
    results.add("hostile texts", 0, {"hostile_texts": 50, "outside_vocabulary": 1})
    figures, peers = faults.read(results)
    told = {key: entry["value"] for key, entry in figures.items()}
    assert (told["stop_ms_max"], told["driver_stop_ms_max"], told["injections"]) == (120.0, 40.0, 3)
    assert (told["collisions_caused"], told["recovered_share"], told["guard_p99_ms"]) == (1, 1.0, 0.5)
    assert (told["hostile_texts"], told["outside_vocabulary"]) == (50, 1)
    assert "link cut, not possible here: no rights" in peers
    assert peers["scan nan"]["stop_ms_max"]["value"] == 120.0
    results.add("scan nan", 2, result(stop_ms=None, recovered=False, recovery_s=None))
    told = {key: entry["value"] for key, entry in faults.read(results)[0].items()}
    assert told["stop_ms_max"] is None and told["recovered_share"] == pytest.approx(2 / 3)
    faults.draw(results, tmp_path / "stops.png")
    assert (tmp_path / "stops.png").read_bytes().startswith(b"\x89PNG")


def test_there_is_nothing_to_draw_before_a_stop_was_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to draw"):
        faults.draw(Results(tmp_path / "faults.json", "faults", {}), tmp_path / "stops.png")


# --- a scan that repeats --------------------------------------------------------------------------------

FROZEN = Answer(at=1010.0, offset=1000.0, sound={"scan": 10.0}, clock_at=1010.0)  # at 10 s of the simulator's clock


def poses(*told: tuple[float, float, float, float]) -> Seen:
    """stamp, x, y, yaw of readings of odometry, which arrive 20 ms later."""
    return Seen(odom=[{"at": 1000.02 + stamp, "stamp": stamp, "x": x, "y": y, "yaw": yaw} for stamp, x, y, yaw in told])


def seen_at(seen: Seen) -> float | None:
    return fault_kinds._by_motion(FROZEN, seen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "moved_at"),
    [
        ([(9.9, 5.0, 5.0, 0.0), (10.0, 5.05, 5.0, 0.0), (10.1, 5.1, 5.0, 0.0), (10.2, 5.16, 5.0, 0.0)], 10.2),
        ([(9.9, 0.0, 0.0, 3.1), (10.1, 0.0, 0.0, -3.1), (10.2, 0.0, 0.0, -3.05)], 10.2),  # 0.083 rad, then 0.133
        ([(10.0, 0.0, 0.0, 0.0), (10.1, 0.08, 0.0, 0.0), (10.2, 0.0, 0.0, 0.0), (10.3, 0.09, 0.0, 0.0)], None),
        # another world, in which it looks elsewhere: 0.06 m ahead before, 0.06 m ahead after
        ([(10.0, 0.0, 0.0, 0.0), (10.1, 0.06, 0.0, 0.0), (10.2, 9.0, 9.0, 1.5708), (10.3, 9.0, 9.06, 1.5708)], 10.3),
        ([(10.0, 0.0, 0.0, 0.0), (10.1, 9.0, 9.0, 1.5), (10.2, 9.0, 9.0, 1.5)], None),
        ([], None),
    ],
)
def test_a_repeated_scan_shows_when_the_robot_has_moved(
    told: list[tuple[float, float, float, float]], moved_at: float | None
) -> None:
    shown = None if moved_at is None else pytest.approx(1000.02 + moved_at + 0.6)
    assert seen_at(poses(*told)) == shown


def test_a_fault_that_nothing_could_show_counts_for_no_stop_and_is_told(tmp_path: Path) -> None:
    results = Results(tmp_path / "faults.json", "faults", faults.configuration(50))
    results.add("scan repeated", 0, result(stop_ms=30.0, unseen=False))
    results.add("scan repeated", 1, result(unseen=True))
    figures, peers = faults.read(results)
    assert (figures["stop_ms_max"]["value"], figures["unseen"]["value"]) == (30.0, 1)
    assert peers["scan repeated"]["unseen"]["value"] == 1


class Still(Seen):
    """A graph whose robot stands, by a clock of its own."""

    def wait_until_it_drives(self) -> None:
        pass

    def wait(self, condition: Any, seconds: float, every: float = 0.0) -> bool:
        return bool(condition())

    def follows(self, since: float) -> bool:
        return True

    def missing(self) -> set[tuple[str, int, int]]:
        return set()


@pytest.mark.parametrize("moves", [False, True])
def test_a_robot_that_stands_need_not_be_stopped(moves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MOMENT", 0.0)
    fault = fault_kinds.Fault(10.0, lambda graph: 10.5 if moves else None)
    kind = dataclasses.replace(faults.KINDS["scan repeated"], begin=lambda graph, rng: fault)
    told = faults.injected(Still(cmd=commands((10.1, 0.5))), kind, random.Random(0))  # type: ignore[arg-type]
    assert told["unseen"] is not moves
    assert told.get("stop_ms", "not judged") == (None if moves else "not judged"), "one that can be seen must be"


# --- hostile texts --------------------------------------------------------------------------------------


def test_hostile_texts_command_nothing() -> None:
    told = hostile.measure(0, 45)
    assert (told["hostile_texts"], told["outside_vocabulary"]) == (45, 0), told["examples"]
    assert 0 < told["refused"] < 45


def test_texts_are_of_their_seed_and_of_every_style() -> None:
    texts = [hostile.text(random.Random(seed)) for seed in range(200)]
    assert texts == [hostile.text(random.Random(seed)) for seed in range(200)]
    assert max(map(len, texts)) > 10_000 and any(not text.isprintable() for text in texts)
    assert any("</s>" in text for text in texts)


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    world = hostile._World()
    assert world.let_in("</s>", "instruction", random.Random(0))[1] == ""
    monkeypatch.setattr(hostile._policy().model, "_special", [])
    problems = {world.let_in("</s> go", "instruction", random.Random(seed))[1] for seed in range(3)}
    assert problems == {"a word became a special token"}


# --- what is wrong with adapters -------------------------------------------------------------------------


def test_wrong_adapters_are_wrong_as_they_say(tmp_path: Path) -> None:
    tensors = {"a.lora_A.weight": torch.randn(4, 8), "a.lora_B.weight": torch.randn(8, 4)}
    meta = {"base_digest": "1" * 64, "feature_digest": "2" * 64}
    newest = tmp_path / "newest"
    save_bundle(newest, adapter=tensors, adapter_config={"r": 4}, critic={"w": torch.ones(3)}, meta=meta)
    rng = random.Random(0)
    fault_kinds._damaged(newest, tmp_path / "damaged", rng)
    with pytest.raises(ModelError, match="damaged"):
        load_bundle(tmp_path / "damaged")
    fault_kinds._other(load_bundle(newest), tmp_path / "other", "of another base", rng)
    assert load_bundle(tmp_path / "other").meta["base_digest"] == "0" * 64
    digest = fault_kinds._other(load_bundle(newest), tmp_path / "worse", "worse", rng)
    worse = load_bundle(tmp_path / "worse")
    assert worse.digest == digest and worse.adapter is not None
    assert not torch.equal(worse.adapter["a.lora_A.weight"], tensors["a.lora_A.weight"])


# --- machines -------------------------------------------------------------------------------------------


def test_a_machine_without_the_rights_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fault_hosts.NotPossible, match="there is no ip"), fault_hosts.Link():
        pass
    told = faults.measure("link cut", 0, 50, tmp_path, lambda text: None)
    assert told == {"skipped": "there is no ip"}


ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.77.77.2", 7777))
while True:
    data, sender = server.recvfrom(64)
    server.sendto(data, sender)
"""
ASK = """
import socket
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(0.5)
client.sendto(b"x", ("10.77.77.2", 7777))
client.recvfrom(64)
"""


def test_a_link_is_cut_and_mended() -> None:
    try:
        with fault_hosts.Link() as link:
            echo = subprocess.Popen([*link.inside(1), sys.executable, "-c", ECHO])

            def reaches() -> bool:
                ask = [*link.inside(0), sys.executable, "-c", ASK]
                return subprocess.run(ask, capture_output=True, check=False).returncode == 0

            try:
                assert _eventually(reaches)
                link.cut()
                assert not reaches()
                link.mend()
                assert _eventually(reaches)
            finally:
                echo.kill()
                echo.wait()
    except fault_hosts.NotPossible as error:
        pytest.skip(str(error))


def _eventually(condition: Any) -> bool:
    limit = time.monotonic() + 20.0
    while not condition():
        if time.monotonic() > limit:
            return False
    return True


# --- for real --------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("bench_faults")
@pytest.mark.usefixtures("reserved_domain")
def test_one_fault_in_the_real_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "faults.json"
    words = ["bench", "faults", "--seeds", "1", "--workers", "1", "--only", "scan nan", "--json", str(path)]
    try:
        assert main([*words, "--scratch", str(tmp_path / "runs")]) == 0
    finally:
        faults.close()
    told = json.loads(path.read_text())
    (found,) = told["runs"]["scan nan"].values()
    assert found["stop_ms"] is not None and found["recovered"] and not found["limit_violations"]
    assert found["transitions_lost"] == 0 and found["guard_p99_ms"] > 0.0
    assert told["figures"]["injections"]["value"] == 1
    assert re.search(r"stop_ms_max \(ms\) *\| [0-9]", capsys.readouterr().out)


@pytest.mark.usefixtures("reserved_domain")
def test_a_graph_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.launch.xml"
    broken.write_text("<launch><nod/></launch>")
    monkeypatch.setattr("llmagent_ros.experiments.bench.fault_graph.LAUNCH", broken)
    with FaultGraph(tmp_path / "run") as graph, pytest.raises(LlmAgentError, match=r"does not drive.*nod"):
        graph.wait_until_it_drives()
