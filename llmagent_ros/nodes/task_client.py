"""A client of the execute_task action for the command line."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.signals import SignalHandlerOptions

from llmagent_interfaces.action import ExecuteTask
from llmagent_ros.errors import ConfigError, LlmAgentError

SERVER_TIMEOUT = 10.0  # s of wall time to find the policy node
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ANSWER_TIMEOUT = 10.0  # s of wall time for it to accept a goal or a cancel


def execute(
    instruction: str, time_limit: float, on_feedback: Callable[[int, str, str, float], None]
) -> tuple[bool, str, int, float]:
    """Has the running policy carry out one instruction; Ctrl-C, SIGTERM or SIGHUP cancels it and waits for its end.

    Args:
        time_limit: s of ROS time, 0: none. on_feedback: called with step, scene, action and reward so far.

    Returns:
        success, reason, steps, total reward.

    Raises:
        ConfigError: no policy node is found, or it does not take the instruction. LlmAgentError: it went away.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("llmagent_task", use_global_arguments=False)
    interrupted: list[int] = []
    before = {number: signal.signal(number, lambda number, _: interrupted.append(number)) for number in _SIGNALS}
    try:
        client = ActionClient(node, ExecuteTask, "execute_task")
        if not client.wait_for_server(timeout_sec=SERVER_TIMEOUT):
            raise ConfigError("no policy node found: start `make sim` or the robot launch, in the same ROS_DOMAIN_ID")
        goal = ExecuteTask.Goal(instruction=instruction, time_limit=float(time_limit))
        handle = _await(node, client.send_goal_async(goal, feedback_callback=lambda m: _tell(m.feedback, on_feedback)))
        if not handle.accepted:
            raise ConfigError("the policy did not take the instruction: it is empty, or the policy is not active")
        done = handle.get_result_async()
        while not done.done():
            rclpy.spin_once(node, timeout_sec=0.1)
            if interrupted:
                interrupted.clear()
                _await(node, handle.cancel_goal_async())
            if not client.server_is_ready():
                raise LlmAgentError("the policy node went away while it worked on the instruction")
        answer = done.result()
        result, canceled = answer.result, answer.status == GoalStatus.STATUS_CANCELED
        return result.success, "cancelled" if canceled else result.reason, result.steps, result.total_reward
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        node.destroy_node()
        rclpy.try_shutdown()


def _tell(feedback: Any, on_feedback: Callable[[int, str, str, float], None]) -> None:
    on_feedback(feedback.step, feedback.scene, feedback.action, feedback.total_reward)


def _await(node: Any, future: Any) -> Any:
    limit = time.monotonic() + ANSWER_TIMEOUT
    while not future.done():
        rclpy.spin_once(node, timeout_sec=0.1)
        if time.monotonic() > limit:
            raise LlmAgentError(f"the policy node did not answer within {ANSWER_TIMEOUT:.0f} s")
    return future.result()
