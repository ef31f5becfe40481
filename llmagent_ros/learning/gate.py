"""Whether what was learned may replace what is deployed: not worse on recent scenes, then not worse in outcomes.

Two non-inferiority tests. On scenes, with the values of both critics as the judge,

    g(s) = sum_a (pi_new(a|s) - pi_old(a|s)) (Q_old(s, a) + Q_new(s, a)) / 2

is what choosing by the new policy gains; its mean less `z` standard errors must not lie below -tolerance. In outcomes,
success rates have Beta(1 + successes, 1 + failures) posteriors, and P(p_new >= p_old - margin) decides. The same
probability, the other way round, takes back what was deployed when its outcomes drop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.errors import ConfigError
from llmagent_ros.types import RealArray

_GRID = np.linspace(0.0, 1.0, 2001)  # success rates at which posteriors are evaluated


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class GateConfig:
    """How sure it has to be.

    Attributes:
        scenes: recent ones that both policies are compared on. tolerance: return that the new one may lose on them.
        z: standard errors that count as doubt.
        episodes: outcomes that a candidate needs at least; after `patience` of them it is decided either way.
        margin: share of successes by which a candidate may be worse.
        confidence: probability at which a decision is made before `patience` is over, and something is taken back.
    """

    scenes: Annotated[int, Field(ge=16, le=4096)] = 256
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    z: Annotated[float, Field(ge=0, le=5)] = 2.0
    episodes: Annotated[int, Field(ge=1)] = 10
    patience: Annotated[int, Field(ge=1)] = 40
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9

    def __post_init__(self) -> None:
        if self.patience < self.episodes:
            raise ConfigError(f"patience {self.patience}: at least episodes ({self.episodes})")


@plain_dataclass(frozen=True)
class Record:
    """Outcomes of one version: how often it succeeded, and how often it was tried."""

    successes: int = 0
    attempts: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.attempts:
            raise ConfigError(f"need 0 <= successes <= attempts (got {self.successes}, {self.attempts})")

    def __str__(self) -> str:
        return f"{self.successes} of {self.attempts}"


@plain_dataclass(frozen=True)
class Ruling:
    """What a gate says: what, why in words, and the figures it rests on."""

    says: Literal["accept", "reject", "wait", "keep", "take back"]
    why: str
    data: dict[str, Any] = field(default_factory=dict)


class Gate:
    """See the module; it decides and changes nothing."""

    def __init__(self, config: GateConfig | None = None) -> None:
        self.config = config or GateConfig()

    def on_scenes(self, old: RealArray, new: RealArray, old_values: RealArray, new_values: RealArray) -> Ruling:
        """Whether a candidate is not worse on recent scenes: "accept" or "reject".

        Args:
            old, new: log pi of the deployed policy and of the candidate, (N, phrases). old_values, new_values: of their
                critics, (N, phrases); the same twice where only one has a critic.

        Raises:
            ConfigError: shapes differ, or there are fewer than two scenes.
        """
        arrays = [np.asarray(each, np.float64) for each in (old, new, old_values, new_values)]
        shapes = [each.shape for each in arrays]
        if len(set(shapes)) != 1 or arrays[0].ndim != 2 or len(arrays[0]) < 2:
            raise ConfigError(f"gate: needs four arrays of one shape (scenes, phrases), got {shapes}")
        if not all(np.isfinite(each).all() for each in arrays[2:]) or np.isnan(arrays[1]).any():
            return Ruling("reject", "the candidate gives scores or values that are not finite")
        gain = ((np.exp(arrays[1]) - np.exp(arrays[0])) * (arrays[2] + arrays[3]) / 2).sum(1)  # (N,)
        mean, error = float(gain.mean()), float(gain.std(ddof=1) / math.sqrt(len(gain)))
        least = mean - self.config.z * error
        differ = float((arrays[0].argmax(1) != arrays[1].argmax(1)).mean())
        data = {"scenes": len(gain), "gain": mean, "standard_error": error, "choices_that_differ": differ}
        told = f"on {len(gain)} recent scenes it gains {mean:+.4f} ± {error:.4f} of return"
        if least < -self.config.tolerance:
            return Ruling("reject", f"{told}: perhaps more than {self.config.tolerance} worse", data)
        return Ruling("accept", f"{told}: not worse", data)

    def on_outcomes(self, old: Record, new: Record) -> Ruling:
        """Whether a candidate that has acted is not worse: "accept", "reject", or "wait" for more episodes."""
        c = self.config
        not_worse = probability_not_worse(new, old, c.margin)
        data = {"deployed": str(old), "candidate": str(new), "not_worse": not_worse}
        told = f"it succeeded in {new}, the deployed one in {old}: not worse with probability {not_worse:.2f}"
        if new.attempts < c.episodes:
            return Ruling("wait", f"{told}; {c.episodes - new.attempts} episodes more are needed", data)
        if not_worse >= c.confidence or (new.attempts >= c.patience and not_worse >= 0.5):
            return Ruling("accept", told, data)
        if 1.0 - not_worse >= c.confidence or new.attempts >= c.patience:
            return Ruling("reject", told, data)
        return Ruling("wait", told, data)

    def on_drop(self, before: Record, since: Record) -> Ruling:
        """Whether what was deployed has to be taken back: "keep" or "take back".

        Args:
            before: outcomes of the version before. since: of the deployed one since then.
        """
        worse = 1.0 - probability_not_worse(since, before, self.config.margin)
        data = {"before": str(before), "since": str(since), "worse": worse}
        told = f"{since} since then, {before} before: worse with probability {worse:.2f}"
        drop = since.attempts >= self.config.episodes and worse >= self.config.confidence
        return Ruling("take back" if drop else "keep", told, data)


def probability_not_worse(new: Record, old: Record, margin: float) -> float:
    """P(p_new >= p_old - margin) under independent Beta(1 + successes, 1 + failures) posteriors."""
    density = _density(new)
    below = np.interp(_GRID + margin, _GRID, np.cumsum(_density(old)), right=1.0)  # P(p_old <= x + margin)
    return float((density * below).sum())


def _density(record: Record) -> RealArray:
    """Of the posterior on the grid, normalised to sum 1."""
    failures = record.attempts - record.successes
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(record.successes > 0, record.successes * np.log(_GRID), 0.0)
        log = log + np.where(failures > 0, failures * np.log1p(-_GRID), 0.0)
    weights = np.exp(log - log.max())
    return np.asarray(weights / weights.sum())
