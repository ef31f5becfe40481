"""n-step samples: by hand, against a plain loop on random episodes, and with the shares that were asked for."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.rl.replay_rows import SOURCES
from llmagent_ros.types import Source, Transition

VOCABULARY = ("forward", "turn left", "turn right", "stop")


def make(episode: int, step: int, **change: object) -> Transition:
    """A transition whose every number can be told from its key."""
    made = Transition(
        run="run",
        episode=episode,
        step=step,
        task="reach the ball",
        scene=f"scene {episode} {step}",
        action=VOCABULARY[(episode + step) % 4],
        reward=float(100 * episode + step),
        next_scene=f"scene {episode} {step + 1}",
        terminated=False,
        truncated=False,
        log_probability=-(step + 1) / 8,
        stamp=step * 0.4,
    )
    return dataclasses.replace(made, **change)  # type: ignore[arg-type]


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Replay]:
    with Replay(tmp_path / "replay.sqlite", VOCABULARY) as opened:
        yield opened


def _names(replay: Replay, ids: np.ndarray) -> list[str]:
    return replay.texts(ids)


def test_hand_computed_targets(replay: Replay) -> None:
    # Episode 1: rewards 100 101 102, terminated. Episode 2: 200 201, truncated. Episode 3: 300, gap, 302, data ends.
    replay.append([make(1, 0), make(1, 1), make(1, 2, terminated=True), make(2, 0), make(2, 1, truncated=True)])
    replay.append([make(3, 0), make(3, 2)])
    batch = replay.at(range(7), n_step=2, gamma=0.5)
    assert batch.returns.tolist() == [150.5, 152.0, 102.0, 300.5, 201.0, 300.0, 302.0]
    assert batch.steps.tolist() == [2, 2, 1, 2, 1, 1, 1]
    assert batch.discount.tolist() == [0.25, 0.0, 0.0, 0.25, 0.5, 0.5, 0.5]
    assert _names(replay, batch.scene_id) == [f"scene {k}" for k in ("1 0", "1 1", "1 2", "2 0", "2 1", "3 0", "3 2")]
    assert _names(replay, batch.bootstrap_id) == [
        f"scene {k}" for k in ("1 2", "1 3", "1 3", "2 2", "2 2", "3 1", "3 3")
    ]
    assert batch.action.tolist() == [1, 2, 3, 2, 3, 3, 1]
    assert batch.window.actions.tolist() == [[1, 2], [2, 3], [3, 0], [2, 3], [3, 0], [3, 0], [1, 0]]
    assert batch.window.mask.tolist() == [[True, True]] * 2 + [[True, False], [True, True]] + [[True, False]] * 3
    assert batch.log_probability.tolist() == [-0.125, -0.25, -0.375, -0.125, -0.25, -0.125, -0.375]
    assert [replay.task(task) for task in batch.task] == ["reach the ball"] * 7


def test_both_ends_at_once_is_terminated(replay: Replay) -> None:
    replay.append([make(1, 0, terminated=True, truncated=True), make(1, 1)])
    batch = replay.at([0], 3, 0.9)
    assert (batch.discount[0], batch.steps[0], batch.returns[0]) == (0.0, 1, 100.0)


def test_a_change_of_task_ends_the_trace_and_is_bootstrapped(replay: Replay) -> None:
    replay.append([make(1, 0), make(1, 1, task="reach the box"), make(1, 2, task="reach the box")])
    batch = replay.at([0, 1], 3, 0.5)
    assert batch.steps.tolist() == [1, 2]
    assert batch.discount.tolist() == [0.5, 0.25]


def test_runs_with_the_same_episode_numbers_do_not_meet(replay: Replay) -> None:
    replay.append([make(1, 0, run="a"), make(1, 1, run="b"), make(1, 0, run="b")])
    assert replay.at([0, 2, 1], 2, 1.0).steps.tolist() == [1, 2, 1]


def test_a_gap_closes_when_the_missing_step_arrives(replay: Replay) -> None:
    replay.append([make(1, 0)])
    replay.append([make(1, 2)])
    assert replay.at([0], 3, 1.0).steps[0] == 1
    replay.append([make(1, 1)])
    assert replay.at([0], 3, 1.0).returns[0] == 303.0


def _reference(data: dict[tuple[str, int, int], Transition], start: Transition, n: int, gamma: float) -> tuple:
    """(return, state after, discount, steps) by the definition, one step at a time."""
    total, now, m = 0.0, start, 0
    while True:
        total += gamma**m * now.reward
        m += 1
        following = data.get((now.run, now.episode, now.step + 1))
        if m == n or now.terminated or now.truncated or following is None or following.task != now.task:
            return total, now.next_scene, 0.0 if now.terminated else gamma**m, m
        now = following


@st.composite
def _arrivals(draw: st.DrawFn) -> list[list[Transition]]:
    """Episodes with gaps, ends and changes of task, in any order of arrival, in batches."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 7)), min_size=1, max_size=30, unique=True
        )
    )
    rare = st.sampled_from([False, False, False, False, True])
    made = [
        make(
            *(episode, step),
            run=run,
            reward=draw(st.integers(-8, 8)) / 4,
            terminated=draw(rare),
            truncated=draw(rare),
            task="other" if draw(rare) else "task",
            source=draw(st.sampled_from(SOURCES)),
        )
        for run, episode, step in steps
    ]
    size = draw(st.integers(1, 30))
    return [made[start : start + size] for start in range(0, len(made), size)]


