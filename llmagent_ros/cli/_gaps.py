"""Saying what of some recordings could not be taken."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llmagent_ros.console.text import printable

if TYPE_CHECKING:
    from llmagent_ros.experiments.recordings.transitions import Gaps


def warn_of(gaps: Gaps) -> int:
    """Prints a line for each on standard error; exit code 1 where a bag was left out, else 0."""
    for line in gaps.cut.values():
        print(printable(f"warning: {line}"), file=sys.stderr)
    for line in gaps.refused.values():
        print(printable(f"left out: {line}"), file=sys.stderr)
    return 1 if gaps.refused else 0
