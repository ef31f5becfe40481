"""Skills out of a store and into another: the same skill again, or a clear refusal."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from knowledge_support import HashEmbedder, make_bundle

from llmagent_ros.bundle import load_bundle, save_bundle
from llmagent_ros.errors import ConfigError, LlmAgentError, ModelError, StoreError, UnknownNameError
from llmagent_ros.knowledge.exchange import CARD, SKILL, export_skill, import_skill, read_skill
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.types import Lesson

RED = Skill(
    "reach „red“ things 🚀",
    ("drive to the red ball", "go to the red ball"),
    "sim",
    (Lesson("keep left", 1 / 3 + 3, 0.1), Lesson("clear ahead under 0.3: not forward", 4, 2)),
    10,
    7,
    parents=("a1", "b2"),
)


def opened(folder: Path) -> Knowledge:
    return Knowledge(folder, HashEmbedder())


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Skill]:
    """A folder, and the skill that it is of."""
    make_bundle(tmp_path / "bundle")
    with opened(tmp_path / "from") as knowledge:
        skill = knowledge.store(RED, tmp_path / "bundle")
        export_skill(knowledge, skill.id, tmp_path / "out" / "red")
    return tmp_path / "out" / "red", skill


def test_everything_comes_back_in_another_store(exported: tuple[Path, Skill], tmp_path: Path) -> None:
    folder, skill = exported
    assert [path.name for path in folder.parent.iterdir()] == ["red"], "nothing else is left"
    with opened(tmp_path / "to") as knowledge:
        taken = import_skill(knowledge, folder, actor="a person", reason="for the test")
        assert taken == replace(skill, updated=taken.updated, path=taken.path)
        assert knowledge.get(taken.id) == taken
        assert torch.equal(knowledge.bundle(taken).critic["w"], torch.full((4, 4), 1.0))
        assert knowledge.retrieve("go to the red ball", k=1)[0].skill == taken
        (line,) = knowledge.audit(taken.id)
        assert (line.event, line.actor, line.reason) == ("imported", "a person", "for the test")
        assert line.data["given"] == {"folder": "red"}
        assert knowledge.verify() == []
        export_skill(knowledge, taken.id, tmp_path / "again")
    assert read_skill(tmp_path / "again") == replace(taken, path=None)


def test_an_id_is_never_taken_twice(exported: tuple[Path, Skill], tmp_path: Path) -> None:
    folder, skill = exported
    with opened(tmp_path / "from") as knowledge:
        with pytest.raises(StoreError, match=f"skill {skill.id}: the store has it already, with the same content"):
            import_skill(knowledge, folder)
        knowledge.store(replace(skill, lessons=(), attempts=11))
        with pytest.raises(StoreError, match=r"another skill with this id.*--as-new"):
            import_skill(knowledge, folder)
        other = import_skill(knowledge, folder, as_new=True)
        assert other.id != skill.id and other.attempts == 10 and other.lessons == skill.lessons
        assert knowledge.audit(other.id)[0].data["given"] == {"folder": "red", "id": skill.id}
        knowledge.delete(skill.id)
        assert import_skill(knowledge, folder).id == skill.id, "free again"
        assert [line.event for line in knowledge.audit(skill.id)][:2] == ["imported", "deleted"]
        assert knowledge.verify() == []


def test_a_skill_without_a_bundle_goes_as_well(tmp_path: Path) -> None:
    with opened(tmp_path / "from") as knowledge:
        skill = knowledge.store(replace(RED, parents=(), instructions=()))
        export_skill(knowledge, skill.id, tmp_path / "out")
        with pytest.raises(UnknownNameError):
            export_skill(knowledge, "nobody", tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CARD, SKILL]
    with opened(tmp_path / "to") as knowledge:
        assert import_skill(knowledge, tmp_path / "out").path is None


def test_peft_loads_the_export(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["0"])
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(3, 3)), config)
    state = {name: torch.full_like(value, 0.25) for name, value in peft.get_peft_model_state_dict(model).items()}
    meta = {"base_digest": "test"}
    save_bundle(tmp_path / "b", adapter=state, adapter_config=config.to_dict(), critic={}, meta=meta)
    with opened(tmp_path / "from") as knowledge:
        skill = knowledge.store(RED, tmp_path / "b")
        export_skill(knowledge, skill.id, tmp_path / "out")
    again = peft.PeftModel.from_pretrained(torch.nn.Sequential(torch.nn.Linear(3, 3)), tmp_path / "out")
    for value in peft.get_peft_model_state_dict(again).values():
        assert torch.equal(value, torch.full_like(value, 0.25))
    card = (tmp_path / "out" / CARD).read_text()
    for part in ("library_name: peft", RED.description, "7 of 10", "keep left (3.33 of 3.43)", skill.digest, "`a1`"):
        assert part in card, card


@pytest.mark.parametrize("there", ["file", "folder", "empty", "link"])
def test_an_export_never_overwrites(tmp_path: Path, there: str) -> None:
    target = tmp_path / "out"
    if there == "file":
        target.write_text("mine")
    elif there == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        if there == "folder":
            (target / "mine").touch()
    with opened(tmp_path / "from") as knowledge:
        skill = knowledge.store(RED)
        with pytest.raises(StoreError, match=r"out: already exists; an export never overwrites"):
            export_skill(knowledge, skill.id, target)
        with pytest.raises(StoreError, match="cannot be written"):
            export_skill(knowledge, skill.id, tmp_path / ("x" * 300))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "out"]


def test_an_export_of_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    with opened(tmp_path / "from") as knowledge:
        skill = knowledge.store(RED, tmp_path / "b")
        assert skill.path is not None
        (skill.path / "critic.safetensors").write_bytes(b"rot")
        with pytest.raises(ModelError, match=r"critic\.safetensors is damaged"):
            export_skill(knowledge, skill.id, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plain_bundle_needs_a_description(exported: tuple[Path, Skill], tmp_path: Path) -> None:
    meta = {"base_digest": "test", "robot": "sim_diffdrive"}
    save_bundle(tmp_path / "v000001", adapter=None, adapter_config={}, critic={"w": torch.ones(2)}, meta=meta)
    with opened(tmp_path / "to") as knowledge:
        with pytest.raises(ConfigError, match="say what it does with a description"):
            import_skill(knowledge, tmp_path / "v000001")
        skill = import_skill(knowledge, tmp_path / "v000001", description="dock", reason="r")
        assert (skill.description, skill.contract) == ("dock", "sim_diffdrive")
        assert knowledge.bundle(skill).critic["w"].shape == (2,)
        with pytest.raises(ConfigError, match="description of its own"):
            import_skill(knowledge, exported[0], description="mine")
        assert knowledge.count() == 1


def _change(folder: Path, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
    told = json.loads((folder / SKILL).read_text())
    change(told)
    if sign:
        canonical = json.dumps(told["skill"], sort_keys=True, separators=(",", ":"))
        told["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / SKILL).write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "sign", "message"),
    [
        (lambda told: told["skill"].update(attempts=12), False, "damaged: the SHA-256 of the skill"),
        (lambda told: told.update(version=9), True, "not of the format llmagent-skill, version 1"),
        (lambda told: told.update(format="other"), True, "not of the format"),
        (lambda told: told["skill"].update(successes=11), True, "successes"),
        (lambda told: told["skill"].update(id="../../etc"), True, "is not an id"),
        (lambda told: told["skill"].update(digest="0" * 64), True, "is of the bundle 0000"),
        (lambda told: told["skill"].update(digest=""), True, r"is of the bundle \(none\)"),
        (lambda told: told["skill"].update(created=1e300), True, "created"),
        (lambda told: told["skill"].update(created=float("nan")), True, "created"),
        (lambda told: told["skill"].update(lessons=[{"text": "x", "support": -1}]), True, "support"),
        (lambda told: told["skill"].update(path="/etc"), True, "path"),
        (lambda told: told["skill"].pop("contract"), True, "contract"),
        (lambda told: told["skill"].update(description=""), True, "description: is empty"),
    ],
)
def test_what_was_changed_is_refused(
    exported: tuple[Path, Skill], tmp_path: Path, change: Callable[[dict[str, Any]], object], sign: bool, message: str
) -> None:
    _change(exported[0], change, sign=sign)
    with opened(tmp_path / "to") as knowledge:
        with pytest.raises((ModelError, ConfigError), match=message):
            import_skill(knowledge, exported[0])
        assert knowledge.count() == 0 and list((knowledge.folder / "bundles").iterdir()) == []


def _damage(folder: Path) -> None:
    (folder / "critic.safetensors").write_bytes(b"rot")


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04pickle")


def _link(folder: Path) -> None:
    (folder / SKILL).rename(folder.parent / "elsewhere")
    (folder / SKILL).symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    (folder / SKILL).unlink()
    os.mkfifo(folder / SKILL)


def _huge(folder: Path) -> None:
    with (folder / SKILL).open("ab") as file:
        file.truncate(1 << 25)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_damage, r"critic\.safetensors is damaged"),
        (_pickle, r"adapter_model\.bin is a pickle"),
        (_link, f"{SKILL}"),
        (_pipe, "not a plain file"),
        (_huge, "larger than"),
        (lambda folder: (folder / "bundle.json").unlink(), "but none is there"),
        (lambda folder: (folder / SKILL).write_text("[1"), "not JSON"),
        (lambda folder: (folder / SKILL).write_text("[" * 100_000), "not JSON"),
        (lambda folder: (folder / SKILL).write_text("[]"), "not of the format"),
        (lambda folder: shutil.rmtree(folder), "not an exported skill, and not a bundle"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), "not an exported skill"),
    ],
)
def test_what_is_no_exported_skill_is_refused(
    exported: tuple[Path, Skill], tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(exported[0])
    with opened(tmp_path / "to") as knowledge:
        with pytest.raises(ModelError, match=message):
            import_skill(knowledge, exported[0])
        assert knowledge.count() == 0


def test_a_file_that_is_swapped_while_it_is_imported_is_seen(
    exported: tuple[Path, Skill], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked is what is stored: another sound bundle in its place is found by the copy's digest."""
    folder = exported[0]
    make_bundle(tmp_path / "other", 2.0)

    def load_then_swap(path: Path, max_bytes: int) -> object:
        bundle = load_bundle(path, max_bytes)
        for file in (tmp_path / "other").iterdir():
            shutil.copy(file, path / file.name)
        return bundle

    monkeypatch.setattr("llmagent_ros.knowledge.exchange.load_bundle", load_then_swap)
    with opened(tmp_path / "to") as knowledge:
        with pytest.raises(ModelError, match=r"is the bundle [0-9a-f]{64}, not"):
            import_skill(knowledge, folder)
        assert knowledge.count() == 0


