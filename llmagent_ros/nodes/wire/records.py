"""A decision as the recorder keeps it."""

from __future__ import annotations

from llmagent_interfaces.msg import Decision as DecisionMessage
from llmagent_ros.nodes.wire.stamps import to_seconds
from llmagent_ros.recording.decision_rows import DecisionRecord
from llmagent_ros.types import Decision


def record_from_message(message: DecisionMessage, decision: Decision) -> DecisionRecord:
    """A record without what other topics tell. decision: the choice in the message."""
    return DecisionRecord(
        run=message.run,
        episode=message.episode,
        step=message.step,
        task_id=message.task_id,
        task="",
        stamp=to_seconds(message.header.stamp),
        scene=message.scene,
        prompt_prefix=message.prompt_prefix,
        decision=decision,
        compute_ms=message.compute_ms,
    )
