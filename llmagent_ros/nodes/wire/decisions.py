"""Tasks, scenes, decisions, outcomes and transitions to and from value types."""

from __future__ import annotations

import array
from collections.abc import Iterable, Mapping

import numpy as np
from builtin_interfaces.msg import Time

from llmagent_interfaces.msg import Beginning as BeginningMessage
from llmagent_interfaces.msg import Decision as DecisionMessage
from llmagent_interfaces.msg import Outcome as OutcomeMessage
from llmagent_interfaces.msg import RetrievedSkill as RetrievedSkillMessage
from llmagent_interfaces.msg import Scene as SceneMessage
from llmagent_interfaces.msg import Skill as SkillMessage
from llmagent_interfaces.msg import Task
from llmagent_interfaces.msg import Transition as TransitionMessage
from llmagent_ros.messages import (
    ADAPTER,
    decision_from_message,
    outcome_from_message,
    scene_from_message,
    transition_from_message,
)
from llmagent_ros.nodes.wire.stamps import header
from llmagent_ros.types import Decision, FloatArray, Outcome, RetrievedSkill, Scene, Transition

__all__ = [
    "decision_from_message",
    "decision_to_message",
    "outcome_from_message",
    "outcome_to_message",
    "retrieved_from_messages",
    "scene_from_message",
    "scene_to_message",
    "task_to_message",
    "transition_from_message",
    "transition_to_message",
]


def task_to_message(
    task_id: str,
    instruction: str,
    episode: int,
    stamp: float,
    skills: Iterable[RetrievedSkill] = (),
    beginning: BeginningMessage | None = None,
) -> Task:
    """stamp: when it was set, s. skills: what was retrieved for it. beginning: see `wire.skills.start_to_message`."""
    found = [RetrievedSkillMessage(id=s.id, description=s.description, similarity=float(s.similarity)) for s in skills]
    task = Task(header=header(stamp), id=task_id, instruction=instruction, episode=episode, skills=found)
    if beginning is not None:
        task.beginning = beginning
    return task


def retrieved_from_messages(found: Iterable[SkillMessage | RetrievedSkillMessage]) -> tuple[RetrievedSkill, ...]:
    """What was retrieved, in its order; of a whole skill what names it."""
    return tuple(RetrievedSkill(skill.id, skill.description, skill.similarity) for skill in found)


def scene_to_message(
    scene: Scene,
    task: Task,
    frame: str,
    *,
    now: int = 0,
    readings: Mapping[str, int] | None = None,
    decisions: int = 0,
) -> SceneMessage:
    """A scene that was built with `task`, and what it was built of.

    Args:
        frame: of the robot's base. now: for which time, ns.
        readings: stamp of the newest reading of each sensor, ns. decisions: how many of the task it knew of.
    """
    return SceneMessage(
        header=header(scene.stamp, frame),
        text=scene.text,
        task=scene.task,
        task_id=task.id,
        episode=task.episode,
        unknown=list(scene.unknown),
        time=_time(now),
        sensors=list(readings or {}),
        readings=[_time(stamp) for stamp in (readings or {}).values()],
        decisions=decisions,
    )


def decision_to_message(
    decision: Decision,
    scene: SceneMessage,
    *,
    run: str,
    step: int,
    prompt_prefix: str = "",
    compute_ms: float = 0.0,
    adapter_digest: str = "",
) -> DecisionMessage:
    """A decision with the stamp, the task and the text of the scene that it answers."""
    return DecisionMessage(
        header=scene.header,
        run=run,
        task_id=scene.task_id,
        episode=scene.episode,
        step=step,
        scene=scene.text,
        prompt_prefix=prompt_prefix,
        candidates=list(decision.candidates),
        probabilities=_floats(decision.probabilities),
        values=_floats(decision.values),
        action=decision.action,
        said=decision.said,
        log_probability=float(decision.log_probability),
        source=decision.source.value,
        adapter=decision.adapter,
        adapter_digest=adapter_digest,
        compute_ms=float(compute_ms),
    )


def outcome_to_message(outcome: Outcome, stamp: float) -> OutcomeMessage:
    """stamp: of the state that it led to, s."""
    return OutcomeMessage(
        header=header(stamp),
        reward=float(outcome.reward),
        terminated=bool(outcome.terminated),
        truncated=bool(outcome.truncated),
        success=bool(outcome.success),
        reason=outcome.reason,
    )


def transition_to_message(transition: Transition) -> TransitionMessage:
    return TransitionMessage(
        header=header(transition.stamp),
        run=transition.run,
        task=transition.task,
        episode=transition.episode,
        step=transition.step,
        scene=transition.scene,
        action=transition.action,
        reward=float(transition.reward),
        next_scene=transition.next_scene,
        terminated=bool(transition.terminated),
        truncated=bool(transition.truncated),
        source=transition.source.value,
        log_probability=float(transition.log_probability),
        adapter=transition.extra.get(ADAPTER, ""),
    )


def _time(nanoseconds: int) -> Time:
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def _floats(values: FloatArray) -> array.array[float]:
    return array.array("f", np.asarray(values, np.float32).tobytes())
