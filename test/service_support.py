"""systemd's side of the files: units, environment files and words, read as its manual pages say."""

from __future__ import annotations

import configparser
import pwd
import re
from dataclasses import dataclass
from os import getuid
from pathlib import Path

from llmagent_ros.cli.main import main

USER = pwd.getpwuid(getuid()).pw_name


def split(text: str) -> list[str]:
    """Words with quotes and backslashes resolved: systemd.syntax(7), "Quoting". Only the escapes of one character."""
    found: list[str] = []
    word: str | None = None
    quote = ""
    characters = iter(text)
    for c in characters:
        if c == "\\":
            word = (word or "") + next(characters)
        elif quote:
            if c == quote:
                quote = ""
            else:
                word = (word or "") + c
        elif c in "\"'":
            quote, word = c, word or ""
        elif c in " \t":
            if word is not None:
                found.append(word)
            word = None
        else:
            word = (word or "") + c
    assert not quote, f"an open quote in {text!r}"
    return found if word is None else [*found, word]


def specified(text: str) -> str:
    """With specifiers resolved; only %% is known."""
    assert not re.search("%[^%]", text.replace("%%", "")), f"a specifier in {text!r}"
    return text.replace("%%", "%")


def command_line(value: str, environment: dict[str, str]) -> list[str]:
    """The words of ExecStart=: $NAME as a word of its own is split, $$ is a dollar; systemd.service(5)."""
    program, *rest = map(specified, split(value))
    words = [program]
    for word in rest:
        if re.fullmatch(r"\$[A-Za-z_]\w*", word):
            words += split(environment[word[1:]])
        else:
            assert not re.search(r"\$[A-Za-z_{]", word.replace("$$", "")), f"a variable in {word!r}"
            words.append(word.replace("$$", "$"))
    return words


def read_unit(path: Path) -> dict[str, dict[str, str]]:
    """Section to setting to value; a setting that is given twice is an error."""
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8"))
    return {name: dict(parser[name]) for name in parser.sections()}


def read_environment(path: Path) -> dict[str, str]:
    """EnvironmentFile= of systemd.exec(5): in double quotes a backslash takes the meaning from one of "\\$` only."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", ";")):
            name, sign, value = line.partition("=")
            assert sign and re.fullmatch(r"[A-Za-z_]\w*", name), line
            if value.startswith('"'):
                assert re.fullmatch(r'"(?:[^"\\]|\\.)*"', value), line
                value = re.sub(r'\\(["\\$`])', r"\1", value[1:-1])
            found[name] = value
    return found


@dataclass(frozen=True)
class Service:
    """A part as it was written."""

    folder: Path
    part: str
    name: str = "llmagent"

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}-{self.part}.service"

    @property
    def settings(self) -> dict[str, str]:
        return read_unit(self.path)["Service"]

    @property
    def environment(self) -> dict[str, str]:
        return read_environment(self.folder / f"{self.name}-{self.part}.env")

    @property
    def command(self) -> list[str]:
        return command_line(self.settings["ExecStart"], self.environment)


def write(
    folder: Path, *words: object, robot: object = "turtlebot3_burger", part: str = "robot", code: int = 0
) -> Service:
    """`llmagent service write`, for the user of the test."""
    given = ["service", "write", folder, "--robot", robot, "--part", part, "--user", USER, *words]
    assert main([str(word) for word in given]) == code
    return Service(folder, part)