def test_a_bundle_larger_than_the_store_takes_is_refused(exported: tuple[Path, Skill], tmp_path: Path) -> None:
    folder = exported[0]
    with Knowledge(tmp_path / "to", HashEmbedder(), KnowledgeConfig(max_bundle_bytes=100)) as knowledge:
        with pytest.raises(ModelError, match=rf"{folder}: a bundle of \d+ bytes; valid: at most 100"):
            import_skill(knowledge, folder)
        (folder / SKILL).unlink()
        with pytest.raises(ModelError, match="at most 100"):
            import_skill(knowledge, folder, description="dock")
        assert knowledge.count() == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = ["id", "description", "instructions", "contract", "lessons", "attempts", "successes", "digest", "created"]


@given(st.dictionaries(st.sampled_from([*fields, "other"]), json_values, max_size=3), st.booleans())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_skill_file_is_read_or_refused(tmp_path: Path, changes: dict[str, Any], whole: bool) -> None:
    folder = tmp_path / "fuzz"
    folder.mkdir(exist_ok=True)
    skill = {**vars(RED), "id": "a", "lessons": [vars(lesson) for lesson in RED.lessons]}
    del skill["path"]
    (folder / SKILL).write_text(
        json.dumps({"format": "llmagent-skill", "version": 1, "skill": {**(skill if whole else {}), **changes}})
    )
    _change(folder, lambda _: None)
    try:
        assert isinstance(read_skill(folder), Skill)
    except LlmAgentError as error:
        assert SKILL in str(error)
