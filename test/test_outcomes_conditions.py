"""Conditions on topics: their paths, their file, and how long they have held."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros import config
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.outcomes.claims import Authority, Claim
from llmagent_ros.outcomes.conditions import Condition, Conditions, ConditionWatch
from llmagent_ros.outcomes.fields import FieldPath
from llmagent_ros.outcomes.task import RobotTask, load_robot_task, robot_task_files

TYPES = {
    "a_msgs/msg/Top": {
        "data": "boolean", "name": "string<10>", "level": "octet", "pose": "a_msgs/Pose",
        "list": "sequence<a_msgs/Pose>", "ranges": "sequence<float>", "few": "sequence<double, 3>",
        "covariance": "double[36]",
    },
    "a_msgs/msg/Pose": {"x": "double", "count": "uint8"},
}  # fmt: skip


def condition(**keys: Any) -> Condition:
    return config.build(Condition, {"topic": "t", "type": "a_msgs/msg/Top", "field": "pose.x", **keys}, "test")


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
steps = st.lists(st.tuples(names, st.none() | st.integers(0, 999_999)), min_size=1, max_size=5)


@given(steps)
def test_a_path_reads_what_it_names_and_says_itself(parts: list[tuple[str, int | None]]) -> None:
    flat = [step for name, index in parts for step in ([name] if index is None else [name, index])]
    text = ".".join(name if index is None else f"{name}[{index}]" for name, index in parts)
    path = FieldPath.parse(text)
    assert path.steps == tuple(flat) and str(path) == text and FieldPath.parse(str(path)) == path
    message: Any = 7
    for step in reversed(flat):
        message = SimpleNamespace(**{step: message}) if isinstance(step, str) else _Endless(message)
    assert path.read(message) == 7.0


class _Endless:
    """A list that has the same everywhere."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> Any:
        return self._value


@given(st.text(max_size=12))
def test_whatever_is_written_is_a_path_or_an_error_that_says_what_is(text: str) -> None:
    try:
        assert str(FieldPath.parse(text)) == text or "[0" in text  # an index of leading zeros
    except ValueError as error:
        assert "valid: names with dots" in str(error)


@given(st.dictionaries(st.sampled_from(["equals", "above", "below", "for", "timeout", "reason", "topic", "x"]),
                       st.none() | st.booleans() | st.floats() | st.text(max_size=5), max_size=4))  # fmt: skip
def test_a_condition_is_built_or_refused_by_its_key(keys: dict[str, Any]) -> None:
    try:
        built = condition(**keys)
    except ConfigError as error:
        assert str(error).startswith("test: ")
    else:
        assert (built.equals is None) != (built.above is None and built.below is None)
        assert built.timeout > 0 and built.hold >= 0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "nothing to compare with; valid: equals, or above, below or both"),
        ({"equals": 1, "above": 0}, "both equals and a range"),
        ({"above": 2, "below": 2}, "nothing is above 2 and below 2"),
        ({"above": True}, "above: a number is needed, not True"),
        ({"equals": 1, "fro": 2}, "unknown key 'fro'; valid: above, below, equals, field, for, reason, timeout"),
        ({"equals": 1, "field": "a..b"}, "field: 'a..b' is no field; valid: names with dots"),
        ({"equals": 1, "type": "Bool"}, "type: "),
        ({"equals": 1, "timeout": 0}, "timeout: "),
        ({"equals": 1, "reason": "two words"}, "reason: "),
    ],
)
def test_what_is_wrong_is_named_with_the_valid_choices(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="test: ") as caught:
        condition(**keys)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("field", "equals", "said"),
    [
        ("pose.x", 1.0, ""),
        ("data", True, ""),
        ("name", "abc", ""),
        ("level", 2, ""),
        ("few[2]", 1, ""),
        ("covariance[35]", 1, ""),
        ("list[0].count", 1, ""),
        ("nose.x", 1, "unknown field of a_msgs/msg/Top in the path 'nose.x': 'nose'; valid: covariance, data, few"),
        ("pose.x.y", 1, "unknown field of double"),
        ("list.x", 1, "unknown field of sequence<a_msgs/Pose>"),
        ("pose", 1, "is no single value; valid: pose.x, pose.count"),
        ("ranges", 1, "is no single value; valid: ranges[0]"),
        ("data[0]", 1, "data of a_msgs/msg/Top is no list"),
        ("data", 1, "is a boolean; valid: equals: true or false"),
        ("name", True, "is a string; valid: equals: a text"),
        ("pose.x", "1", "is a number; valid: equals, above or below"),
    ],
)
def test_a_condition_fits_its_message_type_or_says_why_not(field: str, equals: Any, said: str) -> None:
    wanted = condition(field=field, equals=equals)
    if not said:
        wanted.check(TYPES.__getitem__)
        return
    with pytest.raises(ConfigError) as caught:
        wanted.check(TYPES.__getitem__)
    assert said in str(caught.value)


