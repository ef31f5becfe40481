"""Episodes: repeatable by seed, ended for the right reason, and a Gymnasium environment that passes its checker."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env

from llmagent_ros.contract import load_contract, wrap_angle
from llmagent_ros.errors import UnknownNameError
from llmagent_ros.simulation.env import ENV_ID, NavigateEnv, register
from llmagent_ros.simulation.physics import Readings
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import TaskConfig, load_task
from llmagent_ros.types import Outcome, Velocity

CONTRACT = load_contract("sim_diffdrive")
PERIOD = CONTRACT.control_period
Make = Callable[..., Simulator]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Simulators of a task in a room without obstacles, unless its world says otherwise."""
    made: list[Simulator] = []

    def build(
        task: dict[str, object] | None = None, world: dict[str, object] | None = None, seed: int = 0
    ) -> Simulator:
        empty = {"world": "empty", "obstacles": {"count": [0, 0]}, "objects": [1, 1]}
        (tmp_path / "world.yaml").write_text(yaml.safe_dump(empty | (world or {})))
        plain = {"task": "test", "world": str(tmp_path / "world.yaml"), "instructions": ["go to the {object}"]}
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(plain | (task or {})))
        made.append(Simulator(CONTRACT, load_task(str(tmp_path / "task.yaml")), seed=seed))
        return made[-1]

    yield build
    for simulator in made:
        simulator.close()


def play(simulator: Simulator, seed: int, steps: int = 12) -> list[tuple[Readings, Outcome | None]]:
    """An episode by actions drawn from a fixed seed."""
    rng, seen = np.random.default_rng(7), [(simulator.reset(seed), None)]
    for _ in range(steps):
        readings, outcome = simulator.step(CONTRACT.command(str(rng.choice(CONTRACT.phrases))))
        seen.append((readings, outcome))
        if outcome.ended:
            break
    return seen


def same(a: Readings, b: Readings) -> bool:
    """To the bit, except for the stamps: time goes on over episodes."""
    odometry = dataclasses.replace(a.odometry, stamp=b.odometry.stamp) == b.odometry
    return odometry and np.array_equal(a.scan.ranges, b.scan.ranges) and np.array_equal(a.image.rgb, b.image.rgb)


def test_same_seed_gives_the_same_readings_to_the_bit(make: Make) -> None:
    world = {"obstacles": {"count": [4, 6]}, "objects": [2, 3]}
    first, second = make(world=world), make(world=world, seed=99)
    play(second, 5)  # another history must not matter
    a, b = play(first, 3), play(second, 3)
    assert len(a) == len(b) > 3
    assert all(same(x, y) for (x, _), (y, _) in zip(a, b, strict=True))
    assert [outcome for _, outcome in a] == [outcome for _, outcome in b]
    assert first.instruction == second.instruction


def test_episode_n_depends_on_seed_and_n_alone(make: Make) -> None:
    first, second = make(seed=4), make(seed=4)
    for _ in range(3):
        a, b = first.reset(), second.reset()
        second.step(Velocity(0.3))  # what happens in one episode does not change the next
        assert same(a, b)
    assert first.episode == 2


