"""A decision in words: what the robot was told and saw, what it considered, why it chose, and what came of it.

Nothing is said that the record does not hold or that does not follow from how the policy chooses.
"""

from __future__ import annotations

import dataclasses
import difflib
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from llmagent_ros.recording.decision_reader import KeptEpisode
from llmagent_ros.recording.decision_rows import DecisionRecord
from llmagent_ros.types import Command, Decision, JointTarget, Source, Verdict

WIDTH = 100  # columns
_LABEL = 12  # columns of what stands at the left
_SAME = 0.005  # below which probabilities and values read as equal
REASONS = {
    "e_stop": "the emergency stop is pressed, or was and has not been reset",
    "no_scan": "no laser scan has come yet",
    "stale_scan": "the last laser scan is too old",
    "no_joint_states": "no joint states have come yet",
    "stale_joint_states": "the last joint states are too old",
    "no_command": "no command has come yet",
    "stale_command": "the command is too old: what it answers was seen too long ago",
    "clock_stopped": "the clock stands still",
    "unsure": "the policy was more undecided than it may be",
    "no_odom": "no odometry has come yet",
    "stale_odom": "the last odometry is too old",
    "no_heartbeat": "a machine that must say that it lives has never done so",
    "stale_heartbeat": "a machine that must say that it lives has fallen silent",
    "dead_man_released": "the person who drove has let go of the dead-man",
    "obstacle": "something that the scan has seen is in the way",
    "blind": "the scanner does not see where it leads",
}
"""What the guard's reasons for a stop mean."""
_OTHERS = {"teleop": "a person drove", "fallback": "the guard's fallback drove"}
_DRIVERS = {Source.POLICY: "the policy drove", Source.HUMAN: "a person drove", Source.SCRIPT: "a script drove"}


def explain(record: DecisionRecord, following: DecisionRecord | None = None) -> str:
    """Several lines for a person. following: the next decision of the episode, if one is kept."""
    lines = [_title(record), ""]
    lines += _labelled("told", record.task or "(the instruction was not recorded)")
    lines += _labelled("saw", record.scene)
    lines += _labelled("skills", *_skills(record))
    lines += _labelled("lessons", *(lessons(record.prompt_prefix) or ["none"]))
    lines += ["", *_table(record.decision), ""]
    lines += _labelled("chose", _choice(record.decision), *_value(record.decision))
    lines += _labelled("acting", _acting(record))
    lines += _labelled("guard", _guard(record.verdict))
    lines += _labelled("then", *_then(record, following))
    return "\n".join(lines)


def as_json(record: DecisionRecord) -> dict[str, Any]:
    """The whole record as plain values."""
    return {key: _plain(value) for key, value in dataclasses.asdict(record).items()}


def episode_table(episodes: Sequence[KeptEpisode]) -> str:
    """A row for each episode: the numbers of its decisions and how it ended."""
    rows = [("episode", "steps", "numbers", "end", "return", "adapter", "task")]
    for e in episodes:
        steps, numbers = f"{e.first_step}-{e.last_step}", f"{e.first}-{e.last}"
        end = "-" if e.end is None else e.end.reason or ("success" if e.end.success else "ended")
        total = "-" if e.end is None else f"{e.end.total_reward:+.2f}"
        rows.append((str(e.episode), steps, numbers, end, total, e.adapter, e.task))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def lessons(prompt_prefix: str) -> list[str]:
    """The lessons that stood before the scene."""
    return [part.strip().rstrip(".") for part in prompt_prefix.split("lesson: ") if part.strip()]


def scene_changes(before: str, after: str) -> list[str]:
    """What differs, sentence by sentence: "- …" of the one before, "+ …" of the one after beneath it."""
    old, new = (scene.rstrip(".").split(". ") for scene in (before, after))
    changes = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            pairs = zip_longest((f"- {sentence}" for sentence in old[a:b]), (f"+ {sentence}" for sentence in new[c:d]))
            changes += [change for pair in pairs for change in pair if change is not None]
    return changes


