"""Jobs for workers that are no more than what a test needs; nothing heavy is imported for them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from llmagent_ros.errors import DivergenceError

Job = dict[str, Any]
Result = dict[str, Any]


def do(job: Job) -> Result:
    """What the job says."""
    if job.get("says"):
        print(job["says"], flush=True)
    if job.get("sleep"):
        time.sleep(job["sleep"])
    match job["what"]:
        case "square":
            return {"square": job["number"] ** 2}
        case "facts":
            import torch

            threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")}
            return {"nice": os.nice(0), "torch": torch.get_num_threads(), "pid": os.getpid(), **threads}
        case "raise":
            raise ValueError("of this member")
        case "diverge":
            raise DivergenceError("loss nan")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "grow":
            kept = bytearray(0)
            for _ in range(200):
                kept += bytes(range(256)) * 40_000  # 10 MB
                time.sleep(0.02)
    return {}