def test_different_seeds_and_episodes_differ(make: Make) -> None:
    simulator = make()
    readings = [simulator.reset(0), simulator.reset(1), simulator.reset()]
    assert not any(same(readings[i], readings[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def bearing_to_target(simulator: Simulator) -> float:
    assert simulator.world is not None
    target = simulator.world.object(simulator.world.target)
    assert target is not None
    x, y, yaw = simulator.pose()
    return wrap_angle(math.atan2(target.y - y, target.x - x) - yaw)


def steer(simulator: Simulator) -> Velocity:
    """Straight to the target by the true pose."""
    bearing = bearing_to_target(simulator)
    if abs(bearing) > 0.3:
        return CONTRACT.command("turn left" if bearing > 0 else "turn right")
    return CONTRACT.command("forward")


@pytest.mark.parametrize("seed", range(3))
def test_reaching_ends_with_success_and_the_promised_return(make: Make, seed: int) -> None:
    simulator = make({"reward": {"reached": 2.0, "progress": 0.5, "step": -0.1, "collision": -1.0}})
    simulator.reset(seed)
    start = simulator.gap()
    outcomes = []
    while not outcomes or not outcomes[-1].ended:
        outcomes.append(simulator.step(steer(simulator))[1])
    last, end = outcomes[-1], simulator.gap()
    assert last.terminated and last.success and not last.truncated and last.reason == "reached"
    assert not any(o.success for o in outcomes[:-1])
    assert start is not None and end is not None and end <= simulator.task.reach
    expected = 2.0 + 0.5 * (start - end) - 0.1 * len(outcomes)
    assert sum(o.reward for o in outcomes) == pytest.approx(expected)


def test_collision_ends_the_episode(make: Make) -> None:
    simulator = make({"max_steps": 500})
    simulator.reset(0)
    while abs(abs(bearing_to_target(simulator)) - math.pi) > 0.4:  # turn away from the target, to a wall
        assert not simulator.step(CONTRACT.command("turn left"))[1].ended
    outcome = Outcome(0.0)
    while not outcome.ended:
        _, outcome = simulator.step(CONTRACT.command("forward"))
    assert (outcome.terminated, outcome.truncated, outcome.success) == (True, False, False)
    assert outcome.reason == "collision"
    assert outcome.reward < -0.9


def test_timeout_truncates_and_is_not_terminated(make: Make) -> None:
    simulator = make({"max_steps": 4})
    simulator.reset(0)
    outcomes = [simulator.step(CONTRACT.command("turn left"))[1] for _ in range(4)]
    assert [o.ended for o in outcomes] == [False, False, False, True]
    last = outcomes[-1]
    assert (last.terminated, last.truncated, last.success, last.reason) == (False, True, False, "timeout")
    simulator.reset()
    assert not simulator.step(CONTRACT.command("turn left"))[1].ended, "the count starts again with the episode"
    simulator.follow(simulator.instruction)
    outcomes = [simulator.step(CONTRACT.command("turn left"))[1] for _ in range(4)]
    assert [o.ended for o in outcomes] == [False, False, False, True], "and with another task in it"


def test_time_never_goes_back_and_stamps_are_now(make: Make) -> None:
    simulator = make()
    times = []
    for _ in range(2):
        times.append(simulator.reset(0).scan.stamp)
        times += [simulator.step(Velocity())[0].scan.stamp for _ in range(2)]
    np.testing.assert_allclose(np.diff(times), PERIOD)
    readings = simulator.step(Velocity())[0]
    assert readings.scan.stamp == readings.image.stamp == readings.odometry.stamp == simulator.time


def test_instruction_that_names_nothing_here_has_no_target(make: Make) -> None:
    simulator = make()
    simulator.reset(0)
    assert simulator.world is not None
    assert simulator.follow(f"drive to the {simulator.world.target} now")
    assert not simulator.follow("go to the purple cube")
    assert simulator.gap() is None
    _, outcome = simulator.step(CONTRACT.command("forward"))
    assert outcome.reward == pytest.approx(simulator.task.reward.step)


def test_instructions_are_drawn_from_all_wordings(make: Make) -> None:
    simulator = make({"instructions": ["go to the {object}", "find the {object}"]})
    told = []
    for seed in range(10):
        simulator.reset(seed)
        assert simulator.world is not None
        told.append(simulator.instruction.replace(simulator.world.target, "it"))
    assert set(told) == {"go to the it", "find the it"}


def test_task_set_in_between_counts_from_the_next_episode(make: Make) -> None:
    simulator = make()
    simulator.reset(0)
    simulator.set_task(dataclasses.replace(simulator.task, max_steps=1))
    assert isinstance(simulator.task, TaskConfig)
    simulator.reset(0)
    assert simulator.step(Velocity())[1].truncated


# --- Gymnasium ----------------------------------------------------------------------------------------------


@pytest.fixture
def env() -> Iterator[gymnasium.Env]:
    register()  # a second time
    made = gymnasium.make(ENV_ID)
    yield made
    made.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_passes_gymnasiums_checker() -> None:
    check_env(NavigateEnv(), skip_close_check=True)


def test_registered_and_repeatable(env: gymnasium.Env) -> None:
    assert ENV_ID == "llmagent/Navigate-v0"
    first, info = env.reset(seed=3)
    assert info == {}
    assert env.observation_space.contains(first)
    stepped = env.step(0)
    second, _ = env.reset(seed=3)
    again = env.step(0)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
        np.testing.assert_array_equal(stepped[0][key], again[0][key])
    assert stepped[1:] == again[1:]
    assert stepped[2:] == (False, False, {})


def test_a_fresh_process_makes_it_by_module_and_name() -> None:
    code = f"import gymnasium; print(gymnasium.make('llmagent_ros.simulation.env:{ENV_ID}').spec.id)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == ENV_ID


def test_ends_with_a_reason(env: gymnasium.Env) -> None:
    env.reset(seed=0)
    terminated = truncated = False
    info: dict[str, object] = {}
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(0)
    assert terminated and not truncated
    assert (info["success"], info["reason"]) in ((False, "collision"), (True, "reached"))
    assert (info["spl"] > 0) is info["success"]


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="rgb_array"):
        NavigateEnv(render_mode="human")
    with pytest.raises(UnknownNameError, match="sim_diffdrive"):
        NavigateEnv(robot="submarine")
    with pytest.raises(UnknownNameError, match="navigate"):
        NavigateEnv(task="fly")


def test_renders_the_camera() -> None:
    env = NavigateEnv(render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), observation["image"])
    env.close()
