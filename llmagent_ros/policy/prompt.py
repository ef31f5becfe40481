"""How scene, lessons and action phrases become the prompt of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_LESSONS = 5
MAX_LESSON_LENGTH = 160  # characters
_EVIDENCE = re.compile(r"\s*\([^()]*\)\.?$")


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

    def outcome(self, action: str, next_scene: str) -> str:
        """What was done and what came of it, as a base that reads logs continues the prompt with it."""
        return f"{self.phrase(action)}. then {next_scene}"

    @staticmethod
    def lessons(lessons: Sequence[str]) -> str:
        """Each without the evidence that it ends with in parentheses: counts that change would make it another text."""
        words = [_EVIDENCE.sub("", " ".join(lesson.split())) for lesson in lessons[:MAX_LESSONS]]
        lines = [line[:MAX_LESSON_LENGTH].rstrip(".") for line in words]
        return "".join(f"lesson: {line}. " for line in lines if line)


def as_text(text: str, special: Sequence[str]) -> str:
    """Text in which nothing is one of a tokenizer's special tokens: a space stands after the first character of each.

    A tokenizer takes "</s>" in an instruction for the end of a text, and what looks like a chat template's tokens for
    the end of a person's words.
    """
    for token in sorted(special, key=len, reverse=True):
        while token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
