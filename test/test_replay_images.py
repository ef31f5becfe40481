"""Mirror images of texts in the replay: kept both ways, there after a restart, gone with their rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmagent_ros.errors import StoreError
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.types import Transition


def step(number: int) -> Transition:
    return Transition("run", 0, number, "task", f"left {number}", "go", 0.0, f"left {number + 1}", False, False)


def reflect(text: str) -> str | None:
    if text.endswith("13"):
        return None
    return text.replace("left", "right") if "left" in text else text.replace("right", "left")


def fill(replay: Replay, limit: int = 7) -> int:
    filled = 0
    while missing := replay.missing_images(limit):
        replay.put_images([text_id for text_id, _ in missing], [reflect(text) for _, text in missing])
        filled += len(missing)
    return filled


def check(replay: Replay, texts: int) -> None:
    ids = np.arange(texts)
    images = replay.images(ids)
    for text, image in zip(replay.texts(ids), images, strict=True):
        assert (replay.texts([image])[0] if image >= 0 else None) == reflect(text)


def test_each_text_finds_its_image_and_back(tmp_path: Path) -> None:
    with Replay(tmp_path / "replay.sqlite") as replay:
        replay.append([step(number) for number in range(20)])
        replay.use_mirror("sides")
        assert (replay.images(np.arange(21)) < 0).all(), "nobody has put any"
        assert fill(replay) == 21, "what is put as an image of another needs none"
        check(replay, 21 + 20)
        replay.append([step(20)])
        assert replay.images(np.array([41]))[0] < 0
        assert fill(replay) == 1
        check(replay, 43)
        assert len(replay) == 21, "an image is no transition"
        assert replay.images(np.zeros((2, 3), np.int64)).shape == (2, 3)


def test_images_are_there_after_a_restart_and_gone_with_their_rule(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    with Replay(path) as replay:
        replay.append([step(number) for number in range(5)])
        replay.use_mirror("sides")
        fill(replay)
    with Replay(path) as replay:
        replay.use_mirror("sides")
        assert replay.missing_images(10) == []
        check(replay, 12)
        replay.use_mirror("another")
        assert len(replay.missing_images(100)) == 12


@pytest.mark.parametrize("again", [True, False])
def test_what_is_rewound_is_made_again_in_the_same_order(tmp_path: Path, again: bool) -> None:
    """Texts, images and features of what came later go with it, also where features are of a base that is not used."""
    path = tmp_path / "replay.sqlite"

    def live(replay: Replay, numbers: range) -> None:
        for number in numbers:
            replay.append([step(number)])
            fill(replay)
            missing = [text_id for text_id, _ in replay.missing_features(10)]
            replay.put_features(missing, [[float(number)]] * len(missing))

    def everything(replay: Replay) -> tuple[list[str], list[int], list[list[float]]]:
        ids = np.arange(12)
        return replay.texts(ids), replay.images(ids).tolist(), replay.features(ids).tolist()

    with Replay(path) as replay:
        replay.use_base("base", 1)
        replay.use_mirror("sides")
        live(replay, range(5))
        whole = everything(replay)
    with Replay(path) as replay:
        if again:
            replay.use_base("base", 1)
            replay.use_mirror("sides")
        assert replay.rewind(2) == 3
        replay.use_base("base", 1)
        replay.use_mirror("sides")
        check(replay, 6)
        with pytest.raises(StoreError, match="no text 6"):
            replay.texts([6])
        live(replay, range(2, 5))
        now = everything(replay)
    assert now[:2] == whole[:2]
    assert now[2][6:] == whole[2][6:] and (now == whole or not again), "features of what stays may have to be made anew"


def test_images_have_features_like_other_texts(tmp_path: Path) -> None:
    with Replay(tmp_path / "replay.sqlite") as replay:
        replay.append([step(0)])
        replay.use_base("base", 1)
        replay.use_mirror("sides")
        fill(replay)
        missing = replay.missing_features(10)
        assert [text for _, text in missing] == ["left 0", "left 1", "right 0", "right 1"]
        replay.put_features([i for i, _ in missing], [[1.0], [2.0], [3.0], [4.0]])
        assert replay.features(replay.images(np.array([0, 1]))).tolist() == [[3.0], [4.0]]


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    with Replay(path) as replay:
        replay.append([step(0)])
        with pytest.raises(StoreError, match="use_mirror"):
            replay.missing_images(1)
        replay.use_mirror("sides")
        with pytest.raises(ValueError, match="zip"):
            replay.put_images([0, 1], ["right 0"])
        assert len(replay.missing_images(10)) == 2
        assert fill(replay) == 2
        check(replay, 4)
    with Replay(path, read_only=True) as reader, pytest.raises(StoreError, match="read-only"):
        reader.use_mirror("sides")