@settings(max_examples=40, deadline=None)
@given(arrivals=_arrivals(), n=st.integers(1, 5), gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_every_sample_agrees_with_the_definition(arrivals: list[list[Transition]], n: int, gamma: float) -> None:
    everything = [transition for batch in arrivals for transition in batch]
    data = {(t.run, t.episode, t.step): t for t in everything}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replay.sqlite"
        with Replay(path, VOCABULARY) as replay:
            for batch in arrivals:
                assert replay.append(batch) == len(batch)
            _check_all(replay, everything, data, n, gamma)
        with Replay(path, VOCABULARY) as replay:  # linked all at once instead of one by one
            _check_all(replay, everything, data, n, gamma)


def _check_all(
    replay: Replay, stored: list[Transition], data: dict[tuple[str, int, int], Transition], n: int, gamma: float
) -> None:
    batch = replay.at(range(len(stored)), n, gamma)
    scenes, after = _names(replay, batch.scene_id), _names(replay, batch.bootstrap_id)
    for row, transition in enumerate(stored):
        total, state, discount, steps = _reference(data, transition, n, gamma)
        assert batch.returns[row] == pytest.approx(total, rel=1e-5, abs=1e-5)
        assert (after[row], int(batch.steps[row])) == (state, steps)
        assert batch.discount[row] == pytest.approx(discount, rel=1e-6)
        assert (scenes[row], replay.task(batch.task[row])) == (transition.scene, transition.task)
        assert VOCABULARY[batch.action[row]] == transition.action
        assert SOURCES[batch.source[row]] == transition.source
        path = [data[transition.run, transition.episode, transition.step + i] for i in range(steps)]
        assert batch.window.rewards[row].tolist() == [t.reward for t in path] + [0.0] * (n - steps)
        assert _names(replay, batch.window.next_ids[row, :steps]) == [t.next_scene for t in path]
        assert batch.window.mask[row].tolist() == [True] * steps + [False] * (n - steps)


def test_samples_are_what_was_stored(replay: Replay) -> None:
    replay.append([make(e, s, terminated=s == 4) for e in range(20) for s in range(5)])
    batch = replay.sample(500, 1, 0.9, np.random.default_rng(0))
    for scene, action, reward, after, log_probability in zip(
        _names(replay, batch.scene_id),
        batch.action,
        batch.returns,
        _names(replay, batch.bootstrap_id),
        batch.log_probability,
        strict=True,
    ):
        episode, step = map(int, scene.split()[1:])
        assert reward == 100 * episode + step
        assert action == (episode + step) % 4
        assert after == f"scene {episode} {step + 1}"
        assert log_probability == -(step + 1) / 8


def test_draws_are_uniform(replay: Replay) -> None:
    replay.append([make(1, s) for s in range(10)])
    drawn = replay.sample(20_000, 1, 0.9, np.random.default_rng(3)).window.positions
    counts = np.bincount(drawn, minlength=10)
    assert ((counts - 2000.0) ** 2 / 2000.0).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("share", "expected"), [(0.5, 32), (0.25, 16), (0.0, 0), (1.0, 64), (0.01, 1)])
