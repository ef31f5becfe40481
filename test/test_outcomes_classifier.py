"""The classifier of scenes: its calibration, its threshold, its files, and what it learns from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models_support import save_tiny_model, tiny_language_model, tiny_tokenizer
from outcomes_support import episode, labelled_run

from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, ModelError, StoreError
from llmagent_ros.experiments.outcome_fitting import collect, split
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.outcomes import classifier as classifiers
from llmagent_ros.outcomes.classifier import MANIFEST, TENSORS, SceneClassifier, Streak, platt, scene_text
from llmagent_ros.outcomes.measures import Bin, calibration_error, choose_threshold, measure, reliability

ABOUT = {"wished": 0.95, "best_precision": 0.5, "held_out": {}}


def test_measures_by_hand() -> None:
    probabilities, labels = np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, True, True, True])
    found = measure(probabilities, labels, 2, 0.5)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert found.prior == pytest.approx(0.75 * 0.25)
    assert found.ece == pytest.approx(0.5 * abs(0.5 - 0.1) + 0.5 * abs(1.0 - 0.9))
    assert found.auroc == pytest.approx((0.5 + 1 + 1) / 3), "a tie counts half"
    assert (found.true, found.false, found.missed) == (2, 0, 1)
    assert (found.precision, found.recall) == (1.0, pytest.approx(2 / 3))
    nothing = measure(probabilities, np.zeros(4, bool), 2, 0.95)
    assert (nothing.auroc, nothing.precision, nothing.recall) == (None, None, None)


def test_bins_of_a_diagram_by_hand() -> None:
    bins = reliability(np.array([0.0, 0.04, 0.95, 1.0]), np.array([False, True, True, True]))
    assert bins == [Bin(2, pytest.approx(0.02), 0.5), Bin(2, pytest.approx(0.975), 1.0)]
    assert calibration_error(bins) == pytest.approx(0.5 * 0.48 + 0.5 * 0.025)


def test_the_lowest_threshold_of_the_wished_precision_is_chosen() -> None:
    probabilities = np.array([0.9, 0.8, 0.7, 0.7, 0.6, 0.1])
    labels = np.array([True, True, True, False, True, False])
    assert choose_threshold(probabilities, labels, 0.75, 1) == (0.6, 1.0)
    assert choose_threshold(probabilities, labels, 0.9, 1) == (0.8, 1.0), "0.7 is two scenes, one of them wrong"
    assert choose_threshold(probabilities, labels, 0.9, 3) == (None, 0.8), "two successes are not three"
    assert choose_threshold(probabilities, ~labels, 0.9, 3) == (None, 0.0)


def test_platt_scaling_has_his_targets_and_finds_the_slope() -> None:
    _, offset = platt(np.zeros(4), np.array([True, True, True, False]))
    assert 1 / (1 + np.exp(-offset)) == pytest.approx((3 * (4 / 5) + 1 / 3) / 4, abs=1e-3)
    rng = np.random.default_rng(0)
    scores = rng.normal(0.0, 8.0, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * scores - 1.0)))
    assert platt(scores, labels) == (pytest.approx(0.5, abs=0.03), pytest.approx(-1.0, abs=0.1))
    slope, _ = platt(np.array([-1.0, 1.0] * 5), np.array([False, True] * 5))
    assert 0 < slope < 10, "scores that separate perfectly give no certainty"


def blobs(seed: int = 0, noise: float = 0.3) -> tuple[Any, Any, Any]:
    """Two clouds in 6 dimensions, in 40 episodes of 10 scenes, the last one of each a positive."""
    rng = np.random.default_rng(seed)
    episodes = np.repeat(np.arange(40), 10)
    labels = np.tile(np.arange(10) == 9, 40)
    return rng.normal(0.0, noise, (400, 6)) + np.where(labels, 1.0, -1.0)[:, None], labels, episodes


def fitted(threshold: float | None = 0.5) -> SceneClassifier:
    features, labels, episodes = blobs()
    made = classifiers.fit(features, labels, episodes, feature_digest="abc", wordings=("go to the object",))
    made = classifiers.calibrated(made, *blobs(1)[:2])
    return dataclasses.replace(made, threshold=threshold, about={**made.about, **ABOUT})


def test_what_can_be_separated_is_and_is_the_same_from_disk(tmp_path: Path) -> None:
    made = fitted()
    features, labels, _ = blobs(2)
    found = measure(made.probabilities(features), labels, 40, 0.5)
    assert found.auroc == 1.0 and found.precision == found.recall == 1.0 and found.brier < 0.01
    classifiers.save(made, tmp_path / "c", b"png")
    read = classifiers.load(tmp_path / "c")
    assert np.array_equal(read.probabilities(features), made.probabilities(features))
    assert (read.wordings, read.threshold, read.feature_digest) == (("go to the object",), 0.5, "abc")
    read.check("abc")
    with pytest.raises(StoreError, match="already exists"):
        classifiers.save(made, tmp_path / "c", b"png")


def test_one_of_another_base_or_without_a_threshold_must_not_judge() -> None:
    with pytest.raises(ModelError, match="made for another base model or prompt"):
        fitted().check("abd")
    with pytest.raises(ModelError, match=r"unusable: no threshold .* precision of 0\.95 \(the best is 0\.50"):
        fitted(None).check("abc")




@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (TENSORS, lambda path: path.unlink(), "classifier.safetensors: cannot be read: No such file"),
        (TENSORS, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "damaged: its SHA-256"),
        (MANIFEST, lambda path: path.unlink(), "classifier.json: cannot be read"),
        (MANIFEST, lambda path: path.write_bytes(b"\xff{"), "not JSON"),
        (MANIFEST, lambda path: path.write_text("[]"), "not an outcome classifier; `llmagent outcomes fit` makes one"),
        (MANIFEST, lambda path: edit(path, version=2), "version is 2; this program reads version 1"),
        (MANIFEST, lambda path: edit(path, threshold=7.0), "threshold is 7.0; valid: null, or from 0 to 1"),
        (MANIFEST, lambda path: edit(path, feature_digest=None), "damaged: feature_digest is None"),
        (MANIFEST, lambda path: edit(path, about={}), "nothing is said of its precision"),
    ],
)
def test_damaged_and_foreign_files_are_named(tmp_path: Path, file: str, change: Any, said: str) -> None:
    folder = tmp_path / "c"
    classifiers.save(fitted(), folder, b"png")
    change(folder / file)
    with pytest.raises(ModelError) as caught:
        classifiers.load(folder)
    assert said in str(caught.value) and str(folder) in str(caught.value)


def edit(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def test_tensors_must_be_finite_and_of_one_size(tmp_path: Path) -> None:
    made = fitted()
    for number, (name, value) in enumerate([("bias", np.array(np.nan)), ("scale", np.zeros(6)), ("mean", np.zeros(5))]):
        wrong = dataclasses.replace(made, tensors={**made.tensors, name: value})
        classifiers.save(wrong, tmp_path / str(number), b"png")
        with pytest.raises(ModelError, match=r"finite|holds"):
            classifiers.load(tmp_path / str(number))


def test_several_scenes_in_a_row_are_needed_and_of_one_task() -> None:
    streak = Streak(0.5, 3)
    said = [streak.take("a", p) for p in (0.6, 0.9, 0.4, 0.5, 0.6, 0.7, 0.8)]
    assert said == [False] * 5 + [True, True]
    assert [streak.take("b", 0.9) for _ in range(3)] == [False, False, True], "another task begins anew"


def test_the_instruction_is_part_of_the_text() -> None:
    assert scene_text("Go to it", "go to it. it ahead at 1.0.") == "go to it. it ahead at 1.0."
    assert scene_text("go to it", "it ahead at 1.0.") == "go to it. it ahead at 1.0."


def test_labels_are_those_of_the_episodes_and_the_list_goes_first(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with Replay(out / "replay.sqlite") as replay:
        for number, success in enumerate([True, False, None, True]):
            replay.append(episode(number, success=success, near=bool(success)))
    found = collect([out], last=2)
    assert found.succeeded.tolist() == [True, False, True] and found.instructions == {"go to the red ball"}
    assert np.flatnonzero(found.labels).tolist() == [6, 7, 19, 20] and len(found.texts) == 8 + 5 + 8
    header = "run,episode,success,total_reward,steps,reason,duration_s,env_steps,adapter\n"
    (out / "episodes.csv").write_text(f"{header}r,3,0,1.0,7,failure,1.0,7,\n")
    assert collect([out]).succeeded.tolist() == [True, False, False], "a person's word goes before the reward"
    with pytest.raises(ConfigError, match=r"no replay\.sqlite"):
        collect([tmp_path])


def test_an_episode_counts_once_however_many_replays_have_it(tmp_path: Path) -> None:
    """Runs given twice, and an import of one run into another's replay, which `llmagent record import` makes."""
    first, second = tmp_path / "s0", tmp_path / "s1"
    with Replay(first / "replay.sqlite") as own, Replay(second / "replay.sqlite") as other:
        for number in range(12):
            steps = episode(number, success=number % 2 == 0)
            own.append(steps)
            other.append(steps[:-1] if number == 11 else steps)  # a copy of before its end
            other.append([dataclasses.replace(step, run="r1") for step in steps])
    header = "run,episode,success,total_reward,steps,reason,duration_s,env_steps,adapter\n"
    (first / "episodes.csv").write_text(f"{header}r,1,1,1.0,7,success,1.0,7,\n")
    for runs in ([first, second], [second, first], [second, first, second]):
        found = collect(runs)
        assert (len(found.succeeded), int(found.succeeded.sum())) == (24, 13), "its own list tells of a copy, too"
        assert len(found.texts) == 24 * 8 and np.bincount(found.episodes).tolist() == [8] * 24
    assert len(collect([first, first]).succeeded) == 12


