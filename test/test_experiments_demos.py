"""The benchmark of demonstrations: its figures by hand, and a scripted person who drives the real graph by joystick."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmagent_ros.contract import load_mobile_contract
from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.experiments.bench import demos
from llmagent_ros.experiments.bench.results import OURS, Results
from llmagent_ros.experiments.recordings.transitions import kept_transitions
from llmagent_ros.perception.numbers import SceneNumbers, where_to_look
from llmagent_ros.simulation.driving import ScriptedOperator, WayAhead, check_drivable
from llmagent_ros.simulation.simulator import Simulator, world_of_episode
from llmagent_ros.simulation.task import load_task
from llmagent_ros.simulation.world import Body, World, WorldConfig
from llmagent_ros.types import Place, Source

CONTRACT, TASK = load_mobile_contract("sim_diffdrive"), load_task("navigate")


def run(*curve: tuple[int, float], **values: Any) -> dict[str, Any]:
    return {"curve": [{"env_steps": steps, "success": success} for steps, success in curve], **values}


def last_effect(scene: str) -> str:
    """What came of the last action, as the scene says it."""
    return scene.rpartition(", ")[2]


def look(scene: str) -> Place | None:
    return where_to_look(SceneNumbers(CONTRACT)(scene), CONTRACT.scene.max_clearance)


def test_ratios_by_hand(tmp_path: Path) -> None:
    results = Results(tmp_path / "demos.json", "demos", {}, read=demos.read)
    taught = {"taught": {"steps": 150}}
    results.add(OURS, 1, run((250, 0.5), (500, 0.8), **taught))  # never; and seeds end in any order
    results.add(OURS, 0, run((250, 0.5), (500, 0.9), **taught))
    results.add(demos.WITHOUT, 0, run((1000, 0.8), (2000, 0.95)))
    results.add(demos.WITHOUT, 1, run((2000, 0.95)))
    results.add(OURS, 2, run((1000, 0.9), **taught))
    results.add(demos.WITHOUT, 2, run((1000, 0.1), (8000, 0.8)))  # never: at least 8,000
    results.add(OURS, 3, run((250, 0.95), **taught))  # without its counterpart
    figures, _ = results.summary()
    assert figures["steps_ratio_10_demos"]["seeds"] == [0.25, None, 0.125]
    assert figures["steps_ratio_10_demos"]["value"] == 0.25
    assert figures["steps_to_90_demos"]["seeds"] == [500, None, 1000, 250]
    assert figures["steps_to_90_demos"]["value"] == 750, "never is worse than any number"
    assert figures["steps_to_90"]["seeds"] == [2000, 2000, None]
    results.add(demos.FREELY, 0, run((2000, 0.9), **taught))
    assert results.summary()[1][demos.FREELY]["steps_to_90_demos"]["seeds"] == [2000]
    demos.draw(results, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_scripted_person_reaches_what_is_asked_for() -> None:
    simulator, reached = Simulator(CONTRACT, TASK, seed=7), 0
    for _ in range(6):
        simulator.reset()
        assert simulator.world is not None
        person = ScriptedOperator(CONTRACT, TASK, simulator.world_config, simulator.world)
        ended = False
        while not ended:
            for _ in range(4):  # four looks in a control period
                simulator.advance(person.velocity(simulator.pose()), CONTRACT.control_period / 4)
            outcome = simulator.judge()
            ended = outcome.ended
        reached += outcome.success
    simulator.close()
    assert reached >= 5


def test_a_person_who_does_not_see_it_looks_for_it_and_not_for_ever() -> None:
    simulator = Simulator(CONTRACT, TASK, seed=7)
    simulator.reset()
    assert simulator.world is not None
    person = ScriptedOperator(CONTRACT, TASK, simulator.world_config, simulator.world, by_phrases=True)
    (x, y, yaw), turned = simulator.pose(), 0.0
    ahead = person.velocity((x, y, yaw))
    assert ahead.linear, "who sees it drives"
    assert person.velocity((x, y, yaw), Place(0.7, 2.0)) == CONTRACT.command("turn left")
    assert person.velocity((x, y, yaw), Place(-2.0, 2.0)) == CONTRACT.command("turn right")
    while not person.velocity((x, y, yaw + turned), Place(0.7, 2.0)).linear:
        turned += 0.4
        assert turned < 20, "never driven on"
    assert turned > math.tau
    simulator.close()


def test_a_person_goes_to_a_place_that_turning_does_not_show() -> None:
    """Round a pillar, and not to the object, which stands elsewhere."""
    config = WorldConfig(world="empty", size=(8.0, 8.0))
    ball, pillar = Body(3.0, 3.0, 0.25, "red ball"), Body(-1.0, 0.0, 0.3)
    world = World((-2.5, 0.0, 0.0), (pillar,), (ball,), "red ball")
    person, (x, y, yaw) = ScriptedOperator(CONTRACT, TASK, config, world, by_phrases=True), world.start
    place, nearest = (1.5, 0.0), math.inf
    for _ in range(40):
        dx, dy = place[0] - x, place[1] - y
        seen = Place(math.remainder(math.atan2(dy, dx) - yaw, math.tau), math.hypot(dx, dy))
        velocity = person.velocity((x, y, yaw), seen)
        for _ in range(10):
            yaw += velocity.angular * CONTRACT.control_period / 10
            x += velocity.linear * CONTRACT.control_period / 10 * math.cos(yaw)
            y += velocity.linear * CONTRACT.control_period / 10 * math.sin(yaw)
        nearest = min(nearest, math.hypot(x - pillar.x, y - pillar.y) - pillar.radius)
        if math.dist((x, y), place) < 0.6:
            break
    assert math.dist((x, y), place) < 0.6 and nearest > CONTRACT.footprint_radius
    walled = World(world.start, (Body(0.0, 3.5, 0.1), Body(2.0, 2.0, 1.4)), (ball,), "red ball")
    there = Body(2.0, 2.0, 0.0)
    assert not WayAhead(CONTRACT, TASK, config, walled, there).exists, "it stands in something"
    lost, pose = ScriptedOperator(CONTRACT, TASK, config, walled), (0.0, 0.0, math.pi / 4)
    assert lost.velocity(pose, Place(0.0, math.hypot(2.0, 2.0))) == lost.velocity(pose), "then to what is known"


def test_the_worlds_of_a_seed_are_those_of_its_simulator() -> None:
    simulator = Simulator(CONTRACT, TASK, seed=11)
    for number in range(3):
        simulator.reset()
        assert world_of_episode(CONTRACT, TASK, simulator.world_config, 11, number)[0] == simulator.world
    simulator.close()


def test_only_what_the_teachers_know_is_driven() -> None:
    with pytest.raises(ConfigError, match="task leave: the teacher only knows how to reach"):
        check_drivable(load_task("leave"))


def test_a_graph_that_fails_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserved_domain: None
) -> None:
    monkeypatch.setattr(demos, "ENVIRONMENT", "no_such_task")
    with pytest.raises(LlmAgentError, match=r"launch.log ends with: .*no_such_task"):
        demos.teach(tmp_path, 0, lambda text: None, demos.Person(), episodes=1)


def test_a_person_teaches_by_joystick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserved_domain: None
) -> None:
    said: list[str] = []
    left = tmp_path / "run" / "bags" / "interrupted"
    left.mkdir(parents=True)
    taught = demos.teach(tmp_path, demos._FIRST_SEED + 3, said.append, demos.Person(), episodes=1)
    steps = list(kept_transitions(taught / "bags"))
    assert not left.exists(), "a run that was interrupted is begun anew"
    by_hand = [step for step in steps if step.source == Source.HUMAN]
    assert by_hand == steps[-len(by_hand) :], "the person, once there, drives to the end"
    moved = [step for step in by_hand if step.action == "forward"]
    assert moved and all("turning 0.0" in last_effect(step.next_scene) for step in moved[1:]), "it did what it says"
    looking = [step.action for step in by_hand[1:] if look(step.scene) is not None]
    assert "turn right" in looking and "turn left" not in looking, "where the robot has not looked; it stands left"
    assert steps[-1].terminated and steps[-1].reward > 0.5, "the target was reached"
    assert said == [f"1 episodes driven: 1 reached, {len(by_hand)} steps by the person"]
    with monkeypatch.context() as patched:
        patched.setattr(demos, "GraphProcesses", None)
        again = demos.teach(tmp_path, demos._FIRST_SEED + 3, said.append, demos.Person(), episodes=1)
        assert again == taught, "it is made once"
        for seed, person in ((2, demos.Person()), (3, demos.Person(view="room")), (3, demos.Person(by_phrases=False))):
            with pytest.raises(TypeError):  # other words would start another graph
                demos.teach(tmp_path, demos._FIRST_SEED + seed, said.append, person, episodes=1)


def test_processes_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    """A worker of the benchmark may be terminated, and then ends nothing itself."""
    code = (
        "import pathlib, sys, time; from llmagent_ros.experiments.bench.graph_processes import GraphProcesses\n"
        "graph = GraphProcesses(pathlib.Path(sys.argv[1]))\n"
        "print(graph.run('sleep', '-c', 'import time; time.sleep(600)').pid, flush=True)\n"
        "time.sleep(600)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    child = psutil.Process(int(worker.stdout.readline()))
    worker.kill()
    worker.wait()
    worker.stdout.close()
    with suppress(psutil.NoSuchProcess):
        child.wait(30)
    assert not child.is_running()
