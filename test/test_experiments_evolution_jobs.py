"""What a member goes on with of its parents: all of it, tensors alone, the critic alone; and scenes as a gene."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from evolution_support import evolve, make_base, train_job

from llmagent_ros.bundle import latest_bundle, load_bundle
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evolution import jobs
from llmagent_ros.experiments.evolution.scenes import history_of, with_history
from llmagent_ros.learning.rl.replay import Replay


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def test_a_crossed_member_begins_with_the_exact_mean(base: Path, tmp_path: Path) -> None:
    """Both learned from other seeds; the child makes no update, so that what it begins with is what it ends with."""
    for name, seed in (("a", 1), ("b", 2)):
        jobs.run_job(train_job(base, tmp_path, name, "nothing", []) | {"seed": seed})
    still = {"learner": {"updates_per_step": 1e-6}}
    pairs = [[str(tmp_path / "a"), 0.75], [str(tmp_path / "b"), 0.25]]
    jobs.run_job(train_job(base, tmp_path, "c", "run", pairs, **still))
    jobs.run_job(train_job(base, tmp_path, "d", "bundle", pairs, **still))
    a, b, c, d = (load_bundle(latest_bundle(tmp_path / name / "bundles") or tmp_path).adapter or {} for name in "abcd")
    assert any(not torch.equal(a[name], b[name]) for name in a)
    for name in a:
        torch.testing.assert_close(c[name], 0.75 * a[name] + 0.25 * b[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(c[name], d[name])
    caller = json.loads((tmp_path / "c" / "checkpoint" / "learner.json").read_text())["caller"]
    assert caller["env_steps"] == 80, "with the replay of the first parent"
    caller = json.loads((tmp_path / "d" / "checkpoint" / "learner.json").read_text())["caller"]
    assert caller["env_steps"] == 40


def test_of_another_structure_the_critic_is_inherited_alone(base: Path, tmp_path: Path) -> None:
    jobs.run_job(train_job(base, tmp_path, "a", "nothing", []))
    changed = {"learner": {"updates_per_step": 1e-6}, "model": {"rank": 2}}
    jobs.run_job(train_job(base, tmp_path, "b", "critic", [[str(tmp_path / "a"), 1.0]], **changed))
    a, b = (load_bundle(latest_bundle(tmp_path / name / "bundles") or tmp_path) for name in "ab")
    assert all(torch.equal(a.critic[name], b.critic[name]) for name in a.critic)
    assert all(bool((t == 0).all()) for name, t in (b.adapter or {}).items() if "lora_B" in name), "a new one"


def test_other_updates_a_step_are_neither_owed_nor_made_up_for(base: Path, tmp_path: Path) -> None:
    jobs.run_job(train_job(base, tmp_path, "a", "nothing", []))
    more = {"learner": {"updates_per_step": 1.0}}
    jobs.run_job(train_job(base, tmp_path, "b", "run", [[str(tmp_path / "a"), 1.0]], **more))
    facts = [json.loads((tmp_path / n / "checkpoint" / "learner.json").read_text()) for n in "ab"]
    assert facts[0]["updates"] == 20, "half of 40 steps"
    assert facts[1]["updates"] == 80 and facts[1]["actor_updates"] - facts[0]["actor_updates"] == 4, "40, not 60"


def test_members_of_a_generation_learn_in_the_same_worlds_whoever_they_go_on_from(base: Path, tmp_path: Path) -> None:
    for name, steps in (("a", 40), ("b", 160)):
        jobs.run_job(train_job(base, tmp_path, name, "nothing", []) | {"seed": 1, "steps": steps})
    starts = []
    for name, parent in (("c", "a"), ("d", "b")):
        jobs.run_job(train_job(base, tmp_path, name, "run", [[str(tmp_path / parent), 1.0]]) | {"steps": 160})
        with Replay(tmp_path / name / "replay.sqlite", read_only=True) as replay:
            own = [each for each in replay.episodes() if each.run.startswith(f"{name}-")]
            assert len({each.run for each in replay.episodes()}) == 2, "and those of its parent"
            starts.append([replay.episode(each.run, each.episode)[0].scene for each in own[:4]])
    assert len(starts[0]) == 4 and starts[0] == starts[1] and len(set(starts[0])) > 1


def test_evolution_can_begin_with_a_run_and_inherit_settings_alone(base: Path, tmp_path: Path) -> None:
    jobs.run_job(train_job(base, tmp_path, "a", "nothing", []))
    start = str(latest_bundle(tmp_path / "a" / "bundles"))
    told = evolve(base, tmp_path / "out", start=start, breeding={"inherit": False})
    inherited = {each["member"]["lineage"]["inherited"] for each in told["kept"]}
    assert inherited <= {"bundle", "critic"} and told["failures"] == []
    facts = [json.loads(p.read_text()) for p in (tmp_path / "out").glob("members/*/checkpoint/learner.json")]
    assert facts and all(each["caller"]["env_steps"] == 30 for each in facts), "each learned for one slice alone"


def test_history_is_said_by_a_file_of_its_own(base: Path, tmp_path: Path) -> None:
    spec = EnvironmentSpec(str(base / "corridor.yaml"))
    assert history_of(spec) == 0 and with_history(spec, 0, tmp_path) == spec
    env = make_environment(with_history(spec, 2, tmp_path))
    env.reset(seed=0)
    scene = [env.step(0)[0] for _ in range(3)][-1]
    assert scene.count("go left") == 2, scene
    robot = EnvironmentSpec("navigate")
    longer = with_history(robot, history_of(robot) + 2, tmp_path)
    env = make_environment(longer)
    env.reset(seed=0)
    scene = [env.step(0)[0] for _ in range(8)][-1]
    assert scene.rpartition("did ")[2].count(env.phrases[0]) == history_of(robot) + 2
    assert env.contract_name == "sim_diffdrive" and longer.name == "navigate"
    env.close()
