"""The name of a node is held once in a machine, whoever starts it and however the process that had it ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes.base import hold_name

HOLD = """
import os
import sys
from types import SimpleNamespace
from llmagent_ros.nodes.base import hold_name

if len(sys.argv) > 3:
    os.setuid(int(sys.argv[3]))
context = SimpleNamespace(get_domain_id=lambda: int(sys.argv[1]))
held = hold_name(SimpleNamespace(context=context, get_fully_qualified_name=lambda: sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""
DOMAIN = 1_000_000 + os.getpid()  # no domain of ROS, and no other test's
NAME = "/guard"
LONG = "/" + "a" * 200 + "/guard"


def node(name: str, domain: int = DOMAIN) -> Any:
    """What of a node its name is held by."""
    return SimpleNamespace(context=SimpleNamespace(get_domain_id=lambda: domain), get_fully_qualified_name=lambda: name)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that holds a name, with a temporary folder of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, *user: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(DOMAIN), name, *user],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", [NAME, LONG])
def test_it_is_held_whatever_the_temporary_folder_until_the_process_is_killed(
    name: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = start(name)
    for _ in range(3):
        with pytest.raises(ConfigError, match=rf"runs already on this machine \(process {holder.pid}, ROS domain"):
            hold_name(node(name))
    holder.kill()
    holder.wait()
    with closing(hold_name(node(name))), pytest.raises(ConfigError, match=rf"\(process {os.getpid()},"):
        hold_name(node(name))
    hold_name(node(name)).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process of another user")
def test_it_is_held_for_other_users_too(start: Callable[..., subprocess.Popen[str]]) -> None:
    holder = start(NAME, "65534")
    with pytest.raises(ConfigError, match=rf"runs already on this machine \(process {holder.pid}, ROS domain"):
        hold_name(node(NAME))
    holder.kill()
    holder.wait()
    with closing(hold_name(node(NAME))):
        words = [sys.executable, "-c", HOLD, str(DOMAIN), NAME, "65534"]
        refused = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert f"runs already on this machine (process {os.getpid()}, ROS domain" in refused.stderr


def test_other_domains_and_namespaces_have_names_of_their_own() -> None:
    others = [node(NAME), node("/tb1/guard"), node("/tb1_guard"), node(NAME, DOMAIN + 1), node(LONG), node(LONG + "s")]
    held = [hold_name(other) for other in others]
    for each in held:
        each.close()
