"""Lessons gain, fade and go by their evidence, and two that say different things are never one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from knowledge_support import HashEmbedder

from llmagent_ros.errors import ConfigError
from llmagent_ros.knowledge.embedding import SentenceEmbedder
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.lessons import MIN_EVIDENCE, LessonConfig, merge, specifics
from llmagent_ros.knowledge.skill import MAX_COUNT, Skill, wilson_lower_bound
from llmagent_ros.types import FloatArray, Lesson

PHRASES = ("forward", "curve left", "curve right", "turn left", "turn right", "back")
KEEP = LessonConfig(decay=1.0, min_share=0.0)
NEAR = Lesson("clear ahead under 0.3: not forward", 4, 2)


def alike(lessons: list[Lesson]) -> FloatArray:
    """An embedder that takes everything for the same."""
    return np.tile(np.eye(1, 4, dtype=np.float32), (len(lessons), 1))


def merged(
    stored: list[Lesson], new: list[Lesson], config: LessonConfig = KEEP, vocabulary: tuple[str, ...] = ()
) -> list[Lesson]:
    lessons, vectors = merge(stored, alike(stored), new, alike(new), config, vocabulary)
    assert vectors.shape == (len(lessons), 4)
    return lessons


def test_evidence_is_added_to_what_is_left_by_hand() -> None:
    (one,) = merged([NEAR], [replace(NEAR, support=3.0, against=1.0)], LessonConfig(decay=0.5, min_share=0.0))
    assert one == replace(NEAR, support=0.5 * 4 + 3, against=0.5 * 2 + 1)


def test_what_says_the_same_in_other_words_is_one_and_keeps_its_wording() -> None:
    other = Lesson("Never forward when clear ahead is under 0.3.", 2, 0)
    assert merged([NEAR], [other]) == [replace(NEAR, support=6.0)]
    assert merged([], [NEAR, other]) == [replace(NEAR, support=6.0)], "new ones among themselves too"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("clear ahead under 0.3: not forward", "clear ahead under 0.3: not back"),
        ("clear ahead under 0.3: not forward", "clear ahead under 0.3: forward"),
        ("clear ahead under 0.3: not forward", "clear ahead under 0.5: not forward"),
        ("clear ahead under 0.3: not forward", "clear ahead over 0.3: not forward"),
        ("it turns at -1.5", "it turns at 1.5"),
        ("near the ball: turn left", "near the ball: turn right"),
        ("near the red ball: slow", "near the blue ball: slow"),
        ("don't hurry", "hurry"),
        ("do not hurry, do not stop", "do not hurry, and stop"),
        ("left before right", "right before right"),
        ("curve left", "turn left"),
    ],
)
def test_what_differs_in_a_specific_is_never_one(one: str, other: str) -> None:
    assert len(merged([Lesson(one, 3)], [Lesson(other, 3)])) == 2
    assert specifics(one) != specifics(other)


def test_a_vocabulary_tells_more_apart() -> None:
    one, other = Lesson("at the dock: swivel", 3), Lesson("at the dock: hop", 3)
    assert len(merged([one], [other])) == 1
    assert len(merged([one], [other], vocabulary=("swivel", "hop"))) == 2
    assert len(merged([one], [other], vocabulary=("Hop",))) == 2, "in exactly one of the two"
    assert len(merged([one], [other], vocabulary=("run", "op"))) == 1, "whole words only"
    long, short = Lesson("no roll over there", 3), Lesson("no roll there over", 3)
    assert len(merged([long], [short], vocabulary=("roll over",))) == 2


def test_what_is_unlike_is_never_one() -> None:
    lessons = [Lesson("keep calm", 3), Lesson("stay calm", 3)]
    both, _ = merge(lessons[:1], np.eye(2, dtype=np.float32)[:1], lessons[1:], np.eye(2, dtype=np.float32)[1:], KEEP)
    assert len(both) == 2
    again, _ = merge(lessons[:1], np.eye(2, dtype=np.float32)[:1], lessons[:1], np.eye(2, dtype=np.float32)[1:], KEEP)
    assert again == [Lesson("keep calm", 6)], "the same words are one, whatever their vectors"


def test_the_nearest_of_those_that_say_the_same_gains() -> None:
    stored = [Lesson("drive gently", 3), Lesson("drive softly", 3)]
    vectors = np.array([[0.96, 0.28], [1.0, 0.0]], np.float32)
    lessons, _ = merge(stored, vectors, [Lesson("drive with care", 1)], np.array([[1.0, 0.0]], np.float32), KEEP)
    assert lessons == [Lesson("drive softly", 4), Lesson("drive gently", 3)]


def test_what_is_not_confirmed_fades_and_goes() -> None:
    config = LessonConfig(decay=0.5, min_share=0.0)
    left = merged([Lesson("x", 3, 1)], [], config)
    assert left == [Lesson("x", 1.5, 0.5)]
    left = merged(left, [], config)
    assert left == [Lesson("x", 0.75, 0.25)] and left[0].evidence == MIN_EVIDENCE, "one observation is still one"
    assert merged(left, [], config) == []


def test_what_is_contradicted_goes() -> None:
    config = LessonConfig(decay=0.8, min_share=0.2)
    (one,) = merged([NEAR], [replace(NEAR, support=1.0, against=1.0)], config)
    assert wilson_lower_bound(one.support, one.evidence) > 0.2
    assert merged([one], [replace(NEAR, support=0.0, against=20.0)], config) == []


def test_best_first_and_no_more_than_asked() -> None:
    lessons = [Lesson("a", 3, 3), Lesson("b", 30, 0), Lesson("c", 3, 0), Lesson("d", 1, 0)]
    vectors = np.eye(4, dtype=np.float32)
    best, rows = merge((), vectors[:0], lessons, vectors, replace(KEEP, most=3))
    assert [lesson.text for lesson in best] == ["b", "c", "d"]
    np.testing.assert_array_equal(rows, vectors[[1, 2, 3]])


WORDS = ["go", "do not go", "go 2", "go left"]
counts = st.floats(0, 1000, allow_subnormal=False)
some = st.lists(
    st.builds(Lesson, st.sampled_from(WORDS), counts, counts).filter(lambda x: x.evidence),
    max_size=8,
)


@given(some, some, st.floats(0, 1), st.floats(0, 1), st.integers(0, 8))
def test_what_stays_is_well_founded_distinct_sorted_and_no_more_than_was_seen(
    stored: list[Lesson], new: list[Lesson], decay: float, share: float, most: int
) -> None:
    config = LessonConfig(decay=decay, min_share=share, most=most)
    stored = merged([], stored, replace(KEEP, most=64))  # as a store would hold them: each once
    lessons = merged(stored, new, config)
    bounds = [wilson_lower_bound(lesson.support, lesson.evidence) for lesson in lessons]
    assert len(lessons) <= most and bounds == sorted(bounds, reverse=True)
    assert all(bound >= share for bound in bounds) and all(lesson.evidence >= MIN_EVIDENCE for lesson in lessons)
    assert len({lesson.text for lesson in lessons}) == len(lessons)
    for lesson in lessons:
        kept = decay * sum(one.support for one in stored if one.text == lesson.text)
        assert lesson.support == pytest.approx(kept + sum(one.support for one in new if one.text == lesson.text))


def test_evidence_has_a_bound_of_its_own() -> None:
    (one,) = merged([Lesson("x", MAX_COUNT)], [Lesson("x", MAX_COUNT)])
    assert one.support == MAX_COUNT


@pytest.mark.parametrize("counts", [(0, 0), (-1, 2), (float("nan"), 1), (1, float("inf")), (2.0**33, 0)])
def test_lessons_without_evidence_are_refused(tmp_path: Path, counts: tuple[float, float]) -> None:
    with Knowledge(tmp_path, HashEmbedder()) as knowledge:
        with pytest.raises(ConfigError, match="skill lessons: 'x': need support, against"):
            knowledge.store(Skill("d", lessons=(Lesson("x", *counts),)))
        assert knowledge.count() == 0


def test_a_vector_is_needed_for_each() -> None:
    with pytest.raises(ConfigError, match="a vector for each"):
        merge([NEAR], alike([]), [], alike([]), KEEP)


def test_a_store_merges_what_each_update_brings(tmp_path: Path) -> None:
    config = KnowledgeConfig(lessons=LessonConfig(decay=0.5, min_share=0.1))
    with Knowledge(tmp_path, HashEmbedder(), config, PHRASES) as knowledge:
        skill = knowledge.store(Skill("d", lessons=(NEAR, Lesson("keep left", 1))))
        assert skill.lessons == (NEAR, Lesson("keep left", 1)), "best first"
        skill = knowledge.store(replace(skill, lessons=(replace(NEAR, support=2.0, against=0.0),)))
        assert skill.lessons == (replace(NEAR, support=4.0, against=1.0),), "the other had half an observation left"
    with Knowledge(tmp_path, HashEmbedder(), config, PHRASES) as knowledge:
        assert knowledge.get(skill.id) == skill
        events = [entry for entry in knowledge.audit(skill.id) if entry.event == "evidence"]
        assert events[0].data == {"lessons": [[NEAR.text, 4.0, 1.0]], "dropped": ["keep left"]}
        assert knowledge.verify() == []


def test_the_real_model_takes_other_words_for_the_same_and_opposites_for_two(tmp_path: Path) -> None:
    with Knowledge(tmp_path, SentenceEmbedder(), vocabulary=PHRASES) as knowledge:
        skill = knowledge.store(Skill("d", lessons=(NEAR, replace(NEAR, text="clear ahead under 0.3: not back"))))
        assert len(skill.lessons) == 2
        again = replace(NEAR, text="when clear ahead is under 0.3, not forward", support=5.0, against=0.0)
        skill = knowledge.store(replace(skill, lessons=(again,)))
        assert [lesson.text for lesson in skill.lessons] == [NEAR.text, "clear ahead under 0.3: not back"]
        assert skill.lessons[0].support == pytest.approx(0.8 * 4 + 5)
