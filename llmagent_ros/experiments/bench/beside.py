"""What the graph misses while meta-learning and evolution run beside it on the same machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from llmagent_ros.bundle import latest_bundle
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.experiments.bench.graph_processes import GraphProcesses
from llmagent_ros.experiments.training import BUNDLES

EPISODES = 40  # of the graph, in real time
_CLI = ("-m", "llmagent_ros.cli.main")
_META = ("tasks=1", "ready=32", "publish_every=40")  # the graph has one kind of task; and it begins soon
_LONGEST = 2400.0  # s that they may take


def missed_ticks(
    folder: Path, seed: int, environment: str, *, beside: bool, episodes: int = EPISODES
) -> dict[str, Any]:
    """Runs the learning graph in real time; of its summary missed_tick_share, ticks and scene_to_command_ms.

    Args:
        environment: what is evolved, by two workers. beside: whether anything runs beside it.

    Raises:
        LlmAgentError: the graph fails or does not end, or what is to run beside it has ended before or done nothing.
    """
    out = folder / "run"
    shutil.rmtree(folder, ignore_errors=True)  # of one that was interrupted the ticks until then are not known
    words = ["mode:=realtime", "headless:=true", "console:=false", f"seed:={seed}", f"episodes:={episodes}"]
    with GraphProcesses(folder) as graph:
        launch = graph.run("launch", *_CLI, "launch", "sim.launch.xml", *words, f"out:={out}")
        running = [launch]
        if beside:
            settings = [word for setting in _META for word in ("--set", setting)]
            running.append(graph.run("meta", *_CLI, "meta-train", "--runs", out, "--follow", *settings))
            endless = ["--generations", 999, "--slice", 500, "--workers", 2, "--seed", seed]
            evolve = ["evolve", environment, "--out", folder / "evolution"]
            running.append(graph.run("evolve", *_CLI, *evolve, *endless))
        if not graph.wait(lambda: any(each.poll() is not None for each in running), _LONGEST, every=0.5):
            raise LlmAgentError(f"{episodes} episodes took more than {_LONGEST:.0f} s; {graph.last_words('launch')}")
        for name, process in zip(("meta", "evolve"), running[1:], strict=False):  # the graph alone has neither
            if process.poll() is not None:
                raise LlmAgentError(f"{name} has not run beside the graph to its end; {graph.last_words(name)}")
        if launch.returncode:
            raise LlmAgentError(f"the graph ended with code {launch.returncode}; {graph.last_words('launch')}")
    if beside and latest_bundle(out / "meta" / BUNDLES) is None:
        raise LlmAgentError(f"nothing was meta-learned beside the graph; {graph.last_words('meta')}")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {key: summary[key] for key in ("missed_tick_share", "ticks", "scene_to_command_ms")}