def test_values_are_compared_strictly_and_by_their_kind() -> None:
    between = condition(above=1, below=2)
    values = (1.0, 1.5, 2.0, float("nan"), None, True, "x")
    assert [between.met(value) for value in values] == [False, True] + 5 * [False]
    assert condition(equals=True).met(True) and not condition(equals=True).met(1.0)
    assert condition(equals=1).met(1.0) and not condition(equals=1).met(True)
    assert condition(equals=0.95).met(float(np.float32(0.95))), "of a field of single precision"
    assert not condition(equals=0.95).met(0.951) and not condition(equals=0.95).met(float("nan"))
    assert condition(equals="on").met("on") and not condition(equals="on").met("off")
    assert FieldPath.parse("r[1]").read(SimpleNamespace(r=[1.0])) is None, "a list that is too short"
    assert FieldPath.parse("level").read(SimpleNamespace(level=b"\x02")) == 2


def test_it_must_hold_for_its_time_without_a_gap() -> None:
    watch = ConditionWatch(condition(equals=True, **{"for": 1.0, "timeout": 0.6}))
    watch.begin(10.0)
    watch.on_value(True, 10.0)
    watch.on_value(True, 9.0)
    assert not watch.holds(11.0) and watch.heard == 2, "what is of before the episode says nothing"
    for stamp in (10.5, 11.0, 11.5):
        assert not watch.holds(stamp)
        watch.on_value(True, stamp)
    assert watch.holds(11.5) and watch.holds(12.1)
    assert not watch.holds(12.2), "stale"
    watch.on_value(False, 11.4)
    assert watch.holds(11.6), "one that comes out of order is dropped"
    watch.on_value(False, 11.6)
    assert not watch.holds(11.6)
    for stamp in (12.0, 12.7, 13.0):  # 0.7 s of silence between
        watch.on_value(True, stamp)
    assert not watch.holds(13.0)
    watch.on_value(True, 13.6)
    watch.on_value(True, 13.7)
    assert watch.holds(13.7)
    watch.begin(13.7)
    assert not watch.holds(13.7)


def test_success_needs_all_failure_one_and_failure_goes_first() -> None:
    docked = condition(topic="docked", field="data", equals=True, reason="docked")
    still = condition(topic="speed", below=0.1)
    bumped = condition(topic="bumper", field="data", equals=True)
    conditions = Conditions([docked, still], [bumped])
    conditions.begin(0.0)
    conditions.success[0].on_value(True, 1.0)
    assert conditions.claim(1.0) is None
    silent = [str(watch.condition) for watch in conditions.silent()]
    assert silent == ["speed.pose.x below 0.1", "bumper.data equals True"]
    conditions.success[1].on_value(0.05, 1.0)
    assert conditions.claim(1.0) == Claim(Authority.CONDITION, True, "docked")
    conditions.failure[0].on_value(True, 1.0)
    assert conditions.claim(1.0) == Claim(Authority.CONDITION, False, "failure")
    assert Conditions().claim(1.0) is None


def test_a_task_file_says_which_instructions_it_is_about(tmp_path: Path) -> None:
    contract = load_contract("sim_diffdrive")
    task = config.build(RobotTask, {"task": "t", "instructions": ["go to the {object}", "Dock"]}, "test")
    assert task.is_about("go to the red ball", contract) and task.is_about("dock", contract)
    assert not task.is_about("leave the red ball", contract)
    assert RobotTask(task="t").is_about("anything", contract)
    path = tmp_path / "mine.yaml"
    path.write_text("task: t\nsuccess: [{topic: a, type: std_msgs/msg/Bool, field: data}]\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: success\.0: a: nothing to compare with"):
        load_robot_task(str(path))
    path.write_text("task: t\nworld: clutter\n")
    with pytest.raises(ConfigError, match="key 'world'; valid: failure, instructions, success, task, time_limit"):
        load_robot_task(str(path))
    with pytest.raises(ConfigError, match=r"unknown task of a real robot 'dokc'; valid: .*dock"):
        load_robot_task("dokc")


@pytest.mark.parametrize("path", sorted(robot_task_files().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_tasks_of_real_robots_load(path: Path) -> None:
    assert load_robot_task(path.stem).success