def test_the_share_of_demonstrations_is_kept(replay: Replay, share: float, expected: int) -> None:
    sources = (Source.POLICY, Source.POLICY, Source.POLICY, Source.HUMAN, Source.SCRIPT)
    replay.append([make(1, s, source=sources[s % 5]) for s in range(100)])
    assert replay.demonstrations == 40
    batch = replay.sample(64, 3, 0.9, np.random.default_rng(0), share)
    assert int(batch.demonstration.sum()) == expected
    assert (batch.demonstration == (batch.window.positions % 5 >= 3)).all()


def test_one_kind_alone_fills_the_batch(replay: Replay) -> None:
    replay.append([make(1, s) for s in range(4)])
    assert not replay.sample(8, 1, 0.9, np.random.default_rng(0), 0.5).demonstration.any()


def test_demonstrations_alone_fill_the_batch(replay: Replay) -> None:
    replay.append([make(1, s, source=Source.SCRIPT) for s in range(4)])
    assert replay.sample(8, 1, 0.9, np.random.default_rng(0), 0.5).demonstration.all()


def test_without_a_share_all_are_drawn_alike(replay: Replay) -> None:
    replay.append([make(1, s, source=Source.HUMAN if s < 10 else Source.POLICY) for s in range(100)])
    share = replay.sample(20_000, 1, 0.9, np.random.default_rng(0)).demonstration.mean()
    assert share == pytest.approx(0.1, abs=0.01)


def test_a_seed_repeats_the_batches_also_after_reopening(tmp_path: Path) -> None:
    def batches(replay: Replay, rng: np.random.Generator, count: int) -> list[list[list[float]]]:
        drawn = [replay.sample(16, 3, 0.9, rng, 0.5) for _ in range(count)]
        return [[batch.window.positions.tolist(), batch.returns.tolist(), batch.discount.tolist()] for batch in drawn]

    data = [make(e, s, source=SOURCES[e % 3], terminated=s == 6) for e in range(9) for s in range(7)]
    order = np.random.default_rng(1).permutation(len(data))
    rng = np.random.default_rng(5)
    with Replay(tmp_path / "replay.sqlite", VOCABULARY) as replay:
        replay.append([data[i] for i in order])
        batches(replay, rng, 4)
        checkpoint, state = rng.bit_generator.state, replay.state()
        expected = batches(replay, rng, 4)
    resumed = np.random.default_rng()
    resumed.bit_generator.state = checkpoint
    with Replay(tmp_path / "replay.sqlite", VOCABULARY) as replay:
        replay.check_state(state)
        assert batches(replay, resumed, 4) == expected


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ((0, 1, 0.9), "batch_size"),
        ((4, 0, 0.9), "n_step"),
        ((4, 1, 1.5), "gamma"),
        ((4, 1, float("nan")), "gamma"),
        ((4, 1, 0.9, -0.1), "demo_share"),
    ],
)
def test_arguments_out_of_range_are_named(replay: Replay, arguments: tuple, culprit: str) -> None:
    replay.append([make(1, 0)])
    batch, n, gamma, *share = arguments
    with pytest.raises(ConfigError, match=culprit):
        replay.sample(batch, n, gamma, np.random.default_rng(0), *share)
    with pytest.raises(ConfigError, match="positions"):
        replay.at([1], 1, 0.9)


def test_an_empty_replay_says_so(replay: Replay) -> None:
    with pytest.raises(StoreError, match="empty"):
        replay.sample(4, 1, 0.9, np.random.default_rng(0))
