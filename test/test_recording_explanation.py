"""What `llmagent explain` says of a decision: no more than is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from decisions_support import decision, record, verdict

from llmagent_ros.cli.main import main
from llmagent_ros.recording.decision_rows import DECISIONS, EpisodeEnd
from llmagent_ros.recording.decisions import DecisionLog
from llmagent_ros.recording.explanation import explain, scene_changes
from llmagent_ros.types import Outcome, RetrievedSkill, Source

WHOLE: dict[str, Any] = {
    "number": 41,
    "task": "go to the red ball",
    "skills": (RetrievedSkill("5f0c", "go to the ball", 0.914),),
    "verdict": verdict(1.5, limited=("acceleration",)),
    "latency_ms": 14.25,
    "outcome": Outcome(0.02),
    "end": EpisodeEnd(False, "collision", -0.5, 9),
}
TEXT = """\
Step 41: episode 0, step 3 of run run, t = 1.50 s

told        go to the red ball
saw         go to the red ball. red ball left 3. clear ahead 0.7.
skills      0.91  go to the ball  (5f0c)
lessons     turn left

  phrase      probability   value  to the best
> forward           0.500  +0.750       +0.000
  turn left         0.375  +0.500       -0.250
  turn right        0.125  -0.250       -1.000

chose       It chose forward with probability 0.50: the most probable phrase.
            The critic expects 0.75 for it, 0.25 more than for the next best, turn left.
acting      Adapter v000012; the policy drove. Decided in 12.5 ms, 14.2 ms from scene to command.
guard       It limited the command, in acceleration. Asked for: ahead at 0.50 m/s, turning right at
            0.50 rad/s. Commanded: ahead at 0.25 m/s, turning right at 0.50 rad/s.
