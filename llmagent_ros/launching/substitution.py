"""`$(var x)` and its kin: the syntax of the launch front ends, and what each means.

A text is parsed once into parts: plain strings and `Call`s whose arguments are parts again. A backslash takes the
next character literally; an argument with spaces or parentheses in it is put into quotes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.launching import expression, packages

if TYPE_CHECKING:
    from llmagent_ros.launching.context import Context

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True)
class Call:
    """One substitution: `$(name arguments…)`."""

    name: str
    arguments: tuple[tuple[Part, ...], ...]


Part: TypeAlias = str | Call


def parse(text: str) -> tuple[Part, ...]:
    """The parts of a text.

    Raises:
        ConfigError: a substitution is malformed. UnknownNameError: there is none of that name.
    """
    return _Parser(text).template()


def perform(parts: Sequence[Part], context: Context) -> str:
    """The text with every substitution carried out.

    Raises:
        ConfigError: one cannot be: an unknown variable, package or environment variable.
    """
    return "".join(part if isinstance(part, str) else _call(part, context) for part in parts)


def split_command(text: str) -> list[tuple[Part, ...]]:
    """A command line's arguments. As in launch, what a substitution yields is never split.

    Raises:
        ConfigError: a quotation is not closed.
    """
    arguments: list[tuple[Part, ...]] = []
    current: list[Part] = []

    def flush() -> None:
        if current:
            arguments.append(tuple(current))
            current.clear()

    for part in parse(text):
        if isinstance(part, Call):
            current.append(part)
            continue
        try:
            words = shlex.split(part)
        except ValueError as error:
            raise ConfigError(f"command line {text!r}: {error}") from error
        if part[:1].isspace() or not words:
            flush()
        for index, word in enumerate(words):
            if index:
                flush()
            current.append(word)
        if part[-1:].isspace():
            flush()
    flush()
    return arguments


def as_bool(text: str, what: str) -> bool:
    """A condition's truth, by launch's rule: true, 1, false or 0 in any case.

    Raises:
        ConfigError: neither.
    """
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ConfigError(f"{what}: {text!r} is no truth value; valid: true, false, 1, 0")
    return word in _TRUE


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def template(self, quote: str = "") -> tuple[Part, ...]:
        """Text with substitutions up to the closing quote, or to the end."""
        parts: list[Part] = []
        plain: list[str] = []
        while self._at < len(self._text):
            if quote and self._text[self._at] == quote:
                break
            if self._text.startswith("$(", self._at):
                parts += ["".join(plain), self._substitution(quote)]
                plain.clear()
            else:
                plain.append(self._character())
        if quote:
            self._expect(quote)
        parts.append("".join(plain))
        return tuple(part for part in parts if part != "") or ("",)

    def _substitution(self, quote: str) -> Call:
        self._at += 2
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._error("a name must follow $(")
        self._at = match.end()
        if match[0] not in _CALLS:
            raise UnknownNameError("substitution", match[0], _CALLS)
        arguments = []
        while self._peek() == " ":
            self._at += 1
            arguments.append(self._argument(quote))
        self._expect(")")
        return Call(match[0], tuple(arguments))

    def _argument(self, quote: str) -> tuple[Part, ...]:
        """One argument. Quotes do not nest: within a quoted one, the other quotation mark is a plain character."""
        if not quote and self._peek() in ("'", '"'):
            self._at += 1
            return self.template(self._text[self._at - 1])
        parts: list[Part] = []
        ends = ("", " ", "(", ")", *([quote] if quote else ["'", '"']))
        while self._peek() not in ends:
            parts.append(self._substitution(quote) if self._text.startswith("$(", self._at) else self._character())
        if not parts:
            raise self._error("an argument is missing")
        return tuple(parts)

    def _character(self) -> str:
        if self._text[self._at] == "\\" and self._at + 1 < len(self._text):
            self._at += 1
        self._at += 1
        return self._text[self._at - 1]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise self._error(f"{character} expected")
        self._at += 1

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"malformed substitution in {self._text!r} at character {self._at + 1}: {problem}")


def _call(call: Call, context: Context) -> str:
    function, least, most = _CALLS[call.name]
    if not least <= len(call.arguments) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise ConfigError(f"$({call.name} …): {wanted} arguments expected, {len(call.arguments)} given; "
                          "put an argument that has spaces into quotes")
    return function(context, *[perform(argument, context) for argument in call.arguments])


def _var(context: Context, name: str, default: str | None = None) -> str:
    value = context.configurations.get(name, default)
    if value is None:
        raise UnknownNameError("launch argument in $(var …)", name, context.configurations)
    return value


def _env(context: Context, name: str, default: str | None = None) -> str:
    value = context.environment.get(name, default)
    if value is None:
        raise ConfigError(f"$(env {name}): the environment variable is not set; give a default: $(env {name} default)")
    return value


def _word(value: bool) -> str:
    return "true" if value else "false"


def _all(context: Context, *words: str) -> str:
    return _word(all(as_bool(word, "$(and …)") for word in words))


def _any(context: Context, *words: str) -> str:
    return _word(any(as_bool(word, "$(or …)") for word in words))


_CALLS: Mapping[str, tuple[Callable[..., str], int, int]] = {
    "var": (_var, 1, 2),
    "env": (_env, 1, 2),
    "eval": (lambda context, *arguments: expression.evaluate(*arguments), 1, 2),
    "dirname": (lambda context: str(context.file.parent), 0, 0),
    "filename": (lambda context: str(context.file), 0, 0),
    "find-pkg-share": (lambda context, name: str(packages.share(name)), 1, 1),
    "find-pkg-prefix": (lambda context, name: str(packages.prefix(name)), 1, 1),
    "exec-in-pkg": (lambda context, name, package: str(packages.executable(package, name)), 2, 2),
    "not": (lambda context, word: _word(not as_bool(word, "$(not …)")), 1, 1),
    "and": (_all, 2, 2),
    "or": (_any, 2, 2),
    "all": (_all, 0, 64),
    "any": (_any, 0, 64),
    "equals": (lambda context, left, right: _word(left == right), 2, 2),
    "not-equals": (lambda context, left, right: _word(left != right), 2, 2),
}
