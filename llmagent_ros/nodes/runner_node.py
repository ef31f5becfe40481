"""The runner: gives the policy one episode after another in simulation, and says when the run is over."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Bool
from unique_identifier_msgs.msg import UUID

from llmagent_interfaces.action import ExecuteTask
from llmagent_interfaces.msg import Task
from llmagent_interfaces.srv import ResetSimulation, RetrieveSkills
from llmagent_ros.contract import load_contract
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire import reports
from llmagent_ros.perception.text import clean_instruction
from llmagent_ros.recording.episodes import recorded_episodes

TICK = 0.2  # s of wall time between two looks at what takes too long
REPORT_PERIOD = 1.0
PROGRESS_PERIOD = 10.0
LEARNER_SILENT = 5.0  # s of wall time without its diagnostics after which a learner is not waited for
UNANSWERED = 5.0  # s of wall time without an answer after which a goal is sent again: the middleware may lose answers
RETRY = 0.5  # s of wall time before a policy that is not active yet is asked again
HANDOVER = 2.0  # s of wall time in which the task of a person who pre-empted the runner's is announced
NAMELESS = "_NODE_NAME_UNKNOWN_"  # what the middleware says until it has heard the node's name
RECENT = 20
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class RunnerNodeConfig:
    """Parameters; times are wall time.

    Attributes:
        robot: contract in config/robots, or a path; it names the topic of outcomes.
        episodes: after so many the run is over; 0: never. seed: of the first world; the others follow from it.
        out: folder of the run. When it holds episodes already, the worlds follow from the seed and their number, so
            that a run that goes on draws worlds of its own. Empty: nothing to go on with.
        task: name in config/tasks, empty for the simulator's own.
        learn, knowledge, recorder: whether a learner, a knowledge node and a recorder are waited for, at the start of
            the run only.
        time_limit: s of ROS time that the policy gets for one episode; 0: no limit but the task's.
        server_timeout: s to wait for simulator and policy, at the start and after one of them was lost.
        reset_timeout: s that a reset of the world may take.
        silence_timeout: s without a decision after which an episode is given up. stalls: so many in a row end the run.
        learner_timeout: s to wait for the learner after an episode.
    """

    robot: str = "sim_diffdrive"
    episodes: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    out: str = ""
    task: str = ""
    learn: bool = True
    knowledge: bool = False
    recorder: bool = False
    time_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    server_timeout: Seconds = 120.0
    reset_timeout: Seconds = 30.0
    silence_timeout: Seconds = 120.0
    stalls: Annotated[int, Field(ge=1)] = 3
    learner_timeout: Seconds = 60.0


class RunnerNode(Node):
    """Calls sim/reset, sends execute_task, waits for the learner, and so on; publishes run_finished (latched).

    A state machine on futures and one timer of a steady clock: each state has a deadline and names what is done when it
    passes. Answers to a state that was left are void. When policy or simulator is replaced by a new process (it died
    and was started again), the episode is done anew.
    """

    def __init__(self) -> None:
        super().__init__("runner", automatically_declare_parameters_from_overrides=True)
        self._config = parameters(self, RunnerNodeConfig)
        self.finished: int | None = None
        self._outcome_topic = load_contract(self._config.robot).reward.outcome_topic
        self._done = 0  # episodes
        self._seed = _seed_of_worlds(self._config)
        self._drawn = 0  # worlds
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._stalls = 0
        self._fresh_world = True  # the next reset begins a sequence of worlds
        self._instruction = ""
        self._goal: Any = None
        self._asked = 0.0  # wall time at which the goal was sent
        self._refused: float | None = None  # wall time at which the policy refused it
        self._heard = 0.0  # wall time of the last sign of life of the episode
        self._peers: dict[tuple[str, str], set[bytes]] = {}  # topic and node to endpoints, of decisions and outcomes
        self._backlog: tuple[float, int, int] | None = None  # wall time, value and limit of the learner's last report
        self._own: set[str] = set()  # ids of the goals sent for this episode, which are those of their tasks
        self._complete = False  # all have been there, so that those but policy and simulator may come and go
        self._busy = False  # another's task is on
        self._state, self._turn, self._began, self._progress = "", 0, 0.0, 0.0
        self._make_topics()
        self._find_servers()

    def _make_topics(self) -> None:
        self._reset_client = self.create_client(ResetSimulation, "sim/reset")
        self._action = ActionClient(self, ExecuteTask, "execute_task")
        self._knowledge = self.create_client(RetrieveSkills, "retrieve_skills") if self._config.knowledge else None
        self._finished_publisher = self.create_publisher(Bool, "run_finished", qos.LATEST)
        self._diagnostics = Diagnostics(self)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.COMMAND)
        self.create_subscription(Task, "task", self._on_task, qos.LATEST)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TICK, self._watch, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    # --- states ----------------------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        self._state, self._began = state, time.monotonic()
        self._progress = self._began + PROGRESS_PERIOD
        self._turn += 1

    def _on_answer(self, future: Any, act: Callable[[Any], None]) -> None:
        """Acts on a future's result if the state that asked is still on by then."""
        turn = self._turn
        future.add_done_callback(lambda done: act(done.result()) if self._turn == turn else None)

    def _watch(self) -> None:
        waited = time.monotonic() - self._began
        if self._state == "servers":
            self._watch_servers(waited)
        elif self._state == "reset" and waited > self._config.reset_timeout:
            self._stall(f"the simulator did not reset within {waited:.0f} s")
        elif self._state == "goal":
            self._watch_goal(waited)
        elif self._state == "episode":
            self._watch_episode()
        elif self._state == "person":
            self._watch_person(waited)
        elif self._state == "learner":
            self._watch_learner(waited)

    # --- servers ---------------------------------------------------------------------------------

    def _find_servers(self) -> None:
        self._enter("servers")
        self._watch_servers(0.0)

    def _watch_servers(self, waited: float) -> None:
        missing = self._missing()
        self._complete = self._complete or not missing
        if not missing and self._busy:
            self._wait_for_person()
        elif not missing:
            self._reset_world()
        elif waited > self._config.server_timeout:
            self._fail(f"no {' and no '.join(missing)} after {waited:.0f} s")
        else:
            self._say_progress(f"waiting for {' and '.join(missing)}", waited)

    def _missing(self) -> list[str]:
        servers = {
            f"service {self._reset_client.srv_name} (node sim)": self._reset_client.service_is_ready(),
            "action execute_task (node policy)": self._action.server_is_ready(),
        }
        if not self._complete:
            servers["report of node learner"] = self._backlog is not None or not self._config.learn
            knows = self._knowledge is None or self._knowledge.service_is_ready()
            servers["service retrieve_skills (node knowledge)"] = knows
            # without it the first episode would be missing from what is written
            heard = not self._config.recorder or self._finished_publisher.get_subscription_count() > 0
            servers["listener of run_finished (node recorder)"] = heard
        return [name for name, ready in servers.items() if not ready]

    # --- reset -----------------------------------------------------------------------------------

    def _reset_world(self) -> None:
        self._enter("reset")
        request = ResetSimulation.Request()
        if self._fresh_world:
            # A simulator that was started again must not draw the worlds again that were learned on already.
            request.use_seed, request.seed = True, self._seed if not self._drawn else self._other_seed()
            request.task = self._config.task
        self._on_answer(self._reset_client.call_async(request), self._on_reset)

    def _other_seed(self) -> int:
        """Below those of logs and evaluations, which begin with a million."""
        return int(np.random.default_rng([self._seed, self._drawn]).integers(1_000, 1_000_000))

    def _on_reset(self, response: ResetSimulation.Response) -> None:
        if not response.ok:
            self._fail(f"the simulator cannot be reset: {response.message}", code=2)
            return
        self._fresh_world = False
        self._drawn += 1
        if self._busy:
            self._wait_for_person()
            return
        self._instruction = clean_instruction(response.instruction)
        self._send_goal()

    # --- goal ------------------------------------------------------------------------------------

    def _send_goal(self) -> None:
        self._enter("goal")
        self._own.clear()
        self._peers = self._peers_now()
        self._ask()

    def _ask(self) -> None:
        self._asked, self._refused = time.monotonic(), None
        goal = ExecuteTask.Goal(instruction=self._instruction)
        goal.time_limit = self._config.time_limit
        identity = uuid.uuid4()
        self._own.add(identity.hex)  # before it is sent: its task may be announced before it is known to be accepted
        sent = self._action.send_goal_async(goal, self._on_feedback, UUID(uuid=list(identity.bytes)))
        self._on_answer(sent, self._on_accepted)

    def _on_accepted(self, goal: Any) -> None:
        if not goal.accepted:
            self._refused = time.monotonic()
            return
        self._enter("episode")
        self._goal, self._heard = goal, time.monotonic()
        self._on_answer(goal.get_result_async(), self._on_result)

    def _watch_goal(self, waited: float) -> None:
        if self._lost():
            self._redo("the policy or the simulator was started again")
        elif waited > self._config.server_timeout:
            self._fail(f"the policy did not take up {self._instruction!r} within {waited:.0f} s")
        elif time.monotonic() - (self._refused or self._asked) > (RETRY if self._refused else UNANSWERED):
            self._wait_for_person() if self._busy else self._ask()
        else:
            self._say_progress("waiting for the policy to be active", waited)

    # --- episode ---------------------------------------------------------------------------------

    def _on_feedback(self, message: Any) -> None:
        self._heard = time.monotonic()

    def _on_result(self, answer: Any) -> None:
        result = answer.result
        if result.reason == "preempted":
            self._wait_for_person()
        elif answer.status == GoalStatus.STATUS_UNKNOWN or result.reason in ("", "aborted", "cancelled"):
            self._redo(f"the episode ended without an outcome ({result.reason or 'unknown goal'})")
        else:
            self._count(result)

    def _count(self, result: ExecuteTask.Result) -> None:
        self._done += 1
        self._stalls = 0
        self._recent.append(result.success)
        total = f"/{self._config.episodes}" if self._config.episodes else ""
        share = 100 * sum(self._recent) / len(self._recent)
        self.get_logger().info(
            f"episode {self._done}{total}: {result.reason}, return {result.total_reward:+.2f}, {result.steps} steps, "
            f"success of the last {len(self._recent)}: {share:.0f} %"
        )
        self._enter("learner")
        self._watch_learner(0.0)

    def _watch_episode(self) -> None:
        silent = time.monotonic() - self._heard
        if self._lost():
            self._redo("the policy or the simulator was started again")
        elif silent > self._config.silence_timeout:
            self._goal.cancel_goal_async()
            self._stall(f"no decision for {silent:.0f} s")

    def _lost(self) -> bool:
        """Whether a node that publishes decisions or outcomes was replaced by another of its name, or one is missing.

        One of another name is somebody's tool.
        """
        known, now = self._peers, self._peers_now()
        self._peers = now | known
        return any(now[name] - known[name] for name in now.keys() & known.keys()) or bool(self._missing())

    def _peers_now(self) -> dict[tuple[str, str], set[bytes]]:
        peers: dict[tuple[str, str], set[bytes]] = {}
        for topic in ("decision", self._outcome_topic):
            for info in self.get_publishers_info_by_topic(topic):
                if info.node_name != NAMELESS:
                    name = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                    peers.setdefault((topic, name), set()).add(bytes(info.endpoint_gid))
        return peers

    # --- a person's task -------------------------------------------------------------------------

    def _wait_for_person(self) -> None:
        self.get_logger().info("a person gave the robot another task; the runner's episode comes after it")
        self._peers = self._peers_now()
        self._enter("person")

    def _watch_person(self, waited: float) -> None:
        if self._lost():  # who is gone does not say that the task is over
            self._busy = False
            self._redo("the policy or the simulator was started again")
        elif waited > HANDOVER and not self._busy:
            self._find_servers()

    # --- learner ---------------------------------------------------------------------------------

    def _watch_learner(self, waited: float) -> None:
        if self._config.episodes and self._done >= self._config.episodes:
            self._finish()
            return
        behind = self._behind()
        if not behind:
            self._find_servers()
        elif waited > self._config.learner_timeout:
            self.get_logger().warning(f"the learner is {behind} updates behind after {waited:.0f} s; going on")
            self._find_servers()

    def _behind(self) -> int:
        """Updates that the learner still owes beyond its limit; 0 without one that speaks."""
        if not self._config.learn or self._backlog is None:
            return 0
        said, backlog, limit = self._backlog
        if time.monotonic() - said > LEARNER_SILENT:
            return 0
        return max(0, backlog - limit)

    # --- the ends --------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._enter("finished")
        self.get_logger().info(f"run finished after {self._done} episodes")
        self._finished_publisher.publish(Bool(data=True))
        self._report()

    def _redo(self, problem: str) -> None:
        """The episode is done again in a new world."""
        self.get_logger().warning(f"{problem}; episode {self._done + 1} is done again")
        self._fresh_world = True
        self._find_servers()

    def _stall(self, problem: str) -> None:
        self._stalls += 1
        if self._stalls >= self._config.stalls:
            self._fail(f"{problem}, {self._stalls} times in a row")
        else:
            self._redo(problem)

    def _fail(self, problem: str, code: int = 1) -> None:
        self._enter("failed")
        self.get_logger().error(f"the run cannot go on: {problem}")
        self.finished = code

    # --- others ----------------------------------------------------------------------------------

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if reports.component(status, self.get_namespace()) != "learner":
                continue
            said = reports.values(status)
            backlog, limit = reports.count(said, "backlog"), reports.count(said, "backlog_limit")
            if backlog is not None and limit is not None:
                self._backlog = (time.monotonic(), backlog, limit)
                if self._state == "learner":
                    self._watch_learner(time.monotonic() - self._began)

    def _on_task(self, message: Task) -> None:
        """Tells its own task, which may be announced after the goal's answer or even its result, from another's."""
        self._busy = bool(message.instruction) and message.id not in self._own

    def _say_progress(self, what: str, waited: float) -> None:
        if time.monotonic() >= self._progress:
            self._progress += PROGRESS_PERIOD
            self.get_logger().info(f"{what} ({waited:.0f} s)")

    def _report(self) -> None:
        values: dict[str, object] = {"episode": self._done, "episodes": self._config.episodes, "stalls": self._stalls}
        values["others_task"] = str(self._busy).lower()
        self._diagnostics.publish(self._state, values)

    def close(self) -> None:
        """Takes back the goal, so that the robot does not drive on for nobody."""
        if self._state == "episode" and self._goal is not None:
            self._goal.cancel_goal_async()
        self._action.destroy()


def _seed_of_worlds(config: RunnerNodeConfig) -> int:
    recorded = recorded_episodes(Path(config.out)) if config.out else 0
    return int(np.random.SeedSequence([config.seed, recorded]).generate_state(1)[0]) if recorded else config.seed


def main() -> None:
    process.main(RunnerNode)


if __name__ == "__main__":
    main()
