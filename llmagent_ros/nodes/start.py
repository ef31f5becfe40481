"""Entry points of the executables: ready for Ctrl-C before the slow imports begin."""

from __future__ import annotations

import importlib
import os
import signal
from typing import NoReturn


def _quit(number: int, _: object) -> NoReturn:
    os._exit(128 + number)


def _start(name: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _quit)
    importlib.import_module(f"llmagent_ros.nodes.{name}_node").main()


def sim() -> None:
    _start("sim")


def perception() -> None:
    _start("perception")


def policy() -> None:
    _start("policy")


def learner() -> None:
    _start("learner")


def knowledge() -> None:
    _start("knowledge")


def guard() -> None:
    _start("guard")


def teleop() -> None:
    _start("teleop")


def recorder() -> None:
    _start("recorder")


def runner() -> None:
    _start("runner")


def console() -> None:
    _start("console")
