"""CMA-ES (Hansen & Ostermeier 2001) over points of the unit cube, by the `cma` package, one candidate at a time.

Candidates of one batch are asked for and answered in any order. An answered batch moves the distribution. What it draws
depends on its seed and on what it was told, so the state of a search is the list of the answers: it resumes by asking
and telling again, and no object of the library is ever kept.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cma
import numpy as np

from llmagent_ros.errors import ConfigError
from llmagent_ros.types import RealArray

_LOW, _HIGH = 0.0, 1.0


class Search:
    """See the module.

    Args:
        start: the mean at first, (n,), n >= 1. spread: standard deviation of each coordinate at first.
        batch: candidates between two moves; 0 takes CMA-ES's own number, 4 + 3 log n.
        bounds: of every coordinate; None for none.

    Raises:
        ConfigError: no coordinates, or a start that is not within the bounds.
    """

    def __init__(
        self,
        start: Sequence[float] | RealArray,
        seed: int,
        *,
        spread: float = 0.2,
        batch: int = 0,
        bounds: tuple[float, float] | None = (_LOW, _HIGH),
    ) -> None:
        mean = np.asarray(start, np.float64)
        if mean.ndim != 1 or not len(mean) or not np.isfinite(mean).all():
            raise ConfigError(f"search: needs a finite start, (n,) (got {start!r})")
        if bounds is not None and not ((mean >= bounds[0]) & (mean <= bounds[1])).all():
            raise ConfigError(f"search: start {mean.tolist()} is not within {bounds[0]} and {bounds[1]}")
        if batch == 1 or batch < 0:
            raise ConfigError(f"search: batch {batch}; valid: 0 for the usual one, or at least 2")
        self._dimension = len(mean)
        self._rng = np.random.default_rng(seed)
        options: dict[str, Any] = {
            "randn": lambda *shape: self._rng.standard_normal(shape),  # its own: the library's would be everybody's
            "seed": math.nan,
            "verbose": -9,
            "verb_log": 0,
        }
        if bounds is not None:
            options["bounds"] = list(bounds)
        if batch:
            options["popsize"] = batch
        # of one coordinate CMA-ES can be only half of itself: a second one that does not matter stands beside it
        padded = np.append(mean, (sum(bounds) / 2 if bounds else 0.0)) if self._dimension == 1 else mean
        with contextlib.redirect_stdout(io.StringIO()):
            self._es = cma.CMAEvolutionStrategy(padded, spread, options)
        self.batch = int(self._es.popsize)
        self._points: list[RealArray] = []  # all that were drawn
        self._given = 0
        self._answers: dict[int, float | None] = {}
        self._moved = 0  # candidates that the distribution has taken in

    def ask(self) -> tuple[int, RealArray] | None:
        """The next candidate: its number and its point, (n,). None while answers of the batch are missing."""
        if self._given == len(self._points):
            if self._moved < len(self._points):
                return None
            self._points += [np.asarray(point) for point in self._es.ask(self.batch)]
        number = self._given
        self._given += 1
        return number, self._points[number][: self._dimension].copy()

    def tell(self, number: int, fitness: float | None) -> None:
        """How good a candidate was; more is better. None, or a number that is not finite: it failed.

        Raises:
            ConfigError: it was not asked for, or is answered already.
        """
        if not 0 <= number < self._given or number in self._answers:
            raise ConfigError(f"search: candidate {number} was not asked for, or has been answered")
        self._answers[number] = fitness if fitness is not None and math.isfinite(fitness) else None
        batch = range(self._moved, len(self._points))
        if len(self._points) > self._moved and all(each in self._answers for each in batch):
            self._move(batch)

    def state(self) -> list[dict[str, Any]]:
        """Answers so far, as JSON."""
        return [{"number": number, "fitness": fitness} for number, fitness in sorted(self._answers.items())]

    def replay(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Asks and tells again what `state` gave; of a new search with the same arguments.

        Raises:
            ConfigError: it has begun already, or the answers are not those of such a search.
        """
        if self._given:
            raise ConfigError("search: has begun already")
        for answer in sorted(answers, key=lambda each: int(each["number"])):
            while self._given <= int(answer["number"]):
                if self.ask() is None:
                    raise ConfigError(f"search: answers before candidate {answer['number']} are missing")
            self.tell(int(answer["number"]), answer["fitness"])

    @property
    def mean(self) -> RealArray:
        """Where the distribution is now, (n,)."""
        return np.asarray(self._es.result.xfavorite)[: self._dimension].copy()

    def _move(self, batch: range) -> None:
        """Those that failed count as worse than the worst; where all did, nothing is learned."""
        answers = [self._answers[number] for number in batch]
        costs = [-answer for answer in answers if answer is not None]
        if costs:
            worst = max(costs)
            penalty = worst + abs(worst) + 1.0
            told = [penalty if answer is None else -answer for answer in answers]
            with contextlib.redirect_stdout(io.StringIO()):
                self._es.tell([self._points[number] for number in batch], told)
        self._moved = len(self._points)
