"""The file of a benchmark: what each (method, seed) gave, added one by one, so that an interrupted run goes on."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmagent_ros import config as configuration
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.recording.summary import versions

_PEERS = ("gymnasium", "stable-baselines3", "sb3-contrib")
OURS = "llmagent"
BASE = "base"
_MACHINE = ("versions", "cpus")


@dataclass(frozen=True)
class Figure:
    """A figure of a benchmark as the project promises it.

    Attributes:
        key, unit, meaning. goal, floor: None where nothing is promised. lower: smaller is better.
    """

    key: str
    unit: str
    meaning: str
    goal: float | None = None
    floor: float | None = None
    lower: bool = False

    def verdict(self, value: float | None) -> str:
        """"goal", "floor", "missed" or "" where nothing is promised; with a goal alone "goal" or ""."""
        sign = -1.0 if self.lower else 1.0
        if self.goal is not None and value is not None and sign * value >= sign * self.goal:
            return "goal"
        if self.floor is None:
            return ""
        return "floor" if value is not None and sign * value >= sign * self.floor else "missed"


Summary = tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]
Read = Callable[["Results"], Summary]


class Results:
    """Results of one benchmark; `add` writes the file at once.

    A result that says by which base it was measured (`BASE`) counts only where that is the present one.

    Args:
        config: what was measured; a file that holds results of another configuration is refused.
        base: digest of the base that ships. read: a benchmark's, see `Results.summary`; None: there are no figures.
        any_settings: a file that was measured with other settings is read as well, to be shown; `other_settings` has
            the keys that differ.

    Raises:
        ConfigError: that. StoreError: the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        bench: str,
        config: Mapping[str, Any],
        base: str = "",
        read: Read | None = None,
        *,
        any_settings: bool = False,
    ) -> None:
        self.path, self.bench, self._base, self._figures_of = path, bench, base, read
        self._any_settings = any_settings
        self.other_settings: list[str] = []
        self._config = json.loads(json.dumps(config))
        self._machine: dict[str, Any] = {}  # of the last measurement
        self.runs: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.path}: cannot be read: {error}") from error
        if content.get("bench") != self.bench:
            raise ConfigError(f"{self.path}: results of {content.get('bench')!r}, not of {self.bench!r}")
        self.other_settings = configuration.differences(content.get("config", {}), self._config)
        if self.other_settings and not self._any_settings:
            told = ", ".join(self.other_settings)
            raise ConfigError(f"{self.path}: measured with other settings: {told}; choose another --json")
        self.runs = content.get("runs", {})
        self._machine = {key: content[key] for key in _MACHINE if key in content}

    def has(self, method: str, seed: int) -> bool:
        return str(seed) in self._present(method)

    def add(self, method: str, seed: int, result: Mapping[str, Any]) -> None:
        """Keeps one result; it is on disk when this returns."""
        self.runs.setdefault(method, {})[str(seed)] = dict(result)
        self._machine = dict(zip(_MACHINE, (versions(also=_PEERS), os.cpu_count()), strict=True))
        self.write()

    def of(self, method: str) -> list[dict[str, Any]]:
        """The results of a method in order of the seeds."""
        return list(self.by_seed(method).values())

    def by_seed(self, method: str) -> dict[int, dict[str, Any]]:
        """The results of a method by their seeds, in order of these."""
        return dict(sorted(((int(seed), run) for seed, run in self._present(method).items()), key=lambda item: item[0]))

    def of_other_bases(self) -> dict[str, int]:
        """How many results of each method are there that do not count."""
        left = {method: len(runs) - len(self._present(method)) for method, runs in self.runs.items()}
        return {method: count for method, count in left.items() if count}

    def _present(self, method: str) -> dict[str, Any]:
        runs = self.runs.get(method, {})
        return {seed: result for seed, result in runs.items() if result.get(BASE, self._base) == self._base}

    def summary(self) -> Summary:
        """Figures of ours, {key: {value, unit, …}}, and of each peer."""
        return ({}, {}) if self._figures_of is None else self._figures_of(self)

    def write(self) -> None:
        """Writes everything, figures as they are now; versions and processors are those of the last measurement."""
        assert not self.other_settings, "what was read to be shown is not written"
        figures, peers = self.summary()
        content = {
            "bench": self.bench,
            "figures": figures,
            "peers": peers,
            "config": self._config,
            **self._machine,
            "runs": self.runs,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, (json.dumps(content, indent=1) + "\n").encode())


def median(values: Sequence[float | None], *, lower: bool = True) -> float | None:
    """The median, None counting as worse than every number; None when that is the median, or there are none.

    Args:
        lower: whether smaller is better.
    """
    sign = 1.0 if lower else -1.0
    ordered = sorted(values, key=lambda value: (value is None, sign * value if value is not None else 0.0))
    if not ordered:
        return None
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return None if low is None or high is None else statistics.fmean((low, high))


def entries(figures: Sequence[Figure], values: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, Any]]:
    """{key: {value, unit, seeds}} of those figures that there are values of, a value for each seed."""
    return {
        figure.key: {
            "value": median(values[figure.key], lower=figure.lower),
            "unit": figure.unit,
            "seeds": list(values[figure.key]),
        }
        for figure in figures
        if figure.key in values
    }
