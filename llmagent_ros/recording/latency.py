"""Percentiles of a stream of durations in bounded memory."""

from __future__ import annotations

import math
from array import array

import numpy as np

EXACT_LIMIT = 100_000
"""Up to this many samples are kept as they are (800 kB); then they are folded into the histogram."""

GROWTH = 1.01
LOWEST_MS = 1e-3
HIGHEST_MS = 1e7
RELATIVE_ERROR = math.sqrt(GROWTH) - 1.0
"""Of a percentile beyond EXACT_LIMIT samples: 0.5 %, since a bin answers with its geometric middle."""

_BINS = math.ceil(math.log(HIGHEST_MS / LOWEST_MS) / math.log(GROWTH)) + 1


class LatencyHistogram:
    """Percentiles by nearest rank: the smallest sample that at least q of all samples do not exceed.

    Exact while at most `EXACT_LIMIT` samples are in. Beyond that, bins at LOWEST_MS * GROWTH^i keep every percentile
    in [LOWEST_MS, HIGHEST_MS] within `RELATIVE_ERROR`; samples outside count into the end bins. This is the
    relative-error sketch of Masson et al., "DDSketch", VLDB 2019, with a fixed range. `max` is always exact.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT) -> None:
        self._exact_limit = exact_limit
        self._samples: array[float] = array("d")
        self._bins: list[int] | None = None
        self.count = 0
        self.rejected = 0
        self.max: float | None = None

    def add(self, milliseconds: float) -> None:
        """Take one sample; one that is negative or not finite (a clock that jumped) is only counted as rejected."""
        if not math.isfinite(milliseconds) or milliseconds < 0.0:
            self.rejected += 1
            return
        self.count += 1
        self.max = milliseconds if self.max is None else max(self.max, milliseconds)
        if self._bins is not None:
            self._bins[_bin(milliseconds)] += 1
            return
        self._samples.append(milliseconds)
        if len(self._samples) > self._exact_limit:
            self._fold()

    def percentile(self, q: float) -> float | None:
        """The q-quantile, ms, q in (0, 1]; None without samples."""
        if not 0.0 < q <= 1.0:
            raise ValueError(f"q must be in (0, 1], got {q}")
        if self.count == 0:
            return None
        rank = max(1, math.ceil(q * self.count - 1e-9))  # 0.99 * 100 is 99.00000000000001 in floats for some counts
        if self._bins is None:
            return float(np.partition(np.frombuffer(self._samples, dtype=np.float64), rank - 1)[rank - 1])
        cumulative = np.cumsum(np.asarray(self._bins, dtype=np.int64))
        index = int(np.searchsorted(cumulative, rank))
        middle = LOWEST_MS * GROWTH ** (index + 0.5)
        return min(middle, self.max) if self.max is not None else middle

    def summary(self) -> dict[str, float | int | None]:
        """`{"p50", "p99", "max"}` in ms, None without samples, with `count` and `rejected` samples."""
        return {
            "p50": self.percentile(0.50),
            "p99": self.percentile(0.99),
            "max": self.max,
            "count": self.count,
            "rejected": self.rejected,
        }

    def _fold(self) -> None:
        self._bins = [0] * _BINS
        for sample in self._samples:
            self._bins[_bin(sample)] += 1
        self._samples = array("d")


def _bin(milliseconds: float) -> int:
    if milliseconds <= LOWEST_MS:
        return 0
    return min(_BINS - 1, int(math.log(milliseconds / LOWEST_MS) / math.log(GROWTH)))
