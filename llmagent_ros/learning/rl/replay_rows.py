"""What one transition must be, and its form as a row of the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from numbers import Integral, Real

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.types import Source, Transition

SOURCES = (Source.POLICY, Source.HUMAN, Source.SCRIPT)  # their order is the code on disk and in batches
ADAPTER = "adapter"  # the entry of Transition.extra that names the adapter version that acted

_MAX_COUNT = 1 << 32  # uint32 on the wire
_MAX_FLOAT32 = 3.4028234e38
_LOG_PROBABILITY_SLACK = 1e-3  # a log-softmax in half precision may end a little above 0


def check_transition(transition: Transition, vocabulary: Collection[str]) -> None:
    """Refuses what must not be learned from; `vocabulary` is not looked at when it is empty.

    `terminated` and `truncated` may both be set, as Gymnasium's TimeLimit does on its last step: then nothing is
    bootstrapped, as for `terminated` alone.

    Raises:
        ConfigError: naming the transition and the field. UnknownNameError: the action is outside the vocabulary.
    """
    where = f"transition {transition.run!r}/{transition.episode}/{transition.step}"
    for name in ("run", "scene", "action", "next_scene"):
        if not getattr(transition, name):
            raise ConfigError(f"{where}: {name} is empty")
    for name in ("run", "task", "scene", "action", "next_scene"):
        _check_text(f"{where}: {name}", getattr(transition, name))
    for name in ("episode", "step"):
        count = getattr(transition, name)
        if not isinstance(count, Integral) or not 0 <= int(count) < _MAX_COUNT:
            raise ConfigError(f"{where}: {name} is not a whole number in 0..{_MAX_COUNT - 1}")
    for name in ("reward", "log_probability", "stamp"):
        value = getattr(transition, name)
        if not isinstance(value, Real) or not abs(float(value)) <= _MAX_FLOAT32:
            raise ConfigError(f"{where}: {name} is {value}, not a finite number")
    if transition.log_probability > _LOG_PROBABILITY_SLACK:
        raise ConfigError(f"{where}: log_probability is {transition.log_probability}, above 0")
    if transition.source not in SOURCES:
        raise UnknownNameError(f"source of {where}", transition.source, (source.value for source in SOURCES))
    for key, value in transition.extra.items():
        _check_text(f"{where}: extra", key)
        _check_text(f"{where}: extra.{key}", value)
    if vocabulary and transition.action not in vocabulary:
        raise UnknownNameError(f"action phrase of {where}", transition.action, vocabulary)


def _check_text(where: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{where} is {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where} is not Unicode text: {error.reason}") from error


def text_hash(text: str) -> bytes:
    """16 bytes that stand for a text in the unique index, so that the text itself is on disk once."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def dump_extra(extra: Mapping[str, str]) -> str | None:
    """JSON of everything but the adapter, which has its own column; None when that is nothing."""
    rest = {key: value for key, value in extra.items() if key != ADAPTER}
    return json.dumps(rest, sort_keys=True) if rest else None


def load_extra(adapter: str | None, rest: str | None) -> dict[str, str]:
    """The inverse of `dump_extra`, with the adapter back in its place."""
    extra: dict[str, str] = json.loads(rest) if rest else {}
    return extra if adapter is None else {**extra, ADAPTER: adapter}
