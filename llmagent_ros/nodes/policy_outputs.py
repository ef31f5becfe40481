"""What the policy says to the graph: tasks, decisions, commands, transitions."""

from __future__ import annotations

from collections.abc import Iterable

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node

from llmagent_interfaces.msg import Decision, Scene, Task, Transition
from llmagent_ros.contract import RobotContract
from llmagent_ros.knowledge.start import Start
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import decisions, sensors
from llmagent_ros.nodes.wire.skills import start_to_message
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.types import Decision as DecisionValue
from llmagent_ros.types import RetrievedSkill, Velocity
from llmagent_ros.types import Transition as TransitionValue


class PolicyOutputs:
    """Publishers of task, decision, cmd_vel_policy and transition, and the last command that went out for a scene."""

    def __init__(self, node: Node, contract: RobotContract) -> None:
        self._node, self._contract = node, contract
        self._task = node.create_publisher(Task, "task", qos.LATEST)
        self._decision = node.create_publisher(Decision, "decision", qos.DECISION)
        self._command = node.create_publisher(TwistStamped, "cmd_vel_policy", qos.COMMAND)
        self._transition = node.create_publisher(Transition, "transition", qos.TRANSITION)
        self._last: TwistStamped | None = None

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

    def command(self, scene: Scene, action: str) -> None:
        """The phrase's command, with the stamp of the scene that it answers."""
        message = sensors.velocity_to_message(self._contract.command(action), 0.0, scene.header.frame_id)
        message.header.stamp = scene.header.stamp
        self._command.publish(message)
        self._last = message

    def repeat_command(self, scene: Scene) -> None:
        """Sends the last command again, if it was for this scene."""
        if self._last is not None and self._last.header.stamp == scene.header.stamp:
            self._command.publish(self._last)

    def stop(self) -> None:
        """A zero command.

        The node's clock may be a step behind the scene that was decided on last, since /clock comes on a topic of its
        own; a zero older than the command before would be taken for a jump of the clock.
        """
        now = self._now()
        last = to_seconds(self._last.header.stamp) if self._last is not None else now
        stamp = last if 0 < last - now <= 2 * self._contract.control_period else now
        self._command.publish(sensors.velocity_to_message(Velocity(), stamp, self._contract.frames.base))

    def decision(
        self, scene: Scene, decision: DecisionValue, *, run: str, step: int, prompt_prefix: str, compute_ms: float
    ) -> None:
        """Says what was chosen, among what, and in how many milliseconds of wall time."""
        self._decision.publish(
            decisions.decision_to_message(
                decision, scene, run=run, step=step, prompt_prefix=prompt_prefix, compute_ms=compute_ms
            )
        )

    def transitions(self, closed: Iterable[TransitionValue]) -> None:
        for transition in closed:
            self._transition.publish(decisions.transition_to_message(transition))

    def _now(self) -> float:
        return to_seconds(self._node.get_clock().now().to_msg())
