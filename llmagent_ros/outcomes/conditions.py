"""Conditions on topics that say when a task is fulfilled or has failed, and for how long they have held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.contract.values import NAMED, Finite, NotNegative, Positive, Topic
from llmagent_ros.errors import ConfigError
from llmagent_ros.outcomes.claims import Authority, Claim
from llmagent_ros.outcomes.fields import FieldPath, FieldsOf

_SINGLE = 1e-6  # relative, within which a field of single precision is the number that was meant


def _path(text: str) -> str:
    return str(FieldPath.parse(text))


def _finite(value: bool | int | float | str) -> bool | int | float | str:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} equals nothing; valid: true, false, a number, a text")
    return value


@dataclass(config=NAMED, frozen=True, kw_only=True)
class Condition:
    """One comparison with a field of a topic.

    Attributes:
        topic: relative to the namespace, unless it begins with "/". type: of its messages, "std_msgs/msg/Bool".
        field: path in a message, see `FieldPath`.
        equals: true, false, a number or a text. above, below: strictly; both together are a range.
        hold: in a file `for`: s that it must have held, by the stamps of the messages.
        timeout: s after which the last message says nothing any more; a longer silence also begins `hold` anew.
        reason: the word that the episode's end bears; empty: success or failure.
    """

    topic: Topic
    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*$")]
    field: Annotated[str, AfterValidator(_path)]
    equals: Annotated[bool | int | float | str | None, AfterValidator(lambda v: v if v is None else _finite(v))] = None
    above: Finite | None = None
    below: Finite | None = None
    hold: Annotated[NotNegative, Field(alias="for", le=3600)] = 0.0
    timeout: Annotated[Positive, Field(le=3600)] = 1.0
    reason: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*)?$", max_length=40)] = ""

    def __post_init__(self) -> None:
        ranged = self.above is not None or self.below is not None
        if ranged == (self.equals is not None):
            given = "both equals and a range" if ranged else "nothing to compare with"
            raise ValueError(f"{self.topic}: {given}; valid: equals, or above, below or both")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"{self.topic}: nothing is above {self.above:g} and below {self.below:g}")

    @cached_property
    def path(self) -> FieldPath:
        return FieldPath.parse(self.field)

    def check(self, fields_of: FieldsOf) -> None:
        """Raises ConfigError unless its type has the field, with values that can be compared; see `FieldPath.kind`."""
        kind = self.path.kind(self.type, fields_of)
        wanted = {"boolean": "equals: true or false", "number": "equals, above or below with numbers"}
        if isinstance(self.equals, bool):
            fits = kind == "boolean"
        else:
            fits = kind == ("string" if isinstance(self.equals, str) else "number")
        if not fits:
            raise ConfigError(
                f"condition on {self.topic}: {self.field} of {self.type} is a {kind}; "
                f"valid: {wanted.get(kind, 'equals: a text')}"
            )

    def met(self, value: bool | float | str | None) -> bool:
        """Whether a value of the field satisfies the comparison; none (a list that is too short) and NaN never do."""
        if value is None:
            return False
        if self.equals is not None:
            if isinstance(value, float) and isinstance(self.equals, int | float) and not isinstance(self.equals, bool):
                return math.isclose(value, self.equals, rel_tol=_SINGLE)
            return value == self.equals and isinstance(value, bool) == isinstance(self.equals, bool)
        if isinstance(value, str | bool):
            return False
        return (self.above is None or value > self.above) and (self.below is None or value < self.below)

    def __str__(self) -> str:
        compared = [("equals", self.equals), ("above", self.above), ("below", self.below)]
        said = " ".join(f"{word} {value}" for word, value in compared if value is not None)
        return f"{self.topic}.{self.field} {said}"


class ConditionWatch:
    """One condition over time. Stamps and times are s of the robot's clock."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.heard = 0  # messages, of all episodes
        self._begun = -math.inf
        self._forget()

    def _forget(self) -> None:
        self._since: float | None = None  # stamp of the first message since which it holds
        self._last = -math.inf

    def begin(self, stamp: float) -> None:
        """A new episode: only what is stamped after it counts."""
        self._begun = stamp
        self._forget()

    def on_value(self, value: bool | float | str | None, stamp: float) -> None:
        """Takes the field of a message; one that is older than the last is dropped."""
        self.heard += 1
        if stamp <= max(self._begun, self._last):
            return
        if stamp - self._last > self.condition.timeout:
            self._since = None
        if not self.condition.met(value):
            self._since = None
        elif self._since is None:
            self._since = stamp
        self._last = stamp

    def holds(self, now: float) -> bool:
        """Whether it has held for `hold`, and its last message is fresh."""
        if self._since is None or now - self._last > self.condition.timeout:
            return False
        return self._last - self._since >= self.condition.hold - 1e-6  # stamps are rounded


class Conditions:
    """Those of one task: it succeeds when all of `success` hold at once, and fails when any of `failure` does."""

    def __init__(self, success: Sequence[Condition] = (), failure: Sequence[Condition] = ()) -> None:
        self.success = tuple(map(ConditionWatch, success))
        self.failure = tuple(map(ConditionWatch, failure))

    @property
    def watches(self) -> tuple[ConditionWatch, ...]:
        return self.success + self.failure

    def begin(self, stamp: float) -> None:
        for watch in self.watches:
            watch.begin(stamp)

    def claim(self, now: float) -> Claim | None:
        """What they say now. Failure goes first: who bumps into the dock while docking has not done well."""
        failed = next((watch for watch in self.failure if watch.holds(now)), None)
        if failed is not None:
            return Claim(Authority.CONDITION, False, failed.condition.reason or "failure")
        if self.success and all(watch.holds(now) for watch in self.success):
            reasons = [watch.condition.reason for watch in self.success if watch.condition.reason]
            return Claim(Authority.CONDITION, True, reasons[0] if reasons else "success")
        return None

    def silent(self) -> list[ConditionWatch]:
        """Those whose topics have never spoken."""
        return [watch for watch in self.watches if not watch.heard]
