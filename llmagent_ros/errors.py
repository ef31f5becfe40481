"""The errors a person can cause, each naming the culprit and the valid choices."""

from __future__ import annotations

from collections.abc import Iterable


class LlmAgentError(Exception):
    """Base of every error that llmagent_ros raises on purpose; commands print it as one line, exit 2."""


class ConfigError(LlmAgentError):
    """A file, key, value or argument is wrong."""


class UnknownNameError(ConfigError):
    """A name is not one of the valid choices.

    Args:
        kind: what was looked up, e.g. "action phrase".
        name: the name that was asked for.
        choices: every name that would have been valid.
    """

    def __init__(self, kind: str, name: object, choices: Iterable[object]) -> None:
        self.choices = tuple(sorted(str(choice) for choice in choices))
        listed = ", ".join(self.choices) or "(none)"
        super().__init__(f"unknown {kind} {str(name)!r}; valid: {listed}")
        self.kind = kind
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        """Exceptions are pickled by their message alone, which does not fit this constructor (worker processes)."""
        return UnknownNameError, (self.kind, self.name, self.choices)


class ModelError(LlmAgentError):
    """A base model, adapter or critic is missing, damaged, or made for something else."""


class StoreError(LlmAgentError):
    """A store on disk is damaged, full, locked by another process, or of another kind."""


class DivergenceError(LlmAgentError):
    """A loss or parameter is not finite or has exploded; the last good state was kept."""
