"""The ExecuteTask action server: one goal at a time, a newer one pre-empts."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from rclpy.task import Future

from llmagent_interfaces.action import ExecuteTask


class Goal:
    """One accepted goal; whoever works on it tells it how it goes. From any thread."""

    def __init__(self, handle: Any, node: Node) -> None:
        self.handle = handle
        self.id = bytes(handle.goal_id.uuid).hex()
        self.done = Future(executor=node.executor)  # so that a result set in another thread wakes the executor
        self.done.add_done_callback(lambda _: None)
        self._lock = threading.Lock()

    def feedback(self, *, step: int, scene: str, action: str, total_reward: float) -> None:
        """Tells the client about one decision."""
        with self._lock:
            if self.done.done() or not self.handle.is_active:
                return
            message = ExecuteTask.Feedback(step=step, scene=scene, action=action)
            message.total_reward = float(total_reward)
            self.handle.publish_feedback(message)

    def finish(self, *, success: bool, reason: str, total_reward: float, steps: int) -> None:
        """Gives it its result; the first one counts."""
        result = ExecuteTask.Result(success=success, reason=reason, steps=steps)
        result.total_reward = float(total_reward)
        with self._lock:
            if not self.done.done():
                self.done.set_result(result)


class GoalServer:
    """Connects goals to a policy's tasks.

    Args:
        refusal: why an instruction is not taken now; empty when it is. start: takes up (instruction, time_limit) for a
            goal, and finishes the goal before. cancel: ends the task of a goal, if that is the present one, and
            finishes the goal.
    """

    def __init__(
        self,
        node: Node,
        *,
        refusal: Callable[[str], str],
        start: Callable[[str, float, Goal], object],
        cancel: Callable[[Goal], None],
    ) -> None:
        self._refusal, self._start, self._cancel = refusal, start, cancel
        self._node = node
        self._goal: Goal | None = None  # the newest
        self._server = ActionServer(
            node,
            ExecuteTask,
            "execute_task",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def _on_goal(self, request: ExecuteTask.Goal) -> GoalResponse:
        refusal = self._refusal(request.instruction)
        if not 0.0 <= request.time_limit < math.inf:
            refusal = f"time limit {request.time_limit}; valid: a number of s from 0, which is none"
        if refusal:
            self._node.get_logger().warning(f"goal {request.instruction[:80]!r} not taken: {refusal}")
        return GoalResponse.REJECT if refusal else GoalResponse.ACCEPT

    def _on_cancel(self, handle: Any) -> CancelResponse:
        if self._goal is not None and self._goal.id == bytes(handle.goal_id.uuid).hex():
            self._cancel(self._goal)
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> ExecuteTask.Result:
        if handle.is_cancel_requested:  # taken back before it was taken up
            handle.canceled()
            return ExecuteTask.Result(reason="cancelled")
        self._goal = goal = Goal(handle, self._node)
        self._start(handle.request.instruction, float(handle.request.time_limit), goal)
        result: ExecuteTask.Result = await goal.done
        if result.reason == "cancelled" and handle.is_cancel_requested:
            handle.canceled()
        elif result.success:
            handle.succeed()
        else:
            handle.abort()
        return result
