"""Asking the knowledge node for skills at the start of a task, for a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from llmagent_interfaces.srv import RetrieveSkills
from llmagent_ros.knowledge.start import Start, StartConfig, choose_start
from llmagent_ros.nodes.wire.decisions import retrieved_from_messages
from llmagent_ros.nodes.wire.skills import found_from_message
from llmagent_ros.types import RetrievedSkill


@dataclass(frozen=True)
class Retrieved:
    """What was found for a task: lessons of skills of the robot's own contract, the skills, both best first, and with
    which of them acting and learning begin.
    """

    lessons: tuple[str, ...]
    skills: tuple[RetrievedSkill, ...]
    start: Start


Answer = Callable[[Retrieved], None]


class Retrieval:
    """The nearest skills; none when the knowledge node is missing, slow or has none.

    Args:
        skills: how many are asked for. contract: name of the robot's.
    """

    def __init__(self, node: Node, skills: int, contract: str, start: StartConfig, timeout: float) -> None:
        self._node, self._skills, self._contract, self._start = node, skills, contract, start
        self._client = node.create_client(RetrieveSkills, "retrieve_skills")
        self._answer: Answer | None = None
        self._timer = node.create_timer(timeout, self._give_up, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def ask(self, text: str, answer: Answer) -> None:
        """Calls `answer` once, from the executor or at once. A newer question voids the one before."""
        self._answer = answer
        if self._skills == 0 or not self._client.service_is_ready():
            self._reply(answer, [])
            return
        request = RetrieveSkills.Request(text=text, k=self._skills)
        self._timer.reset()
        self._client.call_async(request).add_done_callback(lambda future: self._on_answer(answer, future))

    def _on_answer(self, answer: Answer, future: Any) -> None:
        response = future.result()
        if not response.ok:
            self._node.get_logger().warning(f"no skills: {response.message}")
        self._reply(answer, response.skills if response.ok else [])

    def _give_up(self) -> None:
        if self._answer is not None:
            self._node.get_logger().warning("the knowledge node did not answer in time; no skills for this task")
            self._reply(self._answer, [])

    def _reply(self, answer: Answer, messages: list[Any]) -> None:
        if self._answer is not answer:
            return
        self._answer = None
        self._timer.cancel()
        found = [found_from_message(message) for message in messages]
        own = [each.skill for each in found if each.skill.contract == self._contract]
        lessons = dict.fromkeys(lesson.text for skill in own for lesson in skill.lessons)
        start = choose_start(found, self._contract, self._start)
        answer(Retrieved(tuple(lessons), retrieved_from_messages(messages), start))
