"""The live view: what happens in the graph on one screen, or as lines where there is no terminal."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal, TextIO

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType

from llmagent_interfaces.msg import Adapter, Decision, Outcome, Scene, Task, Transition
from llmagent_ros.console.live import ConsoleConfig, LiveConsole, save_picture
from llmagent_ros.console.state import ConsoleState, Rate
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.episode_tracker import EndedEpisode, EpisodeTracker
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.terminal import open_terminal
from llmagent_ros.nodes.wire import decisions, reports
from llmagent_ros.nodes.wire.stamps import key

SILENT = 5.0  # s of wall time without a report after which a node is silent; all report every 2 s or more often
_NODES = frozenset({"sim", "perception", "policy", "learner", "knowledge", "guard", "outcome", "runner"})
_GRAVE = (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class ConsoleNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path; it names the topic of outcomes.
        screen: auto: the live view where there is a terminal, else lines. always: it must be there. never: lines.
        frames_per_second, plain_period: see ConsoleConfig.
        title: its first line.
        picture: SVG file that the view is drawn into when the node ends; empty: none.
    """

    robot: str = "sim_diffdrive"
    screen: Literal["auto", "always", "never"] = "auto"
    frames_per_second: Annotated[float, Field(gt=0, le=8)] = 8.0
    plain_period: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    title: str = "llmagent"
    picture: str = ""


class ConsoleNode(Node):
    """Subscribes scene, decision, outcome, transition, task, adapter and /diagnostics; publishes nothing.

    A node that has reported and no longer does (it died, or hangs) is named in a warning, and so is its return.
    """

    def __init__(self) -> None:
        super().__init__("console", automatically_declare_parameters_from_overrides=True)
        c = parameters(self, ConsoleNodeConfig)
        self._picture = Path(c.picture).expanduser() if c.picture else None
        self._state = ConsoleState(title=c.title)
        self._tracker = EpisodeTracker()
        self._episode: tuple[str, int] | None = None
        self._updates, self._steps = Rate(), Rate()
        self._began = time.monotonic()
        self._instruction = ""
        self._reported: dict[str, float] = {}  # component to wall time of its last report
        self._silent: set[str] = set()
        self._subscribe(load_contract(c.robot).reward.outcome_topic)
        self._terminal = _terminal(c.screen)
        self._view = LiveConsole(ConsoleConfig(c.frames_per_second, c.plain_period), self._terminal or sys.stdout)
        self.create_timer(1.0 / c.frames_per_second, self._show, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._view.start()  # last: from here on `close` gives the terminal back

    def _subscribe(self, outcomes: str) -> None:
        self.create_subscription(Task, "task", self._on_task, qos.LATEST)
        self.create_subscription(Scene, "scene", self._on_scene, qos.COMMAND)
        self.create_subscription(Decision, "decision", self._on_decision, qos.COMMAND)
        self.create_subscription(Outcome, outcomes, self._on_outcome, qos.COMMAND)
        self.create_subscription(Transition, "transition", self._on_transition, qos.COMMAND)
        self.create_subscription(Adapter, "adapter", self._on_adapter, qos.LATEST)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.COMMAND)

    # --- what comes in ---------------------------------------------------------------------------

    def _on_task(self, message: Task) -> None:
        if message.instruction:
            self._state.task = message.instruction

    def _on_scene(self, message: Scene) -> None:
        self._state.scene, self._instruction = message.text, message.task

    def _on_decision(self, message: Decision) -> None:
        state = self._state
        episode = (message.run, message.episode)
        if episode != self._episode and not self._tracker.is_ended(*episode):
            self._episode = episode
            state.begin_episode(message.episode, self._instruction or state.task)
        state.lessons = tuple(part.strip() for part in message.prompt_prefix.split("lesson: ") if part.strip())
        state.env_steps += 1
        try:
            state.decide(decisions.decision_from_message(message), message.scene)
        except ConfigError as error:
            state.warn(str(error))
        self._take_episode(self._tracker.on_decision(key(message.header.stamp), *episode))

    def _on_outcome(self, message: Outcome) -> None:
        outcome = decisions.outcome_from_message(message)
        self._state.total_reward += outcome.reward
        self._take_episode(self._tracker.on_outcome(key(message.header.stamp), outcome))

    def _on_transition(self, message: Transition) -> None:
        if message.truncated:  # perhaps by the action's time limit, of which no outcome tells
            self._take_episode(self._tracker.on_truncated(message.run, message.episode, message.step + 1))

    def _take_episode(self, ended: EndedEpisode | None) -> None:
        if ended is not None:
            self._state.end_episode(ended.success, ended.total_reward, ended.reason)

    def _on_adapter(self, message: Adapter) -> None:
        self._state.updates = max(self._state.updates, message.updates)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        state = self._state
        for status in message.status:
            said, name = reports.values(status), reports.component(status, self.get_namespace())
            if name in _NODES:
                self._reported[name] = time.monotonic()
            if name == "learner":
                state.updates = reports.count(said, "updates") or state.updates
            elif name == "guard":
                state.guard_source, state.guard_reason = said.get("source", ""), said.get("reason", "")
                state.guard_counts = reports.guard_counts(said)
            elif name == "runner":
                state.episodes = reports.count(said, "episodes") or 0
            if status.level in _GRAVE:
                state.warn(f"{name}: {status.message}")

    # --- what is shown ---------------------------------------------------------------------------

    def _show(self) -> None:
        state, now = self._state, time.monotonic()
        self._watch(now)
        state.elapsed_s = now - self._began
        state.updates_per_s = self._updates.observe(state.updates, now)
        state.env_steps_per_s = self._steps.observe(state.env_steps, now)
        self._view.update(state)

    def _watch(self, now: float) -> None:
        silent = {name for name, at in self._reported.items() if now - at > SILENT}
        for name in sorted(silent - self._silent):
            self._state.warn(f"{name}: no report for {SILENT:.0f} s; is it alive?")
        for name in sorted(self._silent - silent):
            self._state.warn(f"{name}: reports again")
        self._silent = silent

    def close(self) -> None:
        """Gives the terminal back, leaves the last state on it as a line, and draws the picture."""
        self._view.stop(self._state)
        picture, self._picture = self._picture, None
        if picture is not None:
            save_picture(self._state, picture)


def _terminal(screen: str) -> TextIO | None:
    """Where to draw, None for lines on standard output.

    Raises:
        ConfigError: there must be a screen and there is none.
    """
    descriptor = open_terminal() if screen != "never" else None
    if descriptor is None:
        if screen == "always":
            raise ConfigError("node console: screen is 'always', and there is no terminal; valid: auto, never")
        return None
    # The size of the window is asked of standard input, as rich does; it follows when the window is resized.
    os.dup2(descriptor, 0)
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="replace")


def main() -> None:
    process.main(ConsoleNode)


if __name__ == "__main__":
    main()