def test_a_split_has_whole_episodes_and_successes_in_each_part() -> None:
    succeeded = np.arange(40) % 2 == 0
    parts = split(succeeded, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    assert [len(part) for part in parts] == [20, 10, 10]
    assert [int(succeeded[part].sum()) for part in parts] == [10, 5, 5]
    assert [part.tolist() for part in split(succeeded, 0)] == [part.tolist() for part in parts]
    assert [part.tolist() for part in split(succeeded, 1)] != [part.tolist() for part in parts]
    with pytest.raises(ConfigError, match="only 7 episodes of success; at least 8"):
        split(np.arange(40) < 7, 0)


def test_fit_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = labelled_run(tmp_path / "run"), tmp_path / "c"
    assert main(["outcomes", "fit", str(run), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "| AUROC                         | 1.000" in said and str(out / "reliability.png") in said
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert main(["outcomes", "show", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["usable"] and shown["episodes"] == {"fit": 30, "calibration": 15, "held_out": 15}
    assert shown["held_out_episodes"] == {"episodes": 15, "successes": 10, "seen": 10, "ended_early": 0}
    assert sum(each["count"] for each in shown["bins"]) == shown["held_out"]["scenes"] == 10 * 8 + 5 * 5
    assert main(["outcomes", "fit", str(run), "--out", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_classifier_is_of_the_chat_prompt_and_dtype_that_it_is_fitted_with(tmp_path: Path, dtype: str) -> None:
    run, out, base = labelled_run(tmp_path / "run"), tmp_path / "c", save_tiny_model(tmp_path / "base")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<robot>"
    tokenizer.save_pretrained(base)
    words = ["outcomes", "fit", str(run), "--out", str(out), "--model", str(base), "--chat", "--dtype", dtype]
    main(words)  # 0 or 1: a random base may tell them apart or not
    digest = classifiers.load(out).feature_digest
    assert digest == tiny_language_model(base, chat=True, dtype=dtype).feature_digest
    assert digest != tiny_language_model(base, dtype=dtype).feature_digest


def test_what_cannot_be_told_is_kept_to_be_looked_at_and_unusable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "c"
    with Replay(run / "replay.sqlite") as replay:
        for number in range(60):  # the same scenes, whether well or not
            replay.append(episode(9 * number, success=number % 3 == 0))
    assert main(["outcomes", "fit", str(run), "--out", str(out)]) == 1
    assert "Unusable: no threshold has a precision of 0.95" in capsys.readouterr().out
    assert main(["outcomes", "show", str(out)]) == 1
    with pytest.raises(ModelError, match="unusable"):
        made = classifiers.load(out)
        made.check(made.feature_digest)
