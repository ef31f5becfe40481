"""What the tests of the whole graph share: tasks and robots made for them, and the part of the runner."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from ros_support import ROOT, Graph, Process
from rosgraph_msgs.msg import Clock

from llmagent_interfaces.action import ExecuteTask
from llmagent_interfaces.msg import Decision, Outcome, Scene, Task
from llmagent_interfaces.msg import Transition as TransitionMessage
from llmagent_interfaces.srv import ResetSimulation
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import stamps
from llmagent_ros.nodes.wire.stamps import key

AGAIN = 20.0  # s after which a goal is sent again, as the answer of a server that has just been found may be lost
PERIOD = 0.4  # s: the control period of sim_diffdrive
LONG = 240.0  # s: deadline of what starts processes with a language model in them
EVERYTHING = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
    history=HistoryPolicy.KEEP_LAST,
    depth=10_000,
)


def task_file(folder: Path, *, max_steps: int = 10, **changes: Any) -> Path:
    """A task like navigate, but short."""
    path = folder / "short.yaml"
    content = {"task": "short", "world": "clutter", "instructions": ["go to the {object}"], "max_steps": max_steps}
    path.write_text(yaml.safe_dump(content | changes))
    return path


def slow_robot(folder: Path) -> Path:
    """The contract of a robot that hardly moves, so that an episode lasts whatever the policy does."""
    contract = yaml.safe_load((ROOT / "config" / "robots" / "sim_diffdrive.yaml").read_text())
    for action in contract["actions"].values():
        action["linear"] *= 0.01
    path = folder / "slow.yaml"
    path.write_text(yaml.safe_dump(contract, sort_keys=False))
    return path


def compose_world(graph: Graph, folder: Path, *, max_steps: int) -> Path:
    """Guard, perception and simulator in lockstep around a slow robot, in one process; the robot's contract."""
    robot = slow_robot(folder)
    graph.compose(
        guard={"robot": robot, "mode": "lockstep", "scan_wait": 10.0, "use_sim_time": True},
        perception={"robot": robot, "decision_timeout": 10.0, "use_sim_time": True},
        sim={"robot": robot, "task": task_file(folder, max_steps=max_steps), "use_sim_time": True},
    )
    return robot


class Goal:
    """One goal of ExecuteTask and what became of it."""

    def __init__(self, agent: Agent | World, instruction: str, time_limit: float) -> None:
        self._graph, self._agent, self._instruction = agent.graph, agent, instruction
        self._before = {m.id for m in agent.tasks}
        self.feedback: list[ExecuteTask.Feedback] = []
        request = ExecuteTask.Goal(instruction=instruction)
        request.time_limit = time_limit
        asked: list[tuple[float, Any]] = []

        def answer() -> Any:
            if not asked or time.monotonic() - asked[-1][0] > AGAIN:
                future = agent.action.send_goal_async(request, feedback_callback=self._on_feedback)
                asked.append((time.monotonic(), future))
            return next((future.result() for _, future in asked if future.done()), None)

        self.handle = self._graph.until(answer, "the goal is not answered")
        self.accepted = bool(self.handle.accepted)
        self._result = self.handle.get_result_async() if self.accepted else None

    def _on_feedback(self, message: Any) -> None:
        self.feedback.append(message.feedback)

    @property
    def task_id(self) -> str:
        """The id of the task that this goal became."""
        assert isinstance(self._agent, Agent)
        return self._agent.announced(self._instruction, self._before)

    @property
    def done(self) -> bool:
        return self._result is not None and self._result.done()

    def result(self, seconds: float = LONG) -> tuple[int, ExecuteTask.Result]:
        """(status, result), as soon as it is there."""
        assert self._result is not None, "the goal was refused"
        self._graph.until(self._result.done, "the goal has no result", seconds)
        answer = self._result.result()
        return answer.status, answer.result

    def wait_for_steps(self, count: int) -> None:
        self._graph.until(lambda: len(self.feedback) >= count, f"no feedback on {count} steps", LONG)

    def cancel(self) -> None:
        future = self.handle.cancel_goal_async()
        self._graph.until(future.done, "the cancel is not answered")


@dataclass(frozen=True)
class Episode:
    """What the graph said in one episode, in order, and nothing twice."""

    scenes: list[Scene]  # one more than steps
    decisions: list[Decision]  # one a step
    commands: list[Any]  # one a step
    outcomes: list[Outcome]  # one a step


