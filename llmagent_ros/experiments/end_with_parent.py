"""Processes that work for another one, and not longer than it lives."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended, even by `kill -9`.

    A worker that went on would keep the cores busy, and the folder of its run locked for whoever starts it again. What
    it does must be safe under `kill -9`.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for a worker"
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
