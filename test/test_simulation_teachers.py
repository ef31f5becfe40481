"""Routes and teachers: ways by hand, and demonstrations that are worth imitating."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest

from llmagent_ros import config
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import UnknownNameError
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.simulation.route import Route
from llmagent_ros.simulation.teachers import teacher
from llmagent_ros.simulation.world import Body, World, WorldConfig, draw_world, load_world

EMPTY = config.build(WorldConfig, {"world": "empty", "size": [6.0, 6.0]}, "test")
BALL = Body(2.0, 0.0, 0.25, "red ball")


def test_the_way_over_open_ground_is_the_straight_one() -> None:
    route = Route(EMPTY, World((-2.0, 0.0, 0.0), (), (BALL,), "red ball"), radius=0.17, reach=0.35)
    assert route.length(-2.0, 0.0) == pytest.approx(4.0 - 0.25 - 0.17 - 0.35, abs=0.15)
    assert route.length(2.0, 0.5) == 0.0
    assert route.direction(-2.0, 0.0) == pytest.approx(0.0, abs=0.35)  # cells are coarse
    assert route.clearance(-2.0, 0.0) == pytest.approx(1.0 - 0.17)
    assert route.clearance(2.0, 0.0) < 0


def test_the_way_leads_around_a_wall() -> None:
    wall = tuple(Body(0.0, y / 4, 0.2) for y in range(-12, 7))  # open only at the left
    route = Route(EMPTY, World((-2.0, 0.0, 0.0), wall, (BALL,), "red ball"), radius=0.17, reach=0.35)
    around = math.hypot(2.0, 2.0) + math.hypot(2.0, 2.0)
    assert around - 1.0 < route.length(-2.0, 0.0) < around + 1.0
    assert route.direction(-2.0, 0.0) > 0.3
    closed = tuple(Body(0.0, y / 4, 0.2) for y in range(-12, 13))
    shut = Route(EMPTY, World((-2.0, 0.0, 0.0), closed, (BALL,), "red ball"), radius=0.17, reach=0.35)
    assert shut.length(-2.0, 0.0) == math.inf


def test_every_drawn_world_has_a_way() -> None:
    world, contract = load_world("clutter"), load_contract("sim_diffdrive")
    for seed in range(20):
        drawn = draw_world(world, contract, np.random.default_rng(seed))
        target = drawn.object(drawn.target)
        assert target is not None
        x, y, _ = drawn.start
        straight = math.dist((x, y), (target.x, target.y)) - target.radius - 0.17 - 0.35
        assert straight - 0.2 <= Route(world, drawn, 0.17, 0.35).length(x, y) < 15.0


@pytest.mark.parametrize(
    ("name", "episodes", "least"),
    [
        ("CartPole-v1", 5, 500.0),
        ("Acrobot-v1", 10, -120.0),
        ("LunarLander-v3", 10, 200.0),
        ("FrozenLake-v1", 200, 0.65),
        ("Taxi-v4", 20, 6.0),
        ("navigate", 12, 1.0),
    ],
)
def test_a_teacher_is_good(name: str, episodes: int, least: float) -> None:
    env = make_environment(EnvironmentSpec(name))
    act, returns = teacher(env), []
    for seed in range(episodes):
        env.reset(seed=seed)
        returns.append(0.0)
        ended = False
        while not ended:
            _, reward, terminated, truncated, info = env.step(act(env.observation))
            returns[-1] += float(reward)
            ended = terminated or truncated
        if name == "navigate":
            assert info["success"] and 0.5 < info["spl"] <= 1.0
    env.close()
    assert np.mean(returns) >= least


def test_nobody_teaches_what_nobody_knows() -> None:
    valid = "valid: Acrobot, CartPole, FrozenLake, LunarLander, Taxi, navigate, push, reach"
    with pytest.raises(UnknownNameError, match=valid):
        teacher(gym.make("MountainCar-v0"))
