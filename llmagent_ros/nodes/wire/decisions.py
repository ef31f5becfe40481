"""Tasks, scenes, decisions, outcomes and transitions to and from value types."""

from __future__ import annotations

import array
from collections.abc import Iterable

import numpy as np

from llmagent_interfaces.msg import Beginning as BeginningMessage
from llmagent_interfaces.msg import Decision as DecisionMessage
from llmagent_interfaces.msg import Outcome as OutcomeMessage
from llmagent_interfaces.msg import RetrievedSkill as RetrievedSkillMessage
from llmagent_interfaces.msg import Scene as SceneMessage
from llmagent_interfaces.msg import Skill as SkillMessage
from llmagent_interfaces.msg import Task
from llmagent_interfaces.msg import Transition as TransitionMessage
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.nodes.wire.stamps import header, to_seconds
from llmagent_ros.types import Decision, FloatArray, Outcome, RetrievedSkill, Scene, Source, Transition

ADAPTER = "adapter"  # the entry of Transition.extra that names the adapter version that acted


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


def scene_to_message(scene: Scene, task: Task, frame: str) -> SceneMessage:
    """A scene that was built with `task`; frame: of the robot's base."""
    return SceneMessage(
        header=header(scene.stamp, frame),
        text=scene.text,
        task=scene.task,
        task_id=task.id,
        episode=task.episode,
        unknown=list(scene.unknown),
    )


def scene_from_message(message: SceneMessage) -> Scene:
    return Scene(to_seconds(message.header.stamp), message.text, message.task, tuple(message.unknown))


def decision_to_message(
    decision: Decision,
    scene: SceneMessage,
    *,
    run: str,
    step: int,
    prompt_prefix: str = "",
    compute_ms: float = 0.0,
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
        log_probability=float(decision.log_probability),
        source=decision.source.value,
        adapter=decision.adapter,
        compute_ms=float(compute_ms),
    )


def decision_from_message(message: DecisionMessage) -> Decision:
    """The choice in a message.

    Raises:
        ConfigError: its lists are not of one length, the action is not among the candidates,
            or its source is not one of `Source`.
    """
    candidates = tuple(message.candidates)
    probabilities, values = np.array(message.probabilities, np.float32), np.array(message.values, np.float32)
    if not len(candidates) == len(probabilities) == len(values):
        raise ConfigError(
            f"decision: {len(candidates)} candidates, {len(probabilities)} probabilities, {len(values)} values"
        )
    if message.action not in candidates:
        raise UnknownNameError("action phrase", message.action, candidates)
    source = _source(message.source)
    return Decision(message.action, message.log_probability, candidates, probabilities, values, message.adapter, source)


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


def outcome_from_message(message: OutcomeMessage) -> Outcome:
    return Outcome(message.reward, message.terminated, message.truncated, message.success, message.reason)


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


def transition_from_message(message: TransitionMessage) -> Transition:
    """A step for the replay; the adapter's version is in `extra`.

    Raises:
        UnknownNameError: its source is not one of `Source`.
    """
    return Transition(
        run=message.run,
        episode=message.episode,
        step=message.step,
        task=message.task,
        scene=message.scene,
        action=message.action,
        reward=message.reward,
        next_scene=message.next_scene,
        terminated=message.terminated,
        truncated=message.truncated,
        source=_source(message.source),
        log_probability=message.log_probability,
        stamp=to_seconds(message.header.stamp),
        extra={ADAPTER: message.adapter} if message.adapter else {},
    )


def _source(name: str) -> Source:
    try:
        return Source(name)
    except ValueError as error:
        raise UnknownNameError("source of an action", name, [source.value for source in Source]) from error


def _floats(values: FloatArray) -> array.array[float]:
    return array.array("f", np.asarray(values, np.float32).tobytes())
