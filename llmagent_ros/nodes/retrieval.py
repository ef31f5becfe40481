"""Asking the knowledge node for skills at the start of a task, for a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from llmagent_interfaces.srv import RetrieveSkills

Answer = Callable[[tuple[str, ...]], None]


class Retrieval:
    """Lessons of the nearest skills, best first; none when the knowledge node is missing, slow or has none."""

    def __init__(self, node: Node, skills: int, contract: str, timeout: float) -> None:
        self._node, self._skills, self._contract = node, skills, contract
        self._client = node.create_client(RetrieveSkills, "retrieve_skills")
        self._answer: Answer | None = None
        self._timer = node.create_timer(timeout, self._give_up, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def ask(self, text: str, answer: Answer) -> None:
        """Calls `answer` once, from the executor or at once. A newer question voids the one before."""
        self._answer = answer
        if self._skills == 0 or not self._client.service_is_ready():
            self._reply(answer, ())
            return
        request = RetrieveSkills.Request(text=text, k=self._skills, contract=self._contract)
        self._timer.reset()
        self._client.call_async(request).add_done_callback(lambda future: self._on_answer(answer, future))

    def _on_answer(self, answer: Answer, future: Any) -> None:
        response = future.result()
        if not response.ok:
            self._node.get_logger().warning(f"no skills: {response.message}")
        lessons = [lesson for skill in response.skills for lesson in skill.lessons] if response.ok else []
        self._reply(answer, tuple(dict.fromkeys(lessons)))

    def _give_up(self) -> None:
        if self._answer is not None:
            self._node.get_logger().warning("the knowledge node did not answer in time; no lessons for this task")
            self._reply(self._answer, ())

    def _reply(self, answer: Answer, lessons: tuple[str, ...]) -> None:
        if self._answer is not answer:
            return
        self._answer = None
        self._timer.cancel()
        answer(lessons)
