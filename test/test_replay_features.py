"""Features of the frozen base: kept with the text, there after a restart, gone with the base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
from disk_support import small_file_system

from llmagent_ros.errors import ConfigError, ModelError, StoreError
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.rl.replay_copy import copy_replay
from llmagent_ros.types import Transition

WIDTH = 8


def step(number: int) -> Transition:
    return Transition("run", 0, number, "task", f"scene {number}", "go", 0.0, f"scene {number + 1}", False, False)


def encode(texts: list[str]) -> np.ndarray:
    """A stand-in for a base: the number in the text, times 1..WIDTH."""
    return np.array([[int(text.split()[1]) * (k + 1) / 16 for k in range(WIDTH)] for text in texts], np.float32)


def fill(replay: Replay, limit: int = 1000) -> int:
    filled = 0
    while missing := replay.missing_features(limit):
        replay.put_features([text_id for text_id, _ in missing], encode([text for _, text in missing]))
        filled += len(missing)
    return filled


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Replay]:
    with Replay(tmp_path / "replay.sqlite") as opened:
        opened.append([step(number) for number in range(20)])
        opened.use_base("base 1", WIDTH)
        yield opened


def test_a_batch_finds_the_features_of_its_texts(replay: Replay) -> None:
    assert fill(replay, limit=7) == 21
    batch = replay.sample(64, 3, 0.9, np.random.default_rng(0))
    assert np.array_equal(replay.features(batch.scene_id), encode(replay.texts(batch.scene_id)))
    assert np.array_equal(replay.features(batch.bootstrap_id), encode(replay.texts(batch.bootstrap_id)))
    assert replay.features(batch.window.next_ids).shape == (64, 3, WIDTH)
    assert replay.features(batch.scene_id).dtype == np.float32


def test_only_new_texts_are_missing(replay: Replay) -> None:
    fill(replay)
    replay.append([step(20), step(21)])
    assert [text for _, text in replay.missing_features(10)] == ["scene 21", "scene 22"]
    assert [text for _, text in replay.missing_features(1)] == ["scene 21"]
    assert fill(replay) == 2


def test_missing_are_found_in_any_order_of_arrival(replay: Replay) -> None:
    replay.put_features([20, 3, 5], encode(["x 20", "x 3", "x 5"]))
    assert [text_id for text_id, _ in replay.missing_features(100)] == [k for k in range(20) if k not in (3, 5)]
    assert replay.features(np.array([[3], [20]])).tolist() == [[row] for row in encode(["x 3", "x 20"]).tolist()]
    with pytest.raises(StoreError, match=r"1 texts have no features yet, e\.g\. text 4"):
        replay.features(np.array([3, 4]))


def test_they_survive_a_restart(replay: Replay, tmp_path: Path) -> None:
    fill(replay)
    replay.close()
    with Replay(tmp_path / "replay.sqlite") as again:
        again.use_base("base 1", WIDTH)
        assert again.missing_features(10) == []
        ids = np.arange(21)
        assert np.array_equal(again.features(ids), encode(again.texts(ids)))


@pytest.mark.parametrize(("base", "width"), [("base 2", WIDTH), ("base 1", WIDTH + 1)])
def test_another_base_or_width_drops_them(replay: Replay, tmp_path: Path, base: str, width: int) -> None:
    fill(replay)
    replay.use_base(base, width)
    assert len(replay.missing_features(100)) == 21
    with pytest.raises(StoreError, match="no features yet"):
        replay.features(np.array([0]))
    replay.put_features([0], np.ones((1, width)))
    assert len(list(tmp_path.glob("*.features"))) == len(list(tmp_path.glob("*.present"))) == 1


def test_a_base_that_never_had_features_costs_no_other_its_own(replay: Replay, tmp_path: Path) -> None:
    fill(replay)
    replay.close()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("replay.sqlite.*.*")}
    assert len(before) == 2
    with Replay(tmp_path / "replay.sqlite") as refused:
        refused.use_base("base 2", WIDTH)
        assert len(refused.missing_features(100)) == 21
    assert {path.name: path.read_bytes() for path in tmp_path.glob("replay.sqlite.*.*")} == before


def test_features_of_another_store_are_not_taken(replay: Replay, tmp_path: Path) -> None:
    fill(replay)
    replay.close()
    for leftover in tmp_path.glob("replay.sqlite*"):
        if leftover.suffix not in {".features", ".present"}:
            leftover.unlink()
    with Replay(tmp_path / "replay.sqlite") as fresh:  # the same ids now stand for other texts
        fresh.append([step(number) for number in range(100, 110)])
        fresh.use_base("base 1", WIDTH)
        assert len(fresh.missing_features(100)) == 11


@pytest.mark.parametrize("suffix", [".features", ".present"])
def test_deleting_a_file_costs_time_only(replay: Replay, tmp_path: Path, suffix: str) -> None:
    fill(replay)
    replay.close()
    for path in tmp_path.glob(f"*{suffix}"):
        path.unlink()
    with Replay(tmp_path / "replay.sqlite") as again:
        again.use_base("base 1", WIDTH)
        assert fill(again) == 21
        assert np.array_equal(again.features(np.arange(21)), encode(again.texts(np.arange(21))))


def test_marks_of_deleted_rows_do_not_come_back(replay: Replay, tmp_path: Path) -> None:
    fill(replay)
    replay.close()
    (path,) = tmp_path.glob("*.features")
    path.unlink()
    for _ in range(2):  # the second time finds rows in the file again, most of them holes
        with Replay(tmp_path / "replay.sqlite") as again:
            again.use_base("base 1", WIDTH)
            again.put_features([20], encode(["scene 20"]))
            assert [text_id for text_id, _ in again.missing_features(100)] == list(range(20))


def test_rows_cut_off_are_missing_again(replay: Replay, tmp_path: Path) -> None:
    fill(replay)
    replay.close()
    (path,) = tmp_path.glob("*.features")
    os.truncate(path, 4096 + 2 * WIDTH * 10 + 3)
    with Replay(tmp_path / "replay.sqlite") as again:
        again.use_base("base 1", WIDTH)
        assert [text_id for text_id, _ in again.missing_features(100)] == list(range(10, 21))


def test_what_does_not_fit_is_named(replay: Replay) -> None:
    good = np.zeros((1, WIDTH), np.float32)
    with pytest.raises(ConfigError, match=r"shape \(1, 8\), expected \(2, 8\)"):
        replay.put_features([0, 1], good)
    with pytest.raises(ConfigError, match=r"valid: 0\.\.20"):
        replay.put_features([21], good)
    with pytest.raises(ConfigError, match=r"valid: 0\.\.20"):
        replay.put_features([-1], good)
    for value in (np.nan, np.inf, 1e6):  # the last is finite, but not in float16
        with pytest.raises(ModelError, match="features of text 7"):
            replay.put_features([3, 7], np.array([[0.0] * WIDTH, [value] * WIDTH]))
    assert len(replay.missing_features(100)) == 21
    with pytest.raises(ConfigError, match="base_digest"):
        replay.use_base("", WIDTH)


def test_without_a_base_it_says_what_to_call(tmp_path: Path) -> None:
    with Replay(tmp_path / "r.sqlite") as replay, pytest.raises(StoreError, match="use_base"):
        replay.missing_features(1)


def test_many_rows_grow_the_file_and_stay_out_of_memory(replay: Replay) -> None:
    replay.append([step(number) for number in range(20, 6000)])
    assert fill(replay, limit=512) == 6001
    ids = np.random.default_rng(0).integers(0, 6001, 200)
    expected = encode(replay.texts(ids)).astype(np.float16)
    assert np.array_equal(replay.features(ids), expected.astype(np.float32))
    assert replay.nbytes < 6001 * 60


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    with (
        small_file_system(tmp_path / "disk", "2m") as folder,
        Replay(folder / "replay.sqlite") as replay,
    ):
        replay.append([step(number) for number in range(400)])
        replay.use_base("base", 4096)
        with pytest.raises(StoreError, match="features: cannot be written: No space left"):
            replay.put_features(range(401), np.ones((401, 4096)))
        assert len(replay.missing_features(1000)) == 401
        assert len(replay) == 400


# --- a copy -----------------------------------------------------------------------------------------------------------


def test_a_copy_has_what_was_stored_and_its_features(replay: Replay, tmp_path: Path) -> None:
    assert fill(replay, limit=7) == 21
    target = tmp_path / "own folder" / "replay.sqlite"
    target.parent.mkdir()
    target.with_name("replay.sqlite.part").write_bytes(b"of a copy that was interrupted")
    replay.close()
    copy_replay(replay.path, target)
    assert not list(target.parent.glob("*.part"))
    with Replay(target) as copy:
        copy.use_base("base 1", WIDTH)
        assert fill(copy) == 0
        ids = copy.at(np.arange(20), 1, 0.9).scene_id
        assert np.array_equal(copy.features(ids), encode(copy.texts(ids)))


def test_a_copy_and_its_original_go_on_each_by_itself(replay: Replay, tmp_path: Path) -> None:
    fill(replay)
    copy_replay(replay.path, tmp_path / "copy" / "replay.sqlite")  # while its writer is at work
    replay.append([step(20)])
    with Replay(tmp_path / "copy" / "replay.sqlite") as copy:
        copy.use_base("base 1", WIDTH)
        assert copy.recent(100) == replay.recent(100)[:-1]
        copy.append([step(30)])
        fill(copy)  # also what its writer had not marked yet
        assert (replay.recent(1), copy.recent(1)) == ([step(20)], [step(30)])
        ids = copy.at(np.arange(21), 1, 0.9).scene_id
        assert np.array_equal(copy.features(ids), encode(copy.texts(ids)))


def test_a_copy_of_what_grows_meanwhile_has_no_features_of_other_texts(
    replay: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(replay)

    def copy_slowly(source: Path, target: Path) -> None:
        grown = len(replay)
        replay.append([step(number) for number in range(grown, grown + 1500)])
        fill(replay)  # so many that they are marked
        copyfile(source, target)

    replay.append([step(number) for number in range(20, 1100)])
    fill(replay)
    monkeypatch.setattr("llmagent_ros.learning.rl.replay_copy.shutil.copyfile", copy_slowly)
    copy_replay(replay.path, tmp_path / "copy" / "replay.sqlite")
    with Replay(tmp_path / "copy" / "replay.sqlite") as copy:
        copy.use_base("base 1", WIDTH)
        copy.append([step(number) for number in range(20_000, 23_000, 2)])
        fill(copy)
        ids = copy.at(np.arange(len(copy)), 1, 0.9).scene_id
        numbers = np.array([int(text.split()[1]) for text in copy.texts(ids)], np.float32)
        assert np.allclose(copy.features(ids)[:, 0], numbers / 16, rtol=1e-3)


def test_what_cannot_be_copied_leaves_nothing(tmp_path: Path) -> None:
    damaged = tmp_path / "replay.sqlite"
    for content in (None, b"no database at all, by any means" * 100):
        if content is not None:
            damaged.write_bytes(content)
        with pytest.raises(StoreError, match=r"replay.sqlite: cannot be copied to .*target"):
            copy_replay(damaged, tmp_path / "target" / "replay.sqlite")
        assert not list((tmp_path / "target").iterdir())
