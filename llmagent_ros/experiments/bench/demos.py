"""What ten episodes that a person drives are worth: steps to 90 % success in navigation with them, over those without.

The person is scripted (`nodes/scripted_operator.py`) and the path is a real one's: a joystick, teleop, guard, the graph
in real time, bags, `llmagent record import`, `llmagent train`.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmagent_ros.contract import load_contract
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench.curves import first_step
from llmagent_ros.experiments.bench.graph_processes import GraphProcesses
from llmagent_ros.experiments.bench.learning import Goal, Say, our_curve
from llmagent_ros.experiments.bench.results import OURS, Figure, Results, entries
from llmagent_ros.experiments.environments import EnvironmentSpec
from llmagent_ros.experiments.recordings.transitions import REPLAY, kept_transitions, store
from llmagent_ros.recording.episodes import EPISODES as EPISODE_LIST
from llmagent_ros.recording.episodes import read_episodes
from llmagent_ros.recording.plot import plot_curves
from llmagent_ros.types import Source, Transition

ENVIRONMENT = "navigate"
GOAL = Goal(EnvironmentSpec(ENVIRONMENT), "success", 0.9, every=250, following=3)
STEPS = 8000  # at most
EPISODES = 10  # driven by a person
WITHOUT, FREELY, ROOM = "no demonstrations", "freely driven", "seeing the room"
_FOLDERS = {OURS: "teleop", FREELY: "freely", ROOM: "room"}
_FIRST_SEED = 5_000_000  # of the worlds in which a person drives; runs and evaluations have others
_LONGEST = 1200.0  # s that the driving may take
_LEAST = 0.9  # share of the steps that must be the person's, who may take over a little after the start

NUMERIC: tuple[str, ...] = ()
FIGURES = (
    Figure("steps_ratio_10_demos", "ratio", "steps to 90 % with 10 teleoperated episodes over none", 0.2, 0.5, True),
    Figure(
        *("steps_to_90_demos", "env steps", "to 90 % success on 100 held-out worlds, after the demonstrations"),
        lower=True,
    ),
    Figure("steps_to_90", "env steps", "the same without demonstrations", lower=True),
    Figure("taught_steps", "steps", "of the teleoperated episodes that are kept"),
)


def configuration(steps: int) -> dict[str, Any]:
    """What the results depend on besides the code."""
    config = runs.make_config(ENVIRONMENT, {"steps": steps}, "bench demos")
    return {"goal": dataclasses.asdict(GOAL), "train": runs.settings(config), "episodes": EPISODES}


def methods() -> list[str]:
    return [OURS, WITHOUT]


def ablations() -> list[str]:
    return [FREELY, ROOM]


def measure(method: str, seed: int, steps: int, scratch: Path, say: Say) -> dict[str, Any]:
    """The learning curve of one method and seed."""
    out = scratch / f"demos-{method.replace(' ', '-')}-{seed}"
    config = runs.make_config(ENVIRONMENT, {"steps": steps, "seed": seed}, "bench demos")
    if method == WITHOUT:
        return our_curve(GOAL, config, out, say)
    person = {OURS: Person(), FREELY: Person(by_phrases=False), ROOM: Person(view="room")}[method]
    taught = teach(scratch / f"demos-{_FOLDERS[method]}-{seed}", _FIRST_SEED + seed, say, person)
    store(out / REPLAY, kept_transitions(taught / "bags"), load_contract(config.robot).phrases)
    return {**our_curve(GOAL, config, out, say), "taught": _facts(taught)}


@dataclasses.dataclass(frozen=True)
class Person:
    """How the scripted person drives.

    Attributes:
        by_phrases: as with `teach:=true`; else the sticks' velocities pass as they are.
        view: see the scripted operator.
    """

    by_phrases: bool = True
    view: str = "robot"

    @property
    def words(self) -> tuple[str, str]:
        """Arguments, of teleop too and of the operator alone."""
        return f"teach:={str(self.by_phrases).lower()}", f"view:={self.view}"


def teach(folder: Path, seed: int, say: Say, person: Person, episodes: int = EPISODES) -> Path:
    """Lets the scripted person drive in the real graph; the folder of that run, which is made once for the same words.

    Raises:
        LlmAgentError: the graph fails, the driving takes too long, or it was not the person who drove.
    """
    out = folder / "run"
    # the guard does not keep the robot from what it may bump into, as when it learns: a person looks for themselves
    world = ["mode:=realtime", "learn:=false", "record:=true", "collision_check:=false", "headless:=true"]
    words = [*world, "console:=false", f"task:={ENVIRONMENT}", f"seed:={seed}", f"episodes:={episodes}"]
    mode, view = person.words
    done, told = folder / "done", " ".join([*words, mode, view])
    if done.exists() and done.read_text(encoding="utf-8") == told:
        return out
    done.unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)  # one that was interrupted would go on in worlds that nobody knows
    with GraphProcesses(folder) as graph:
        launch = graph.run("launch", "-m", "llmagent_ros.cli.main", "launch", "sim.launch.xml", *words, f"out:={out}")
        hand = ["-p", f"task:={ENVIRONMENT}", "-p", f"seed:={seed}", "-p", mode, "-p", view]
        graph.run("teleop", "-m", "llmagent_ros.cli.main", "launch", "teleop.launch.xml", "use_sim_time:=true", mode)
        graph.run("operator", "-m", "llmagent_ros.nodes.scripted_operator", "--ros-args", *hand)
        if not graph.wait(lambda: launch.poll() is not None, _LONGEST, every=1.0):
            raise LlmAgentError(f"not driven within {_LONGEST:.0f} s; {graph.last_words('launch')}")
        if launch.returncode:
            raise LlmAgentError(f"the graph ended with code {launch.returncode}; {graph.last_words('launch')}")
    facts = _facts(out)
    if facts["human_steps"] < _LEAST * max(1, facts["steps"]):
        raise LlmAgentError(
            f"the person drove {facts['human_steps']} of {facts['steps']} steps; {graph.last_words('operator')}"
        )
    say(f"{episodes} episodes driven: {facts['successes']} reached, {facts['human_steps']} steps by the person")
    done.write_text(told, encoding="utf-8")
    return out


def _facts(taught: Path) -> dict[str, int]:
    """Of the run that was driven by hand."""
    steps: list[Transition] = list(kept_transitions(taught / "bags"))
    return {
        "successes": sum(episode.success for episode in read_episodes(taught / EPISODE_LIST)),
        "human_steps": sum(step.source == Source.HUMAN for step in steps),
        "steps": len(steps),
    }


def draw(results: Results, path: Path) -> None:
    """Every seed's learning curve."""
    shown = f"{EPISODES} teleoperated episodes"
    names = {OURS: shown, WITHOUT: WITHOUT, FREELY: f"the same, {FREELY}", ROOM: f"the same, {ROOM}"}
    curves = {
        name: [[(p["env_steps"], p[GOAL.key]) for p in run["curve"]] for run in results.of(method)]
        for method, name in names.items()
        if results.of(method)
    }
    plot_curves(curves, path, title="Navigation", y="success in 100 held-out worlds", threshold=GOAL.threshold)


def read(results: Results) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Figures of ours and of learning without demonstrations, as `Results.write` takes them."""
    shown, alone = results.by_seed(OURS), results.by_seed(WITHOUT)
    both = sorted(shown.keys() & alone.keys())
    values = {
        "steps_ratio_10_demos": [_ratio(shown[seed], alone[seed]) for seed in both],
        "steps_to_90_demos": _steps(list(shown.values())),
        "steps_to_90": _steps(list(alone.values())),
        "taught_steps": [run["taught"]["steps"] for run in shown.values()],
    }
    others = {
        name: entries(FIGURES, {"steps_to_90_demos": _steps(results.of(name))})
        for name in (FREELY, ROOM)
        if results.of(name)
    }
    return entries(FIGURES, values), others


def _steps(measured: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return [first_step(run["curve"], GOAL.key, GOAL.threshold) for run in measured]


def _ratio(shown: Mapping[str, Any], alone: Mapping[str, Any]) -> float | None:
    """Where it was never reached without, all the steps that there were count."""
    with_them, without = _steps([shown, alone])
    return None if with_them is None else with_them / (without or alone["curve"][-1]["env_steps"])
