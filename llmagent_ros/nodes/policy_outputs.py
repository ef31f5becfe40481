"""What the policy says to the graph: tasks, decisions, commands, transitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.node import Node

from llmagent_interfaces.msg import Decision, Scene, Task, Transition
from llmagent_ros.contract import RobotContract
from llmagent_ros.knowledge.start import Start
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.policy_commands import PolicyCommands
from llmagent_ros.nodes.wire import decisions
from llmagent_ros.nodes.wire.skills import start_to_message
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.types import Decision as DecisionValue
from llmagent_ros.types import RetrievedSkill
from llmagent_ros.types import Transition as TransitionValue


class PolicyOutputs:
    """Publishers of task, decision, commands and transition. exact: see `PolicyCommands`."""

    def __init__(self, node: Node, contract: RobotContract, *, exact: bool) -> None:
        self._node = node
        self._task = node.create_publisher(Task, "task", qos.LATEST)
        self._decision = node.create_publisher(Decision, "decision", qos.DECISION)
        self.commands = PolicyCommands(node, contract, exact=exact)
        self._transition = node.create_publisher(Transition, "transition", qos.TRANSITION)

    def task(
        self,
        task_id: str,
        instruction: str,
        episode: int,
        skills: Iterable[RetrievedSkill] = (),
        start: Start | None = None,
    ) -> None:
        """Announces the instruction that is worked on, what was retrieved for it and what it begins with.

        An empty id is none.
        """
        beginning = None if start is None else start_to_message(start)
        self._task.publish(decisions.task_to_message(task_id, instruction, episode, self._now(), skills, beginning))

    def decision(self, scene: Scene, decision: DecisionValue, **facts: Any) -> None:
        """Says what was chosen, and among what. facts: the others of `decision_to_message`."""
        self._decision.publish(decisions.decision_to_message(decision, scene, **facts))

    def transitions(self, closed: Iterable[TransitionValue]) -> None:
        for transition in closed:
            self._transition.publish(decisions.transition_to_message(transition))

    def _now(self) -> float:
        return to_seconds(self._node.get_clock().now().to_msg())
