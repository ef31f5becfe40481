"""The simulated arm: motion against kinematics, contacts, episodes by seed, rewards by hand, and its teacher."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from llmagent_ros import config
from llmagent_ros.contract import ArmContract, load_contract
from llmagent_ros.contract.kinematics import rotation
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.perception.gymnasium_text import ArmText
from llmagent_ros.simulation.arm.env import ArmEnv
from llmagent_ros.simulation.arm.physics import ArmPhysics
from llmagent_ros.simulation.arm.simulator import ArmSimulator
from llmagent_ros.simulation.arm.table import Table, TableConfig, draw_table, load_table
from llmagent_ros.simulation.arm.task import ArmTaskConfig, judge, load_arm_task
from llmagent_ros.simulation.teachers import teacher
from llmagent_ros.types import JointTarget, Velocity

ARM = load_contract("sim_arm")
assert isinstance(ARM, ArmContract)
HOME = dict(ARM.arm.home)
REACH, PUSH = load_arm_task("reach"), load_arm_task("push")


@pytest.fixture(scope="module")
def physics() -> Iterator[ArmPhysics]:
    made = ArmPhysics(ARM)
    yield made
    made.close()


def target(**positions: float) -> JointTarget:
    return JointTarget(tuple(positions), tuple(positions.values()), ARM.control_period)


@pytest.mark.parametrize("phrase", ARM.phrases)
def test_each_phrase_moves_the_tip_as_it_says(physics: ArmPhysics, phrase: str) -> None:
    physics.load(Table({}, HOME, ""))
    before, action = ARM.tip(physics.joints()), ARM.actions[phrase]
    assert not physics.drive(ARM.target(phrase, physics.joints()), ARM.control_period)
    moved = ARM.tip(physics.joints()) - before
    assert moved == pytest.approx([action.x, action.y, action.z], abs=0.006)
    physics.drive(JointTarget(), ARM.control_period)  # and holds
    assert ARM.tip(physics.joints()) - before == pytest.approx([action.x, action.y, action.z], abs=0.003)


def test_the_arm_holds_against_gravity(physics: ArmPhysics) -> None:
    physics.load(Table({}, HOME, ""))
    for _ in range(10):
        physics.drive(JointTarget(), 0.2)
    assert physics.joints() == pytest.approx(HOME, abs=0.005)


def test_kinematics_and_physics_agree_on_the_tip(physics: ArmPhysics) -> None:
    physics.load(Table({}, HOME | {"waist": 0.5, "elbow": 1.5}, ""))
    bullet, arm = physics._bullet, physics._arm
    tip = next(n for n in range(bullet.getNumJoints(arm)) if bullet.getJointInfo(arm, n)[12] == b"tip")
    told = bullet.getLinkState(arm, tip, computeForwardKinematics=True)[4]
    assert ARM.tip(physics.joints()) == pytest.approx(told, abs=1e-4)


def test_touching_the_table_is_told_and_touching_a_thing_moves_it(physics: ArmPhysics) -> None:
    physics.load(Table({"red cube": (0.30, 0.0)}, HOME, "red cube"))
    down = ARM.chain.solve(HOME, np.array([0.24, 0.0, 0.03]), {n: (v.lower, v.upper) for n, v in ARM.limits.items()})
    assert not physics.drive(target(**down), 0.5)
    along = ARM.chain.solve(down, np.array([0.32, 0.0, 0.03]), {n: (v.lower, v.upper) for n, v in ARM.limits.items()})
    assert not physics.drive(target(**along), 0.5)
    cube = physics.position("red cube")
    assert cube is not None and cube[0] > 0.33 and abs(cube[1]) < 0.02
    assert physics.drive(target(shoulder=1.6), 1.0), "the tool runs into the table"
    assert physics.position("blue mark") is None


def test_the_camera_shows_things_where_its_pose_says(physics: ArmPhysics) -> None:
    places = {"red cube": (0.25, -0.15), "yellow cylinder": (0.36, 0.17), "blue mark": (0.3, 0.05)}
    aside = HOME | {"waist": -2.4}
    physics.load(Table(places, aside, "red cube"))
    image, camera = physics.read(1.0).image, ARM.sensors.camera
    assert camera is not None
    turn = rotation(np.radians(camera.orientation))
    for name, place in places.items():
        x, y, z = turn.T @ (np.array([*place, ARM.objects[name].height / 2]) - camera.position)
        column, row = image.fx * x / z + image.cx, image.fy * y / z + image.cy
        red, green, blue = image.rgb[round(row - 0.5), round(column - 0.5)].astype(int)
        wanted = {"red": red - max(green, blue), "yellow": min(red, green) - blue, "blue": blue - max(red, green)}
        assert wanted[name.split()[0]] > 50, name


def play(simulator: ArmSimulator, seed: int) -> list[tuple[object, ...]]:
    rng, readings = np.random.default_rng(1), simulator.reset(seed)
    seen: list[tuple[object, ...]] = []
    for _ in range(8):
        goal = ARM.target(str(rng.choice(ARM.phrases)), readings.joints.positions)
        readings, outcome = simulator.step(goal)
        seen.append((tuple(readings.joints.positions.values()), readings.image.rgb.tobytes(), outcome))
    return seen


def test_a_seed_gives_the_same_episode_to_the_bit() -> None:
    first, second = ArmSimulator(ARM, PUSH), ArmSimulator(ARM, PUSH, seed=9)
    second.reset()
    assert play(first, 3) == play(second, 3)
    assert first.instruction == second.instruction and play(first, 4) != play(first, 3)
    assert first.episode == 0 and first.time > 2.0
    first.close()
    second.close()


def test_what_is_no_joint_target_holds_the_arm() -> None:
    simulator = ArmSimulator(ARM, REACH)
    before = simulator.reset(0).joints.positions
    readings, outcome = simulator.step(Velocity(1.0, 0.0))
    assert readings.joints.positions == pytest.approx(before, abs=0.01) and not outcome.ended
    assert not simulator.follow("reach the moon") and simulator.step(JointTarget())[1].reward == pytest.approx(-0.01)
    assert simulator.steps == 1, "counted from the task on"
    simulator.close()


def test_rewards_by_hand() -> None:
    plain = {"task": "t", "body": "arm", "table": "table", "instructions": ["reach the {object}"]}
    task = config.build(ArmTaskConfig, plain | {"max_steps": 5, "reward": {"approach": 1.0}}, "t")
    given = {"collided": False, "lost": False, "steps": 1}
    assert judge(task, left=0.1, gained=(0.03, 0.02), **given).reward == pytest.approx(-0.01 + 0.06 + 0.02)
    done = judge(task, left=0.0, gained=(0.0, 0.0), **given)
    assert (done.reward, done.terminated, done.success, done.reason) == (pytest.approx(0.99), True, True, "reached")
    hit = judge(task, left=0.1, gained=(0.0, 0.0), **(given | {"collided": True}))
    assert (hit.reward, hit.terminated, hit.success, hit.reason) == (pytest.approx(-1.01), True, False, "collision")
    assert judge(task, left=0.1, gained=(0.0, 0.0), **(given | {"lost": True})).reason == "lost"
    late = judge(task, left=0.1, gained=(0.0, 0.0), **(given | {"steps": 5}))
    assert (late.truncated, late.terminated, late.reason) == (True, False, "timeout")


@pytest.mark.parametrize("task", [REACH, PUSH], ids=["reach", "push"])
def test_the_teacher_succeeds_and_the_return_is_what_was_gained(task: ArmTaskConfig) -> None:
    env = ArmEnv("sim_arm", task.task)
    act, rewards, ended, info = teacher(env), 0.0, False, {}
    env.reset(seed=5)
    simulator = env.simulator
    before = simulator._left()
    steps = 0
    while not ended:
        _, reward, terminated, truncated, info = env.step(np.int64(act(None)))
        rewards, steps, ended = rewards + reward, steps + 1, terminated or truncated
    after = simulator._left()
    assert info["success"] and before is not None and after is not None and after[0] <= 0.0
    gained = [a - b for a, b in zip(before, after, strict=True)]
    r = task.reward
    assert rewards == pytest.approx(r.reached + r.step * steps + r.progress * gained[0] + r.approach * gained[1])
    env.close()


@pytest.mark.parametrize(("task", "least"), [("reach", 1.0), ("push", 0.9)])
def test_the_teacher_is_good(task: str, least: float) -> None:
    env = make_environment(EnvironmentSpec(task))
    act, successes = teacher(env), 0
    for seed in range(10):
        env.reset(seed=100 + seed)
        ended = False
        while not ended:
            _, _, terminated, truncated, info = env.step(act(env.observation))
            ended = terminated or truncated
        successes += info["success"]
    env.close()
    assert successes >= least * 10


def test_tables_keep_their_promises() -> None:
    table, rng = load_table("table"), np.random.default_rng(0)
    for place in ("", "blue mark"):
        for _ in range(50):
            drawn = draw_table(table, ARM, place, rng)
            solid = [name for name in drawn.places if name != "blue mark"]
            assert drawn.target == solid[0] and 2 <= len(solid) <= 3 and ("blue mark" in drawn.places) == bool(place)
            for name, (x, y) in drawn.places.items():
                assert table.x[0] <= x <= table.x[1] and table.y[0] <= y <= table.y[1]
                for other, spot in drawn.places.items():
                    apart = ARM.objects[name].radius + ARM.objects[other].radius + table.gap
                    assert name == other or math.dist((x, y), spot) >= apart
            if place:
                assert table.apart[0] <= math.dist(drawn.places[drawn.target], drawn.places[place]) <= table.apart[1]
            assert all(abs(at - HOME[name]) <= table.spread for name, at in drawn.start.items())


def test_what_cannot_be_drawn_is_told() -> None:
    small = config.build(TableConfig, {"table": "s", "x": [0.3, 0.31], "y": [0.0, 0.01], "objects": [3, 3]}, "s")
    with pytest.raises(ConfigError, match="table s: no layout in 500 draws"):
        draw_table(small, ARM, "", np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match="unknown mark of robot sim_arm 'red cube'; valid: blue mark"):
        draw_table(load_table("table"), ARM, "red cube", np.random.default_rng(0))
    bare = dataclasses.replace(ARM, objects={})
    with pytest.raises(ConfigError, match="objects: none that is solid"):
        draw_table(load_table("table"), bare, "", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"goal": "push"}, "place: needed where the goal is to push, and only there"),
        ({"place": "blue mark"}, "place: needed where the goal is to push"),
        ({"instructions": ["reach {thing}"]}, "braces may only hold {object} or {place}"),
        ({"instructions": ["to the {place}"]}, "{place} stands there, and there is no place"),
        ({"within": 0}, "within"),
        ({"reach": 0.1}, "unknown key 'reach'; valid: body, goal, instructions, max_steps, place, reward, table"),
    ],
)
def test_wrong_tasks_are_refused_by_name(changes: dict[str, object], named: str) -> None:
    plain = {"task": "t", "body": "arm", "table": "table", "instructions": ["reach the {object}"]}
    with pytest.raises(ConfigError) as caught:
        config.build(ArmTaskConfig, plain | changes, "t.yaml")
    assert named in str(caught.value)


def test_it_is_a_gymnasium_environment_and_a_text_one() -> None:
    env = ArmEnv(render_mode="rgb_array")
    check_env(env, skip_render_check=True)
    image = env.render()
    assert image is not None and image.shape == (72, 96, 3)
    env.close()
    text = make_environment(EnvironmentSpec("reach"))
    assert isinstance(text, ArmText) and text.contract_name == "sim_arm" and text.mirror is None
    scene, _ = text.reset(seed=0)
    assert scene.startswith(f"{text.task}. ") and text.wording == "reach the object"
    assert text.observation.shape == text.numeric_space.shape and np.abs(text.observation).max() <= 1.0
    text.close()


def test_a_robot_that_is_no_arm_is_refused_for_a_task_of_an_arm() -> None:
    with pytest.raises(ConfigError, match="task reach is for an arm; robot sim_scout is none"):
        make_environment(EnvironmentSpec("reach", "sim_scout"))
    with pytest.raises(ConfigError, match="robot sim_arm is an arm"):
        make_environment(EnvironmentSpec("navigate", "sim_arm"))
