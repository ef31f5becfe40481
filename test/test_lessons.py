"""Lessons say what the counts say, and nothing without evidence."""

from __future__ import annotations

from llmagent_ros.learning.lessons import MIN_EVIDENCE, distil_lessons
from llmagent_ros.types import Transition

ENOUGH = MIN_EVIDENCE


def step(action: str, ahead: str, *, failed: bool = False, reward: float | None = None) -> Transition:
    given = reward if reward is not None else (-1.0 if failed else 0.0)
    text = f"go. clear ahead {ahead} left 2.0. did nothing."
    return Transition("r", 0, 0, "go", text, action, given, "next", terminated=failed, truncated=False)


SAFE = [step("turn left", "0.2") for _ in range(20 * ENOUGH)]


def test_by_hand() -> None:
    crashes = [step("forward", "0.2", failed=k < ENOUGH) for k in range(ENOUGH + 2)]
    assert distil_lessons([*crashes, *SAFE]) == [
        f"clear ahead under 0.3: not forward (failed {ENOUGH} of {ENOUGH + 2})"
    ]


def test_situations_are_kept_apart() -> None:
    near = [step("forward", "0.2", failed=True) for _ in range(ENOUGH)]
    far = [step("forward", metres) for metres in ("0.5", "3.0", "5.0") for _ in range(ENOUGH)]
    blind = [step("forward", "unknown", failed=True) for _ in range(ENOUGH + 1)]
    assert distil_lessons([*near, *far, *blind, *SAFE]) == [
        f"clear ahead unknown: not forward (failed {ENOUGH + 1} of {ENOUGH + 1})",
        f"clear ahead under 0.3: not forward (failed {ENOUGH} of {ENOUGH})",
    ]


def test_the_border_belongs_to_the_farther_situation() -> None:
    assert "0.3 to 1.0:" in distil_lessons([step("forward", "0.3", failed=True) for _ in range(ENOUGH)] + SAFE)[0]
    assert "1.0 or more:" in distil_lessons([step("forward", "1.0", failed=True) for _ in range(ENOUGH)] + SAFE)[0]


def test_too_little_evidence_is_no_lesson() -> None:
    assert distil_lessons([step("forward", "0.2", failed=True) for _ in range(ENOUGH - 1)] + SAFE) == []


def test_what_may_be_chance_is_no_lesson() -> None:
    """4 of 15: at least 12 % by the interval, no more than 0.1 above the 4 of 75 of everything."""
    crashes = [step("forward", "0.2", failed=k < 4) for k in range(15)]
    assert distil_lessons([*crashes, *SAFE]) == []
    assert len(distil_lessons([*crashes[:8], *SAFE])) == 1


def test_what_is_no_worse_than_everything_is_no_lesson() -> None:
    assert distil_lessons([step(a, "0.2", failed=True) for a in ("forward", "back") for _ in range(ENOUGH)]) == []


def test_success_and_time_outs_are_no_failures() -> None:
    reached = [step("forward", "0.2", failed=True, reward=1.0) for _ in range(ENOUGH)]
    slow = [step("back", "0.2", reward=-1.0) for _ in range(ENOUGH)]
    assert distil_lessons([*reached, *slow, *SAFE]) == []


def test_only_the_strongest_are_said() -> None:
    crashes = [step(f"action {c}", "0.2", failed=True) for k, c in enumerate("abcde") for _ in range(ENOUGH + k)]
    lessons = distil_lessons([*crashes, *SAFE], most=2)
    assert [lesson.partition(" (")[0][-1] for lesson in lessons] == ["e", "d"]


def test_nothing_from_nothing() -> None:
    assert distil_lessons([]) == []
