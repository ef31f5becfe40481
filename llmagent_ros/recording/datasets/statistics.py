"""Statistics of numeric features, as LeRobot keeps them for normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Statistics = dict[str, list[float] | list[int]]


def statistics(values: NDArray[Any]) -> Statistics:
    """min, max, mean, std, quantiles and count of a feature, (rows,) or (rows, numbers); NaN counts as not there.

    A number that was never there has the statistics of a single 0.
    """
    table = np.asarray(values, np.float64).reshape(len(values), -1)
    found: dict[str, list[float]] = {name: [] for name in ("min", "max", "mean", "std", *_QUANTILES)}
    for column in table.T:
        known = column[~np.isnan(column)]
        known = known if len(known) else np.zeros(1)
        told = {"min": known.min(), "max": known.max(), "mean": known.mean(), "std": known.std()}
        told |= dict(zip(_QUANTILES, np.quantile(known, list(_QUANTILES.values())), strict=True))
        for name, value in told.items():
            found[name].append(float(value))
    return {**found, "count": [len(table)]}
