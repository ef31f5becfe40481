"""A track of tasks: bundles when they are due, a skill that is replaced only by what is not worse, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_support import save_tiny_model, tiny_language_model

from llmagent_ros.bundle import Bundle, load_bundle
from llmagent_ros.errors import ModelError, StoreError
from llmagent_ros.learning.gate import GateConfig, Record, Ruling
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.critic import CriticConfig
from llmagent_ros.learning.standing import Beginning, Offer
from llmagent_ros.learning.track import Track, TrackConfig
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.types import RealArray, Transition

PHRASES = ("left", "right")
RL = LearnerConfig(
    warmup=8, batch_size=8, actor_every=4, actor_batch=4, updates_per_step=1.0, critic=CriticConfig(heads=2, width=8)
)
CONFIG = TrackConfig(rl=RL, gate=GateConfig(episodes=5, patience=10), publish_every=5, keep=2, skill_every=5)
Judge = Callable[[Bundle, Sequence[str]], tuple[RealArray, RealArray]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_language_model(save_tiny_model(tmp_path_factory.mktemp("base") / "llama"), PHRASES)


def equal(bundle: Bundle, scenes: Sequence[str]) -> tuple[RealArray, RealArray]:
    """A judge to whom all versions are alike."""
    return np.log(np.full((len(scenes), 2), 0.5)), np.zeros((len(scenes), 2))


class Tracks:
    """Opens tracks of one folder, one after the other."""

    def __init__(self, folder: Path, model: LanguageModel) -> None:
        self.folder, self.model = folder, model
        self.first = model.adapter_state()
        self.opened: list[Track] = []
        self.episode = 0

    def open(self, wording: str = "go", judge: Judge | None = equal, **values: Any) -> Track:
        made = Track(
            self.folder / wording, wording, PHRASES, self.model, CONFIG, first=self.first, judge=judge, **values
        )
        self.opened.append(made)
        return made

    def live(self, track: Track, outcomes: str) -> list[Offer | Ruling | None]:
        """Episodes of two steps, "+" for a success and "-" for none; learning, bundles and looks after each."""
        seen = []
        for outcome in outcomes:
            k, reward = self.episode, 1.0 if outcome == "+" else -1.0
            steps = [
                Transition("r", k, 0, "go", f"cell {k % 7}.", "left", 0.0, "cell 8.", False, False),
                Transition("r", k, 1, "go", "cell 8.", "right", reward, "cell 9.", True, False),
            ]
            self.episode += 1
            assert track.observe(steps) == 2
            while track.learn(4) or track.backlog:
                pass
            if track.due:
                track.export({"robot": "x"})
            seen.append(track.look())
        return seen


@pytest.fixture
def tracks(tmp_path: Path, model: LanguageModel) -> Iterator[Tracks]:
    made = Tracks(tmp_path, model)
    yield made
    for track in made.opened:
        track.close()
    model.load_adapter_state(made.first)


def offers(seen: Sequence[Offer | Ruling | None]) -> list[Offer]:
    return [each for each in seen if isinstance(each, Offer)]


def test_the_first_version_is_offered_whatever_it_is_worth(tracks: Tracks) -> None:
    track = tracks.open()
    (offer,) = offers(tracks.live(track, "-----"))
    tracks.live(track, "----")
    for _ in range(4):
        track.export({})  # the store may be slow to read what it was offered
    assert offer.record == Record(0, 5) and offer.skill_id == "" and offer.description == "go"
    assert offer.instructions == ("go",) and offer.ruling.why == "the first version of this skill"
    assert load_bundle(offer.bundle).meta["wording"] == "go"
    track.confirm(offer, "id1")
    assert (track.standing.skill_id, track.standing.deployed) == ("id1", offer.bundle.name)


def accepted(tracks: Tracks, track: Track, outcomes: str = "+++++") -> Offer:
    """Episodes until an offer is made of them, which is stored."""
    for _ in range(3):
        if made := offers(tracks.live(track, outcomes)):
            track.confirm(made[0], "id1")
            return made[0]
    raise AssertionError("no offer")


def test_it_is_looked_at_once_in_so_many_episodes(tracks: Tracks) -> None:
    track = tracks.open()
    seen = tracks.live(track, "+" * 20)
    assert [k + 1 for k, each in enumerate(seen) if each is not None] == [5, 10, 15, 20]


def test_better_outcomes_replace_it_and_name_both_records(tracks: Tracks) -> None:
    track = tracks.open()
    first = accepted(tracks, track, "+-+--")
    (offer,) = offers(tracks.live(track, "+++++"))
    assert offer.skill_id == "id1" and offer.record == Record(5, 5) and offer.bundle != first.bundle
    assert "5 of 5" in offer.ruling.why and "2 of 5" in offer.ruling.why and "recent scenes" in offer.ruling.why
    assert offer.ruling.data["candidate"] == "5 of 5" and offer.ruling.data["deployed"] == "2 of 5"


def test_outcomes_that_drop_take_the_deployed_version_back(tracks: Tracks) -> None:
    track = tracks.open()
    for _ in range(3):
        offer = accepted(tracks, track)
    deployed = load_bundle(offer.bundle)
    seen = tracks.live(track, "-----")
    ruling = seen[-1]
    assert isinstance(ruling, Ruling) and ruling.says == "take back" and "0 of 5 since then" in ruling.why
    assert all(torch.equal(t, track.learner.average.state()[n]) for n, t in deployed.critic.items())
    assert all(torch.equal(t, tracks.model.adapter_state()[n]) for n, t in (deployed.adapter or {}).items())
    assert track.standing.deployed == offer.bundle.name, "the store has it still"
    assert not offers(tracks.live(track, "++++-")), "it counts anew from there"


def test_the_deployed_bundle_is_never_pruned(tracks: Tracks) -> None:
    track = tracks.open()
    offer = accepted(tracks, track)
    for _ in range(8):
        track.export({})
    assert offer.bundle.is_dir() and len(list(track.bundles.iterdir())) <= CONFIG.keep + 1


def test_a_candidate_that_is_worse_on_scenes_waits(tracks: Tracks) -> None:
    asked: list[str] = []

    def judge(bundle: Bundle, scenes: Sequence[str]) -> tuple[RealArray, RealArray]:
        asked.append(str(bundle.meta["updates"]))
        good = len(asked) % 2 == 1  # the deployed one is asked about first
        policy = np.log(np.tile([0.9, 0.1] if good else [0.1, 0.9], (len(scenes), 1)))
        return policy, np.tile([1.0, 0.0], (len(scenes), 1))

    track = tracks.open(judge=judge)
    accepted(tracks, track)
    ruling = tracks.live(track, "+++++")[-1]
    assert isinstance(ruling, Ruling) and ruling.says == "wait" and "worse" in ruling.why
    assert int(asked[0]) < int(asked[1])


def test_comparing_leaves_the_learning_adapter_alone(tracks: Tracks) -> None:
    def judge(bundle: Bundle, scenes: Sequence[str]) -> tuple[RealArray, RealArray]:
        tracks.model.load_adapter_state(bundle.adapter or {})
        return equal(bundle, scenes)

    track = tracks.open(judge=judge)
    accepted(tracks, track)
    tracks.live(track, "++++")
    before: dict[str, torch.Tensor] = {}

    def remember(bundle: Bundle, scenes: Sequence[str]) -> tuple[RealArray, RealArray]:
        before.update(before or tracks.model.adapter_state())
        return judge(bundle, scenes)

    track._judge = remember
    tracks.live(track, "+")
    assert before and all(torch.equal(t, tracks.model.adapter_state()[n]) for n, t in before.items())


def test_two_tracks_on_one_model_never_mix(tracks: Tracks) -> None:
    one = tracks.open("one")
    tracks.live(one, "+" * 6)
    one.save()
    kept = one.learner.average.state(), tracks.model.adapter_state()
    one.close()
    other = tracks.open("other")
    assert all(torch.equal(t, tracks.model.adapter_state()[n]) for n, t in tracks.first.items()), "begins with nothing"
    tracks.live(other, "-" * 6)
    other.save()
    other.close()
    again = tracks.open("one")
    assert len(again.replay) == 12 and again.version == one.version
    assert all(torch.equal(t, again.learner.average.state()[n]) for n, t in kept[0].items())
    assert all(torch.equal(t, tracks.model.adapter_state()[n]) for n, t in kept[1].items())


def test_a_track_resumes_where_its_skill_stood(tracks: Tracks) -> None:
    track = tracks.open()
    accepted(tracks, track)
    tracks.live(track, "+++")
    track.save()
    standing = track.standing
    track.close()
    again = tracks.open()
    assert again.standing == standing and again.standing.skill_id == "id1"
    (offer,) = offers(tracks.live(again, "+++++++"))
    assert offer.record == Record(10, 10), "those before it was closed count as well"


def test_a_new_track_begins_with_what_it_is_given(tracks: Tracks) -> None:
    teacher = tracks.open("one")
    tracks.live(teacher, "+" * 6)
    teacher.export({})
    bundle = load_bundle(teacher.bundles / teacher.version)
    teacher.close()
    beginning = Beginning(bundle.critic, bundle.adapter, ("p1", "p2"), "", None, "like them")
    track = tracks.open("other", beginning=beginning)
    assert all(torch.equal(t, track.learner.average.state()[n]) for n, t in bundle.critic.items())
    assert track.standing.parents == ["p1", "p2"]
    offer = accepted(tracks, track)
    assert offer.parents == ("p1", "p2")


def test_a_skill_that_goes_on_is_only_replaced_by_what_is_not_worse(tracks: Tracks) -> None:
    teacher = tracks.open("one")
    tracks.live(teacher, "+" * 6)
    teacher.export({})
    bundle = load_bundle(teacher.bundles / teacher.version)
    teacher.close()
    beginning = Beginning(bundle.critic, bundle.adapter, skill_id="old", record=Record(18, 20))
    track = tracks.open("other", beginning=beginning)
    stored = load_bundle(track.bundles / track.standing.deployed)
    assert all(torch.equal(t, stored.critic[n]) for n, t in bundle.critic.items())
    assert [each.says for each in tracks.live(track, "-----") if isinstance(each, Ruling)] == ["take back"]
    assert all(torch.equal(t, track.learner.average.state()[n]) for n, t in bundle.critic.items())
    (offer,) = offers(tracks.live(track, "+" * 10))
    assert offer.skill_id == "old" and "18 of 20" in offer.ruling.why
    track.confirm(offer, "")
    assert (track.standing.skill_id, track.standing.deployed) == ("", "")
    (again,) = offers(tracks.live(track, "-" * 5))
    assert again.skill_id == "" and again.ruling.why == "the first version of this skill"


def test_outcomes_decide_where_the_deployed_version_is_not_at_hand(tracks: Tracks) -> None:
    track = tracks.open(beginning=Beginning(skill_id="old", record=Record(18, 20)))
    assert not offers(tracks.live(track, "-" * 10))
    assert offers(tracks.live(track, "+" * 10))[0].skill_id == "old"


def test_a_damaged_standing_is_named_and_the_replay_not_held(tracks: Tracks) -> None:
    tracks.open().close()
    (tracks.folder / "go" / "skill.json").write_text('{"wording": 3, "x": 1}')
    with pytest.raises(StoreError, match=r"skill.json: cannot be read"):
        tracks.open()
    (tracks.folder / "go" / "skill.json").unlink()
    tracks.open()


def test_a_beginning_that_does_not_fit_leaves_the_replay_closed(tracks: Tracks) -> None:
    with pytest.raises(ModelError):
        tracks.open(beginning=Beginning({"x": torch.zeros(1)}, None))
    track = tracks.open()  # not held by the one that failed
    with pytest.raises(StoreError):
        tracks.open()
    assert len(track.replay) == 0


def test_looking_can_be_switched_off(tmp_path: Path, model: LanguageModel) -> None:
    track = Track(tmp_path / "t", "go", PHRASES, model, TrackConfig(rl=RL, skill_every=0))
    assert track.look() is None
    track.close()


def test_what_lessons_were_made_of_is_not_counted_twice(tracks: Tracks) -> None:
    track = tracks.open()
    first = accepted(tracks, track, "-----")
    told = track.standing.told
    assert told == 10 and track.standing.lessons == [x.text for x in first.lessons if x.support > x.against]
    second = accepted(tracks, track, "-+-+-")
    assert sum(lesson.evidence for lesson in second.lessons) <= len(second.lessons) * (len(track.replay) - told)
