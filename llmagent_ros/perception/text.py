"""How a scene reads: one short line per part, numbers rounded as the contract says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from llmagent_ros.types import Place, SeenObject

UNKNOWN = "unknown"
MAX_INSTRUCTION = 200  # characters; a longer one is cut, so that it cannot push the sensors out of the context


def clean_instruction(text: str) -> str:
    """An instruction on one line without control characters, at most MAX_INSTRUCTION long."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:MAX_INSTRUCTION].rstrip(" .")


def say_task(instruction: str) -> str:
    return f"{instruction or 'no task'}."


def say_bearing(bearing: float, step: float) -> str:
    """"ahead", "left 40" or "right 110": a bearing in rad, rounded to `step` degrees."""
    degrees = round(math.degrees(bearing) / step) * step
    if abs(degrees) < step / 2:
        return "ahead"
    return f"{'left' if degrees > 0 else 'right'} {abs(degrees):.0f}"


def say_distance(metres: float, limit: float) -> str:
    return f"{min(max(metres, 0.0), limit):.1f}"


def say_objects(
    objects: Iterable[SeenObject] | None,
    unseen: Place | None = None,
    *,
    task: str,
    names: Sequence[str],
    bearing_step: float,
    limit: float,
    most: int,
) -> str:
    """The objects that the task names first, seen or not, then the nearest others, `most` in all.

    Args:
        objects: nearest first; None when the camera or the odometry is unknown.
        unseen: where one that the task names and that is not seen may be.
        names: every name that the contract knows.
    """
    wanted = [name for name in names if name.lower() in task.lower()]
    if objects is None:
        return " ".join(f"{name} {UNKNOWN}." for name in wanted) or f"objects {UNKNOWN}."
    found = {item.name: item for item in objects}
    order = wanted + [name for name in found if name not in wanted]
    said = []
    for name in order[:most]:
        item = found.get(name)
        if item is None:
            perhaps = f", maybe {_where(unseen, bearing_step, limit)}" if unseen is not None else ""
            said.append(f"{name} not seen{perhaps}.")
            continue
        said.append(f"{name} {_where(item, bearing_step, limit)}{' before' if item.age > 0 else ''}.")
    return " ".join(said) if said else "no object."


def _where(thing: SeenObject | Place, bearing_step: float, limit: float) -> str:
    return f"{say_bearing(thing.bearing, bearing_step)} at {say_distance(thing.distance, limit)}"


def say_scan(clearances: Mapping[str, float | None] | None) -> str:
    if clearances is None:
        return f"clear {UNKNOWN}."
    parts = [f"{name} {UNKNOWN if metres is None else f'{metres:.1f}'}" for name, metres in clearances.items()]
    return f"clear {' '.join(parts)}."


def say_free(metres: Mapping[str, float | None] | None) -> str:
    """How far each phrase that drives may be kept up."""
    if metres is None:
        return f"free {UNKNOWN}."
    parts = [f"{phrase} {UNKNOWN if way is None else f'{way:.1f}'}" for phrase, way in metres.items()]
    return f"free {' '.join(parts) or 'nowhere'}."


def say_motion(linear: float | None, angular: float | None) -> str:
    """Own motion, forward and to the left, as `MobileContract.as_said` gives it."""
    if linear is None or angular is None:
        return f"moving {UNKNOWN}."
    return f"moving {say_speeds(linear, angular)}."


def say_action(phrase: str, motion: tuple[float, float] | None) -> str:
    """An action with the motion that came of it, as `say_motion` takes it, where that is known."""
    return phrase if motion is None else f"{phrase} {say_speeds(*motion)}"


def say_history(actions: Sequence[str]) -> str:
    """The last actions, newest last."""
    return f"did {', '.join(actions)}." if actions else "did nothing."


def say_speeds(linear: float, angular: float) -> str:
    """Forward and to the left."""
    return f"{say_signed(linear)} turning {say_signed(angular)}"


def say_signed(value: float) -> str:
    """With one decimal, and a sign where it is negative."""
    rounded = round(value, 1)
    return f"{'-' if rounded < 0 else ''}{abs(rounded):.1f}"
