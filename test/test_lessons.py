"""Lessons say what the counts say, of any environment's text, and nothing without evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagent_ros.learning.lessons import MIN_EVIDENCE, _said, distil_lessons
from llmagent_ros.types import Lesson, Transition


def step(action: str, quantity: float, reward: float = 0.0, *, failed: bool = False) -> Transition:
    text = f"go to the red ball. clear ahead {quantity} left 2.0. did nothing."
    given = -1.0 if failed else reward
    return Transition("r", 0, 0, "go", text, action, given, "next", terminated=failed, truncated=False)


def numbered(transitions: list[Transition]) -> list[Transition]:
    """Each an episode of its own, so that only its own reward follows."""
    return [Transition(**{**vars(each), "episode": k}) for k, each in enumerate(transitions)]


def texts(lessons: list[Lesson]) -> list[str]:
    return [lesson.text for lesson in lessons]


# --- what a scene says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        (
            "go to the blue pillar. blue pillar left 30 at 4.2. clear ahead 2.7 left front 2.0 back 0.4. moving -0.3.",
            {"it left": 30, "it at": 4.2, "clear ahead": 2.7, "clear left front": 2, "clear back": 0.4, "moving": -0.3},
        ),
        ("keep it up. cart 0.3. moving -1.5. pole 2.8. falling 2.0.", {"cart": 0.3, "moving": -1.5, "pole": 2.8,
                                                                       "falling": 2}),
        ("go to the red ball. green box right 10 at 1.0 before. red ball not seen.", {"green box right": 10,
                                                                                      "green at": 1.0}),
        ("moving 0.3 turning 0.8. moving 0.5 turning -0.8.", {"moving": 0.5, "turning": -0.8}),
        ("cross. row 1. column 2.", {"row": 1, "column": 2}),
        ("nothing to read here", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_quantities_of_a_scene(scene: str, said: dict[str, float]) -> None:
    assert dict(_said(scene)) == said


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_any_text_is_read(scene: str) -> None:
    for name, value in _said(scene):
        assert name == name.strip() and name and np.isfinite(value)


# --- what is learned of them -------------------------------------------------------------------------------------


def failures(count: int = 6) -> list[Transition]:
    """Forward fails where it is narrow; turning never does."""
    rng = np.random.default_rng(0)
    narrow = [step("forward", 0.1, failed=True) for _ in range(count)]
    wide = [step("forward", round(float(rng.uniform(0.5, 3.0)), 1)) for _ in range(60)]
    turns = [step("turn", q) for q in (0.1, 0.2, 1.0, 2.5) for _ in range(15)]
    return numbered([*narrow, *wide, *turns])


def test_what_fails_somewhere_is_told_with_its_counts() -> None:
    (lesson, *_) = distil_lessons(failures())
    assert lesson.text.startswith("clear ahead under ") and lesson.text.endswith(": not forward")
    assert float(lesson.text.split()[3].rstrip(":")) <= 1.0
    assert lesson.support == 6 and str(lesson).endswith(f"(6 of {6 + int(lesson.against)})")


def test_what_helps_somewhere_is_told() -> None:
    rng = np.random.default_rng(1)
    where = [round(float(rng.uniform(0, 4)), 1) for _ in range(200)]
    seen = [step(a, q, reward=float((q > 2.0) == (a == "left"))) for q in where for a in ("left", "right")]
    said = texts(distil_lessons(numbered(seen), most=6))
    assert any(t.startswith("clear ahead over") and t.endswith(": left") for t in said)
    assert any(t.startswith("clear ahead under") and t.endswith(": right") for t in said)
    assert not any("over" in t and t.endswith(": right") for t in said)


def test_reward_that_follows_later_counts_and_that_of_another_episode_does_not() -> None:
    def episode(number: int, action: str, last: float) -> list[Transition]:
        text = f"go. height {number % 5}."
        done, rewards = (action, "wait", "wait"), (0.0, 0.0, last)
        return [
            Transition("r", number, k, "go", text, done[k], rewards[k], "n", False, False) for k in range(3)
        ]

    seen = [t for n in range(40) for t in episode(n, "jump" if n % 2 else "sit", 1.0 if n % 2 else 0.0)]
    said = texts(distil_lessons(seen, most=6))
    assert any(text.endswith(": jump") for text in said) and not any(text.endswith(": sit") for text in said)


def test_ends_with_less_than_usual_are_failures_also_where_nothing_is_punished() -> None:
    """As where a pole falls: each step is rewarded, and the end is what there is to avoid."""
    text = "keep it up. pole {}."
    steady = [Transition("r", k // 10, k % 10, "t", text.format(0.1 * (k % 3)), "push", 1.0, "n", False, False)
              for k in range(200)]  # fmt: skip
    falls = [Transition("f", k, 0, "t", text.format(9.0), "push", 1.0, "n", True, False) for k in range(8)]
    caught = [Transition("c", k // 10, k % 10, "t", text.format(9.0), "pull", 1.0, "n", False, False)
              for k in range(80)]  # fmt: skip
    assert "pole over" in texts(distil_lessons([*steady, *falls, *caught]))[0]
    assert texts(distil_lessons([*steady, *falls, *caught]))[0].endswith(": not push")


def test_too_little_evidence_is_no_lesson() -> None:
    assert not any("not" in text for text in texts(distil_lessons(failures(MIN_EVIDENCE - 1), most=9)))


def test_what_may_be_chance_is_no_lesson() -> None:
    rng = np.random.default_rng(2)
    seen = [step(str(rng.choice(["a", "b"])), round(float(rng.uniform(0, 4)), 1), failed=bool(rng.random() < 0.1))
            for _ in range(300)]  # fmt: skip
    assert distil_lessons(numbered(seen)) == []


def test_each_lesson_is_about_another_phrase_or_kind() -> None:
    crashes = [step(f"action {c}", 0.1, failed=True) for k, c in enumerate("abcde") for _ in range(3 + k)]
    safe = [step("turn", q) for q in (0.1, 3.0) for _ in range(40)]
    said = texts(distil_lessons(numbered([*crashes, *safe]), most=4))
    assert [text[-1] for text in said[:2]] == ["e", "d"] and len({text.split(": ")[1] for text in said}) == len(said)


def test_what_is_said_of_known_lessons_follows_also_where_it_speaks_against_them() -> None:
    known = ["clear ahead under 0.3: not turn", "clear ahead under 0.3: not forward", "be careful", "x over 2: turn"]
    lessons = distil_lessons(failures(), most=0, known=known)
    assert lessons == [
        Lesson("clear ahead under 0.3: not turn", 0.0, 30.0),
        Lesson("clear ahead under 0.3: not forward", 6.0, 0.0),
    ]


def test_what_is_found_again_is_said_once() -> None:
    (first, *_) = distil_lessons(failures())
    again = distil_lessons(failures(), known=[first.text])
    assert texts(again).count(first.text) == 1


def test_nothing_from_nothing() -> None:
    assert distil_lessons([]) == []
    assert distil_lessons([Transition("r", 0, 0, "t", "unreadable", "a", -1.0, "n", True, False)] * 9) == []
