"""Kinds of tasks of a run, and what becomes of them when the robot changes: nothing is overwritten, all goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_support import save_tiny_model, tiny_language_model

from llmagent_ros.bundle import load_bundle, save_bundle
from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.learning import candidates
from llmagent_ros.learning.change import FEW_EPISODES, ChangeConfig
from llmagent_ros.learning.fresh_start import misfits
from llmagent_ros.learning.gate import GateConfig, Record, Ruling
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import Critic, CriticConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.standing import Beginning, Offer, Standing
from llmagent_ros.learning.track import TrackConfig
from llmagent_ros.learning.tracks import Tracks
from llmagent_ros.learning.watch import Watch
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.types import FloatArray, Transition

PHRASES = ("left", "right")
CRITIC = CriticConfig(heads=2, width=8)
RL = LearnerConfig(warmup=8, batch_size=8, actor_every=4, actor_batch=4, updates_per_step=1.0, critic=CRITIC)
CONFIG = TrackConfig(
    rl=RL,
    gate=GateConfig(episodes=3, patience=10),
    publish_every=5,
    keep=3,
    skill_every=3,
    change=ChangeConfig(baseline=8, least=4),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_language_model(save_tiny_model(tmp_path_factory.mktemp("base") / "llama"), PHRASES)


def odd(transitions: Sequence[Transition]) -> FloatArray:
    """What the base has not seen before has "odd" in it."""
    return np.array([5.0 if "odd" in one.next_scene else 1.0 for one in transitions], np.float32)


def episode(number: int, *, ends: str = "goal", reward: float = 1.0, ended: bool = True) -> list[Transition]:
    return [
        Transition("r", number, 0, "go", "start.", "left", 0.0, "middle.", False, False),
        Transition("r", number, 1, "go", "middle.", "right", reward, f"{ends}.", ended, False),
    ]


class Run:
    """A run of the learner, as its node leads it."""

    def __init__(self, folder: Path, model: LanguageModel) -> None:
        self.folder, self.model, self.initial = folder, model, model.adapter_state()
        self.number = 0
        self.tracks: Tracks | None = None

    def begin(self, **values: Any) -> Tracks:
        """Also after a death, with what was on the disk."""
        if self.tracks is not None:
            self.tracks.close()
        self.model.load_adapter_state(self.initial)
        self.tracks = Tracks(self.folder, PHRASES, self.model, CONFIG, surprise=odd, **values)
        return self.tracks

    def live(self, count: int, skill: str = "", **values: Any) -> list[str]:
        """Episodes; what was offered is stored as `skill`. Returns alarms, each of which is left as it is."""
        assert self.tracks is not None
        alarms = []
        for _ in range(count):
            track = self.tracks.current
            track.observe(episode(self.number, **values))
            self.number += 1
            while track.learner.prepare():
                pass
            alarm = track.notice()
            if alarm is not None:
                alarms.append(str(alarm))
                continue
            while track.learn(4) or track.backlog:
                pass
            if track.due:
                track.export({"robot": "x"})
            offer = track.look()
            if isinstance(offer, Offer) and skill:
                self.tracks.confirm(offer, skill)
        return alarms


@pytest.fixture
def run(tmp_path: Path, model: LanguageModel) -> Iterator[Run]:
    made = Run(tmp_path, model)
    yield made
    if made.tracks is not None:
        made.tracks.close()
    model.load_adapter_state(made.initial)


def skilled(run: Run) -> Tracks:
    """A run that has a skill "old" and knows what is usual."""
    tracks = run.begin()
    tracks.enter("go")
    assert run.live(20, "old") == [] and tracks.current.standing.deployed
    return tracks


def test_a_change_is_noticed_once_there_is_a_skill_to_keep(run: Run) -> None:
    tracks = run.begin()
    tracks.enter("go")
    assert run.live(12, ends="odd", reward=-1.0) == [], "there is nothing to lose yet"
    run.tracks, before = None, tracks
    before.close()
    run.folder = run.folder / "other"
    tracks = skilled(run)
    (alarm, *_) = run.live(3, ends="odd", reward=-1.0)
    assert "usually" in alarm


def test_what_was_learned_stays_as_it_is_and_a_new_track_takes_over(run: Run) -> None:
    tracks = skilled(run)
    before = tracks.current
    deployed = before.deployed()
    run.live(4, ends="odd", reward=-1.0)
    alarm = before.notice()
    assert alarm is not None
    changed = len(before.replay) - before.since(alarm)
    assert 0 < changed <= 8
    tracks.begin_anew(alarm, [])
    after = tracks.current
    assert after.wording == "go" and after.folder == run.folder / "tasks" / "01"
    assert len(after.replay) == changed and after.standing.changed == str(alarm)
    assert {t.next_scene for t in after.replay.recent(changed)} == {"middle.", "odd."}
    assert after.learner.config.updates_per_step == FEW_EPISODES["updates_per_step"]
    kept = Standing.read(run.folder)
    assert kept is not None and kept.skill_id == "old" and kept.deployed == before.standing.deployed
    newest = load_bundle(before.bundles / before.version)
    assert all(torch.equal(tensor, newest.critic[name]) for name, tensor in deployed.critic.items())
    assert run.live(1, ends="odd", reward=-1.0) == [], "it is noticed once"


def test_the_new_track_makes_a_skill_of_its_own_which_failures_before_it_do_not_count_against(run: Run) -> None:
    tracks = skilled(run)
    run.live(3, ends="odd", reward=-1.0)
    alarm = tracks.current.notice()
    assert alarm is not None
    tracks.begin_anew(alarm, [])
    run.live(2, ends="odd")
    offers = []
    while not offers:
        track = tracks.current
        track.observe(episode(run.number, ends="odd"))
        run.number += 1
        while track.learn(4) or track.backlog:
            pass
        if track.due:
            track.export({})
        offers = [each for each in [track.look()] if isinstance(each, Offer)]
    (offer,) = offers
    assert offer.skill_id == "" and offer.record.successes == offer.record.attempts >= 3
    tracks.confirm(offer, "new")
    assert tracks.current.standing.skill_id == "new"
    kept = Standing.read(run.folder)
    assert kept is not None and kept.skill_id == "old"


def test_a_robot_that_is_mended_goes_on_with_its_old_track(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = skilled(run)
    old = tracks.current
    steps = len(old.replay)
    run.live(3, ends="odd", reward=-1.0)
    alarm = old.notice()
    assert alarm is not None
    tracks.begin_anew(alarm, [])
    run.live(20, "new", ends="odd")
    assert tracks.current.standing.skill_id == "new"
    # what is as it was before is now the change
    tracks.current._watch.detector.add({"surprise": 100.0, "error": 0.0, "failure": 0.0})  # type: ignore[union-attr]
    alarm = tracks.current.notice()
    assert alarm is not None
    run.tracks.current.observe(episode(run.number))  # type: ignore[union-attr]
    while tracks.current.learner.prepare():
        pass
    kept = old.deployed()
    monkeypatch.setattr("llmagent_ros.learning.tracks.misfits", lambda critics, *_: np.arange(len(critics))[::-1])
    tracks.begin_anew(alarm, [Beginning(kept.critic, kept.adapter, parents=("old",))])
    assert tracks.current.folder == run.folder and tracks.current.standing.skill_id == "old"
    assert len(tracks.current.replay) > steps and not tracks.current.standing.changed
    assert tracks.current.notice() is None
    again = run.begin()
    assert again.current.folder == run.folder and again.current.standing.skill_id == "old"
    again.enter("come")
    assert again.current.folder == run.folder / "tasks" / "02", "no folder is given twice"


def test_a_death_between_the_alarm_and_the_new_track_loses_neither(run: Run) -> None:
    tracks = skilled(run)
    run.live(4, ends="odd", reward=-1.0)
    tracks.current.save()
    tracks = run.begin()
    assert tracks.current.notice() is not None, "it is still to be dealt with"
    tracks.enter("come")
    tracks.enter("go")
    alarm = tracks.current.notice()
    assert alarm is not None
    tracks.begin_anew(alarm, [])
    tracks.current.save()
    tracks = run.begin()
    assert tracks.current.folder == run.folder / "tasks" / "02" and tracks.current.standing.changed == str(alarm)


def test_an_answer_to_an_offer_goes_to_the_track_that_made_it(run: Run) -> None:
    tracks = skilled(run)
    offer = Offer("", "go", (), (), tracks.current.bundles / "v000009", Record(1, 1), (), None)  # type: ignore[arg-type]
    run.live(4, ends="odd", reward=-1.0)
    alarm = tracks.current.notice()
    assert alarm is not None
    tracks.begin_anew(alarm, [])
    tracks.confirm(offer, "late")
    kept = Standing.read(run.folder)
    assert kept is not None and (kept.skill_id, kept.deployed) == ("late", "v000009")
    assert tracks.current.standing.skill_id == ""


def test_kinds_of_tasks_without_a_skill_begin_with_what_the_run_was_given(run: Run, model: LanguageModel) -> None:
    torch.manual_seed(3)
    critic = Critic(model.feature_size, 2, CRITIC).state()
    start = Beginning(critic, run.initial, why="begins with the start")
    tracks = run.begin(start=lambda: start)
    tracks.enter("go")
    assert tracks.current.begun
    assert all(torch.equal(t, tracks.current.learner.critic.state()[n]) for n, t in critic.items())
    own = Beginning(Critic(model.feature_size, 2, CRITIC).state(), why="begins with a skill", parents=("p",))
    assert tracks.enter("come", own) == "begins with a skill" and tracks.current.standing.parents == ["p"]


# --- what explains best what was seen -----------------------------------------------------------------------------


@pytest.fixture
def learner(tmp_path: Path, model: LanguageModel) -> Iterator[Learner]:
    with Replay(tmp_path / "replay.sqlite", PHRASES) as replay:
        made = Learner(RL, replay, model)
        made.observe([one for number in range(3) for one in episode(number, reward=0.5)])
        while made.prepare():
            pass
        yield made


def constant(model: LanguageModel, value: float) -> dict[str, torch.Tensor]:
    """A critic that says the same of everything."""
    critic = Critic(model.feature_size, 2, CRITIC)
    with torch.no_grad():
        for parameter in critic.net[-1].parameters():
            parameter.zero_()
        list(critic.net[-1].parameters())[-1].fill_(value)
    return critic.state()


def test_errors_by_hand(learner: Learner, model: LanguageModel) -> None:
    gamma = RL.gamma
    half = (abs(gamma * 0.4 - 0.4) + abs(0.5 - 0.4)) / 2  # the first step of each bootstraps, the last does not
    errors = misfits([None, constant(model, 0.4), constant(model, 2.0)], learner, 2)
    assert errors == pytest.approx([0.25, half, (abs(gamma * 2 - 2) + 1.5) / 2], rel=1e-3)
    assert misfits([constant(model, 0.4)], learner, 5) == pytest.approx([0.1], rel=1e-3)


def test_a_critic_of_another_base_or_vocabulary_is_never_chosen(learner: Learner, model: LanguageModel) -> None:
    wider = Critic(model.feature_size + 1, 2, CRITIC).state()
    more = Critic(model.feature_size, 3, CRITIC).state()
    heads = Critic(model.feature_size, 2, CriticConfig(heads=3, width=8)).state()
    errors = misfits([wider, more, heads, {"a": torch.zeros(2)}, None], learner, 0)
    assert np.isinf(errors[:4]).all() and np.isfinite(errors[4])
    with pytest.raises(ConfigError, match="no step since position 6"):
        misfits([None], learner, 6)


# --- which episodes are looked at -----------------------------------------------------------------------------------


class Figures:
    """Plays a detector: keeps what it is given."""

    alarm = None

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def add(self, figures: dict[str, float]) -> None:
        self.seen.append(figures)


def test_each_episode_is_looked_at_once_after_its_end(learner: Learner) -> None:
    watch = Watch(learner, odd)
    watch.detector = figures = Figures()  # type: ignore[assignment]
    watch.look()
    assert figures.seen == [], "what was there before counts as seen"
    first, second = episode(10), episode(11, ends="odd", reward=-1.0)
    learner.observe(first[:1])
    watch.look()
    assert figures.seen == [], "it has not ended"
    learner.observe(first[1:] + second)
    while learner.prepare():
        pass
    watch.look()
    watch.look()
    assert [each["failure"] for each in figures.seen] == [0.0, 1.0]
    assert [each["surprise"] for each in figures.seen] == [1.0, 3.0]
    errors = learner.errors(np.arange(6, 10)).reshape(2, 2).mean(1)
    assert [each["error"] for each in figures.seen] == pytest.approx(errors.tolist())


def test_an_episode_without_an_end_is_left_out(learner: Learner) -> None:
    watch = Watch(learner, odd)
    watch.detector = figures = Figures()  # type: ignore[assignment]
    learner.observe(episode(10, ended=False) + episode(11) + episode(12, ended=False))
    while learner.prepare():
        pass
    watch.look()
    assert len(figures.seen) == 1
    learner.observe([Transition("r", 12, 2, "go", "goal.", "left", -1.0, "wall.", True, False)])
    while learner.prepare():
        pass
    watch.look()
    assert [each["failure"] for each in figures.seen] == [0.0, 1.0]
    assert figures.seen[1]["error"] == pytest.approx(float(learner.errors(np.arange(10, 13)).mean()))


def test_it_goes_on_where_it_was_saved(learner: Learner) -> None:
    watch = Watch(learner, odd, ChangeConfig(baseline=8, least=4))
    for number in range(10, 18):
        learner.observe(episode(number))
    while learner.prepare():
        pass
    watch.look()
    learner.observe([one for number in range(18, 21) for one in episode(number, ends="odd", reward=-1.0)])
    while learner.prepare():
        pass
    again = Watch(learner, odd, ChangeConfig(baseline=8, least=4))
    again.load_state(watch.state())
    alarm = watch.look()
    assert alarm is not None and again.look() == alarm and again.since(alarm) == watch.since(alarm) == 6 + 16
    watch.dismiss()
    assert watch.look() is None
    learner.observe(episode(21))
    while learner.prepare():
        pass
    assert watch.look() is None, "what was usual is usual"
    other = watch.state() | {"seen": 1000}
    with pytest.raises(StoreError, match="1000 were looked at"):
        again.load_state(other)


# --- what was learned elsewhere -------------------------------------------------------------------------------------


def likes(bundle: Any, scenes: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """A judge by whom a bundle chooses "left" as surely as its meta says, which is the better."""
    p = float(bundle.meta.get("left", 0.5))
    log_pi = np.log(np.tile([p, 1.0 - p], (len(scenes), 1)))
    return log_pi, np.tile([1.0, 0.0], (len(scenes), 1))


def made_elsewhere(run: Run, name: str, **meta: Any) -> Path:
    learner = run.tracks.current.learner  # type: ignore[union-attr]
    facts = {"base_digest": run.model.base_digest, "feature_digest": run.model.feature_digest, "phrases": list(PHRASES)}
    critic = Critic(run.model.feature_size, 2, CRITIC).state()
    values = {"adapter": run.initial, "adapter_config": learner.model.adapter_config(), "critic": critic}
    save_bundle(run.folder / "made" / name, meta={**facts, **meta}, **values)
    return run.folder / "made" / name


def test_a_candidate_that_is_not_worse_takes_over_and_outcomes_count_from_then_on(run: Run) -> None:
    tracks = run.begin(judge=likes)
    tracks.enter("go")
    run.live(10, "old")
    track = tracks.current
    good, bad = made_elsewhere(run, "good", left=0.9), made_elsewhere(run, "bad", left=0.1)
    before = track.learner.average.state()
    refused = track.consider(bad)
    assert refused.says == "reject" and "worse" in refused.why
    assert all(torch.equal(t, track.learner.average.state()[n]) for n, t in before.items())
    taken = track.consider(good)
    assert taken.says == "accept" and taken.data["gain"] == pytest.approx(0.4, abs=1e-6)
    wanted = load_bundle(good)
    assert all(torch.equal(t, track.learner.average.state()[n]) for n, t in wanted.critic.items())
    track.export({})
    kept = Standing.read(run.folder)
    assert kept is not None and (kept.decided, kept.succeeded) == (10, 10) and kept.skill_id == "old"


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({"feature_digest": "other"}, "another base model or prompt"),
        ({"phrases": ["left", "up"]}, "no critic of these action phrases"),
    ],
)
def test_a_candidate_for_something_else_is_refused(run: Run, meta: dict[str, Any], why: str) -> None:
    run.begin(judge=likes).enter("go")
    run.live(4)
    ruling = run.tracks.current.consider(made_elsewhere(run, "other", **meta))  # type: ignore[union-attr]
    assert ruling.says == "reject" and why in ruling.why


def test_a_candidate_that_is_damaged_or_of_another_shape_is_refused_and_nothing_changes(run: Run) -> None:
    tracks = run.begin(judge=likes)
    tracks.enter("go")
    run.live(4)
    before = tracks.current.learner.average.state()
    damaged = made_elsewhere(run, "damaged", left=0.9)
    (damaged / "critic.safetensors").write_bytes(b"x")
    assert "cannot be taken up" in tracks.current.consider(damaged).why
    learner = tracks.current.learner
    meta = {**load_bundle(made_elsewhere(run, "sound")).meta, "left": 0.9}
    other = Critic(run.model.feature_size, 2, CriticConfig(heads=3, width=8)).state()
    values = {"adapter": run.initial, "adapter_config": learner.model.adapter_config(), "critic": other}
    save_bundle(run.folder / "made" / "other", meta=meta, **values)
    assert "cannot be taken up" in tracks.current.consider(run.folder / "made" / "other").why
    assert all(torch.equal(t, learner.average.state()[n]) for n, t in before.items())


def test_offering_a_bundle_to_a_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.begin(judge=likes)
    bundle = made_elsewhere(run, "bundle", wording="go")
    assert main(["offer", str(bundle), str(run.folder)]) == 2
    assert "has no tracks.json" in capsys.readouterr().err
    run.tracks.enter("go")  # type: ignore[union-attr]
    assert main(["offer", str(bundle), str(run.folder)]) == 0
    (folder,) = candidates.waiting(run.folder)
    assert load_bundle(folder).digest == load_bundle(bundle).digest and candidates.wording(folder) == "go"
    assert main(["offer", str(bundle), str(run.folder)]) == 2
    assert "waits there already" in capsys.readouterr().err
    candidates.decide(folder, Ruling("reject", "no", {"gain": 1.0}), "go")
    assert candidates.waiting(run.folder) == [] and bundle.is_dir()
    (line,) = (run.folder / "candidates" / "decisions.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert (kept["says"], kept["why"], kept["task"], kept["data"]) == ("reject", "no", "go", {"gain": 1.0})
    assert main(["offer", str(run.folder / "nowhere"), str(run.folder)]) == 2
    assert "BUNDLE" in capsys.readouterr().err
