"""Entry points of the executables: ready for Ctrl-C before the slow imports begin."""

from __future__ import annotations

import importlib
import os
import signal
from typing import NoReturn


def _quit(number: int, _: object) -> NoReturn:
    os._exit(128 + number)


def _start(module: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _quit)
    importlib.import_module(f"llmagent_ros.nodes.{module}").main()


def sim() -> None:
    _start("sim_node")


def perception() -> None:
    _start("perception_node")


def policy() -> None:
    _start("policy_node")


def learner() -> None:
    _start("learner_node")


def knowledge() -> None:
    _start("knowledge_node")


def guard() -> None:
    _start("guard_node")


def teleop() -> None:
    _start("teleop_node")


def outcome() -> None:
    _start("outcome_node")


def recorder() -> None:
    _start("recorder_node")


def bag_recorder() -> None:
    _start("bag_recorder_node")


def runner() -> None:
    _start("runner_node")


def console() -> None:
    _start("console_node")


def compose() -> None:
    _start("compose")
