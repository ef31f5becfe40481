"""Time from a scene to the command that answers it, from messages that arrive in any order."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_OPEN = 256  # moments that are kept while something of them is missing


def published_at(info: Mapping[str, Any]) -> int:
    """When a message left its publisher, ns of that machine's wall clock; now where the middleware does not say."""
    return int(info.get("source_timestamp") or 0) or time.time_ns()


@dataclass
class _Moment:
    scenes: dict[str, int] = field(default_factory=dict)  # task id to when the scene was published
    task: str | None = None  # the decision's
    command: int | None = None


class LatencyProbe:
    """Matches scene, decision and command of one stamp.

    Only scenes that were decided on count: one that is said again for a new task, or for one that is over, does not.
    """

    def __init__(self) -> None:
        self._moments: OrderedDict[int, _Moment] = OrderedDict()

    def on_scene(self, stamp: int, task: str, published: int) -> float | None:
        """Takes a scene; ms from it to its command, when that is known now. The others do the same."""
        self._moment(stamp).scenes.setdefault(task, published)
        return self._complete(stamp)

    def on_decision(self, stamp: int, task: str) -> float | None:
        self._moment(stamp).task = task
        return self._complete(stamp)

    def on_command(self, stamp: int, published: int) -> float | None:
        moment = self._moment(stamp)
        moment.command = moment.command or published
        return self._complete(stamp)

    def _moment(self, stamp: int) -> _Moment:
        moment = self._moments.setdefault(stamp, _Moment())
        while len(self._moments) > _OPEN:
            self._moments.popitem(last=False)
        return moment

    def _complete(self, stamp: int) -> float | None:
        moment = self._moments[stamp]
        if moment.task is None or moment.command is None or moment.task not in moment.scenes:
            return None
        del self._moments[stamp]
        return (moment.command - moment.scenes[moment.task]) * 1e-6
