"""docs/deployment.md against the commands that there are: each parses, its launch arguments and links exist."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from llmagent_ros.cli import main
from llmagent_ros.launching import description, packages

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "deployment.md").read_text(encoding="utf-8")
LINES = [line.strip() for line in PAGE.splitlines() if re.match(r"    (\.venv/bin/)?llmagent ", line)]


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_page_exists(line: str) -> None:
    _, command, *words = shlex.split(line, comments=True)
    assert command in main.commands()
    module = importlib.import_module(f"llmagent_ros.cli.{command.replace('-', '_')}")
    parser = module.add_parser(argparse.ArgumentParser().add_subparsers())
    given = main._parse(parser, words)
    if command in ("launch", "service"):
        file = given.file if command == "launch" else "robot"
        names = {argument.name for argument in description.arguments(packages.launch_file(file))}
        assert {word.partition(":=")[0] for word in words if ":=" in word} <= names


def test_the_page_has_commands() -> None:
    assert len(LINES) >= 15


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE))
def test_a_link_of_the_page_leads_somewhere(link: str) -> None:
    file, _, anchor = link.partition("#")
    text = (DOCS / file).read_text(encoding="utf-8") if file else PAGE
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert not anchor or anchor in anchors
