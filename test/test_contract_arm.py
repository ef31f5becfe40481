"""The contract of an arm: what is wrong is refused by name, and phrases become joint targets by its kinematics."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import ArmContract, contract_path, load_contract
from llmagent_ros.contract.kinematics import load_chain, rotation
from llmagent_ros.contract.steps import Stepper
from llmagent_ros.errors import ConfigError, UnknownNameError

ARM = load_contract("sim_arm")
assert isinstance(ARM, ArmContract)
HOME = ARM.arm.home
PLAIN: dict[str, Any] = yaml.safe_load(contract_path("sim_arm").read_text())


def build(**changes: Any) -> ArmContract:
    return config.build(ArmContract, copy.deepcopy(PLAIN) | changes, "arm.yaml")


def nested(key: str, **changes: Any) -> dict[str, Any]:
    return {key: copy.deepcopy(PLAIN[key]) | changes}


LIMITS = PLAIN["limits"]
_WRONG: list[tuple[dict[str, Any], str]] = [
    (nested("arm", urdf="leg.urdf"), "arm: unknown URDF 'leg.urdf'; valid: arm.urdf"),
    (nested("arm", tip="hand"), "unknown link of arm.urdf 'hand'; valid: base_link, forearm, tip"),
    (nested("arm", tip="base_link", base="tip"), "link 'base_link' does not hang on 'tip'"),
    (nested("arm", approach=[0, 0, 0]), "arm.approach: a direction is needed"),
    (nested("arm", home=HOME | {"elbow": 9.0}), "arm.home.elbow: not within 0..2.6"),
    (nested("arm", home={"waist": 0.0}), "arm.home: joint 'shoulder' is needed, and not given"),
    (nested("arm", workspace={"x": [0.4, 0.2]}), "arm.workspace.x: [from, to] with from below to"),
    (nested("limits", knee=LIMITS["elbow"]), "limits: unknown joint 'knee'; valid: waist, shoulder, elbow, wrist"),
    (nested("limits", elbow=LIMITS["elbow"] | {"upper": 3.0}), "limits.elbow: 0..3 is beyond -0.2..2.7 of arm.urdf"),
    (nested("limits", elbow=LIMITS["elbow"] | {"lower": 2.6}), "limits.elbow: lower 2.6 is not below upper 2.6"),
    (nested("limits", elbow=LIMITS["elbow"] | {"velocity": 0}), "limits.elbow.velocity"),
    (nested("limits", elbow=LIMITS["elbow"] | {"jerk": 0}), "'limits.elbow.jerk'; valid: acceleration, lower, step"),
    ({"limits": {n: v for n, v in LIMITS.items() if n != "wrist"}}, "limits: joint 'wrist' is needed, and not given"),
    (
        {"actions": {"open": {}, "bend": {"joints": {"knee": 0.1}}}},
        "actions.bend.joints: unknown joint 'knee'; valid: waist",
    ),
    (
        {"actions": {"stay": {}, "bend": {"joints": {"elbow": 0.6}}}},
        "actions.bend: beyond what limits.elbow allows in one",
    ),
    (
        {"actions": {"stay": {}, "bend": {"joints": {"elbow": 0.1}, "x": 0.1}}},
        "actions.bend: a step is one of joints, or",
    ),
    ({"actions": {"stay": {}}}, "at least two phrases"),
    ({"command": {"type": "TwistStamped"}}, "command.type: Input should be 'JointTrajectory' or 'Float64MultiArray'"),
    ({"sensors": {"joints": {}, "camera": None}}, "objects: need sensors.camera"),
    ({"sensors": {"camera": None, "scan": {}}}, "unknown key 'sensors.scan'; valid: camera, joints"),
    (nested("scene", parts=["scan"]), "scene.parts"),
    (nested("scene", parts=["tool", "tool"]), "scene.parts: tool stands there twice"),
    (nested("scene", directions=["up", "down"]), "scene.directions"),
    ({"footprint_radius": 0.1}, "unknown key 'footprint_radius'; valid: actions, arm, command, control_period"),
]


@pytest.mark.parametrize(("changes", "named"), _WRONG)
def test_what_is_wrong_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**changes)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_an_arm_is_one() -> None:
    assert ARM.joints == ("waist", "shoulder", "elbow", "wrist")
    assert ARM.base_frame == "base_link"
    with pytest.raises(UnknownNameError, match="valid: back, down, forward"):
        ARM.target("fly", HOME)
    with pytest.raises(ConfigError, match="move in different ways"):
        ARM.meaning(load_contract("sim_diffdrive"))
    other = build(actions={"ahead": {"x": 0.01}, "rise": {"z": 0.02}, "turn": {"joints": {"waist": 0.1}}})
    assert ARM.meaning(other) == {"ahead": "forward", "rise": "up", "turn": "left"}


def test_the_tip_by_hand() -> None:
    straight = dict.fromkeys(ARM.joints, 0.0)
    assert ARM.tip(straight) == pytest.approx([0.0, 0.0, 0.08 + 0.08 + 0.28 + 0.26 + 0.12])
    bent = straight | {"waist": math.pi / 2, "shoulder": math.pi / 2}  # lies along +y
    assert ARM.tip(bent) == pytest.approx([0.0, 0.28 + 0.26 + 0.12, 0.16], abs=1e-9)
    elbow = straight | {"elbow": math.pi / 2}
    assert ARM.tip(elbow) == pytest.approx([0.26 + 0.12, 0.0, 0.16 + 0.28], abs=1e-9)
    assert ARM.chain.pose(bent)[:3, 2] == pytest.approx([0.0, 1.0, 0.0], abs=1e-9)


positions = st.fixed_dictionaries({name: st.floats(limit.lower, limit.upper) for name, limit in ARM.limits.items()})


@given(positions)
def test_the_jacobian_is_what_finite_differences_are(at: dict[str, float]) -> None:
    chain, step = ARM.chain, 1e-6
    jacobian = chain._jacobian(chain._frames([at[name] for name in chain.names]))
    for column, name in enumerate(chain.names):
        ahead, behind = (chain.pose(at | {name: at[name] + sign * step}) for sign in (1, -1))
        assert jacobian[:3, column] == pytest.approx((ahead - behind)[:3, 3] / (2 * step), abs=1e-6)
        spin = (ahead[:3, :3] - behind[:3, :3]) / (2 * step) @ chain.pose(at)[:3, :3].T  # [w]x
        turning = np.array([spin[2, 1], spin[0, 2], spin[1, 0]])
        assert jacobian[3:, column] == pytest.approx(turning, abs=1e-6)


inside = st.tuples(st.floats(0.18, 0.40), st.floats(-0.24, 0.24), st.floats(0.05, 0.28))
phrases = st.sampled_from(ARM.phrases)


@given(inside, phrases)
def test_a_step_of_the_tip_goes_where_it_says_with_the_tool_down(point: tuple[float, ...], phrase: str) -> None:
    bounds = {name: (limit.lower, limit.upper) for name, limit in ARM.limits.items()}
    start = ARM.chain.solve(HOME, np.array(point), bounds, np.array([0.0, 0.0, -1.0]))
    assert ARM.tip(start) == pytest.approx(point, abs=1e-3)
    target, action = ARM.target(phrase, start), ARM.actions[phrase]
    end = dict(zip(target.joints, target.positions, strict=True))
    wanted = ARM.arm.workspace.clamp(ARM.tip(start) + [action.x, action.y, action.z])
    assert ARM.tip(end) == pytest.approx(wanted, abs=1e-3)
    assert ARM.chain.pose(end)[:3, 2] == pytest.approx([0.0, 0.0, -1.0], abs=0.02)
    assert target.duration == ARM.control_period


def test_a_tilted_tool_is_turned_down() -> None:
    bounds = {name: (limit.lower, limit.upper) for name, limit in ARM.limits.items()}
    for tilt in (-0.5, 0.4):
        start = HOME | {"waist": 0.6, "wrist": HOME["wrist"] + tilt}
        found = ARM.chain.solve(start, np.array([0.25, 0.15, 0.2]), bounds, np.array([0.0, 0.0, -1.0]))
        assert ARM.tip(found) == pytest.approx([0.25, 0.15, 0.2], abs=1e-3)
        assert ARM.chain.pose(found)[:3, 2] == pytest.approx([0.0, 0.0, -1.0], abs=5e-3)


@given(positions, phrases)
def test_no_step_leaves_the_limits(at: dict[str, float], phrase: str) -> None:
    target = ARM.target(phrase, at)
    assert target.joints == ARM.joints
    for name, position in zip(target.joints, target.positions, strict=True):
        assert ARM.limits[name].lower <= position <= ARM.limits[name].upper


def test_joint_steps() -> None:
    arm = build(actions={"open": {"joints": {"elbow": -0.2, "wrist": 0.1}}, "stay": {}})
    wanted = HOME | {"elbow": HOME["elbow"] - 0.2, "wrist": HOME["wrist"] + 0.1}
    assert dict(zip(arm.joints, arm.target("open", HOME).positions, strict=True)) == pytest.approx(wanted)
    assert arm.target("stay", HOME).positions == tuple(HOME[name] for name in arm.joints)
    folded = HOME | {"elbow": 0.1}
    assert arm.target("open", folded).positions[2] == 0.0, "its limit"


def test_steps_add_up_although_gravity_pulls_and_begin_anew_after_a_push() -> None:
    arm = build(actions={"open": {"joints": {"elbow": -0.1}}, "stay": {}})
    stepper, elbow = Stepper(arm), HOME["elbow"]
    for k in range(1, 4):
        sagging = HOME | {"elbow": elbow - 0.1 * (k - 1) + (0.04 if k > 1 else 0.0)}
        target = dict(zip(arm.joints, stepper.target("open", sagging).positions, strict=True))
        assert target["elbow"] == pytest.approx(elbow - 0.1 * k)
    pushed = HOME | {"elbow": 0.5}
    assert dict(zip(arm.joints, stepper.target("open", pushed).positions, strict=True))["elbow"] == pytest.approx(0.4)
    stepper.forget()
    assert dict(zip(arm.joints, stepper.target("open", HOME).positions, strict=True))["elbow"] == pytest.approx(
        elbow - 0.1
    )


def test_a_prismatic_joint_and_fixed_ones(tmp_path: Any) -> None:
    path = tmp_path / "slide.urdf"
    path.write_text(
        """<robot name="s">
        <joint name="up" type="fixed"><parent link="a"/><child link="b"/>
            <origin xyz="0 0 1" rpy="0 0 1.5707963"/></joint>
        <joint name="slide" type="prismatic"><parent link="b"/><child link="c"/><axis xyz="2 0 0"/>
            <limit lower="0" upper="1"/></joint></robot>"""
    )
    chain = load_chain(str(path), "a", "c")
    assert chain.names == ("slide",) and chain.joints[0].upper == 1.0
    assert chain.pose({"slide": 0.5})[:3, 3] == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)
    found = chain.solve({"slide": 0.1}, np.array([0.0, 0.8, 1.0]), {"slide": (0.0, 0.6)})
    assert found["slide"] == pytest.approx(0.6), "as near as its limit lets it"


@pytest.mark.parametrize(
    "content",
    [
        "<robot",
        "<robot><joint name='a' type='fixed'/></robot>",
        "<robot><joint name='a' type='fixed'><parent link='x'/><child link='y'/><origin xyz='0 0'/></joint></robot>",
    ],
)
def test_a_damaged_urdf_is_named(tmp_path: Any, content: str) -> None:
    path = tmp_path / "broken.urdf"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.urdf: not a URDF"):
        load_chain(str(path), "x", "y")


def test_rotations_are_those_of_urdf() -> None:
    assert rotation([0.0, 0.0, math.pi / 2]) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    assert rotation([math.pi / 2, 0.0, 0.0]) @ [0, 1, 0] == pytest.approx([0, 0, 1])
    assert rotation([0.0, math.pi / 2, 0.0]) @ [1, 0, 0] == pytest.approx([0, 0, -1])
    assert rotation([0.3, 0.0, math.pi / 2]) @ [1, 0, 0] == pytest.approx([0, 1, 0]), "roll first, then yaw"
