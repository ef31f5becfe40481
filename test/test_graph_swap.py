"""Adapters are swapped in while the robot drives: between two decisions, or not at all."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from graph_support import LONG, Agent, compose_world
from ros_support import Graph, Process

from llmagent_interfaces.msg import Adapter
from llmagent_ros.bundle import bundle_digest, load_bundle, save_bundle
from llmagent_ros.contract import load_contract
from llmagent_ros.learning.rl.config import LearnerConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.nodes import qos
from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig

pytestmark = pytest.mark.xdist_group("graph_swap")


class Workshop:
    """Makes bundles as a learner does, each with an adapter that acts differently."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.set_num_threads(1)
        phrases = load_contract("sim_diffdrive").phrases
        self.model = LanguageModel(LanguageModelConfig(device="cpu"), phrases)
        self.narrow = LanguageModel(LanguageModelConfig(device="cpu", rank=2), phrases)
        self._replay = Replay(folder / "replay.sqlite", phrases)
        self._generator = torch.Generator().manual_seed(0)
        self._made = 0

    def make(self, model: LanguageModel | None = None) -> Path:
        """A sound bundle; with `model`, of that one's shape."""
        used = model or self.model
        with torch.no_grad():
            for parameter in used.adapter_parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=self._generator))
        folder = self.new_folder()
        Learner(LearnerConfig(), self._replay, used, seed=self._made).export(folder)
        return folder

    def new_folder(self) -> Path:
        self._made += 1
        return self.folder / f"v{self._made:06d}"

    def changed(self, **meta: object) -> Path:
        """A whole bundle that says something else about itself."""
        sound = load_bundle(self.make())
        folder = self.new_folder()
        save_bundle(
            folder,
            adapter=sound.adapter,
            adapter_config=sound.adapter_config,
            critic=sound.critic,
            meta=sound.meta | meta,
        )
        return folder


class Driving:
    """An episode without an end, and a publisher of adapters."""

    def __init__(self, agent: Agent, policy: Process) -> None:
        self.agent, self.graph, self.policy = agent, agent.graph, policy
        self._publisher = agent.graph.publisher(Adapter, "adapter", qos.LATEST, readers=1)
        agent.reset(seed=0)
        self.goal = agent.send("go to the red ball")
        self.goal.wait_for_steps(1)
        self.graph.until(lambda: agent.decisions, "no decision has come", LONG)

    @property
    def adapter(self) -> str:
        return self.agent.decisions[-1].adapter

    def publish(self, folder: Path, digest: str) -> None:
        self._publisher.publish(Adapter(name=folder.name, path=str(folder), digest=digest))

    def drive(self, steps: int) -> None:
        """Until so many more decisions are made."""
        wanted = len(self.agent.decisions) + steps
        self.graph.until(lambda: len(self.agent.decisions) >= wanted, "the robot does not drive on", LONG)

    def check_nothing_missed(self) -> None:
        """Each scene but the newest has exactly one decision, and steps have no gap."""
        decisions = self.agent.decisions
        steps = [m.step for m in decisions]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
        times = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in decisions]
        assert all(after - before == pytest.approx(0.4) for before, after in pairwise(times))
        (task,) = {m.task_id for m in decisions}
        assert len(self.agent.unanswered(task)) <= 1


@pytest.fixture(scope="module")
def driving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driving]:
    folder = tmp_path_factory.mktemp("graph")
    with Graph(folder) as graph:
        robot = compose_world(graph, folder, max_steps=1_000_000)
        policy = graph.start("policy", robot=robot, out=folder / "out", use_sim_time=True)
        yield Driving(Agent(graph), policy)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("bundles"))


def test_every_adapter_is_swapped_in_and_no_tick_is_missed(driving: Driving, workshop: Workshop) -> None:
    seen, graph = [], driving.graph
    for folder in [workshop.make() for _ in range(4)]:
        driving.publish(folder, bundle_digest(folder))
        graph.until(lambda name=folder.name: driving.adapter == name, "the adapter does not act", LONG)
        driving.drive(3)
        seen.append(driving.agent.decisions[-1])
    driving.check_nothing_missed()
    names = [m.adapter for m in driving.agent.decisions]
    assert len([1 for before, after in pairwise(names) if before != after]) == len(seen), "each was swapped in once"
    assert len({tuple(m.probabilities) for m in seen}) == len(seen), "each acts in its own way"
    assert all(any(value != 0.0 for value in m.values) for m in seen), "the critic acts too"


def damaged(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.make()
    digest, path = bundle_digest(folder), folder / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return folder, digest, "adapter_model.safetensors is damaged"


def of_another_base(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.changed(feature_digest="0" * 64)
    return folder, bundle_digest(folder), "made for another base model or prompt"


def of_other_phrases(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.changed(phrases=["left", "right"])
    return folder, bundle_digest(folder), "made for other action phrases"


def of_no_temperature(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.changed(beta=0)
    return folder, bundle_digest(folder), "beta 0; valid: a finite number above 0"


def of_phrases_that_are_none(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.changed(phrases=5)
    return folder, bundle_digest(folder), "made for other action phrases"


def of_another_rank(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.make(workshop.narrow)
    return folder, bundle_digest(folder), "acts otherwise than the model's: r 2, not 16; lora_alpha 4, not 32"


def of_another_critic(workshop: Workshop) -> tuple[Path, str, str]:
    sound, folder = load_bundle(workshop.make()), workshop.new_folder()
    critic = {name: tensor[..., :-1] if name.startswith("net.6") else tensor for name, tensor in sound.critic.items()}
    save_bundle(folder, adapter=None, adapter_config={}, critic=critic, meta=sound.meta)
    return folder, bundle_digest(folder), "its critic is for"


def of_no_critic(workshop: Workshop) -> tuple[Path, str, str]:
    sound, folder = load_bundle(workshop.make()), workshop.new_folder()
    save_bundle(folder, adapter=None, adapter_config={}, critic={"x.weight": torch.zeros(3)}, meta=sound.meta)
    return folder, bundle_digest(folder), "not a critic's"


def pickled(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.make()
    digest = bundle_digest(folder)
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"adapter": [1.0]}))
    return folder, digest, "adapter_model.bin is a pickle, which can run code"


def not_as_announced(workshop: Workshop) -> tuple[Path, str, str]:
    return workshop.make(), "f" * 64, "announced ffffffffffff"


def gone(workshop: Workshop) -> tuple[Path, str, str]:
    folder = workshop.make()
    shutil.rmtree(folder)
    return folder, "f" * 64, "cannot be read as a bundle"


BAD = [
    damaged, of_another_base, of_other_phrases, of_no_temperature, of_phrases_that_are_none, of_another_rank,
    of_another_critic, of_no_critic, pickled,
]  # fmt: skip


@pytest.mark.parametrize("bad", [*BAD, not_as_announced, gone])
def test_a_bundle_that_is_not_sound_changes_nothing_and_is_reported(
    driving: Driving, workshop: Workshop, bad: Callable[[Workshop], tuple[Path, str, str]]
) -> None:
    before = driving.adapter
    folder, digest, problem = bad(workshop)
    driving.publish(folder, digest)

    def reported() -> list[str]:
        return [line for line in driving.policy.said.splitlines() if f"{folder}" in line and "[ERROR]" in line]

    driving.graph.until(reported, f"{folder.name} is not reported")
    (line,) = reported()
    assert "adapter not taken: " in line
    assert problem in line
    driving.drive(5)
    assert driving.adapter == before
    driving.check_nothing_missed()
