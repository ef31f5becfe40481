"""Which adapter acts on which kind of task: never one that was learned for another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models_support import save_tiny_model, tiny_language_model

from llmagent_interfaces.msg import Adapter
from llmagent_ros.bundle import save_bundle
from llmagent_ros.errors import ModelError
from llmagent_ros.knowledge.skill import Found, Skill
from llmagent_ros.knowledge.start import Start
from llmagent_ros.learning.rl.critic import Critic, CriticConfig, build_critic
from llmagent_ros.nodes.acting_adapter import ActingAdapter
from llmagent_ros.nodes.work import Work
from llmagent_ros.policy.deployment import read_deployment
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.text_policy import TextPolicy

PHRASES = ("left", "right")


class Log:
    """Plays the node: what is logged is kept."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.info = self.error = self.said.append

    def get_logger(self) -> Log:
        return self

    def get_name(self) -> str:
        return "policy"

    def fail(self) -> None:
        raise AssertionError("a defect")


class Scenery:
    def __init__(self, folder: Path, model: LanguageModel) -> None:
        self.folder, self.model, self.log = folder, model, Log()
        self.policy = TextPolicy(model)
        self.acting = ActingAdapter(self.log)  # type: ignore[arg-type]

    def bundle(self, name: str, value: float, wording: str = "") -> tuple[Path, str]:
        """Folder and digest of a bundle whose adapter is full of one value."""
        adapter = {n: torch.full_like(t, value) for n, t in self.model.adapter_state().items()}
        meta = {
            "base_digest": self.model.base_digest, "feature_digest": self.model.feature_digest,
            "phrases": list(PHRASES), "beta": 0.1, **({"wording": wording} if wording else {}),
        }  # fmt: skip
        critic = Critic(self.model.feature_size, 2, CriticConfig(heads=2, width=4)).state()
        path = self.folder / name
        digest = save_bundle(
            path, adapter=adapter, adapter_config=self.model.adapter_config(), critic=critic, meta=meta
        )
        return path, digest

    def announce(self, path: Path, digest: str, wording: str) -> None:
        """And it has been read, if it was to be."""
        self.acting.on_message(Adapter(name=path.name, path=str(path), digest=digest, wording=wording))
        self.acting._loader._pool.submit(lambda: None).result(timeout=60)

    def work(self, wording: str, *skills: tuple[Path, str], why: str = "w") -> str:
        """Works on a task; returns which adapter acts."""
        found = [Found(Skill("s", path=path, digest=digest, id="i"), 0.8) for path, digest in skills]
        kind: Any = "near" if found else "initial"
        start = Start(kind, tuple(found), tuple(1.0 / len(found) for _ in found), why)
        trace: Any = None
        self.acting.prepare(Work("id", wording, wording, 0, trace, True, 0.0, 0.0, None, start=start))
        return self.policy.adapter

    @property
    def value(self) -> float:
        """What the acting adapter is full of."""
        return float(next(t for n, t in self.model.adapter_state().items() if "lora_B" in n).flatten()[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_language_model(save_tiny_model(tmp_path_factory.mktemp("base") / "llama"), PHRASES)


@pytest.fixture
def scenery(tmp_path: Path, model: LanguageModel) -> Iterator[Scenery]:
    first = model.adapter_state()
    made = Scenery(tmp_path, model)
    yield made
    made.acting.close()
    model.load_adapter_state(first)


def test_without_anything_the_initial_adapter_acts_and_it_is_said(scenery: Scenery) -> None:
    scenery.acting.begin(scenery.policy, None, chosen=False)
    assert scenery.work("go", why="nothing is like it") == "initial" and scenery.value == 0.0
    assert scenery.log.said == ["'go': acting by initial; nothing is like it"]
    scenery.work("go")
    assert len(scenery.log.said) == 1, "once"


def test_a_task_begins_with_its_skill(scenery: Scenery) -> None:
    scenery.acting.begin(scenery.policy, None, chosen=False)
    assert scenery.work("go", scenery.bundle("skill", 0.3)) == "skill" and scenery.value == pytest.approx(0.3)


def test_another_kind_of_task_does_not_inherit_what_acts(scenery: Scenery) -> None:
    scenery.acting.begin(scenery.policy, None, chosen=False)
    scenery.work("go", scenery.bundle("skill", 0.3))
    assert scenery.work("leave") == "initial" and scenery.value == 0.0
    assert scenery.work("turn", scenery.bundle("other", 0.4)) == "other" and scenery.value == pytest.approx(0.4)


def test_what_the_run_learned_of_a_kind_comes_before_its_skill(scenery: Scenery) -> None:
    scenery.acting.begin(scenery.policy, None, chosen=False)
    skill = scenery.bundle("skill", 0.3)
    scenery.work("go", skill)
    scenery.announce(*scenery.bundle("v1", 0.5, "go"), "go")
    assert scenery.work("go", skill) == "v1"
    scenery.work("leave")
    assert scenery.work("go", skill) == "v1" and scenery.value == pytest.approx(0.5)


def test_an_adapter_of_another_kind_never_acts(scenery: Scenery) -> None:
    scenery.acting.begin(scenery.policy, None, chosen=False)
    scenery.work("go")
    scenery.announce(*scenery.bundle("v1", 0.5, "go"), "go")
    scenery.announce(*scenery.bundle("v2", 0.6, "leave"), "leave")
    assert scenery.work("go") == "v1"
    scenery.announce(*scenery.bundle("v3", 0.7, "go"), "go")  # read, and not swapped in before the next task begins
    assert scenery.work("leave") == "v2" and scenery.value == pytest.approx(0.6)


def test_what_lies_in_the_folder_of_the_run_acts_on_its_kind_only(scenery: Scenery) -> None:
    path, _ = scenery.bundle("v7", 0.5, "go")
    scenery.acting.begin(scenery.policy, path, chosen=False)
    assert scenery.work("go") == "v7"
    assert scenery.work("leave") == "initial"


def test_a_bundle_that_does_not_say_its_kind_acts_on_the_first(scenery: Scenery) -> None:
    path, _ = scenery.bundle("v7", 0.5)
    scenery.acting.begin(scenery.policy, path, chosen=False)
    assert scenery.work("go") == "v7"
    assert scenery.work("leave") == "initial"


def test_a_chosen_bundle_acts_on_all_kinds(scenery: Scenery) -> None:
    path, _ = scenery.bundle("mine", 0.5, "go")
    scenery.acting.begin(scenery.policy, path, chosen=True)
    assert scenery.work("leave", scenery.bundle("skill", 0.3)) == "mine" and scenery.work("go") == "mine"


def test_a_skill_that_is_damaged_or_changed_is_said_and_passed_over(scenery: Scenery) -> None:
    scenery.acting.begin(scenery.policy, None, chosen=False)
    path, digest = scenery.bundle("skill", 0.3)
    assert scenery.work("go", (path, "0" * 64)) == "initial"
    assert "announced 000000000000" in scenery.log.said[0]
    (path / "critic.safetensors").write_bytes(b"x")
    assert scenery.work("leave", (path, digest)) == "initial" and "damaged" in scenery.log.said[2]
    assert scenery.work("turn", (scenery.folder / "nowhere", digest)) == "initial"


def test_the_run_s_own_that_was_pruned_gives_way_to_the_skill(scenery: Scenery) -> None:
    scenery.acting.begin(scenery.policy, None, chosen=False)
    scenery.work("go")
    path, digest = scenery.bundle("v1", 0.5, "leave")
    scenery.announce(path, digest, "leave")
    for file in path.iterdir():
        file.unlink()
    assert scenery.work("leave", scenery.bundle("skill", 0.3)) == "skill"


def test_a_first_bundle_that_is_not_sound_is_an_error(scenery: Scenery) -> None:
    with pytest.raises(ModelError):
        scenery.acting.begin(scenery.policy, scenery.folder / "nowhere", chosen=True)


def test_deployments_tell_their_kind(scenery: Scenery) -> None:
    one, other = (read_deployment(scenery.bundle(n, 0.1, w)[0], scenery.model, build_critic) for n, w in
                  (("a", "go"), ("b", "")))  # fmt: skip
    assert (one.wording, other.wording) == ("go", "") and replace(one, wording="").name == "a"