then        Reward +0.020.
            The next scene differs:
            - red ball left 3
            + red ball left 4
            The episode ended 5 steps later: collision, no success, return -0.50 in 9 steps."""


def said(**changes: Any) -> str:
    """The words on one line, so that it does not matter where they are wrapped."""
    return " ".join(explain(record(3, **(WHOLE | changes))).split())


def chosen(action: str, probabilities: tuple[float, ...], values: tuple[float, ...], **more: Any) -> str:
    text = said(decision=decision(action, probabilities, values, **more))
    return text[text.index(" chose ") + 7 : text.index(" acting ")]


def test_the_whole_text() -> None:
    assert explain(record(3, **WHOLE), record(4)) == TEXT


@pytest.mark.parametrize(
    ("action", "probabilities", "values", "sentences"),
    [
        (
            "turn left",
            (0.5, 0.375, 0.125),
            (0.5, 0.75, 0.0),
            "It chose turn left with probability 0.38. It was drawn, not the most probable, forward, 0.50. "
            "The critic expects 0.75 for it, 0.25 more than for the next best, forward. "
            "By value turn left is best; the language model's preference made forward more probable.",
        ),
        (
            "turn right",
            (0.5, 0.375, 0.125),
            (0.75, 0.5, 0.25),
            "It chose turn right with probability 0.12. It was drawn; 2 phrases were more probable, first of all "
            "forward, 0.50. The critic expects 0.25 for it, 0.50 less than for the best, forward.",
        ),
        (
            "forward",
            (0.5, 0.25, 0.25),
            (0.5, 0.5, 0.0),
            "It chose forward with probability 0.50: the most probable phrase. "
            "The critic expects 0.50 for it, as much as for turn left.",
        ),
        (
            "forward",
            (0.5, 0.25, 0.25),
            (0.0, 0.0, 0.0),
            "It chose forward with probability 0.50: the most probable phrase. "
            "There was no critic: the language model alone gave the probabilities.",
        ),
    ],
)
def test_why_it_chose(action: str, probabilities: Any, values: Any, sentences: str) -> None:
    assert chosen(action, probabilities, values) == sentences


def test_a_temperature_below_one_is_told_apart() -> None:
    text = chosen("forward", (0.5, 0.375, 0.125), (0.75, 0.5, 0.0), log_probability=0.0)
    assert text.startswith("It chose forward with probability 0.50 (1.00 at the temperature it acted with): the most")


def test_what_the_robot_is_told_where_it_needs_another_phrase() -> None:
    one = dataclasses.replace(decision("turn left"), said="turn right")
    assert "To do so, this robot must be told: turn right." in said(decision=one)
    assert "must be told" not in said(decision=decision("turn left"))


@pytest.mark.parametrize(
    ("source", "sentence", "driver"),
    [
        (Source.HUMAN, "A person drove; their command is nearest to turn left, to which", "a person drove"),
        (Source.SCRIPT, "A script chose turn left, to which the policy gave probability 0.38.", "a script drove"),
    ],
)
def test_who_drove(source: Source, sentence: str, driver: str) -> None:
    one = decision("turn left", source=source)
    text = said(decision=one, verdict=None)
    assert sentence in text and driver in text


@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        (
            verdict(1.5),
            "the policy drove. … guard It passed the command: ahead at 0.25 m/s, turning right at 0.50 rad/s.",
        ),
        (
            verdict(1.5, source="teleop"),
            "a person drove. … guard It passed a person's command, as they had the robot: ahead at 0.25 m/s",
        ),
        (
            verdict(1.5, reason="e_stop"),
            "nobody drove. … guard It stopped the robot: the emergency stop is pressed, or was and has not been reset "
            "(e_stop). Asked for: ahead at 0.50 m/s",
        ),
        (verdict(1.5, reason="new"), "nobody drove. … guard It stopped the robot: a reason of its own (new)."),
        (None, "guard No verdict is kept: there was no guard (`llmagent train`), or it did not answer the command."),
    ],
)
def test_what_the_guard_did(given: Any, sentences: str) -> None:
    text = said(verdict=given)
    assert all(part in text for part in sentences.split(" … "))


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        (
            {"outcome": Outcome(-1.0, True), "next_scene": "bumped", "end": EpisodeEnd(False, "collision", -1.0, 4)},
            "Reward -1.000. The next scene differs: - go to the red ball + bumped - red ball left 3 - clear ahead 0.7 "
            "The episode ended there: collision, no success, return -1.00 in 4 steps.",
        ),
        (
            {"outcome": Outcome(0.0, truncated=True), "end": EpisodeEnd(False, "timeout", 0.25, 4)},
            "The episode was cut off there: timeout, no success, return +0.25 in 4 steps.",
        ),
        (
            {"outcome": None, "end": None},
            "Its reward is not known: the step is still open, or the robot did something else. "
            "No later decision of the episode is kept.",
        ),
        ({"end": EpisodeEnd(True, "reached", 1.0, 4)}, "The episode ended there: reached, success, return +1.00"),
        ({"outcome": Outcome(0.0, terminated=True), "end": None}, "The episode ended there."),
    ],
)
def test_what_came_of_it(changes: dict[str, Any], sentences: str) -> None:
    assert sentences in said(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skills": None}, "skills not recorded"),
        ({"skills": ()}, "skills none found"),
        ({"beginning": "begins with a"}, "(5f0c) For a kind of task that is new in this run: begins with a."),
        ({"prompt_prefix": ""}, "lessons none"),
        ({"prompt_prefix": "lesson: a. lesson: b 0.5 m. "}, "lessons a b 0.5 m"),
        ({"task": ""}, "told (the instruction was not recorded)"),
        ({"task_id": ""}, "of run run told"),
    ],
)
def test_what_it_was_told(changes: dict[str, Any], words: str) -> None:
    assert words in said(**changes)


def test_scenes_are_compared_by_sentences() -> None:
    before = "go to the red ball. red ball left 40 at 1.7. clear ahead 0.7. moving 0.5 turning 0.0."
    after = "go to the red ball. red ball left 20 at 1.4. clear ahead 0.7. moving 0.5 turning 0.0. did forward."
    assert scene_changes(before, after) == ["- red ball left 40 at 1.7", "+ red ball left 20 at 1.4", "+ did forward"]
    assert scene_changes(before, before) == []


# --- the command ----------------------------------------------------------------------------------------


def left_by_a_run(out: Path) -> Path:
    log = DecisionLog(out / DECISIONS)
    for episode in range(3):
        log.on_task(f"task {episode}", "go to the red ball", WHOLE["skills"])
        for step in range(2):
            log.put(record(step, episode, stamp=float(2 * episode + step)))
        log.on_outcome("run", episode, 1, Outcome(-1.0, terminated=True), "bumped")
    log.on_episode_end("run", 0, EpisodeEnd(True, "reached", 1.25, 2))
    log.on_episode_end("run", 1, EpisodeEnd(False, "collision", -1.0, 2))
    log.close()
    return out


def test_a_list_of_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = left_by_a_run(tmp_path / "run")
    assert main(["explain", str(out), "--episodes", "2"]) == 0
    header, *rows, _, hint = capsys.readouterr().out.splitlines()
    assert header.split() == ["episode", "steps", "numbers", "end", "return", "adapter", "task"]
    assert [row.split(maxsplit=6) for row in rows] == [
        ["1", "0-1", "2-3", "collision", "-1.00", "v000012", "go to the red ball"],
        ["2", "0-1", "4-5", "-", "-", "v000012", "go to the red ball"],
    ]
    assert hint == f"1 earlier ones with --episodes 0. A step: llmagent explain {out} 5, or 2:1, last, or worst " + (
        "(before the latest collision)"
    )


def test_a_step_and_what_is_kept_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = left_by_a_run(tmp_path / "run")
    assert main(["explain", str(out), "worst"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Step 3: episode 1, step 1 of run run, t = 3.00 s\n")
    assert "The episode ended there: collision, no success, return -1.00 in 2 steps." in text
    assert main(["explain", str(out), "1:0", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["number"], content["task"], content["decision"]["source"]) == (2, "go to the red ball", "policy")
    assert content["decision"]["probabilities"] == [0.5, 0.375, 0.125]
    assert content["skills"] == [{"id": "5f0c", "description": "go to the ball", "similarity": 0.914}]
    assert main(["explain", str(out), "--json"]) == 0
    episodes = json.loads(capsys.readouterr().out)
    assert [(e["first"], e["last"]) for e in episodes] == [(0, 1), (2, 3), (4, 5)] and episodes[0]["end"]["success"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["OUT", "99"], "OUT: no step 99; valid: 0 to 5, EPISODE:STEP from 0:0 to 2:1, last, worst"),
        (["OUT/none"], "OUT/none: no such run; give the folder that `make sim` or `llmagent train` has made"),
        (["OUT", "--episodes", "-1"], "--episodes -1; valid: at least 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    out = left_by_a_run(tmp_path / "run")
    assert main(["explain", *(word.replace("OUT", str(out)) for word in words)]) == 2
    assert capsys.readouterr().err == f"llmagent: {problem.replace('OUT', str(out))}\n"
