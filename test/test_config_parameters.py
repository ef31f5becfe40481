"""Config dataclasses as ROS parameters of a real node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ConfigError

rclpy = pytest.importorskip("rclpy")

from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from llmagent_ros.nodes.parameters import parameters  # noqa: E402


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class Heads:
    count: int = Field(default=4, ge=2)
    rate: float = 0.5


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class Settings:
    folder: str
    name: str = "x"
    heads: Heads = Field(default_factory=Heads)
    names: tuple[str, ...] = ()
    maybe: float | None = None


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Node]]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    nodes: list[Node] = []

    def build(**overrides: Any) -> Node:
        given = [Parameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        nodes.append(
            Node(
                f"node{len(nodes)}",
                context=context,
                automatically_declare_parameters_from_overrides=True,
                parameter_overrides=given,
                enable_rosout=False,
                start_parameter_services=False,
            )
        )
        return nodes[-1]

    yield build
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_overrides_and_defaults(make: Callable[..., Node]) -> None:
    node = make(name="y", heads__count=6, names=["a", "b"], maybe=1.5)
    built = parameters(node, Settings, {"folder": "f"})
    assert built == Settings("f", "y", Heads(6, 0.5), ("a", "b"), 1.5)
    assert node.get_parameter("heads.rate").value == 0.5, "defaults can be read back"
    assert not node.has_parameter("folder")


def test_use_sim_time_is_ros_own(make: Callable[..., Node]) -> None:
    assert parameters(make(use_sim_time=True), Settings, {"folder": "f"}).name == "x"


def test_unknown_parameter_lists_the_valid_ones(make: Callable[..., Node]) -> None:
    for wrong in ({"nmae": "y"}, {"heads__cuont": 3}, {"folder": "other"}):
        with pytest.raises(ConfigError) as caught:
            parameters(make(**wrong), Settings, {"folder": "f"})
        name = next(iter(wrong)).replace("__", ".")
        assert f"unknown parameter {name!r}" in str(caught.value)
        assert str(caught.value).endswith("valid: heads.count, heads.rate, maybe, name, names")


def test_wrong_value_names_node_and_parameter(make: Callable[..., Node]) -> None:
    with pytest.raises(ConfigError, match=r"node node0, parameters: heads\.count.*got 1"):
        parameters(make(heads__count=1), Settings, {"folder": "f"})
    with pytest.raises(ConfigError, match="folder"):
        parameters(make(), Settings)
