"""The recorder: writes what a run leaves behind into OUT, and ends when the run is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from diagnostic_msgs.msg import DiagnosticArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Bool

from llmagent_interfaces.msg import Adapter, Decision, Outcome, Scene, Task, Transition
from llmagent_interfaces.msg import Verdict as VerdictMessage
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.episode_tracker import EndedEpisode, EpisodeTracker
from llmagent_ros.nodes.latency_probe import LatencyProbe, published_at
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire import decisions, reports
from llmagent_ros.nodes.wire.commands import command_topics
from llmagent_ros.nodes.wire.records import record_from_message
from llmagent_ros.nodes.wire.stamps import key, to_seconds
from llmagent_ros.nodes.wire.verdicts import verdict_from_message
from llmagent_ros.recording.decisions import DEFAULT_MB, DecisionLog
from llmagent_ros.recording.recorder import RecorderConfig, RunRecorder
from llmagent_ros.recording.summary import figure, percent
from llmagent_ros.types import Outcome as OutcomeValue

SETTLE = 0.5  # s of wall time after the end of the run in which what is still on its way is taken
LAST_ROUNDS = 100  # of the executor after that, in each one message of every topic: on a machine that stalls they wait
FLUSH_PERIOD = 1.0  # s of wall time after which decisions are there for readers, though nothing follows them
NO_SIM_AFTER = 5.0  # s of wall time without a simulator's report after which scenes are counted as control ticks


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class RecorderNodeConfig:
    """Parameters: see RecorderConfig. robot: contract in config/robots, or a path; it names outcomes and commands.

    out: empty for runs/TIME-seedN. seed, model: only written down.

    decisions_mb: see RecorderConfig; `llmagent explain` reads them.
    """

    robot: str = "sim_diffdrive"
    out: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    model: str = ""
    resume: bool = True
    report_period: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    summary_period: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    decisions_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DEFAULT_MB


class RecorderNode(Node):
    """Subscribes task, scene, decision, the contract's command, verdict, outcomes, transition, adapter, /diagnostics,
    run_finished.

    *Scene-to-command latency* is the time between two events on their publishers' wall clock: perception publishes the
    scene, the guard publishes the command that bears the scene's stamp; where commands bear none (Twist, arrays, an arm
    in real time) the verdict that follows it at once. Only scenes that were decided on count. It does not hold the
    sensors' own delay. *Missed ticks* are the simulator's own count; without a simulator, a scene that had
    no decision when the next one came is a missed tick.
    """

    def __init__(self) -> None:
        super().__init__("recorder", automatically_declare_parameters_from_overrides=True)
        c = parameters(self, RecorderNodeConfig)
        out = Path(c.out) if c.out else Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-seed{c.seed}"
        self.finished: int | None = None
        model = c.model or "shipped base"
        self._recorder: RunRecorder | None = RunRecorder(
            RecorderConfig(out, c.seed, model, c.resume, c.report_period, c.summary_period, c.decisions_mb)
        )
        contract = load_contract(c.robot)
        self._outcome_topic, self._command = contract.reward.outcome_topic, command_topics(contract)
        self._stamped = self._command.stamped  # whether commands bear the stamps of what they answer
        self._out, self._began = out, time.time_ns()
        self._tracker = EpisodeTracker()
        self._probe = LatencyProbe()
        self._sim_ticks: tuple[int, int] | None = None  # ticks and missed ones of the simulator's last report
        self._own_ticks = [0, 0]  # fresh, missed
        self._scene: tuple[str, int] | None = None  # task and stamp of the last scene
        self._decided: tuple[str, int] | None = None
        self._subscribe()
        self.get_logger().info(f"writing to {out}")

    def _subscribe(self) -> None:
        subscribe: Any = self.create_subscription
        subscribe(Task, "task", self._on_task, qos.deep(qos.LATEST))
        subscribe(Scene, "scene", self._on_scene, qos.deep(qos.COMMAND))
        subscribe(Decision, "decision", self._on_decision, qos.deep(qos.DECISION))
        command = self._command
        subscribe(command.driver_kind, command.driver, self._on_command, qos.deep(qos.of(command.driver_qos)))
        subscribe(VerdictMessage, "verdict", self._on_verdict, qos.deep(qos.VERDICT))
        subscribe(Outcome, self._outcome_topic, self._on_outcome, qos.deep(qos.OUTCOME))
        subscribe(Transition, "transition", self._on_transition, qos.deep(qos.TRANSITION))
        subscribe(Adapter, "adapter", self._on_adapter, qos.LATEST)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.deep(qos.COMMAND))
        subscribe(Bool, "run_finished", self._on_run_finished, qos.LATEST)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._settle = self.create_timer(SETTLE, self._on_settled, clock=steady)
        self._rounds = self.create_timer(0.0, self._finish_run, clock=steady)
        self._rounds_left = LAST_ROUNDS
        for timer in (self._settle, self._rounds):
            timer.cancel()
        self.create_timer(NO_SIM_AFTER, self._take_own_ticks, clock=steady)
        self.create_timer(FLUSH_PERIOD, self._flush, clock=steady)

    # --- what comes in ---------------------------------------------------------------------------

    def _on_task(self, message: Task) -> None:
        if message.id and self._log is not None:
            skills = decisions.retrieved_from_messages(message.skills)
            self._log.on_task(message.id, message.instruction, skills, message.beginning.why)

    def _on_scene(self, message: Scene, info: Mapping[str, Any]) -> None:
        stamp = key(message.header.stamp)
        self._take_latency(message, self._probe.on_scene(stamp, message.task_id, published_at(info)))
        if self._scene is not None and self._scene[0] == message.task_id:
            self._own_ticks[self._decided != self._scene] += 1
        self._scene = (message.task_id, stamp)

    def _on_decision(self, message: Decision) -> None:
        stamp = key(message.header.stamp)
        self._decided = (message.task_id, stamp)
        latency = self._probe.on_decision(stamp, message.task_id)
        if self._recorder is not None:
            try:
                decision = decisions.decision_from_message(message)
            except ConfigError as error:
                self.get_logger().error(str(error), once=True)
                return
            if not self._tracker.is_ended(message.run, message.episode):
                self._recorder.on_decision(decision, message.compute_ms, message.episode, message.run)
            if self._log is not None:  # also one that the outcome of its step has overtaken
                self._log.put(record_from_message(message, decision))
        self._take_latency(message, latency)
        self._take_episode(self._tracker.on_decision(stamp, message.run, message.episode))

    def _on_command(self, message: Any, info: Mapping[str, Any]) -> None:
        stamp = key(message.header.stamp) if self._command.stamped else 0
        self._stamped = stamp != 0
        if self._stamped:
            self._take_latency(message, self._probe.on_command(stamp, published_at(info)))

    def _on_verdict(self, message: VerdictMessage, info: Mapping[str, Any]) -> None:
        if not self._stamped:
            self._take_latency(message, self._probe.on_command(key(message.header.stamp), published_at(info)))
        if self._log is None:
            return
        try:
            self._log.on_verdict(verdict_from_message(message))
        except ConfigError as error:
            self.get_logger().error(str(error), once=True)

    def _on_outcome(self, message: Outcome) -> None:
        outcome = decisions.outcome_from_message(message)
        self._take_episode(self._tracker.on_outcome(key(message.header.stamp), outcome))

    def _on_transition(self, message: Transition, info: Mapping[str, Any]) -> None:
        if self._log is not None:
            outcome = OutcomeValue(message.reward, message.terminated, message.truncated)
            self._log.on_outcome(message.run, message.episode, message.step, outcome, message.next_scene)
        # perhaps by the action's time limit, of which no outcome tells; those from before this recorder ended long ago
        if message.truncated and published_at(info) >= self._began:
            self._take_episode(self._tracker.on_truncated(message.run, message.episode, message.step + 1))

    def _on_adapter(self, message: Adapter) -> None:
        if self._recorder is not None:
            self._recorder.on_learner(message.updates, self._recorder.metrics.learner_stats)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        if self._recorder is None:
            return
        for status in message.status:
            said, name = reports.values(status), reports.component(status, self.get_namespace())
            if name == "learner":
                self._recorder.on_learner(reports.count(said, "updates") or 0, reports.numbers(said))
            elif name == "guard":
                self._recorder.on_guard(reports.guard_counts(said))
            elif name == "sim":
                self._take_sim_ticks(reports.count(said, "ticks"), reports.count(said, "ticks_missed"))

    def _on_run_finished(self, message: Bool) -> None:
        if message.data:
            self._settle.reset()

    # --- what is written -------------------------------------------------------------------------

    @property
    def _log(self) -> DecisionLog | None:
        """Where decisions are kept; None when they are not, or when the run is over."""
        return None if self._recorder is None else self._recorder.decisions

    def _flush(self) -> None:
        if self._log is not None:
            self._log.flush()

    def _take_latency(self, message: Any, milliseconds: float | None) -> None:
        if milliseconds is None or self._recorder is None:
            return
        self._recorder.on_latency(milliseconds)
        if self._log is not None:
            self._log.on_latency(to_seconds(message.header.stamp), milliseconds)

    def _take_episode(self, ended: EndedEpisode | None) -> None:
        if ended is not None and self._recorder is not None:
            e = ended
            self._recorder.on_episode_end(e.episode, e.success, e.total_reward, e.steps, e.reason, e.duration_s, e.run)

    def _take_sim_ticks(self, ticks: int | None, missed: int | None) -> None:
        """The simulator counts from its start; a smaller count is that of a new simulator."""
        if ticks is None or missed is None:
            return
        before = self._sim_ticks or (0, 0)
        if ticks < before[0] or missed < before[1]:
            before = (0, 0)
        self._sim_ticks = (ticks, missed)
        late = missed - before[1]
        self._count_ticks(ticks - before[0] - late, late)

    def _take_own_ticks(self) -> None:
        if self._sim_ticks is None:
            self._count_ticks(*self._own_ticks)
            self._own_ticks = [0, 0]

    def _count_ticks(self, fresh: int, missed: int) -> None:
        for count, was_fresh in ((fresh, True), (missed, False)):
            for _ in range(count):
                if self._recorder is not None:
                    self._recorder.on_tick(was_fresh)

    def _on_settled(self) -> None:
        self._settle.cancel()
        self._rounds.reset()

    def _finish_run(self) -> None:
        self._rounds_left -= 1
        if self._rounds_left > 0:
            return
        self._rounds.cancel()
        self._write(complete=True)
        self.finished = 0

    def _write(self, *, complete: bool) -> None:
        while (ended := self._tracker.settle()) is not None:
            self._take_episode(ended)
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            summary = recorder.finish(complete=complete)
            if summary is not None:
                print(_table(summary, self._out), flush=True)

    def close(self) -> None:
        """Writes the summary of a run that was interrupted, if it had begun."""
        self._write(complete=False)


def _table(summary: Mapping[str, Any], out: Path) -> str:
    """The summary in a few lines for a person."""
    latency = summary["scene_to_command_ms"]
    rows = {
        "episodes": f"{summary['episodes']}, {summary['successes']} successes",
        "success, first 30": percent(summary["success_first_30"]),
        "success, last 30": percent(summary["success_last_30"]),
        "environment steps": f"{summary['env_steps']}",
        "updates": f"{summary['updates']}, {summary['adapter_versions']} adapter versions",
        "scene to command": f"p50 {figure(latency['p50'], '.1f')} ms, p99 {figure(latency['p99'], '.1f')} ms",
        "missed ticks": percent(summary["missed_tick_share"], digits=2),
        "wall time": f"{summary['wall_s']:.0f} s",
        "written to": str(out),
    }
    return "\n".join(f"  {name:<18} {value}" for name, value in rows.items())


def main() -> None:
    process.main(RecorderNode)


if __name__ == "__main__":
    main()
