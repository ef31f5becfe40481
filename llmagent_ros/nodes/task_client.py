"""A client of the execute_task action for the command line."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from rcl_interfaces.srv import GetParameters
from rclpy.action import ActionClient
from rclpy.signals import SignalHandlerOptions

from llmagent_interfaces.action import ExecuteTask
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.perception.text import clean_instruction

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
        limit = time.monotonic() + SERVER_TIMEOUT
        while not client.wait_for_server(timeout_sec=0.1):
            if interrupted:
                raise KeyboardInterrupt
            if time.monotonic() > limit:
                raise ConfigError("no policy node found: start `make sim` or the robot launch in this ROS_DOMAIN_ID")
        goal = ExecuteTask.Goal(instruction=instruction, time_limit=float(time_limit))
        handle = _await(node, client.send_goal_async(goal, feedback_callback=lambda m: _tell(m.feedback, on_feedback)))
        if not handle.accepted:
            raise ConfigError(f"instruction {instruction!r} not taken: {_why(node, instruction, time_limit)}")
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


def _why(node: Any, instruction: str, time_limit: float) -> str:
    """What the policy has against a goal; an action server gives no reasons."""
    if not 0.0 <= time_limit < math.inf:
        return f"time limit {time_limit}; valid: a number of s from 0, which is none"
    client = node.create_client(GetParameters, "policy/get_parameters")
    if not client.wait_for_service(timeout_sec=ANSWER_TIMEOUT):
        return "the policy node has gone"
    answer = _await(node, client.call_async(GetParameters.Request(names=["robot"])))
    contract = load_contract(answer.values[0].string_value)
    return contract.refusal(clean_instruction(instruction)) or "the policy is not active"


def _tell(feedback: Any, on_feedback: Callable[[int, str, str, float], None]) -> None:
    on_feedback(feedback.step, feedback.scene, feedback.action, feedback.total_reward)


def _await(node: Any, future: Any) -> Any:
    limit = time.monotonic() + ANSWER_TIMEOUT
    while not future.done():
        rclpy.spin_once(node, timeout_sec=0.1)
        if time.monotonic() > limit:
            raise LlmAgentError(f"the policy node did not answer within {ANSWER_TIMEOUT:.0f} s")
    return future.result()
