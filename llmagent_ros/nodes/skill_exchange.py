"""What the learner asks of the knowledge node, and what it is answered."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from llmagent_interfaces.msg import Skill
from llmagent_interfaces.srv import RetrieveSkills, StoreSkill
from llmagent_ros.learning.standing import Offer
from llmagent_ros.nodes.wire.skills import offer_to_request

SKILLS = 5  # that are asked for
PATIENCE = 5.0  # s of wall time after which a question counts as answered with nothing


class SkillExchange:
    """Asks from the learning thread; answers come in on the executor, and are fetched by the thread that asked.

    Args:
        contract: name of the robot's. wake: told when an answer is there.
    """

    def __init__(self, node: Node, contract: str, wake: Callable[[], None]) -> None:
        self._contract, self._wake = contract, wake
        self._store: Any = node.create_client(StoreSkill, "store_skill")
        self._retrieve: Any = node.create_client(RetrieveSkills, "retrieve_skills")
        self._answers: deque[tuple[Offer, StoreSkill.Response]] = deque()
        self._lock = threading.Lock()
        self._question, self._asked = 0, 0.0
        self._found: list[Skill] | None = None

    @property
    def ready(self) -> bool:
        """Whether somebody takes offers."""
        return bool(self._store.service_is_ready())

    def offer(self, offer: Offer) -> None:
        """Asks for a version to be stored."""
        future = self._store.call_async(offer_to_request(offer, self._contract))
        future.add_done_callback(lambda done: self._on_answer(offer, done.result()))

    def answers(self) -> list[tuple[Offer, StoreSkill.Response]]:
        """What was said to offers since; each once."""
        with self._lock:
            answers = list(self._answers)
            self._answers.clear()
        return answers

    def find(self, text: str) -> None:
        """Asks for the nearest skills of this robot; a newer question voids the one before."""
        with self._lock:
            self._question += 1
            question, self._asked, self._found = self._question, time.monotonic(), None
        if not self._retrieve.service_is_ready():
            self._on_found(question, [])
            return
        request = RetrieveSkills.Request(text=text, k=SKILLS, contract=self._contract)
        future = self._retrieve.call_async(request)
        future.add_done_callback(lambda done: self._on_found(question, list(done.result().skills)))

    def found(self) -> list[Skill] | None:
        """The answer to `find`, best first; None while it may still come."""
        with self._lock:
            if self._found is None and time.monotonic() - self._asked > PATIENCE:
                self._found = []
            return self._found

    def _on_answer(self, offer: Offer, response: StoreSkill.Response) -> None:
        with self._lock:
            self._answers.append((offer, response))
        self._wake()

    def _on_found(self, question: int, skills: list[Skill]) -> None:
        with self._lock:
            if question == self._question and self._found is None:
                self._found = skills
        self._wake()
