"""Several nodes in one process: fewer copies of Python and torch, the same topics.

    python -m llmagent_ros.nodes.compose guard perception --ros-args -p guard:mode:=lockstep --params-file FILE

A parameter or remapping given without a node's name before it goes to every node; sections of a parameter file are by
node. Policy and learner share one interpreter then, so a learner in the policy's process costs latency.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from llmagent_ros.errors import ConfigError, LlmAgentError, UnknownNameError
from llmagent_ros.nodes import process

_SUFFIX = "_node"


def names() -> list[str]:
    """The nodes that there are."""
    return sorted(path.stem.removesuffix(_SUFFIX) for path in Path(__file__).parent.glob(f"*{_SUFFIX}.py"))


def factory(name: str) -> Callable[[], Node]:
    """What makes the node of a name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in names():
        raise UnknownNameError("node", name, names())
    module = importlib.import_module(f"llmagent_ros.nodes.{name}{_SUFFIX}")
    return cast("Callable[[], Node]", getattr(module, _class_name(name)))


def _class_name(node: str) -> str:
    """"bag_recorder" is made by BagRecorderNode."""
    return "".join(word.capitalize() for word in node.split("_")) + "Node"


def factories(words: Sequence[str]) -> list[Callable[[], Node]]:
    """What makes the nodes of several names, in their order.

    Raises:
        ConfigError: none is given, one is given twice, or one is unknown.
    """
    if not words:
        raise ConfigError(f"no nodes to compose; valid: {', '.join(names())}")
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise ConfigError(f"node {twice[0]!r} is given twice; one process holds one of each")
    return [factory(word) for word in words]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv if argv is None else argv)
    try:
        made = factories(remove_ros_args(arguments)[1:])
    except LlmAgentError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    process.run(made, arguments)


if __name__ == "__main__":
    main()