def _title(record: DecisionRecord) -> str:
    said = f"Step {record.number}: episode {record.episode}, step {record.step} of run {record.run}"
    return f"{said}, t = {record.stamp:.2f} s" if record.task_id else said  # without a graph steps have no time


def _labelled(label: str, *paragraphs: str) -> list[str]:
    """Paragraphs beside their label, wrapped."""
    lines = [
        line
        for paragraph in paragraphs
        for line in textwrap.wrap(paragraph, WIDTH - _LABEL, break_on_hyphens=False) or [""]
    ]
    return [f"{'' if number else label:<{_LABEL}}{line}".rstrip() for number, line in enumerate(lines)]


def _skills(record: DecisionRecord) -> list[str]:
    if record.skills is None:
        return ["not recorded"]
    found = [f"{skill.similarity:.2f}  {skill.description}  ({skill.id})" for skill in record.skills] or ["none found"]
    if record.beginning:
        found.append(f"For a kind of task that is new in this run: {record.beginning}.")
    return found


# --- the choice --------------------------------------------------------------------------------------


def _has_critic(decision: Decision) -> bool:
    return bool(np.any(decision.values != 0))


def _table(decision: Decision) -> list[str]:
    """Every phrase with probability, value and what it lacks to the best value, the most probable first."""
    width = max(map(len, (*decision.candidates, "phrase")))
    critic, best = _has_critic(decision), float(np.max(decision.values))
    lines = [f"  {'phrase':<{width}}  probability" + ("   value  to the best" if critic else "")]
    for k in np.argsort(-decision.probabilities, kind="stable"):
        mark = ">" if decision.candidates[k] == decision.action else " "
        line = f"{mark} {decision.candidates[k]:<{width}}  {decision.probabilities[k]:>11.3f}"
        if critic:
            line += f"  {decision.values[k]:+6.3f}  {decision.values[k] - best:+11.3f}"
        lines.append(line)
    return lines


def _choice(decision: Decision) -> str:
    """Who chose what, and with which probability."""
    probability = float(decision.probabilities[decision.candidates.index(decision.action)])
    if decision.source is not Source.POLICY:
        who = "A person drove; their command is nearest to" if decision.source is Source.HUMAN else "A script chose"
        return f"{who} {decision.action}, to which the policy gave probability {probability:.2f}.{_said(decision)}"
    said = f"It chose {decision.action} with probability {probability:.2f}"
    drawn = float(np.exp(decision.log_probability))
    if abs(drawn - probability) >= _SAME:
        said += f" ({drawn:.2f} at the temperature it acted with)"
    above = [k for k in np.argsort(-decision.probabilities, kind="stable") if decision.probabilities[k] > probability]
    if not above:
        return f"{said}: the most probable phrase.{_said(decision)}"
    first = f"{decision.candidates[above[0]]}, {decision.probabilities[above[0]]:.2f}"
    if len(above) == 1:
        return f"{said}. It was drawn, not the most probable, {first}.{_said(decision)}"
    return f"{said}. It was drawn; {len(above)} phrases were more probable, first of all {first}.{_said(decision)}"


def _said(decision: Decision) -> str:
    return f" To do so, this robot must be told: {decision.said}." if decision.said else ""


