"""One client of retrieve_skills that measures how long its answers take.

    python -m llmagent_ros.nodes.service_client PERIOD TEXTS

asks for the texts of a JSON file one after the other, every PERIOD seconds at most, and prints the milliseconds of each
as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.node import Node

from llmagent_interfaces.srv import RetrieveSkills
from llmagent_ros.errors import LlmAgentError

K = 5
WARM = 5  # answers that do not count
_FOUND = 1800.0  # s that a node may take to open its store
_ANSWERED = 60.0  # s


def measure(node: Node, texts: Sequence[str], period: float) -> list[float]:
    """Milliseconds from each question to its answer, the first WARM left out.

    Raises:
        LlmAgentError: the service does not come, does not answer, or refuses.
    """
    client = node.create_client(RetrieveSkills, "retrieve_skills")
    if not client.wait_for_service(_FOUND):
        raise LlmAgentError(f"no service retrieve_skills within {_FOUND:.0f} s")
    rng, times = random.Random(texts[0]), []
    due = time.monotonic()
    for text in texts:
        # Clients that ask in step would measure each other.
        due = max(due + period * rng.uniform(0.5, 1.5), time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        began = time.perf_counter()
        future = client.call_async(RetrieveSkills.Request(text=text, k=K))
        rclpy.spin_until_future_complete(node, future, timeout_sec=_ANSWERED)
        times.append(1e3 * (time.perf_counter() - began))
        if not future.done():
            raise LlmAgentError(f"retrieve_skills: no answer within {_ANSWERED:.0f} s")
        if not future.result().ok:
            raise LlmAgentError(f"retrieve_skills: {future.result().message}")
    return times[WARM:]


def main() -> None:
    period, texts = float(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    rclpy.init(args=[])
    node = rclpy.create_node("service_client")
    try:
        print(json.dumps(measure(node, texts, period)))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
