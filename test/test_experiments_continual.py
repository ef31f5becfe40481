"""One task after another: begun with what language finds, kept as skills, measured by Continual World's formulas."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_support import save_tiny_model

from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.errors import ModelError
from llmagent_ros.experiments import continual as module
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.bench import continual, continual_peers, learning
from llmagent_ros.experiments.bench.results import Results
from llmagent_ros.experiments.calibrated import CalibratedText, SeenAs
from llmagent_ros.experiments.continual import ContinualLearner, merge_bundles, told
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evaluation import EpisodeResult, Policy
from llmagent_ros.experiments.training import BUNDLES, TrainConfig
from llmagent_ros.knowledge.embedding import SentenceEmbedder
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.skill import Found, Skill
from llmagent_ros.knowledge.start import StartConfig, choose_start
from llmagent_ros.learning.gate import Gate, GateConfig, Ruling
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.recording.episodes import EPISODES, read_episodes

SMALL = {"warmup": 30, "batch_size": 16, "updates_per_step": 1.0, "actor_every": 10, "actor_batch": 4,
         "critic": {"heads": 4, "width": 16}}  # fmt: skip
LAKE = """
environment: FrozenLake-v1
arguments: {{is_slippery: false}}
task: {task}
factors: [4, 4]
parts: [{{name: row, step: 1}}, {{name: column, step: 1}}]
actions: [{first}, go down, go right, go up]
success_return: 1
"""


class Lakes:
    """Environments that are told differently, and runs on a tiny random base."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = str(save_tiny_model(folder / "base"))

    def spec(self, task: str, first: str = "go left") -> EnvironmentSpec:
        path = self.folder / f"{task.replace(' ', '_')}-{first.replace(' ', '_')}.yaml"
        path.write_text(LAKE.format(task=task, first=first))
        return EnvironmentSpec(str(path))

    def config(self, spec: EnvironmentSpec, steps: int = 60, seed: int = 0) -> TrainConfig:
        model = {"model": self.model, "rank": 2}
        return runs.make_config(spec.name, {"steps": steps, "seed": seed, "model": model, "learner": SMALL}, "test")


@pytest.fixture
def lakes(tmp_path: Path) -> Lakes:
    return Lakes(tmp_path)


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder()


@pytest.fixture
def learner(tmp_path: Path, embedder: SentenceEmbedder) -> Iterator[ContinualLearner]:
    with Knowledge(tmp_path / "knowledge", embedder) as knowledge:
        yield ContinualLearner(knowledge)


def learned(learner: ContinualLearner, config: TrainConfig, out: Path, successes: int | None = None) -> Skill:
    """Trained and kept, as if so many of its last 30 episodes had succeeded."""
    begun, start = learner.begin(config, out)
    runs.train(begun, out)
    with pytest.MonkeyPatch.context() as patch:
        if successes is not None:
            patch.setattr(module, "recent_outcomes", lambda out, most: (30, successes))
        return learner.keep(begun, out, start)[0]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    bundle = load_bundle(path)
    return {**(bundle.adapter or {}), **bundle.critic}


