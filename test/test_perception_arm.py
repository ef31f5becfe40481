"""What an arm reads: objects from a calibrated camera against the truth, words by hand, and what is unknown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest

from llmagent_ros.contract import ArmContract, load_contract
from llmagent_ros.perception.arm import ArmPerception, say_place
from llmagent_ros.perception.order import Order, Stamps
from llmagent_ros.perception.table import TableFinder
from llmagent_ros.simulation.arm.physics import ArmPhysics, ArmReadings
from llmagent_ros.simulation.arm.table import Table, draw_table, load_table
from llmagent_ros.types import CameraImage, JointState

ARM = load_contract("sim_arm")
assert isinstance(ARM, ArmContract)
HOME = dict(ARM.arm.home)  # the tip at 0.28, 0, 0.22
ASIDE = HOME | {"waist": -2.4}
WORDS = ARM.scene.directions
BLACK = np.zeros((72, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def physics() -> Iterator[ArmPhysics]:
    made = ArmPhysics(ARM)
    yield made
    made.close()


def seen(physics: ArmPhysics, start: dict[str, float], **places: tuple[float, float]) -> ArmReadings:
    named = {name.replace("_", " "): place for name, place in places.items()}
    physics.load(Table(named, start, next(iter(named), "")))
    return physics.read(1.0)


def test_things_are_placed_to_about_a_centimetre(physics: ArmPhysics) -> None:
    rng, errors = np.random.default_rng(0), []
    for _ in range(25):
        drawn = draw_table(load_table("table"), ARM, "blue mark", rng)
        physics.load(Table(drawn.places, ASIDE, drawn.target))
        finder = TableFinder(ARM.objects, ARM.sensors.camera, 10.0)
        finder.see(physics.read(1.0).image)
        found = finder.objects(1.0)
        assert set(found) == set(drawn.places)
        errors += [math.dist(found[name].position[:2], place) for name, place in drawn.places.items()]
    assert max(errors) < 0.014 and np.mean(errors) < 0.009


def test_what_is_hidden_stays_where_it_was_for_the_memory(physics: ArmPhysics) -> None:
    finder = TableFinder(ARM.objects, ARM.sensors.camera, 5.0)
    finder.see(seen(physics, ASIDE, red_cube=(0.3, 0.1)).image)
    hidden = CameraImage(3.0, BLACK, 80.0, 80.0, 48.0, 36.0)
    finder.see(hidden)
    (thing,) = finder.objects(3.0).values()
    assert thing.name == "red cube" and thing.age == pytest.approx(2.0)
    assert finder.objects(6.5) == {}
    finder.forget()
    assert finder.objects(3.0) == {}


def test_a_ray_that_does_not_meet_the_table_places_nothing(physics: ArmPhysics) -> None:
    red = CameraImage(1.0, np.full((72, 96, 3), (230, 20, 20), np.uint8), 80.0, 80.0, 48.0, 36.0)
    for roll, seen_at in ((-143.13, 1), (-36.87, 0)):  # down to the table, up to the ceiling
        camera = dataclasses.replace(ARM.sensors.camera, orientation=(roll, 0.0, 90.0))
        finder = TableFinder(ARM.objects, camera, 5.0)
        finder.see(red)
        assert len(finder.objects(1.0)) == seen_at


def perception(**scene: object) -> ArmPerception:
    return ArmPerception(dataclasses.replace(ARM, scene=dataclasses.replace(ARM.scene, **scene)))


def test_the_whole_scene_by_hand(physics: ArmPhysics) -> None:
    readings = seen(physics, HOME, red_cube=(0.35, 0.15), yellow_cylinder=(0.27, -0.17))
    arm = ArmPerception(ARM)
    arm.start_episode("reach the red cube")
    arm.on_joints(readings.joints)
    arm.on_image(readings.image)
    arm.note_action("up")
    scene = arm.scene(1.0)
    assert scene.stamp == 1.0 and scene.unknown == ()
    parts = scene.text.split(". ")
    assert parts[0] == "reach the red cube" and parts[-1] == "did up."
    assert parts[3] == "tool forward 2.8 left 0.0 up 2.2"
    assert parts[4] == "joints waist 0.0 shoulder 0.1 elbow 1.8 wrist 1.2"
    for part, name, wanted in (
        (parts[1], "red cube", (0.7, 1.5, -1.9)),
        (parts[2], "yellow cylinder", (-0.1, -1.7, -1.9)),
    ):
        assert part.startswith(name)
        words = part.removeprefix(name).split()
        signs = [1 if word in ("forward", "left", "up") else -1 for word in words[::2]]
        said = [sign * float(number) for sign, number in zip(signs, words[1::2], strict=True)]
        assert said == pytest.approx(wanted, abs=0.16)


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ((0.031, -0.12, 0.0), "forward 0.3 right 1.2 up 0.0"),
        ((-0.004, 0.004, -0.2), "forward 0.0 left 0.0 down 2.0"),
        ((-0.99, 0.5, -0.05), "back 9.9 left 5.0 down 0.5"),
    ],
)
def test_directions_by_hand(vector: tuple[float, ...], words: str) -> None:
    assert say_place(np.array(vector), WORDS) == words


def test_a_hidden_object_is_told_as_before_and_another_is_not_seen(physics: ArmPhysics) -> None:
    readings = seen(physics, ASIDE, red_cube=(0.3, 0.1))
    arm = perception(parts=("task", "objects"))
    arm.start_episode("push the red cube to the blue mark")
    arm.on_joints(readings.joints)
    arm.on_image(readings.image)
    assert " before" not in arm.scene(1.0).text
    assert arm.scene(1.0).text.endswith("blue mark not seen.")
    arm.on_joints(JointState(1.2, readings.joints.positions))
    arm.on_image(CameraImage(1.2, BLACK, 80.0, 80.0, 48.0, 36.0))
    assert " before. blue mark not seen." in arm.scene(1.2).text


def test_what_is_stale_missing_or_not_finite_is_unknown(physics: ArmPhysics) -> None:
    readings = seen(physics, HOME, red_cube=(0.3, 0.1))
    nothing = "red cube unknown. tool unknown. joints unknown."

    def text(joints: JointState | None, image: CameraImage | None, now: float = 1.0) -> tuple[str, tuple[str, ...]]:
        arm = perception(parts=("objects", "tool", "joints"))
        arm.start_episode("reach the red cube")
        if joints is not None:
            arm.on_joints(joints)
        if image is not None:
            arm.on_image(image)
        scene = arm.scene(now)
        return scene.text, scene.unknown

    assert text(None, None) == (nothing, ("objects", "tool", "joints"))
    assert text(readings.joints, readings.image, now=1.5) == (nothing, ("objects", "tool", "joints"))
    nan = JointState(1.0, readings.joints.positions | {"waist": math.nan})
    assert text(nan, readings.image) == (nothing, ("objects", "tool", "joints"))
    assert text(JointState(math.nan, readings.joints.positions), readings.image)[0] == nothing
    assert text(JointState(1.0, {"finger": 0.0}), readings.image)[0] == nothing
    told, unknown = text(readings.joints, None)
    assert unknown == ("objects",) and told.startswith("red cube unknown. tool forward")
    grey = CameraImage(1.0, BLACK[..., 0], 80.0, 80.0, 48.0, 36.0)
    assert text(readings.joints, grey)[1] == ("objects",)
    assert text(readings.joints, dataclasses.replace(readings.image, fx=math.nan))[1] == ("objects",)
    assert text(readings.joints, readings.image)[1] == ()


def test_late_readings_are_dropped_and_a_step_back_forgets(physics: ArmPhysics) -> None:
    readings = seen(physics, HOME, red_cube=(0.3, 0.1))
    arm = perception(parts=("objects", "tool"))
    arm.start_episode("reach the red cube")
    assert arm.on_joints(JointState(10.0, HOME)) and arm.on_image(dataclasses.replace(readings.image, stamp=10.0))
    assert not arm.on_joints(JointState(9.5, HOME | {"waist": 1.0}))
    assert "tool forward 2.8 left 0.0" in arm.scene(10.0).text and "not seen" not in arm.scene(10.0).text
    assert arm.on_joints(JointState(1.0, HOME))
    assert arm.scene(1.0).text.startswith("red cube unknown. tool forward")


def test_order_by_hand() -> None:
    stamps = Stamps(late=1.0)
    told = [stamps.take("a", stamp) for stamp in (5.0, 5.0, 4.5, 6.0, 4.9, math.nan, 5.5)]
    assert told == [Order.TAKEN, Order.TAKEN, Order.LATE, Order.TAKEN, Order.BACK, Order.TAKEN, Order.TAKEN]
    assert Stamps(0.0).take("b", 1.0) is Order.TAKEN
    both = Stamps(late=1.0)
    assert [both.take(*each) for each in (("a", 9.0), ("b", 9.0), ("a", 2.0))][-1] is Order.BACK
    assert both.take("b", 2.5) is Order.TAKEN, "time has stepped back for all"
    lockstep = Stamps(late=0.0)
    lockstep.take("a", 5.0)
    assert lockstep.take("a", 4.99) is Order.BACK


def test_numbers_say_the_same_as_the_words(physics: ArmPhysics) -> None:
    readings = seen(physics, HOME, red_cube=(0.35, 0.15))
    arm = ArmPerception(ARM)
    arm.start_episode("push the red cube to the blue mark")
    arm.on_joints(readings.joints)
    arm.on_image(readings.image)
    arm.note_action("down")
    arm.scene(1.0)
    numbers = arm.numbers(1.0)
    assert numbers.shape == (2 * 4 + 3 + 4 + 3 * 6,)
    assert numbers[:4] == pytest.approx([1.0, 0.07, 0.15, -0.195], abs=0.02)
    assert numbers[4:8].tolist() == [0.0] * 4, "the mark is not seen"
    assert numbers[8:11] == pytest.approx([0.28, 0.0, 0.22], abs=0.01)
    assert numbers[-6:].tolist() == [float(phrase == "down") for phrase in ARM.phrases]
