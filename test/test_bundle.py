"""Bundles: saved whole or not at all, and refused when anything about them is not as it was saved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from disk_support import small_file_system

from llmagent_ros import bundle as bundles
from llmagent_ros.bundle import (
    bundle_digest,
    latest_bundle,
    load_bundle,
    next_bundle,
    prune_bundles,
    save_bundle,
)
from llmagent_ros.errors import ConfigError, ModelError, StoreError

META = {"base_digest": "ab12", "updates": 7, "name": "v000001"}


def _save(folder: Path, value: float = 1.0, size: int = 4) -> str:
    return save_bundle(
        folder,
        adapter={"q.lora_B.weight": torch.full((size, 2), value), "q.lora_A.weight": torch.arange(6.0).reshape(2, 3)},
        adapter_config={"peft_type": "LORA", "r": 2, "target_modules": {"v_proj", "q_proj"}},
        critic={"head.0.weight": torch.full((3,), -value), "steps": torch.tensor([5])},
        meta=META,
    )


def test_round_trip_keeps_every_tensor_and_value(tmp_path: Path) -> None:
    digest = _save(tmp_path / "v000001", 1.5)
    loaded = load_bundle(tmp_path / "v000001")
    assert loaded.digest == digest == bundle_digest(tmp_path / "v000001")
    assert loaded.adapter is not None
    assert set(loaded.adapter) == {"q.lora_B.weight", "q.lora_A.weight"}
    assert torch.equal(loaded.adapter["q.lora_A.weight"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(loaded.critic["head.0.weight"], torch.full((3,), -1.5))
    assert loaded.critic["steps"].dtype == torch.int64
    assert loaded.adapter_config == {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}
    assert loaded.meta == META
    assert loaded.base_digest == "ab12"


def test_equal_content_has_an_equal_digest_and_other_content_another(tmp_path: Path) -> None:
    assert _save(tmp_path / "a") == _save(tmp_path / "b")
    assert _save(tmp_path / "c", 2.0) != _save(tmp_path / "d", 3.0)


def test_critic_alone_and_tensors_that_share_memory(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    critic = {"a": tied, "b": tied, "column": torch.arange(6.0).reshape(2, 3).T}
    save_bundle(tmp_path / "b", adapter=None, adapter_config={}, critic=critic, meta=META)
    loaded = load_bundle(tmp_path / "b")
    assert loaded.adapter is None and loaded.adapter_config == {}
    assert torch.equal(loaded.critic["b"], tied)
    assert torch.equal(loaded.critic["column"], critic["column"])


def test_peft_loads_the_folder_as_an_adapter(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["0"])
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(3, 3)), config)
    state = {name: torch.full_like(value, 0.25) for name, value in peft.get_peft_model_state_dict(model).items()}
    save_bundle(tmp_path / "b", adapter=state, adapter_config=config.to_dict(), critic={}, meta=META)
    again = peft.PeftModel.from_pretrained(torch.nn.Sequential(torch.nn.Linear(3, 3)), tmp_path / "b")
    for value in peft.get_peft_model_state_dict(again).values():
        assert torch.equal(value, torch.full_like(value, 0.25))


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"meta": {"updates": 1}}, "base_digest"),
        ({"meta": {"base_digest": ""}}, "base_digest"),
        ({"meta": {"base_digest": "x", "loss": float("nan")}}, "not JSON"),
        ({"meta": {"base_digest": "x", "model": object()}}, "not JSON"),
        ({"critic": {"bad.weight": torch.tensor([1.0, float("nan")])}}, "bad.weight"),
        ({"adapter": {"lora": torch.tensor([float("inf")])}}, "lora"),
        ({"adapter": None}, "adapter_config"),
        ({"adapter_config": {}}, "adapter_config"),
    ],
)
def test_what_is_not_a_bundle_is_not_saved(tmp_path: Path, change: dict[str, object], culprit: str) -> None:
    good = {
        "adapter": {"lora": torch.ones(2)},
        "adapter_config": {"r": 1},
        "critic": {"w": torch.ones(2)},
        "meta": META,
    }
    with pytest.raises(ModelError, match=culprit):
        save_bundle(tmp_path / "b", **{**good, **change})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_overwritten(tmp_path: Path) -> None:
    digest = _save(tmp_path / "b", 1.0)
    with pytest.raises(StoreError, match="already exists"):
        _save(tmp_path / "b", 2.0)
    assert bundle_digest(tmp_path / "b") == digest
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def _edit_manifest(folder: Path, **change: object) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**manifest, **change}))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _link_out(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    shutil.move(folder / "critic.safetensors", outside)
    (folder / "critic.safetensors").symlink_to(outside)


def _folder_for_a_file(folder: Path) -> None:
    (folder / "critic.safetensors").unlink()
    (folder / "critic.safetensors").mkdir()


def _list_outside(folder: Path) -> None:
    hashes = json.loads((folder / "bundle.json").read_text())["files"]
    _edit_manifest(folder, files={**hashes, "../outside.safetensors": hashes["critic.safetensors"]})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (lambda f: _flip(f / "critic.safetensors"), "critic.safetensors is damaged"),
    "other config": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter_config.json is damaged"),
    "cut short": (lambda f: os.truncate(f / "adapter_model.safetensors", 20), "adapter_model.safetensors is damaged"),
    "critic missing": (lambda f: (f / "critic.safetensors").unlink(), "critic.safetensors is listed but missing"),
    "pickled weights": (lambda f: (f / "adapter_model.bin").write_bytes(b"\x80\x04."), "adapter_model.bin is a pickle"),
    "pickle instead": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "adapter_model.bin is a pickle",
    ),
    "one tensor file more": (lambda f: (f / "extra.safetensors").write_bytes(b""), "extra.safetensors does not belong"),
    "symlink": (_link_out, "critic.safetensors is a link"),
    "path outside": (_list_outside, "valid: "),
    "folder for a file": (_folder_for_a_file, "critic.safetensors is not a plain file"),
    "no manifest": (lambda f: (f / "bundle.json").unlink(), "no bundle.json"),
    "manifest not JSON": (lambda f: (f / "bundle.json").write_text("{"), "bundle.json: not JSON"),
    "manifest nested": (lambda f: (f / "bundle.json").write_text("[" * 100_000), "bundle.json: not JSON"),
    "manifest a list": (lambda f: (f / "bundle.json").write_text("[]"), "expected an object"),
    "other format": (lambda f: _edit_manifest(f, format="zip"), "format is 'zip'"),
    "newer version": (lambda f: _edit_manifest(f, version=2), "version is 2; this program reads version 1"),
    "no base": (lambda f: _edit_manifest(f, meta={"updates": 1}), "base_digest"),
    "meta missing": (lambda f: _edit_manifest(f, meta=None), "base_digest"),
    "files missing": (lambda f: _edit_manifest(f, files=None), "valid: "),
    "gone": (shutil.rmtree, "cannot be read as a bundle"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_bundle_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "v000003"
    _save(folder)
    damage, culprit = DAMAGE[kind]
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_bundle(folder)
    assert culprit in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_bundle_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "b"
    _save(folder)
    os.truncate(folder / "critic.safetensors", 1 << 30)  # sparse: one GB with the other files, and more

    def read(path: Path, limit: int) -> bytes:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(bundles, "_read_file", read)
    for look in (load_bundle, bundle_digest, bundles.bundle_files):
        with pytest.raises(ModelError, match=rf"{folder}: a bundle of \d+ bytes; valid: at most {1 << 30}"):
            look(folder)
        with pytest.raises(ModelError, match="at most 100"):
            look(folder, 100)


def test_a_file_that_has_grown_since_it_was_measured_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    _save(folder)
    assert bundles._read_file(folder / "critic.safetensors", 10_000) == (folder / "critic.safetensors").read_bytes()
    with pytest.raises(ModelError, match=r"critic\.safetensors is larger than 10 bytes"):
        bundles._read_file(folder / "critic.safetensors", 10)


def test_a_bundle_that_could_not_be_read_again_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_BYTES", 100)
    with pytest.raises(ModelError, match="at most 100"):
        _save(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_other_small_files_beside_it_are_no_damage(tmp_path: Path) -> None:
    digest = _save(tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("a model card")
    assert load_bundle(tmp_path / "b").digest == digest


def test_latest_passes_over_damaged_leftovers_and_other_names(tmp_path: Path) -> None:
    assert latest_bundle(tmp_path) is None
    assert latest_bundle(tmp_path / "nowhere") is None
    assert next_bundle(tmp_path) == tmp_path / "v000000"
    for number in (1, 9, 10, 11):
        _save(tmp_path / f"v{number:06d}", number)
    _flip(tmp_path / "v000011" / "critic.safetensors")
    (tmp_path / "v000012").mkdir()
    shutil.copytree(tmp_path / "v000010", tmp_path / ".v000013.x.tmp")
    shutil.copytree(tmp_path / "v000010", tmp_path / "v000014-old")
    assert latest_bundle(tmp_path) == tmp_path / "v000010"
    assert next_bundle(tmp_path) == tmp_path / "v000013"


def test_prune_keeps_the_newest_sound_and_the_protected(tmp_path: Path) -> None:
    for number in range(8):
        _save(tmp_path / f"v{number:06d}", number)
    _flip(tmp_path / "v000007" / "critic.safetensors")
    shutil.copytree(tmp_path / "v000005", tmp_path / ".v000099.x.tmp")
    (tmp_path / "notes").mkdir()
    removed = prune_bundles(tmp_path, 2, {"v000001"})
    assert sorted(removed) == ["v000000", "v000002", "v000003", "v000004"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"v000001", "v000005", "v000006", "v000007", "notes"}
    assert prune_bundles(tmp_path, 2, {"v000001"}) == []
    with pytest.raises(ConfigError, match="keep"):
        prune_bundles(tmp_path, 0, set())


def test_prune_without_a_sound_one_removes_nothing(tmp_path: Path) -> None:
    _save(tmp_path / "v000001")
    _flip(tmp_path / "v000001" / "critic.safetensors")
    assert prune_bundles(tmp_path, 1, set()) == []
    assert (tmp_path / "v000001").is_dir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "disk", "256k") as folder:
        yield folder


def test_full_disk_leaves_nothing_and_spares_what_is_there(small_disk: Path) -> None:
    digest = _save(small_disk / "v000001")
    with pytest.raises(StoreError, match=r"v000002: cannot be saved: no space left"):
        _save(small_disk / "v000002", size=100_000)
    assert [path.name for path in small_disk.iterdir()] == ["v000001"]
    assert bundle_digest(small_disk / "v000001") == digest
    _save(small_disk / "v000002")  # room again


def test_failing_flush_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles.os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        _save(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be saved"):
        _save(tmp_path / "file" / "b")


KILLER = """
import os, signal, sys
from pathlib import Path
import torch
from llmagent_ros.bundle import next_bundle, save_bundle
torch.set_num_threads(1)
tensors = {"w": torch.ones(50_000)}
for moment in range(1000):
    child = os.fork()
    if child == 0:
        events = 0
        def die_at_the_moment(event, arguments):
            global events
            events += event == "open" or event.startswith(("os.", "shutil.", "tempfile."))
            if events > moment:
                os.kill(os.getpid(), signal.SIGKILL)
        folder = next_bundle(Path(sys.argv[1]))
        sys.addaudithook(die_at_the_moment)
        save_bundle(folder, adapter=tensors, adapter_config={"r": 1}, critic=tensors, meta={"base_digest": "x"})
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break  # it came to its end before the moment did
print(moment)
"""


def test_killed_at_every_step_of_a_save_every_name_is_a_whole_bundle(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLER, str(tmp_path)]
    moments = int(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    assert 8 <= moments < 999  # four files, the folder, its rename
    names = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("v"))
    assert names
    for name in names:
        load_bundle(tmp_path / name)
    assert any(path.name.endswith(".tmp") for path in tmp_path.iterdir())
    prune_bundles(tmp_path, len(names), set())
    assert sorted(path.name for path in tmp_path.iterdir()) == names
