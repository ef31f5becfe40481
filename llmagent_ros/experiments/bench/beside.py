"""What the graph misses while meta-learning and evolution run beside it on the same machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from llmagent_ros.errors import LlmAgentError
from llmagent_ros.experiments.bench.graph_processes import GraphProcesses

EPISODES = 40  # of the graph, in real time
_LONGEST = 2400.0  # s that they may take


def missed_ticks(
    folder: Path, seed: int, environment: str, *, beside: bool, episodes: int = EPISODES
) -> dict[str, Any]:
    """Runs the learning graph in real time; of its summary missed_tick_share, ticks and scene_to_command_ms.

    Args:
        environment: what is evolved, by two workers. beside: whether anything runs beside it.

    Raises:
        LlmAgentError: the graph fails or does not end, or what is to run beside it has ended before.
    """
    out = folder / "run"
    shutil.rmtree(folder, ignore_errors=True)  # of one that was interrupted the ticks until then are not known
    words = ["mode:=realtime", f"meta:={str(beside).lower()}", f"seed:={seed}", f"episodes:={episodes}", f"out:={out}"]
    with GraphProcesses(folder) as graph:
        launch = graph.run(
            *("launch", "-m", "llmagent_ros.cli.main", "launch", "sim.launch.xml"),
            *(*words, "headless:=true", "console:=false"),
        )
        running = [launch]
        if beside:
            endless = ["--generations", 999, "--slice", 500, "--workers", 2, "--seed", seed]
            evolve = ["-m", "llmagent_ros.cli.main", "evolve", environment, "--out", folder / "evolution"]
            running.append(graph.run("evolve", *evolve, *endless))
        if not graph.wait(lambda: any(each.poll() is not None for each in running), _LONGEST, every=0.5):
            raise LlmAgentError(f"{episodes} episodes took more than {_LONGEST:.0f} s; {graph.last_words('launch')}")
        if any(each.poll() is not None for each in running[1:]):
            raise LlmAgentError(f"evolution has not run beside the graph to its end; {graph.last_words('evolve')}")
        if launch.returncode:
            raise LlmAgentError(f"the graph ended with code {launch.returncode}; {graph.last_words('launch')}")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {key: summary[key] for key in ("missed_tick_share", "ticks", "scene_to_command_ms")}
