"""Evolution: the same result for the same seed, in whatever order results come and however often it is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evolution_support import ALL, Inline, asked, evolve, make_base, outcome
from knowledge_support import HashEmbedder

from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError, LlmAgentError, StoreError, UnknownNameError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evolution import jobs
from llmagent_ros.experiments.evolution.best import newest_bundle
from llmagent_ros.experiments.evolution.config import space_of
from llmagent_ros.experiments.evolution.evolution import Evolution
from llmagent_ros.experiments.evolution.keeping import keep_skill
from llmagent_ros.experiments.evolution.workers import Job
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.skill import Skill
from llmagent_ros.learning.evolution.archive import Archive
from llmagent_ros.learning.evolution.lineage import LINEAGE
from llmagent_ros.learning.rl.replay import Replay


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an evolution gives that nothing interrupts, its jobs done one after another."""
    out, backend = tmp_path_factory.mktemp("whole") / "out", Inline()
    evolve(base, out, backend, **ALL)
    return {"outcome": outcome(out), "out": out, "jobs": backend.done}


def test_the_order_of_results_does_not_matter(base: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    evolve(base, tmp_path / "out", Inline(backwards=False), **ALL)
    assert outcome(tmp_path / "out") == whole["outcome"]
    evolve(base, tmp_path / "other", seed=2)
    assert outcome(tmp_path / "other")["lineage"] != whole["outcome"]["lineage"]


def test_what_it_leaves(base: Path, whole: dict[str, Any]) -> None:
    out, summary = whole["out"], whole["outcome"]["summary"]
    assert summary["generations"] == 2 and summary["ended"] == "generations" and summary["failures"] == []
    assert summary["env_steps"] == 2 * 4 * 30, "of all members"
    lineage = whole["outcome"]["lineage"]
    assert [each["generation"] for each in lineage[:8]] == [0] * 4 + [1] * 4 and lineage[-1]["generation"] == 999
    best = summary["best"]["member"]
    bundle = load_bundle(latest_bundle(out / "best" / "bundles") or out)
    assert bundle.meta[LINEAGE]["name"] == best["lineage"]["name"], "it goes with the bundle, and so with the skill"
    figures, _ = runs.evaluate_run(out / "best", 3)
    assert figures["episodes"] == 3
    assert sorted(path.name for path in (out / "results").iterdir()) == [], "no longer needed"


def test_the_best_becomes_a_skill_with_its_lineage(base: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    """Its parents are the skills that the evolution began with."""
    out, summary = tmp_path / "out", whole["outcome"]["summary"]
    shutil.copytree(whole["out"], out)
    with Knowledge(tmp_path / "skills", HashEmbedder()) as knowledge:
        older = newest_bundle(whole["out"] / "members" / "g001-m00")
        parent = knowledge.store(Skill("go to the end"), older)
        knowledge.store(Skill("something else"))
        skill = keep_skill(knowledge, out, str(parent.path), summary)
        assert skill.description == "go to the end" and skill.contract == "gymnasium_toy_support_corridor_v0"
        assert skill.parents == (parent.id,) and skill.attempts == summary["best"]["standing"]["repetitions"]
        lineage = knowledge.bundle(skill).meta[LINEAGE]
        assert lineage["name"] == summary["best"]["member"]["lineage"]["name"]
        entry = knowledge.audit(skill.id)[0]
        assert entry.actor == "evolution" and entry.data["given"]["lineage"]["name"] == lineage["name"]
        assert keep_skill(knowledge, out, "", summary).id == skill.id and knowledge.count() == 3
        with pytest.raises(ConfigError, match="there is nothing to keep"):
            keep_skill(knowledge, tmp_path / "none", "", {"best": None})


def test_the_search_of_genes_goes_on_where_it_was(base: Path, tmp_path: Path) -> None:
    """Candidates that it gave before the kill, and answers that it had."""
    only = {"explore": 0.0, "crossover": 0.0, "search": 1.0, "archive": 0.0}
    settings: dict[str, Any] = {"generations": 4, "breeding": only, "genes": ("learner.beta", "learner.gamma")}
    evolve(base, tmp_path / "whole", **settings)
    for generation in (2, 3):

        def stop(job: Job, generation: int = generation) -> None:
            if job["generation"] == generation:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evolve(base, tmp_path / "parts", Inline(stop), **settings)
    evolve(base, tmp_path / "parts", **settings)
    told = outcome(tmp_path / "parts")
    assert told == outcome(tmp_path / "whole")
    numbers = [each["member"]["candidate"] for each in told["lineage"] if each["generation"] < 999]
    assert sorted(number for number in numbers if number is not None) == list(range(6)), "two in each but the first"


def test_killed_in_the_middle_it_goes_on_to_the_same_end(base: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    """Three times: in learning, in a race, in the search for a mixture. What was done is not done again."""
    done: list[str] = []
    jobs = whole["jobs"]
    race, mixture = (next(n for n, job in enumerate(jobs) if word in job) for word in ("evaluate", "mixture"))
    assert 3 < race < mixture, "learning, then races, then mixtures"
    for last in (3, race + 1, mixture + 1):

        class Killed(BaseException):
            pass

        backend = Inline()

        def stop(job: Job, backend: Inline = backend, last: int = last) -> None:
            if len(done) + len(backend.done) > last:
                raise Killed

        backend._spoil = stop
        with pytest.raises(Killed):
            evolve(base, tmp_path / "out", backend, **ALL)
        done.extend(backend.done[:-1])
    backend = Inline()
    evolve(base, tmp_path / "out", backend, **ALL)
    done.extend(backend.done)
    assert len(done) == len(set(done)), "each job once"
    assert any("mixture" in each for each in done) and any("evaluate" in each for each in done)
    assert outcome(tmp_path / "out") == whole["outcome"]


# --- members that fail -----------------------------------------------------------------------------------


def breaks(*names: str, error: Callable[[], BaseException] = lambda: ValueError("broken")) -> Callable[[Job], None]:
    def spoil(job: Job) -> None:
        if job["kind"] == "train" and Path(job["folder"]).name in names:
            raise error()

    return spoil


def test_a_member_that_crashes_is_replaced_and_reported(base: Path, tmp_path: Path) -> None:
    told = evolve(base, tmp_path / "out", Inline(breaks("g000-m01", "g001-m03", "g001-m03-r1")))
    assert told["generations"] == 2
    assert told["failures"] == [
        {"member": name, "why": "ValueError: broken"} for name in ("g000-m01", "g001-m03", "g001-m03-r1")
    ]
    names = [each["member"]["lineage"]["name"] for each in json.loads((tmp_path / "out" / "lineage.json").read_text())]
    assert {"g000-m01-r1", "g001-m03-r2"} < set(names) and not {"g000-m01", "g001-m03"} & set(names)
    assert "  replaced: g000-m01 by g000-m01-r1" in told["said"]
    assert "broken" in (tmp_path / "out" / "failures" / "g000-m01-train-0-2.txt").read_text()


def test_a_member_whose_numbers_are_not_finite_is_replaced(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really: NaN in its critic while it learns."""
    original = jobs.Trainer.run_episode

    def spoilt(trainer: Any) -> None:
        if "g000-m02" in trainer.out.name and "-r" not in trainer.out.name:
            with torch.no_grad():
                next(trainer.learner.critic.parameters()).fill_(float("nan"))
        original(trainer)

    monkeypatch.setattr(jobs.Trainer, "run_episode", spoilt)
    told = evolve(base, tmp_path / "out", generations=1)
    assert [each["member"] for each in told["failures"]] == ["g000-m02"]
    assert re.search(r"nan|not finite", told["failures"][0]["why"])
    assert not list((tmp_path / "out" / "members").glob("*g000-m02.*"))


def test_where_all_fail_nothing_is_lost_and_the_same_command_tries_again(base: Path, tmp_path: Path) -> None:
    everybody = [f"g001-m0{n}{r}" for n in range(4) for r in ("", "-r1", "-r2")]
    with pytest.raises(LlmAgentError, match=r"generation 2: all members failed, g001-m00 first: ValueError: broken"):
        evolve(base, tmp_path / "out", Inline(breaks(*everybody)))
    told = evolve(base, tmp_path / "out")
    assert told["generations"] == 2 and told["failures"] == []


# --- limits ----------------------------------------------------------------------------------------------


def test_steps_are_a_limit(base: Path, tmp_path: Path) -> None:
    """Those of learning and those of evaluations."""
    told = evolve(base, tmp_path / "out", generations=5, steps=300)
    spent = told["env_steps"] + told["evaluation_steps"]
    assert told["ended"] == "steps" and told["env_steps"] == 120 * told["generations"] < 600
    assert 0 < told["evaluation_steps"] <= 30 * told["evaluation_episodes"]
    again = evolve(base, tmp_path / "out", generations=5, steps=spent + 120)
    assert again["generations"] == told["generations"] + 1, "and more of them go on"


def test_minutes_are_a_limit(base: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    evolution = Evolution(asked(base, **ALL), tmp_path / "out", minutes=1e-9, backend=Inline())
    told = evolution.run()
    assert told["ended"] == "minutes" and told["generations"] == 0 and told["best"] is None
    evolve(base, tmp_path / "out", **ALL)
    assert outcome(tmp_path / "out") == whole["outcome"]


def test_an_elite_goes_on_with_all_of_it(base: Path, whole: dict[str, Any]) -> None:
    """Its replay holds the steps of both generations, and its learner goes on counting."""
    out: Path = whole["out"]
    elite = next(
        path for path in (out / "members").iterdir()
        if json.loads((path / "checkpoint" / "learner.json").read_text())["caller"]["env_steps"] == 60
    )  # fmt: skip
    phrases = make_environment(EnvironmentSpec(str(base / "corridor.yaml"))).phrases
    with Replay(elite / "replay.sqlite", phrases, read_only=True) as replay:
        assert len(replay) == 60


def test_train_takes_the_settings_of_the_best(
    base: Path, tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out: Path = whole["out"]
    environment = runs.read_config(out / "best").environment
    words = ["train", environment, "--config", str(out / "settings.yaml"), "--steps", "40", "--evaluate", "0"]
    words += ["--out", str(tmp_path / "run"), "--start", str(out / "best"), "--set", "learner.n_step=2"]
    assert main(words) == 0
    made, best = runs.read_config(tmp_path / "run"), runs.read_config(out / "best")
    assert made.learner.beta == best.learner.beta and made.model == best.model and made.learner.n_step == 2


# --- bad input -------------------------------------------------------------------------------------------


def test_an_archive_of_another_base_is_refused_and_kept(base: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    shutil.copytree(whole["out"] / "archive", tmp_path / "out" / "archive")
    path = tmp_path / "out" / "archive" / "archive.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["base_digest"], "f" * 64))
    before = path.read_bytes()
    with pytest.raises(LlmAgentError, match=r"an archive of base ffffffffffff, not of"):
        evolve(base, tmp_path / "out")
    assert path.read_bytes() == before
    assert len(Archive(path.parent, "f" * 64, _descriptors(path))) > 0


def _descriptors(path: Path) -> Any:
    from llmagent_ros.learning.evolution.archive import Descriptor

    return [Descriptor(d["name"], tuple(d["edges"])) for d in json.loads(path.read_text())["descriptors"]]


def test_another_evolution_in_the_folder_is_refused(base: Path, tmp_path: Path) -> None:
    evolve(base, tmp_path / "out", generations=1)
    with pytest.raises(ConfigError, match=r"holds an evolution with other settings: slice 30, now 31; choose another"):
        evolve(base, tmp_path / "out", generations=1, slice=31)
    state = tmp_path / "out" / "state.json"
    state.write_text(state.read_text()[:-20])
    with pytest.raises(StoreError, match=r"state\.json: damaged"):
        evolve(base, tmp_path / "out", generations=2)


def test_one_evolution_at_a_time_in_a_folder(base: Path, tmp_path: Path) -> None:
    def twice(job: Job) -> None:
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            evolve(base, tmp_path / "out", generations=1)

    evolve(base, tmp_path / "out", Inline(twice), generations=1)


def test_an_unknown_gene_is_refused_with_the_valid_ones(base: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown gene 'learner.bet'; valid: .*learner\.beta"):
        space_of(asked(base, genes=("learner.bet",)))
