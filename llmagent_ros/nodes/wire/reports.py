"""Reading other nodes' diagnostics: which component speaks, and its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus

COUNT = "count."
"""Begins the keys under which the guard says how often each intervention began."""


def component(status: DiagnosticStatus, namespace: str) -> str:
    """Who speaks, as seen from a namespace: "sim", "guard" …; of another robot, whose names are elsewhere, in full.

    namespace: of the node that reads, as `Node.get_namespace` says it. /diagnostics is one topic for all robots.
    """
    return str(status.name).removeprefix(f"{namespace.rstrip('/')}/")


def values(status: DiagnosticStatus) -> dict[str, str]:
    """Its key-values; of a key that comes twice the last."""
    return {pair.key: pair.value for pair in status.values}


def numbers(said: Mapping[str, str]) -> dict[str, float]:
    """Those values that are finite numbers."""
    found: dict[str, float] = {}
    for name, text in said.items():
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number):
            found[name] = number
    return found


def count(said: Mapping[str, str], name: str) -> int | None:
    """A whole number that is not negative, or None."""
    text = said.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def guard_counts(said: Mapping[str, str]) -> dict[str, int]:
    """The guard's interventions by reason."""
    found = {name.removeprefix(COUNT): count(said, name) for name in said if name.startswith(COUNT)}
    return {reason: number for reason, number in found.items() if number is not None}
