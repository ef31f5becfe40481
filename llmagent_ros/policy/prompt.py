"""How scene, lessons and action phrases become the prompt of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_LESSONS = 5
MAX_LESSON_LENGTH = 160  # characters


@dataclass(frozen=True)
class PromptFormat:
    """The words around a scene. The prompt ends where the phrase begins.

    Attributes:
        cue: ends the prompt; its tokens are where the model sums the scene up (see `LanguageModel.features`).
        separator: stands between the prompt and a phrase.
    """

    cue: str = " so now it is best to"
    separator: str = " "

    def prompt(self, scene: str, lessons: Sequence[str] = ()) -> str:
        """Lessons (at most MAX_LESSONS, each one line), then the scene, then the cue."""
        return f"{self.lessons(lessons)}{scene}{self.cue}"

    def phrase(self, action: str) -> str:
        """An action phrase as the model continues the prompt with it."""
        return f"{self.separator}{action}"

    @staticmethod
    def lessons(lessons: Sequence[str]) -> str:
        lines = [" ".join(lesson.split())[:MAX_LESSON_LENGTH].rstrip(".") for lesson in lessons[:MAX_LESSONS]]
        return "".join(f"lesson: {line}. " for line in lines if line)
