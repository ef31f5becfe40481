"""What is in force at one place of a launch file: arguments, environment, parameters and remappings of its scope."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ParameterValue = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class Argument:
    """One declared `<arg>`.

    Attributes:
        default: as written, None when the argument must be given. choices: empty when anything goes.
    """

    name: str
    default: str | None
    description: str
    choices: tuple[str, ...] = ()


@dataclass
class Context:
    """The state while a launch file is expanded.

    Attributes:
        file: the launch file that is being read. scratch: folder for parameter files made on the way.
        configurations: values of arguments and lets. environment: of processes started here.
        parameters: of every node started here: name and value, or a parameter file.
        remaps: (from, to) of every node started here. namespace: pushed ROS namespace, "" for none.
        declared: every argument met so far, by name.
    """

    file: Path
    scratch: Path
    environment: dict[str, str]
    configurations: dict[str, str] = field(default_factory=dict)
    parameters: list[tuple[str, ParameterValue] | Path] = field(default_factory=list)
    remaps: list[tuple[str, str]] = field(default_factory=list)
    namespace: str = ""
    declared: dict[str, Argument] = field(default_factory=dict)

    @contextlib.contextmanager
    def scope(self, forwarding: bool = True) -> Iterator[None]:
        """What is set inside is forgotten at the end; without forwarding, it also starts with nothing set."""
        kept = (self.configurations, self.environment, self.parameters, self.remaps, self.namespace)
        self.environment = dict(self.environment)
        self.configurations = dict(self.configurations) if forwarding else {}
        self.parameters = list(self.parameters) if forwarding else []
        self.remaps = list(self.remaps) if forwarding else []
        self.namespace = self.namespace if forwarding else ""
        try:
            yield
        finally:
            self.configurations, self.environment, self.parameters, self.remaps, self.namespace = kept

    @contextlib.contextmanager
    def reading(self, file: Path) -> Iterator[None]:
        """`$(dirname)` means `file`'s folder inside."""
        outer, self.file = self.file, file
        try:
            yield
        finally:
            self.file = outer
