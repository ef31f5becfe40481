"""Text logs of what robots did: the data a base model is pre-trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from llmagent_ros.errors import ConfigError, StoreError


@dataclass(frozen=True)
class LoggedStep:
    """One step of a log: the scene's text, the phrase that was done, the next scene's text, and where from.

    task: the instruction that both scenes begin with, if they do.
    """

    scene: str
    action: str
    next_scene: str
    source: str
    task: str = ""


def write_log(steps: Iterable[LoggedStep], path: Path) -> int:
    """Writes JSON lines; returns how many. The file appears only when it is complete.

    Raises:
        StoreError: it cannot be written; nothing is left.
    """
    partial = path.with_suffix(path.suffix + ".partial")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            for step in steps:
                file.write(json.dumps(asdict(step)) + "\n")
                count += 1
        partial.replace(path)
    except OSError as error:
        if partial.exists():
            partial.unlink()
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
    return count


def read_log(path: Path) -> Iterator[LoggedStep]:
    """The steps of a file that `write_log` wrote.

    Raises:
        ConfigError: a line is not a logged step; names the line.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield LoggedStep(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise ConfigError(f"{path}:{number}: not a logged step: {error}") from error