def _value(decision: Decision) -> list[str]:
    """What the critic expects of the choice beside the others, and what that says of the language model."""
    if not _has_critic(decision):
        return ["There was no critic: the language model alone gave the probabilities."]
    chosen = decision.candidates.index(decision.action)
    others = np.delete(np.arange(len(decision.candidates)), chosen)
    if not len(others):
        return []
    best = int(others[np.argmax(decision.values[others])])
    more = float(decision.values[chosen] - decision.values[best])
    name = decision.candidates[best]
    if abs(more) < _SAME:
        beside = f"as much as for {name}"
    elif more > 0:
        beside = f"{more:.2f} more than for the next best, {name}"
    else:
        beside = f"{-more:.2f} less than for the best, {name}"
    said = [f"The critic expects {decision.values[chosen]:.2f} for it, {beside}."]
    probable, valued = int(np.argmax(decision.probabilities)), int(np.argmax(decision.values))
    # of two phrases the one with less value can be the more probable only where the language model prefers it
    if decision.values[valued] - decision.values[probable] >= _SAME:
        names = decision.candidates[valued], decision.candidates[probable]
        said.append("By value {} is best; the language model's preference made {} more probable.".format(*names))
    return said


# --- what happened ------------------------------------------------------------------------------------


def _acting(record: DecisionRecord) -> str:
    driver, verdict = _DRIVERS[record.decision.source], record.verdict
    if verdict is not None and verdict.source != "policy":
        driver = _OTHERS.get(verdict.source, "nobody drove")
    said = f"Adapter {record.decision.adapter}; {driver}. Decided in {record.compute_ms:.1f} ms"
    if record.latency_ms is not None:
        said += f", {record.latency_ms:.1f} ms from scene to command"
    return f"{said}."


def _guard(verdict: Verdict | None) -> str:
    if verdict is None:
        return "No verdict is kept: there was no guard (`llmagent train`), or it did not answer the command."
    others = {"teleop": "a person's command, as they had the robot", "fallback": "what the clearances led to"}
    whose = others.get(verdict.source, "the command")
    if verdict.reason is not None:
        why = REASONS.get(verdict.reason, "a reason of its own")
        return f"It stopped the robot: {why} ({verdict.reason}). Asked for: {_motion(verdict.asked)}."
    if verdict.limited:
        return (
            f"It limited {whose}, in {' and '.join(verdict.limited)}. Asked for: {_motion(verdict.asked)}. "
            f"Commanded: {_motion(verdict.command)}."
        )
    return f"It passed {whose}: {_motion(verdict.command)}."


def _motion(command: Command) -> str:
    if isinstance(command, JointTarget):
        positions = zip(command.joints, command.positions, strict=True)
        return ", ".join(f"{joint} to {position:.2f} rad" for joint, position in positions) or "holding still"
    parts = []
    if command.linear:
        parts.append(f"{'ahead' if command.linear > 0 else 'back'} at {abs(command.linear):.2f} m/s")
    if command.angular:
        parts.append(f"turning {'left' if command.angular > 0 else 'right'} at {abs(command.angular):.2f} rad/s")
    return ", ".join(parts) or "standing"


def _then(record: DecisionRecord, following: DecisionRecord | None) -> list[str]:
    said = []
    outcome, end = record.outcome, record.end
    if outcome is None:
        said.append("Its reward is not known: the step is still open, or the robot did something else.")
    else:
        said.append(f"Reward {outcome.reward:+.3f}.")
    after = record.next_scene or (following.scene if following is not None else "")
    if after:
        changes = scene_changes(record.scene, after)
        said += ["The next scene differs:", *changes] if changes else ["The next scene was the same."]
    left = 0 if end is None else end.steps - record.step - 1
    if outcome is not None and outcome.ended:
        said.append(f"The episode {'ended' if outcome.terminated else 'was cut off'} there{_how(record)}.")
    elif end is not None:
        said.append(f"The episode ended {f'{left} steps later' if left > 0 else 'there'}{_how(record)}.")
    elif following is None:
        said.append("No later decision of the episode is kept.")
    return said


def _how(record: DecisionRecord) -> str:
    """The end of the episode, after a verb."""
    end = record.end
    if end is None:
        return ""
    verdict = "success" if end.success else "no success"
    return f": {end.reason + ', ' if end.reason else ''}{verdict}, return {end.total_reward:+.2f} in {end.steps} steps"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.value if isinstance(value, Source) else value
