"""Tables for a person, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from llmagent_ros.console.text import clean


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; what would break a row, or steer a terminal, is taken out of the cells."""
    cells = [[clean(cell.replace("|", "/")) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])
