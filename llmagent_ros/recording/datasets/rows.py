"""Transitions as columns of an Arrow table, and back, without losing a bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from llmagent_ros.errors import StoreError
from llmagent_ros.types import Source, Transition

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("episode", pa.int64()),
        ("step", pa.int64()),
        ("task", pa.string()),
        ("scene", pa.string()),
        ("action", pa.string()),
        ("reward", pa.float64()),
        ("next_scene", pa.string()),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("source", pa.string()),
        ("log_probability", pa.float64()),
        ("stamp", pa.float64()),
        ("extra", pa.string()),  # JSON, with sorted keys
    ]
)


def to_columns(transitions: Sequence[Transition]) -> dict[str, list[Any]]:
    """One list for each field of `SCHEMA`."""
    columns: dict[str, list[Any]] = {name: [getattr(t, name) for t in transitions] for name in SCHEMA.names}
    columns["source"] = [t.source.value for t in transitions]
    columns["extra"] = [json.dumps(dict(t.extra), sort_keys=True, ensure_ascii=False) for t in transitions]
    for name in ("reward", "log_probability", "stamp"):
        columns[name] = [float(value) for value in columns[name]]
    return columns


def from_batch(batch: pa.RecordBatch, origin: str) -> Iterator[Transition]:
    """The transitions of a batch with the columns of `SCHEMA`, and perhaps others.

    Raises:
        StoreError: a column is missing or holds something else.
    """
    missing = [name for name in SCHEMA.names if name not in batch.schema.names]
    if missing:
        raise StoreError(f"{origin}: not transitions: it has no column {missing[0]!r}")
    columns = {name: batch.column(name).to_pylist() for name in SCHEMA.names}
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(SCHEMA.names, values, strict=True))
        try:
            row["source"] = Source(row["source"])
            row["extra"] = {str(key): str(value) for key, value in json.loads(row["extra"] or "{}").items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise StoreError(f"{origin}: not a transition: {error}") from error
        yield Transition(**row)
