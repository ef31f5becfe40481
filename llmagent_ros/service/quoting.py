"""Words as systemd reads them: systemd.syntax(7), systemd.service(5), systemd.exec(5), tmpfiles.d(5).

In a unit `%` begins a specifier and, on a command line, `$` a variable; each is doubled to mean itself. A file of
environment variables knows neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmagent_ros.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z0-9@%$+=:,./_-]+", re.ASCII)
_NEVER = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # ends a line, or is no UTF-8
_UNQUOTABLE = re.compile(r"[\"'\\]|^\s|\s$")  # what settings that hold a path read as it stands


def command(words: Sequence[str]) -> str:
    """The value of ExecStart=, or its beginning. `words[0]` is the path of the program, in which `$` means itself.

    Raises:
        ConfigError: a control character in a word.
    """
    return " ".join([_quoted(words[0].replace("%", "%%")), arguments(words[1:])]).rstrip()


def arguments(words: Sequence[str]) -> str:
    """Further words of ExecStart=.

    Raises:
        ConfigError: as `command`.
    """
    return " ".join(_quoted(word.replace("%", "%%").replace("$", "$$")) for word in words)


def word_list(values: Sequence[str]) -> str:
    """The value of a variable that ExecStart= has as $NAME: systemd splits it into these words again.

    Raises:
        ConfigError: a control character in a word.
    """
    return " ".join(map(_quoted, values))


def variable(value: str) -> str:
    """The value of a line NAME=value of an environment file; a shell reads it in the same way.

    Raises:
        ConfigError: it has a control character.
    """
    return '"' + re.sub(r'(["\\$`])', r"\\\1", _printable(value)) + '"'


def path_line(path: object) -> str:
    """A path that is a setting's whole value: WorkingDirectory=, EnvironmentFile=.

    Raises:
        ConfigError: it has quotes, backslashes, control characters, or space at an end: systemd's settings differ in
            how they read these.
    """
    text = _printable(str(path))
    if _UNQUOTABLE.search(text):
        raise ConfigError(f"{text!r} cannot stand in a unit; valid: a path without quotes, \\ and space at its ends")
    return text.replace("%", "%%")


def path_word(path: object) -> str:
    """A path in a list of words: ReadWritePaths=, and the fields of tmpfiles.d.

    Raises:
        ConfigError: as `path_line`.
    """
    return _quoted(path_line(path))


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(_printable(word)):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def _printable(text: str) -> str:
    if _NEVER.search(text):
        raise ConfigError(f"{text!r} has a control character or is no UTF-8; neither can stand in systemd's files")
    return text