def test_the_first_task_begins_with_nothing_and_says_so(lakes: Lakes, learner: ContinualLearner) -> None:
    config, start = learner.begin(lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a")
    assert (start.kind, config.start) == ("initial", "")
    assert start.why == "begins with the initial adapter: no skill is known"


def test_a_like_task_begins_with_the_skill_and_becomes_its_child(lakes: Lakes, learner: ContinualLearner) -> None:
    parent = learned(learner, lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a", successes=25)
    config, start = learner.begin(lakes.config(lakes.spec("cross the frozen pond"), steps=10), lakes.folder / "b")
    assert start.kind == "near" and [found.skill.id for found in start.skills] == [parent.id]
    runs.train(config, lakes.folder / "b")
    newest = latest_bundle(lakes.folder / "b" / BUNDLES)
    assert newest is not None and parent.path is not None
    a, b = tensors(parent.path), tensors(newest)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a), "before its first update"
    child, why = learner.keep(config, lakes.folder / "b", start)
    assert why == start.why
    assert child.parents == (parent.id,) and child.id != parent.id
    episodes = read_episodes(lakes.folder / "b" / EPISODES)
    assert (child.attempts, child.successes) == (len(episodes), sum(e.success for e in episodes))


def test_the_same_task_in_the_same_words_is_the_same_skill(lakes: Lakes, learner: ContinualLearner) -> None:
    spec = lakes.spec("cross the frozen lake")
    first = learned(learner, lakes.config(spec), lakes.folder / "a", successes=10)
    learner.gate = Gate(GateConfig(tolerance=10.0))
    second = learned(learner, lakes.config(spec, seed=1), lakes.folder / "b", successes=20)
    assert second.id == first.id and second.digest != first.digest and second.successes == 20
    assert len(learner.knowledge.skills()) == 1
    newest = learner.knowledge.audit(second.id)[0]
    assert "it succeeded in 20 of 30, the deployed one in 10 of 30" in newest.reason
    assert newest.data["given"]["candidate"] == "20 of 30" and newest.data["given"]["run"] == "b"


@pytest.mark.parametrize(("tolerance", "successes"), [(10.0, 9), (0.0, 25)])
def test_a_version_that_is_worse_replaces_nothing(
    lakes: Lakes, learner: ContinualLearner, tolerance: float, successes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In outcomes, or on scenes."""
    spec = lakes.spec("cross the frozen lake")
    first = learned(learner, lakes.config(spec), lakes.folder / "a", successes=24)
    learner.gate = Gate(GateConfig(tolerance=tolerance, z=0.0))
    monkeypatch.setattr(module, "recent_outcomes", lambda out, most: (30, successes))
    if tolerance == 0.0:
        worse = Ruling("reject", "on 9 recent scenes it gains -0.5 of return: worse")
        monkeypatch.setattr(learner.gate, "on_scenes", lambda *arrays: worse)
    config, start = learner.begin(lakes.config(spec, seed=1), lakes.folder / "b")
    runs.train(config, lakes.folder / "b")
    kept, why = learner.keep(config, lakes.folder / "b", start)
    assert why.startswith("not replaced: ") and kept.digest == first.digest
    assert learner.knowledge.get(first.id) == first, "nothing was changed"
    assert not (lakes.folder / "b" / module.SKILL).exists(), "so that a longer run is judged again"


def test_a_version_that_is_as_good_replaces_what_was_there(lakes: Lakes, learner: ContinualLearner) -> None:
    spec = lakes.spec("cross the frozen lake")
    learner.gate = Gate(GateConfig(tolerance=10.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "recent_outcomes", lambda out, most: (most, most - 3))
        first = learned(learner, lakes.config(spec), lakes.folder / "a")
        second = learned(learner, lakes.config(spec, seed=1), lakes.folder / "b")
    assert second.id == first.id and second.digest != first.digest


def test_an_unlike_task_begins_with_nothing_and_names_what_is_nearest(lakes: Lakes, learner: ContinualLearner) -> None:
    learned(learner, lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a", successes=30)
    _, start = learner.begin(lakes.config(lakes.spec("peel seven potatoes")), lakes.folder / "b")
    assert start.kind == "initial"
    assert start.why.startswith("begins with the initial adapter: nothing is like it, the nearest is 'cross the frozen")


def test_a_critic_of_other_phrases_is_left_and_the_adapter_taken(lakes: Lakes, learner: ContinualLearner) -> None:
    parent = learned(learner, lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a", successes=25)
    other = lakes.spec("cross the frozen pond", first="step west")
    config, _ = learner.begin(lakes.config(other, steps=10), lakes.folder / "b")
    runs.train(config, lakes.folder / "b")
    newest = latest_bundle(lakes.folder / "b" / BUNDLES)
    assert newest is not None and parent.path is not None
    old, new = load_bundle(parent.path), load_bundle(newest)
    assert old.adapter is not None and new.adapter is not None
    assert all(torch.equal(old.adapter[name], new.adapter[name]) for name in old.adapter)
    assert not torch.equal(old.critic["net.0.weight"], new.critic["net.0.weight"])


def test_a_run_that_was_interrupted_goes_on_with_what_it_began_with(lakes: Lakes, learner: ContinualLearner) -> None:
    parent = learned(learner, lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a", successes=25)
    config, start = learner.begin(lakes.config(lakes.spec("cross the frozen pond")), lakes.folder / "b")
    runs.train(dataclasses.replace(config, steps=20), lakes.folder / "b")
    learned(learner, lakes.config(lakes.spec("cross the frozen ponds")), lakes.folder / "c", successes=30)
    again, same = learner.begin(lakes.config(lakes.spec("cross the frozen pond")), lakes.folder / "b")
    assert again == config and same == dataclasses.replace(start, skills=same.skills)
    assert [found.skill.id for found in same.skills] == [parent.id]


def test_keeping_twice_keeps_once(lakes: Lakes, learner: ContinualLearner) -> None:
    config, out = lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a"
    first = learned(learner, config, out)
    assert learned(learner, config, out) == first
    assert len(learner.knowledge.skills()) == 1


def test_what_was_never_learned_is_not_kept(lakes: Lakes, learner: ContinualLearner) -> None:
    config, start = learner.begin(lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a")
    with pytest.raises(ModelError, match="nothing was learned yet"):
        learner.keep(config, lakes.folder / "a", start)


def test_it_acts_by_the_skill_that_language_finds(lakes: Lakes, learner: ContinualLearner) -> None:
    lake, word = lakes.spec("cross the frozen lake"), lakes.spec("peel seven potatoes")
    skill = learned(learner, lakes.config(lake, steps=80), lakes.folder / "a")
    scenes = ["cross the frozen lake. row 1. column 2.", "cross the frozen lake. row 3. column 0."]
    config = lakes.config(lake)
    policy, found = learner.policy(lake, LanguageModel(config.model, told(lake).phrases))
    assert found is not None and found.skill.id == skill.id
    saved = runs.SavedPolicy(lakes.folder / "a").log_probabilities(scenes)
    np.testing.assert_allclose(policy(scenes), saved, atol=1e-6)
    plain, nothing = learner.policy(word, LanguageModel(config.model, told(word).phrases))
    assert nothing is None and not np.allclose(plain(scenes), saved, atol=1e-3)


def test_several_skills_merge_into_one_beginning(lakes: Lakes, learner: ContinualLearner) -> None:
    learner.config = StartConfig(most=3)
    for name, task in (("a", "cross the frozen lake"), ("b", "cross the icy pond")):
        config = dataclasses.replace(lakes.config(lakes.spec(task)), seed=ord(name))
        runs.train(config, lakes.folder / name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "recent_outcomes", lambda out, most: (30, 27))
            learner.keep(config, lakes.folder / name, choose_start([], "x"))
    config, start = learner.begin(lakes.config(lakes.spec("cross the frozen pond")), lakes.folder / "c")
    assert len(start.skills) == 2 and sum(start.weights) == pytest.approx(1.0)
    merged = load_bundle(Path(config.start))
    assert [digest for digest, _ in merged.meta["merged"]] == [found.skill.digest for found in start.skills]
    assert merged.adapter is not None
    parents = [learner.knowledge.bundle(found.skill).adapter or {} for found in start.skills]
    for name, tensor in merged.adapter.items():
        expected = sum(w * p[name] for w, p in zip(start.weights, parents, strict=True))
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-7)
    runs.train(dataclasses.replace(config, steps=40), lakes.folder / "c")  # and learning goes on from it


def test_a_merged_bundle_of_one_is_that_one(lakes: Lakes, learner: ContinualLearner) -> None:
    skill = learned(learner, lakes.config(lakes.spec("cross the frozen lake")), lakes.folder / "a")
    bundle = learner.knowledge.bundle(skill)
    merge_bundles(lakes.folder / "merged", [bundle], [1.0])
    again = load_bundle(lakes.folder / "merged")
    assert all(torch.equal(bundle.critic[name], again.critic[name]) for name in bundle.critic)


# --- the choice, by hand --------------------------------------------------------------------------------------------


def found(similarity: float, successes: int, attempts: int, contract: str = "r", digest: str = "d") -> Found:
    skill = Skill(f"s{similarity}", contract=contract, attempts=attempts, successes=successes, digest=digest, id="i")
    return Found(skill, similarity)


def test_only_a_skill_of_the_same_contract_is_the_same() -> None:
    assert choose_start([found(0.97, 9, 10)], "r").kind == "same"
    assert choose_start([found(0.97, 9, 10, contract="other")], "r").kind == "near"


def test_a_skill_that_never_succeeded_or_has_no_bundle_is_no_beginning() -> None:
    assert choose_start([found(0.8, 0, 30)], "r").kind == "initial"
    assert choose_start([found(0.97, 9, 10, digest="")], "r").kind == "initial"
    start = choose_start([found(0.85, 0, 30), found(0.7, 29, 30)], "r")
    assert start.kind == "near" and start.skills[0].similarity == 0.7


def test_success_outweighs_a_little_similarity() -> None:
    start = choose_start([found(0.75, 3, 30), found(0.72, 29, 30)], "r", StartConfig(most=2))
    assert [each.similarity for each in start.skills] == [0.72, 0.75]
    assert start.weights[0] > 0.8


# --- the benchmark --------------------------------------------------------------------------------------------------


def points(*successes: float) -> list[dict[str, float]]:
    return [{"env_steps": 100.0 * number, "success": value} for number, value in enumerate(successes)]


def test_the_formulas_of_continual_world_by_hand(tmp_path: Path) -> None:
    assert continual.area_under(points(0, 1, 1)) == pytest.approx(0.75)
    ours = {"tasks": [{"curve": points(0.5, 1.0), "after": 1.0, "end": 0.8},
                      {"curve": points(0.2, 0.2), "after": 0.2, "end": 0.4}]}  # fmt: skip
    alone = {"tasks": [{"curve": points(0.0, 1.0), "after": 1.0, "end": 1.0},
                       {"curve": points(0.4, 0.6), "after": 0.6, "end": 0.6}]}  # fmt: skip
    results = Results(tmp_path / "r.json", "continual", {})
    results.add("llmagent", 0, ours)
    results.add(continual.ALONE, 0, alone)
    figures, peers = continual.read(results)
    assert figures["performance"]["value"] == pytest.approx(0.6)
    assert figures["forgetting"]["value"] == pytest.approx((0.2 - 0.2) / 2)
    assert figures["forward_transfer"]["value"] == pytest.approx(((0.75 - 0.5) / 0.5 + (0.2 - 0.5) / 0.5) / 2)
    assert peers[continual.ALONE]["forward_transfer"]["value"] == pytest.approx(0.0)
    results.add("llmagent", 1, ours)
    results.add(continual.ALONE, 2, alone)
    assert continual.read(results)[0]["forward_transfer"]["seeds"] == figures["forward_transfer"]["seeds"], "by seed"


@pytest.fixture
def small_bench(lakes: Lakes, monkeypatch: pytest.MonkeyPatch) -> Lakes:
    """Three short tasks with a tiny base, of which the last two have the first one's words or outputs."""
    specs = (lakes.spec("cross the frozen lake"), lakes.spec("cross the frozen pond"), lakes.spec("x", "step west"))
    monkeypatch.setattr(continual, "TASKS", specs)
    monkeypatch.setattr(continual, "EPISODES", 4)
    monkeypatch.setattr(continual, "_EVERY", 20)
    monkeypatch.setattr(continual, "_GLANCE", 2)
    monkeypatch.setattr(continual, "_train_config", lambda spec, steps, seed: lakes.config(spec, steps, seed))
    return lakes


@pytest.mark.parametrize("method", ["llmagent", continual.ALONE])
def test_a_sequence_that_was_interrupted_goes_on(small_bench: Lakes, monkeypatch: Any, method: str) -> None:
    scratch, said = small_bench.folder / "scratch", []

    def stop(text: str) -> None:
        said.append(text)
        if text.startswith("task 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continual.measure(method, 0, 40, scratch, stop)
    result = continual.measure(method, 0, 40, scratch, said.append)
    assert [text[:6] for text in said] == ["task 1", "task 2", "task 2", "task 3", "at the"]
    assert [len(task["curve"]) for task in result["tasks"]] == [3, 3, 3], "at 0, 20 and 40 steps"
    assert all(0.0 <= task["end"] <= 1.0 for task in result["tasks"])
    initial = "initial adapter" if method == "llmagent" else "begins with nothing"
    assert initial in result["tasks"][0]["began"]
    json.dumps(result)


@pytest.mark.parametrize("method", continual_peers.NAMES)
def test_peers_learn_all_tasks_with_one_network(small_bench: Lakes, monkeypatch: Any, method: str) -> None:
    monkeypatch.setattr(
        continual_peers, "LanguageModelConfig", lambda: small_bench.config(continual.TASKS[0]).model
    )
    monkeypatch.setattr(continual_peers, "_FISHER_SAMPLES", 8)
    monkeypatch.setattr(continual_peers, "_FIRST_LOOK", 20)
    settings = small_bench.config(continual.TASKS[0]).learner
    monkeypatch.setattr(continual_peers, "_settings", lambda env: settings)
    result = continual.measure(method, 0, 40, small_bench.folder, lambda text: None)
    assert [len(task["curve"]) for task in result["tasks"]] == [3, 3, 3]
    assert all(0.0 <= task["end"] <= 1.0 for task in result["tasks"])


@pytest.mark.parametrize("method", ["llmagent", "fine-tuning"])
def test_robots_are_met_through_a_calibration(tmp_path: Path, monkeypatch: Any, method: str) -> None:
    """Such as turns the wrong way round, so that what was learned of others can be begun with."""
    evaluated: list[bool] = []

    def evaluate(spec: EnvironmentSpec, policy: Policy, episodes: int, *, seen_as: SeenAs) -> list[EpisodeResult]:
        env = seen_as(make_environment(spec))
        assert isinstance(env, CalibratedText)
        evaluated.append(env.calibration.active)
        env.close()
        return [EpisodeResult(0, 1.0, 1, True, "reached", {})]

    monkeypatch.setattr(continual, "TASKS", (EnvironmentSpec("navigate_swapped"),))
    monkeypatch.setattr(continual, "_EVERY", 60)
    for part in (continual, continual_peers, learning):
        monkeypatch.setattr(part, "evaluate", evaluate)
    continual.measure(method, 0, 60, tmp_path, lambda text: None)
    assert evaluated[0] is False and all(evaluated[1:]) and len(evaluated) == 4, "at 0 and 60 steps, after, at the end"


def test_a_reservoir_holds_a_uniform_sample() -> None:
    counts = np.zeros(40)
    for seed in range(400):
        reservoir = continual_peers._Reservoir(10, np.random.default_rng(seed))
        for number in range(40):
            reservoir.offer((number,))  # type: ignore[arg-type]
        counts[[int(row[0]) for row in reservoir.rows]] += 1
    assert len(reservoir.rows) == 10
    assert abs(counts / 400 - 0.25).max() < 0.09


def test_every_task_of_the_benchmark_can_be_made() -> None:
    for spec in continual.TASKS:
        env = make_environment(spec)
        env.close()
    wordings = [told(spec) for spec in continual.TASKS]
    assert len({(each.wording, each.contract) for each in wordings}) == len(continual.TASKS)
    assert not any(name in each.wording for each in wordings for name in ("ball", "box", "pillar", "cylinder"))
