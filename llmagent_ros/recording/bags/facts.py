"""What a bag says about its episode, found out from the messages themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmagent_ros.messages import Message

TASK, SCENE, DECISION, OUTCOME, TRANSITION = (
    f"llmagent_interfaces/msg/{name}" for name in ("Task", "Scene", "Decision", "Outcome", "Transition")
)
TELLING = frozenset({TASK, DECISION, OUTCOME, TRANSITION})
"""Types of the messages that `EpisodeFacts.take` wants."""


class EpisodeFacts:
    """Gathers run, episode, task, the adapters that acted, steps, reward and how it ended."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)
        self._adapters: dict[tuple[str, str], None] = {}  # name and digest, in order
        self._steps: dict[tuple[str, int], float] = {}  # (run, step) to reward
        self._found: dict[str, str] = {}
        self._ended = False

    def take(self, type_name: str, message: Message) -> bool:
        """Takes a message of the episode; whether another adapter than before acted."""
        if type_name == TASK and message.id:
            self._found |= {"task_id": message.id, "task": message.instruction, "episode": str(message.episode)}
        elif type_name == DECISION:
            self._found |= {"run": message.run, "episode": str(message.episode)}
            acted = (message.adapter, getattr(message, "adapter_digest", ""))
            if acted not in self._adapters:
                self._adapters[acted] = None
                return True
        elif type_name == OUTCOME and (message.terminated or message.truncated):
            self._found |= {"success": _word(message.success), "reason": message.reason}
            self._ended = True
        elif type_name == TRANSITION:
            self._steps.setdefault((message.run, message.step), message.reward)
            if message.truncated and "reason" not in self._found:  # by the time limit of the goal, as no outcome says
                self._found |= {"success": _word(False), "reason": "timeout"}
            self._ended = self._ended or message.terminated or message.truncated
        return False

    @property
    def ended(self) -> bool:
        """Whether the end of the episode is among the messages."""
        return self._ended

    def facts(self) -> dict[str, str]:
        """As they go into the bag: every value is text; `adapters` is a JSON list of name and digest."""
        adapters = [{"name": name, "digest": digest} for name, digest in self._adapters]
        said = json.dumps(adapters, ensure_ascii=False)  # a name can be read, and found, as it is
        counted: dict[str, Any] = {"steps": len(self._steps), "reward": sum(self._steps.values())}
        told = {name: str(value) for name, value in counted.items()}
        return {**self._given, **self._found, **told, "adapters": said, "ended": _word(self._ended)}


def _word(value: bool) -> str:
    return "true" if value else "false"
