"""The kinds of values that a contract's keys take."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid")
# a key whose field has another name: `dataclasses.replace` goes by the field's
NAMED = ConfigDict(extra="forbid", validate_by_alias=True, validate_by_name=True)


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, not {value} (YAML reads yes, no, on, off so)")
    return value


def _printable(text: str) -> str:
    """What the model reads must be what a person reads."""
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be printed")
    return text


Finite = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Hue = Annotated[Finite, Field(ge=0, le=360)]  # degrees
Angle = Annotated[Finite, Field(ge=-360, le=360)]  # degrees
Point = tuple[Finite, Finite, Finite]  # m, or a direction
Words = Annotated[str, Field(pattern=r"^\S+( \S+)*$", max_length=40), AfterValidator(_printable)]
Topic = Annotated[str, Field(pattern=r"^(~/|/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$", max_length=200)]
# TF2 knows no frame that begins with a slash
Frame = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_/.-]*$", max_length=200)]
Phrase = Annotated[str, Field(pattern=r"^[a-z][a-z ]*[a-z]$", max_length=40)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_./-]*$", max_length=200)]  # of a joint or link
