"""What a benchmark prints and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmagent_ros.experiments.bench.results import Figure


def table(figures: Sequence[Figure], told: Mapping[str, Any], peers: Mapping[str, Any]) -> str:
    """Ours with goal and floor and every seed, then the peers, in Markdown."""
    rows = [["figure", "median", "goal", "floor", "reached", "every seed"]]
    for figure in figures:
        entry = told.get(figure.key, {"value": None})
        measured = bool(entry.get("seeds"))
        rows.append(
            [
                f"{figure.key} ({figure.unit})",
                _number(entry["value"]) if measured else "not measured",
                _number(figure.goal, "-"),
                _number(figure.floor, "-"),
                figure.verdict(entry["value"]) if measured else "",
                ", ".join(_number(value) for value in entry.get("seeds", [])),
            ]
        )
    for name, entries in peers.items():
        for key, entry in entries.items():
            seeds = ", ".join(_number(value) for value in entry.get("seeds", []))
            rows.append([f"{name}: {key}", _number(entry["value"]), "", "", "", seeds])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _number(value: float | None, none: str = "never") -> str:
    return none if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
