"""OUT/summary.json: the figures of a run, whole or not at all."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llmagent_ros
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import StoreError

_NAMED_VERSIONS = ("torch", "numpy", "transformers", "peft")


def versions(also: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python, this package and the libraries that figures depend on, read without importing them.

    Args:
        also: further packages; what is not installed is left out.
    """
    found = {"python": platform.python_version(), "llmagent_ros": llmagent_ros.__version__}
    for name in (*_NAMED_VERSIONS, *also):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary` as JSON, atomically; NaN and infinities become null, since JSON has none.

    Raises:
        StoreError: the disk is full or the folder cannot be written; the old file is kept.
    """
    text = json.dumps(_finite(summary), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode("utf-8", errors="replace"))


def read_summary(path: Path) -> dict[str, Any]:
    """The content of a summary.json.

    Raises:
        StoreError: missing, unreadable or not a JSON object; names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: expected an object at the top, found {type(content).__name__}")
    return content


def percent(share: Any, digits: int = 0) -> str:
    """A share as people read it."""
    return figure(100 * share if isinstance(share, int | float) else None, f".{digits}f", " %")


def figure(value: Any, form: str = "", unit: str = "") -> str:
    """A figure as people read it; "-" when it was not measured or is of another kind (an edited file)."""
    try:
        return "-" if value is None else f"{value:{form}}{unit}"
    except (TypeError, ValueError):
        return "-"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(member) for member in value]
    return value
