"""Selection that knows how sure it is: a race, in which only those are repeated whose place is not decided yet.

All arms are tried on the same repetitions (common random numbers: repetition r is the same seed for each), in blocks
that double. After each block every pair is compared on the repetitions that both have, by the sign-flip test (Fisher
1935; for outcomes of 0 and 1 it is McNemar's exact test): if both are equally good, each difference d_r is as likely
-d_r, so

    p = P(sum_r s_r d_r >= sum_r d_r),   s_r = +1 or -1 with equal chances

exactly for few repetitions, else over drawn signs with the correction of Phipson & Smyth (2010), and where none of them
gets there, by what p is at most, exp(-(sum_r d_r)^2 / (2 sum_r d_r^2)) (Hoeffding 1963), if that is less: among many
arms alpha is smaller than drawn signs can tell. It needs neither a range nor a distribution. As in the races of
Heidrich-Meisner & Igel (2009), an arm is selected once it is better than all but those that are to be kept, and
discarded once as many are better than it; both are repeated no more. With alpha = error / (pairs x looks) for each test
(Bonferroni), the probability that any arm is called better than one that it is not better than is at most `error`. What
is not decided after `rounds` goes by the mean, and is told apart.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.types import RealArray

_EXACT = 12  # repetitions up to which all sign patterns are gone through
_PATTERNS = 20_000  # drawn ones beyond
_SEED = 20091  # of them; the same differences always give the same p


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class RaceConfig:
    """How long it goes on.

    Attributes:
        block: repetitions of each arm in the first round; those in the race have twice as many after each further one.
        rounds: at most. error: probability, over the whole race, that any arm is called better wrongly.
    """

    block: Annotated[int, Field(ge=1, le=1000)] = 8
    rounds: Annotated[int, Field(ge=1, le=10)] = 4
    error: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @property
    def most(self) -> int:
        """Repetitions of an arm at most."""
        return int(self.block * 2 ** (self.rounds - 1))


@plain_dataclass(frozen=True)
class Standing:
    """How an arm came out.

    Attributes:
        mean, error: of its repetitions, with the standard error. repetitions: how many it had.
        selected: whether it is among those that are kept. decided: whether the test says so, not the mean alone.
    """

    name: str
    mean: float
    error: float
    repetitions: int
    selected: bool
    decided: bool


class Race:
    """See the module. Its result depends on what was told, not on the order in which arms answered.

    Args:
        names: of the arms, each once. keep: how many are to be selected.

    Raises:
        ConfigError: no arms, a name twice, or nothing to keep.
    """

    def __init__(self, names: Sequence[str], keep: int, config: RaceConfig | None = None) -> None:
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"race: needs arms of different names (got {list(names)})")
        if keep < 1:
            raise ConfigError(f"race: keep {keep}; valid: at least 1")
        self.config = config or RaceConfig()
        self._keep = keep
        self._values: dict[str, list[float]] = {name: [] for name in names}
        self._in, self._out = set[str](), set[str]()
        self._better: set[tuple[str, str]] = set()  # (better, worse), as the tests found
        self._round = 0

    def wanted(self) -> dict[str, range]:
        """The numbers of the repetitions that each arm is to have next; empty once the race is over."""
        while self._round < self.config.rounds:
            goal = self.config.block * 2**self._round
            missing = {n: range(len(self._values[n]), goal) for n in self._open() if len(self._values[n]) < goal}
            if missing:
                return missing
            self._compare()
            self._round += 1
        return {}

    def tell(self, name: str, values: Sequence[float]) -> None:
        """What the next repetitions of an arm gave, in their order; more is better.

        Raises:
            UnknownNameError: no such arm. ConfigError: a value that is not finite: see `drop`.
        """
        if name not in self._values:
            raise UnknownNameError("arm", name, self._values)
        if not all(map(math.isfinite, values)):
            raise ConfigError(f"race: {name} has values that are not finite")
        self._values[name] += map(float, values)

    def drop(self, name: str) -> None:
        """Takes an arm out that cannot be tried any more; it is discarded, whatever it gave."""
        if name not in self._values:
            raise UnknownNameError("arm", name, self._values)
        self._in.discard(name)
        self._out.add(name)
        self._better = {pair for pair in self._better if name not in pair}
        self._values[name] = []

    def values(self, name: str) -> tuple[float, ...]:
        """Of the repetitions of an arm so far, in their order; none of one that was dropped."""
        return tuple(self._values[name])

    def standings(self) -> list[Standing]:
        """All arms, the best first: those that were selected by a test, those by their mean, the rest.

        Arms with the same mean stand in the order in which they were named.
        """
        order = {name: number for number, name in enumerate(self._values)}
        by_mean = sorted(self._values, key=lambda name: (-self._mean(name), order[name]))
        ranked = sorted(by_mean, key=lambda name: (name in self._out) - (name in self._in))
        kept = [name for name in ranked if self._values[name]][: self._keep]
        kept.sort(key=by_mean.index)
        rest = [name for name in by_mean if name not in kept]
        decided = self._in | self._out
        return [
            Standing(name, self._mean(name), self._error(name), len(self._values[name]), name in kept, name in decided)
            for name in [*kept, *rest]
        ]

    # --- inside -------------------------------------------------------------------------------------------

    def _open(self) -> list[str]:
        if len(self._in) >= self._keep:
            return []
        return [name for name in self._values if name not in self._in | self._out]

    def _compare(self) -> None:
        """Pairs of which one has had new repetitions, and who is in or out by now."""
        arms = len(self._values)
        alpha = self.config.error / max(1, arms * (arms - 1) * self.config.rounds)
        racing = set(self._open())
        for one, other in itertools.permutations(self._values, 2):
            if not {one, other} & racing or (one, other) in self._better or (other, one) in self._better:
                continue
            count = min(len(self._values[one]), len(self._values[other]))
            if count and sign_flip(np.subtract(self._values[one][:count], self._values[other][:count])) <= alpha:
                self._better.add((one, other))
        there = [name for name, values in self._values.items() if values]
        for name in racing:
            worse = sum((name, other) in self._better for other in there)
            better = sum((other, name) in self._better for other in there)
            if worse >= len(there) - self._keep:
                self._in.add(name)
            elif better >= self._keep:
                self._out.add(name)
        if len(self._in) >= self._keep:  # the places are taken
            self._out |= set(there) - self._in
        elif len(there) - len(self._out & set(there)) <= self._keep:  # there are as many places
            self._in |= set(there) - self._out

    def _mean(self, name: str) -> float:
        values = self._values[name]
        return math.fsum(values) / len(values) if values else -math.inf

    def _error(self, name: str) -> float:
        values = self._values[name]
        return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf


def sign_flip(differences: RealArray) -> float:
    """One-sided p of "no better": see the module.

    Args:
        differences: of paired repetitions, (n,); those of 0 say nothing.
    """
    differences = differences[differences != 0.0]
    count = len(differences)
    total = math.fsum(differences)
    if not count or total <= 0.0:
        return 1.0
    sums = _patterns(count) @ differences
    reached = int((sums >= total - 1e-9 * float(np.abs(differences).sum())).sum())
    if count <= _EXACT:
        return reached / len(sums)
    p = (1 + reached) / (1 + len(sums))
    return p if reached else min(p, math.exp(-(total**2) / (2 * float(np.square(differences).sum()))))


@functools.lru_cache(maxsize=32)
def _patterns(count: int) -> RealArray:
    """Signs, (patterns, count): all of them, or as many as are drawn."""
    if count <= _EXACT:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return 1.0 - 2.0 * bits
    return np.random.default_rng([_SEED, count]).choice([-1.0, 1.0], (_PATTERNS, count))
