"""The ExecuteTask action server: one goal at a time, a newer one pre-empts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from rclpy.task import Future

from llmagent_interfaces.action import ExecuteTask
from llmagent_ros.perception.text import clean_instruction


class GoalServer:
    """Connects goals to a policy's tasks.

    Args:
        accept: whether goals are taken now. start: takes up (instruction, time_limit) and returns the task's id; it
            ends the present goal through `finish`. cancel: ends the present task, through `finish` as well.
    """

    def __init__(
        self,
        node: Node,
        *,
        accept: Callable[[], bool],
        start: Callable[[str, float], str],
        cancel: Callable[[], None],
    ) -> None:
        self._accept, self._start, self._cancel = accept, start, cancel
        self._node = node
        self._lock = threading.Lock()
        self._goal: Any = None
        self._done: Future | None = None
        self._server = ActionServer(
            node,
            ExecuteTask,
            "execute_task",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def finish(self, *, success: bool, reason: str, total_reward: float, steps: int) -> None:
        """Gives the present goal its result, if there is one. From any thread."""
        with self._lock:
            done, self._done, self._goal = self._done, None, None
        if done is not None:
            result = ExecuteTask.Result(success=success, reason=reason, steps=steps)
            result.total_reward = float(total_reward)
            done.set_result(result)

    def feedback(self, *, step: int, scene: str, action: str, total_reward: float) -> None:
        """Tells the goal's client about one decision. From any thread."""
        with self._lock:
            goal = self._goal
            if goal is None or not goal.is_active:
                return
            message = ExecuteTask.Feedback(step=step, scene=scene, action=action)
            message.total_reward = float(total_reward)
            goal.publish_feedback(message)

    def _on_goal(self, request: ExecuteTask.Goal) -> GoalResponse:
        wanted = self._accept() and bool(clean_instruction(request.instruction))
        return GoalResponse.ACCEPT if wanted else GoalResponse.REJECT

    def _on_cancel(self, goal: Any) -> CancelResponse:
        with self._lock:
            current = self._goal is not None and self._goal.goal_id == goal.goal_id
        if current:
            self._cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, goal: Any) -> ExecuteTask.Result:
        self._start(goal.request.instruction, float(goal.request.time_limit))
        done = Future(executor=self._node.executor)  # so that a result set in another thread wakes the executor
        done.add_done_callback(lambda _: None)
        with self._lock:
            self._goal, self._done = goal, done
        result: ExecuteTask.Result = await done
        if result.reason == "cancelled" and goal.is_cancel_requested:
            goal.canceled()
        elif result.success:
            goal.succeed()
        else:
            goal.abort()
        return result