class Agent:
    """Plays the runner among sim, guard, perception and policy, and sees what they say.

    Args:
        kind: of commands, on the topics of the policy and of the driver.
    """

    def __init__(
        self, graph: Graph, kind: Any = TwistStamped, policy: str = "/cmd_vel_policy", driver: str = "/cmd_vel"
    ) -> None:
        self.graph = graph
        self.scenes: list[Scene] = graph.collect(Scene, "/scene", EVERYTHING)
        self.decisions: list[Decision] = graph.collect(Decision, "/decision", EVERYTHING)
        self.outcomes: list[Outcome] = graph.collect(Outcome, "/outcome", EVERYTHING)
        self.wanted: list[Any] = graph.collect(kind, policy, EVERYTHING)
        self.commands: list[Any] = graph.collect(kind, driver, EVERYTHING)
        self.tasks: list[Task] = graph.collect(Task, "/task", EVERYTHING)
        self.action = ActionClient(graph.node, ExecuteTask, "execute_task")
        graph.until(self.action.server_is_ready, "no action execute_task", LONG)
        graph.until(lambda: graph.node.count_subscribers("/scene") >= 2, "nobody reads scenes")
        graph.catch_up("sim", "guard", "perception", "policy")

    def reset(self, seed: int | None = None, task: str = "") -> str:
        """Draws a world; its instruction."""
        request = ResetSimulation.Request(use_seed=seed is not None, seed=seed or 0, task=task)
        answer = self.graph.call(ResetSimulation, "sim/reset", request)
        assert answer.ok, answer.message
        return str(answer.instruction)

    def send(self, instruction: str, time_limit: float = 0.0) -> Goal:
        return Goal(self, instruction, time_limit)

    def announced(self, instruction: str, before: Collection[str] = ()) -> str:
        """The id of the first task with this instruction, but for those that were there before."""

        def said() -> list[str]:
            return [str(m.id) for m in self.tasks if m.instruction == instruction and m.id not in before]

        return self.graph.until(said, "the task is not taken")[0]

    def episode(self, task_id: str, steps: int) -> Episode:
        """What belongs to an episode that has ended, as soon as all of it is there.

        The result may overtake what the topics still hold. A machine that stalls sends a reading, a scene or a command
        again, under the same stamp. A decision on the last scene may have been made or not; it is no step.
        """

        def complete() -> Episode | None:
            scenes = _once(m for m in self.scenes if m.task_id == task_id)
            chosen = _once(m for m in self.decisions if m.task_id == task_id)[:steps]
            if (len(scenes), len(chosen)) != (steps + 1, steps):
                return None
            decided, end = [key(m.header.stamp) for m in chosen], key(scenes[-1].header.stamp)
            commands = _once(m for m in self.commands if key(m.header.stamp) in decided)
            outcomes = _once(m for m in self.outcomes if decided[0] < key(m.header.stamp) <= end)
            found = Episode(scenes, chosen, commands, outcomes)
            return found if len(commands) == len(outcomes) == steps else None

        return self.graph.until(complete, f"not one scene, decision, command and outcome for {steps} steps")

    def state(self) -> str:
        return str(self.graph.call(GetState, "policy/get_state", GetState.Request(), again=AGAIN).current_state.label)

    def change(self, transition: int) -> bool:
        """A lifecycle transition of the policy; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.graph.call(ChangeState, "policy/change_state", request, again=10 * LONG).success)

    def bring_up(self) -> None:
        """The policy active, from whatever state a test before has left it in."""
        if self.state() == "unconfigured":
            assert self.change(Transition.TRANSITION_CONFIGURE)
        if self.state() == "inactive":
            assert self.change(Transition.TRANSITION_ACTIVATE)
        assert self.state() == "active"

    def settle(self, seconds: float = 0.5) -> None:
        """Takes what is still on its way; only for what must not come."""
        with suppress(AssertionError):
            self.graph.until(lambda: False, "", seconds)

    def unanswered(self, task_id: str) -> set[int]:
        """Stamps of scenes of a task that no decision answers."""
        decided = {key(m.header.stamp) for m in self.decisions if m.task_id == task_id}
        return {key(m.header.stamp) for m in self.scenes if m.task_id == task_id} - decided


def _once(messages: Iterable[Any]) -> list[Any]:
    """The messages, of each stamp the first."""
    first: dict[int, Any] = {}
    for message in messages:
        first.setdefault(key(message.header.stamp), message)
    return list(first.values())


def is_zero(message: TwistStamped) -> bool:
    return message.twist.linear.x == 0.0 and message.twist.angular.z == 0.0


class World:
    """Plays simulator, clock and perception for a policy with `use_sim_time`, one message at a time."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.time = graph, 0.0
        self.action = ActionClient(graph.node, ExecuteTask, "execute_task")
        graph.until(self.action.server_is_ready, "no action execute_task", LONG)
        self.decisions: list[Decision] = graph.collect(Decision, "/decision", EVERYTHING)
        self.tasks: list[Task] = graph.collect(Task, "/task", qos.LATEST)
        self.transitions: list[TransitionMessage] = graph.collect(TransitionMessage, "/transition", qos.TRANSITION)
        self.wanted: list[TwistStamped] = graph.collect(TwistStamped, "/cmd_vel_policy", EVERYTHING)
        self.scene = graph.publisher(Scene, "scene")
        self.outcome = graph.publisher(Outcome, "outcome", qos.OUTCOME)
        self.clock = graph.publisher(Clock, "/clock")
        graph.catch_up("policy")

    def pass_time(self, seconds: float = PERIOD) -> None:
        """The clock goes on; back when the policy has got it."""
        self.time += seconds
        self.clock.publish(Clock(clock=stamps.to_time(self.time)))
        assert self.clock.wait_for_all_acked()
        self.be_heard()

    def be_heard(self) -> None:
        """Acknowledged is not yet handled."""
        self.graph.catch_up("policy")

    def task(self, instruction: str) -> Task:
        """The newest task with this instruction, as soon as it is announced."""
        return self.graph.until(lambda: [m for m in self.tasks if m.instruction == instruction], "no task")[-1]

    def say(self, task: Task, stamp: float | None = None) -> None:
        stamp = self.time if stamp is None else stamp
        scene = Scene(header=stamps.header(stamp), task=task.instruction, task_id=task.id, episode=task.episode)
        scene.text = f"{task.instruction}. clear ahead {stamp:.1f}."
        self.scene.publish(scene)

    def report(self, **values: Any) -> None:
        self.outcome.publish(Outcome(header=stamps.header(self.time), **values))


def kill_node(launch: Process, name: str) -> int:
    """kill -9 of a launch's node; its process id."""
    child = find_node(launch, name)
    assert child is not None, f"no process of {name}"
    child.kill()
    return child.pid


def find_node(launch: Process, name: str) -> psutil.Process | None:
    for child in launch.children:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any(Path(word).name == f"{name}_node" for word in child.cmdline()[:2]):
                return child
    return None
