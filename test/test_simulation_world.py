"""Drawn worlds leave the gaps they promise and can be solved; tasks judge as written."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from llmagent_ros import config
from llmagent_ros.contract import MobileContract, load_mobile_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.simulation.simulator import Simulator
from llmagent_ros.simulation.task import RewardConfig, TaskConfig, judge, left_to_do, load_task
from llmagent_ros.simulation.world import Body, World, WorldConfig, draw_world, load_world
from llmagent_ros.types import Outcome

CONTRACT = load_mobile_contract("sim_diffdrive")
CLUTTER = load_world("clutter")
REACH = load_task("navigate").reach


def draw(seed: int, world: WorldConfig = CLUTTER) -> World:
    return draw_world(world, CONTRACT, np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_bodies_keep_the_gap_to_one_another_and_half_of_it_to_the_walls(seed: int) -> None:
    world = draw(seed)
    robot = Body(world.start[0], world.start[1], CONTRACT.footprint_radius)
    bodies = (robot, *world.obstacles, *world.objects)
    for a, b in itertools.combinations(bodies, 2):
        assert math.hypot(a.x - b.x, a.y - b.y) - a.radius - b.radius >= CLUTTER.gap - 1e-9
    for body in bodies:
        assert abs(body.x) + body.radius + CLUTTER.gap / 2 <= CLUTTER.size[0] / 2 + 1e-9
        assert abs(body.y) + body.radius + CLUTTER.gap / 2 <= CLUTTER.size[1] / 2 + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_worlds_hold_what_they_promise(seed: int) -> None:
    world = draw(seed)
    assert CLUTTER.objects[0] <= len(world.objects) <= CLUTTER.objects[1]
    assert len(world.obstacles) <= CLUTTER.obstacles.count[1]
    names = [body.name for body in world.objects]
    assert len(set(names)) == len(names)
    assert set(names) <= set(CONTRACT.objects)
    target = world.object(world.target)
    assert target is not None
    distance = math.hypot(target.x - world.start[0], target.y - world.start[1])
    assert CLUTTER.start_distance[0] <= distance <= CLUTTER.start_distance[1]
    assert world.object("purple cube") is None


def gaps(
    config: WorldConfig, world: World, contract: MobileContract = CONTRACT, margin: float = 0.0
) -> NDArray[np.float64]:
    """m from the target's surface at all places that the robot gets to with `margin` m beside it.

    By other means than draw_world's: connected free space on a finer grid.
    """
    radius, step = contract.footprint_radius + margin, 0.04
    xs = np.arange(-config.size[0] / 2 + radius, config.size[0] / 2 - radius, step)
    ys = np.arange(-config.size[1] / 2 + radius, config.size[1] / 2 - radius, step)
    x, y = np.meshgrid(xs, ys, indexing="ij")
    bodies = (*world.obstacles, *world.objects)
    free = np.all([np.hypot(x - b.x, y - b.y) > b.radius + radius for b in bodies], axis=0)
    regions, _ = ndimage.label(free)
    target = world.object(world.target)
    assert target is not None
    start = regions[np.abs(xs - world.start[0]).argmin(), np.abs(ys - world.start[1]).argmin()]
    connected = (regions == start) & free
    return np.asarray(np.hypot(x - target.x, y - target.y)[connected] - target.radius - radius + margin)


def solvable(config: WorldConfig, world: World) -> bool:
    """Whether the robot gets to where the task counts as done."""
    return bool((gaps(config, world) <= REACH).any())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_shipped_worlds_can_be_solved(seed: int) -> None:
    assert solvable(CLUTTER, draw(seed))


def test_a_robot_that_is_to_leave_has_somewhere_to_go() -> None:
    husky, task = load_mobile_contract("husky"), load_task("leave")
    beside, simulator = load_world(task.world), Simulator(husky, task, seed=0)
    cornered = 0
    for seed in range(12):
        world = draw_world(beside, husky, np.random.default_rng([seed, 0]))
        cornered += gaps(beside, world, husky).max() < task.away
        simulator.reset(seed)
        assert simulator.world is not None
        assert gaps(beside, simulator.world, husky).max() >= task.away
        wide = gaps(beside, world, husky, margin=0.15)
        assert simulator.world == world or not wide.size or wide.max() < task.away, "others stay as they are"
    assert cornered > 0
    simulator.close()
    with pytest.raises(ConfigError, match="world beside: no solvable layout with a way to 9 m from the target in 200"):
        draw_world(beside, CONTRACT, np.random.default_rng(0), away=9.0)


def test_without_gaps_unsolvable_draws_are_thrown_away() -> None:
    """Dense and without gaps: many raw draws wall the target in, none of those may come out."""
    dense = config.build(
        WorldConfig,
        {
            "world": "dense",
            "size": [3.0, 3.0],
            "gap": 0.0,
            "objects": [1, 1],
            "obstacles": {"count": [8, 10], "radius": [0.25, 0.3]},
            "start_distance": [1.0, 4.0],
        },
        "dense",
    )
    assert all(solvable(dense, draw(seed, dense)) for seed in range(30))


@pytest.mark.parametrize("side", [1.0, 0.3])
def test_no_room_is_an_error_that_names_the_world(side: float) -> None:
    crowded = config.build(WorldConfig, {"world": "closet", "size": [side, side]}, "closet")
    with pytest.raises(ConfigError, match="closet"):
        draw(0, crowded)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("objects: [3, 2]", "objects: "),
        ("objects: [-1, 0]", "objects.0"),
        ("objects: [0, 2]", "objects.0"),
        ("size: [-6, 6]", "size.0"),
        ("size: [.inf, 6]", "size.0"),
        ("obstacles: {count: [5, 1]}", "obstacles.count"),
        ("obstacles: {radius: [0.0, 0.3]}", "obstacles.radius.0"),
        ("obstacles: {height: .inf}", "obstacles.height"),
        ("start_distance: [4.5, 1.5]", "start_distance"),
        ("gap: .nan", "gap"),
    ],
)
def test_a_wrong_world_file_is_one_line_with_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"world: mine\n{text}\n")
    with pytest.raises(ConfigError) as refused:
        load_world(str(file))
    assert str(refused.value).startswith(f"{file}: {key}") and "\n" not in str(refused.value)


# --- tasks ------------------------------------------------------------------------------------------------

TASK = config.build(
    TaskConfig,
    {
        "task": "t",
        "world": "clutter",
        "instructions": ["go to the {object}"],
        "max_steps": 10,
        "reach": 0.3,
        "reward": {"reached": 5.0, "collision": -4.0, "progress": 2.0, "step": -0.5},
    },
    "t",
)


def left(gap: float | None) -> float | None:
    return None if gap is None else left_to_do(TASK, gap, 0.0)


@pytest.mark.parametrize(
    ("gap", "previous", "collided", "steps", "expected"),
    [
        (1.0, 1.5, False, 3, Outcome(-0.5 + 2.0 * 0.5)),
        (1.5, 1.0, False, 3, Outcome(-0.5 - 2.0 * 0.5)),
        (0.25, 0.75, False, 3, Outcome(-0.5 + 1.0 + 5.0, terminated=True, success=True, reason="reached")),
        (1.0, 1.0, True, 3, Outcome(-0.5 - 4.0, terminated=True, reason="collision")),
        (1.0, 1.0, False, 10, Outcome(-0.5, truncated=True, reason="timeout")),
        (0.25, 0.25, False, 10, Outcome(-0.5 + 5.0, terminated=True, success=True, reason="reached")),
        (None, None, False, 3, Outcome(-0.5)),
        (None, None, True, 3, Outcome(-4.5, terminated=True, reason="collision")),
    ],
)
def test_reward_by_hand(
    gap: float | None, previous: float | None, collided: bool, steps: int, expected: Outcome
) -> None:
    assert judge(TASK, left=left(gap), previously_left=left(previous), collided=collided, steps=steps) == expected


@pytest.mark.parametrize(
    ("changed", "gap", "bearing", "expected"),
    [
        ({"goal": "leave", "away": 2.0}, 1.5, 0.0, 0.5),
        ({"goal": "leave", "away": 2.0}, 2.0, 0.0, 0.0),
        ({"goal": "face", "facing": 30}, 9.0, -math.pi / 2, math.pi / 3),
        ({"goal": "face", "facing": 30}, 9.0, math.pi / 6, 0.0),
        ({"goal": "reach"}, 1.3, 2.0, 1.0),
    ],
)
def test_what_is_left_to_do_by_hand(changed: dict[str, Any], gap: float, bearing: float, expected: float) -> None:
    assert left_to_do(dataclasses.replace(TASK, **changed), gap, bearing) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("goal", "reason"), [("reach", "reached"), ("leave", "left"), ("face", "faced")])
def test_nothing_left_to_do_is_success(goal: Literal["reach", "leave", "face"], reason: str) -> None:
    outcome = judge(dataclasses.replace(TASK, goal=goal), left=0.0, previously_left=0.5, collided=True, steps=3)
    assert outcome == Outcome(-0.5 + 1.0 + 5.0, terminated=True, success=True, reason=reason)


def test_progress_adds_up_whatever_the_path() -> None:
    gaps = [3.0, 2.0, 2.75, 1.0, 1.5]
    outcomes = [
        judge(TASK, left=left(b), previously_left=left(a), collided=False, steps=1) for a, b in itertools.pairwise(gaps)
    ]
    total = sum(outcome.reward for outcome in outcomes)
    assert total == pytest.approx(2.0 * (3.0 - 1.5) - 4 * 0.5)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('instructions: ["go to the {object}", "go to {obj}"]', "instructions.1"),
        ('instructions: ["go to {object!r}"]', "instructions.0"),
        ('instructions: ["go to {object.name}"]', "instructions.0"),
        ('instructions: ["go to {object"]', "instructions.0"),
        ('instructions: ["go to {}"]', "instructions.0"),
        ('instructions: [" "]', "instructions.0"),
        ('instructions: [go]\nreward: {reached: .nan}', "reward.reached"),
        ('instructions: [go]\nreward: {progress: .inf}', "reward.progress"),
        ('instructions: [go]\nreach: .inf', "reach"),
    ],
)
def test_a_wrong_task_file_is_one_line_with_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"task: mine\nworld: clutter\n{text}\n")
    with pytest.raises(ConfigError) as refused:
        load_task(str(file))
    assert str(refused.value).startswith(f"{file}: {key}") and "\n" not in str(refused.value)


def test_a_wording_may_hold_a_brace_that_is_written_twice() -> None:
    values = {"task": "t", "world": "clutter", "instructions": ["go to {object} {{now}}", "stand still"]}
    task = config.build(TaskConfig, values, "t")
    assert task.instructions[0].format(object="red ball") == "go to red ball {now}"


def test_reward_config_refuses_unknown_terms() -> None:
    with pytest.raises(ConfigError, match="valid: collision, progress, reached, step"):
        config.build(RewardConfig, {"bonus": 1.0}, "reward")
