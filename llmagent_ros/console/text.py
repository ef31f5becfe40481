"""Text from outside made safe for a terminal, and small drawings made of characters."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

_LIMIT = 4000
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, clearing
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC and other strings: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?|\x9b[0-?]*[ -/]*[@-~]"
)
_DROPPED = {"Cc", "Cf", "Cs", "Co", "Cn"}  # controls, bidirectional overrides, surrogates, unassigned
_BLOCKS = " ▏▎▍▌▋▊▉█"
_SPARKS = "▁▂▃▄▅▆▇█"


def clean(text: str, ascii_only: bool = False) -> str:
    """`text` on one line without escape sequences, control or invisible characters; at most 4000 characters.

    A scene or an instruction may come from a stranger: nothing of it may move the cursor, set a title or colour.
    """
    shown = []
    for character in _ESCAPES.sub("", text[:_LIMIT]):
        if character.isspace():
            shown.append(" ")
        elif ascii_only and not character.isascii():
            shown.append("?")
        elif unicodedata.category(character) not in _DROPPED:
            shown.append(character)
    return " ".join("".join(shown).split())


def printable(text: str) -> str:
    """`text` without control or invisible characters; lines and spaces stay.

    For what was laid out already: of an escape sequence the escape goes, and the rest of it can be read.
    """
    return "".join(c for c in text.replace("\t", " ") if c == "\n" or unicodedata.category(c) not in _DROPPED)


def bar(share: float, width: int, ascii_only: bool = False) -> str:
    """A horizontal bar of `width` columns, filled by `share` in [0, 1], in eighths of a column."""
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    if ascii_only:
        return ("#" * round(share * width)).ljust(width)
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest] if rest else "")).ljust(width)


def sparkline(shares: Iterable[float], ascii_only: bool = False) -> str:
    """One character for each value in [0, 1]; digits 0 to 9 where only ASCII can be shown."""
    levels = "0123456789" if ascii_only else _SPARKS
    return "".join(levels[min(len(levels) - 1, int(min(max(share, 0.0), 1.0) * len(levels)))] for share in shares)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    whole = int(seconds) if math.isfinite(seconds) and seconds > 0 else 0
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def count(number: int) -> str:
    """A count with thousands set apart by spaces, which no locale reads as a decimal point."""
    return f"{number:,}".replace(",", " ")


def percent(share: float | None) -> str:
    """A share as a whole percentage; "-" for None."""
    return "-" if share is None else f"{100 * share:.0f} %"
