"""The learner node in the test's own process: what it publishes, stores and says when something goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from ros_support import Domain

from llmagent_interfaces.msg import Adapter, Skill, Task, Transition
from llmagent_interfaces.msg import Beginning as BeginningMessage
from llmagent_interfaces.srv import RetrieveSkills, StoreSkill
from llmagent_ros.bundle import bundle_digest, load_bundle, save_bundle
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ModelError
from llmagent_ros.learning.candidates import offer, waiting
from llmagent_ros.learning.rl.critic import Critic, CriticConfig
from llmagent_ros.learning.rl.learner import Learner
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.learning.standing import Beginning, Standing
from llmagent_ros.nodes import learner_node, skill_exchange
from llmagent_ros.nodes.learner_node import CHUNK, LearnerNode
from llmagent_ros.nodes.wire import stamps

PHRASES = load_contract("sim_diffdrive").phrases
STEPS = 4  # of an episode; every second one succeeds
SETTINGS = {
    "rl.warmup": 1,
    "rl.batch_size": 8,
    "rl.updates_per_step": 10.0,
    "rl.actor_every": 0,
    "publish_every": CHUNK,
    "skill_every": 2,
    "niceness": 0,
}


def make(number: int, task: str = "go to the red ball") -> Transition:
    episode, step = divmod(number, STEPS)
    last = step == STEPS - 1
    return Transition(
        header=stamps.header(0.4 * number),
        run="run",
        task=task,
        episode=episode,
        step=step,
        scene=f"scene {number}",
        action=PHRASES[number % len(PHRASES)],
        reward=(1.0 if episode % 2 else -1.0) if last else 0.0,
        next_scene=f"scene {number + 1}",
        terminated=last,
        source="policy",
    )


class Store:
    """Plays the client of store_skill: keeps the requests, answers when it is told to."""

    def __init__(self, node: LearnerNode) -> None:
        self.node, self.asked, self.reasons = node, [], []
        node._skills._store = self

    def service_is_ready(self) -> bool:
        return True

    def call_async(self, request: StoreSkill.Request) -> Any:
        self.asked.append(request.skill)
        self.reasons.append(request.reason)
        return self

    def add_done_callback(self, act: Any) -> None:
        self.act = act

    def answer(self, **fields: object) -> None:
        self.response = StoreSkill.Response(**fields)
        self.act(self)
        self.node._take_answers()

    def result(self) -> StoreSkill.Response:
        return self.response


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    domain = Domain()
    words = [word for name, value in {**SETTINGS, "out": tmp_path}.items() for word in ("-p", f"{name}:={value}")]
    rclpy.init(args=["--ros-args", *words], domain_id=domain.number)
    yield tmp_path
    rclpy.try_shutdown()
    domain.free()


@pytest.fixture
def life(out: Path) -> Iterator[Any]:
    """Starts a learner on the same folder, as often as it is called; the one before dies with what it had not saved."""
    nodes: list[LearnerNode] = []

    def end() -> None:
        if nodes:
            node = nodes.pop()
            node.close()
            node.destroy_node()

    def begin() -> LearnerNode:
        end()
        nodes.append(LearnerNode())
        assert nodes[0].trigger_configure() == TransitionCallbackReturn.SUCCESS
        return nodes[0]

    yield begin
    end()


def take(node: LearnerNode, numbers: range, task: str = "go to the red ball") -> None:
    for number in numbers:
        node._on_transition(make(number, task))
    node._drain()


def learn(node: LearnerNode, chunks: int) -> None:
    assert node._learner is not None
    while node._learner.prepare():
        pass
    for _ in range(chunks):
        assert node._learn_a_little()


def bundles(out: Path) -> list[int]:
    """Updates of each bundle, in the order of their versions."""
    folders = sorted((out / "bundles").iterdir())
    return [json.loads((folder / "bundle.json").read_text())["meta"]["updates"] for folder in folders]


@pytest.mark.parametrize("saved", [True, False])
def test_a_learner_that_died_publishes_nothing_older_than_what_acts(out: Path, life: Any, saved: bool) -> None:
    node = life()
    take(node, range(8))
    learn(node, 1)
    if saved:
        node._save()
    learn(node, 2)
    assert bundles(out) == [CHUNK, 2 * CHUNK, 3 * CHUNK]
    node = life()
    assert node._learner is not None and node._learner.updates == (CHUNK if saved else 0)
    assert node._track.version == "v000002"
    learn(node, 2 if saved else 3)
    assert len(bundles(out)) == 3, "what it learns again must not act in place of what acts"
    learn(node, 1)
    assert bundles(out) == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK]


def test_a_skill_keeps_its_counts_over_a_restart(out: Path, life: Any) -> None:
    node = life()
    store = Store(node)
    take(node, range(1))
    learn(node, 1)  # a bundle
    take(node, range(STEPS * 2))
    (skill,) = store.asked
    assert (skill.id, skill.attempts, skill.successes) == ("", 2, 1), "the first version is offered at once"
    assert skill.description == "go to the object" and list(skill.instructions) == ["go to the red ball"]
    store.answer(ok=True, id="abc")
    node = life()
    store = Store(node)
    for episodes in range(2, 60, 2):  # as good as before: it takes some episodes to be sure
        take(node, range(STEPS * episodes, STEPS * (episodes + 2)))
        if store.asked:
            break
    (skill,) = store.asked
    assert skill.id == "abc" and skill.attempts == 2 * skill.successes == episodes, "those since the first version"
    assert "not worse with probability" in store.reasons[0]


def test_a_skill_that_its_store_lacks_is_stored_anew(out: Path, life: Any) -> None:
    out.mkdir(exist_ok=True)
    Standing("go to the object", "gone").write(out)
    node = life()
    store = Store(node)
    take(node, range(1))
    learn(node, 1)
    take(node, range(2 * STEPS))
    assert [skill.id for skill in store.asked] == ["gone"]
    store.answer(message="node knowledge: 32 requests are waiting already; ask again later")
    take(node, range(2 * STEPS, 4 * STEPS))
    store.answer(message="unknown skill 'gone'; valid: (none)")
    take(node, range(4 * STEPS, 6 * STEPS))
    assert [skill.id for skill in store.asked] == ["gone", "gone", ""]
    store.answer(ok=True, id="new")
    standing = Standing.read(out)
    assert standing is not None and standing.skill_id == "new"


# --- kinds of tasks ------------------------------------------------------------------------------------------------


class Adapters:
    """Plays the topic adapter: keeps what is announced."""

    def __init__(self, node: LearnerNode) -> None:
        self.said: list[Adapter] = []
        node._adapter_publisher.publish = self.said.append


def test_each_kind_of_task_has_what_it_learned_and_nothing_of_the_others(out: Path, life: Any) -> None:
    node = life()
    adapters = Adapters(node)
    take(node, range(8))
    learn(node, 2)
    take(node, range(8, 12), task="get away from the red ball")
    assert node._track.folder == out / "tasks" / "01" and len(node._track.replay) == 4
    learn(node, 1)
    take(node, range(12, 16), task="go to the yellow box")  # the same kind as the first
    assert node._track.folder == out and len(node._track.replay) == 12 and node._learner.updates == 2 * CHUNK
    assert [(each.wording, each.name) for each in adapters.said] == [
        ("go to the object", "v000000"),
        ("go to the object", "v000001"),
        ("get away from the object", "v000000"),
        ("go to the object", "v000001"),  # which acts on the task that it has come back to
    ]
    assert adapters.said[3].digest == adapters.said[1].digest != adapters.said[2].digest
    node = life()
    assert node._track.wording == "go to the object" and len(node._track.replay) == 12


def test_one_message_of_each_kind_after_the_other_is_stored_where_it_belongs(out: Path, life: Any) -> None:
    node = life()
    for number, kind in enumerate(["go to the red ball", "turn to the red ball"] * 3):
        node._on_transition(make(number, task=kind))
    node._drain()
    assert node._stored == 6
    for folder in (out, out / "tasks" / "01"):
        node._enter("somewhere else", Beginning())
        with Replay(folder / "replay.sqlite", PHRASES, read_only=True) as replay:
            assert len(replay) == 3


def test_a_task_that_is_announced_begins_with_its_skill(out: Path, life: Any) -> None:
    node = life()
    adapters = Adapters(node)
    take(node, range(8))
    learn(node, 1)
    parent = out / "bundles" / "v000000"
    digest = bundle_digest(parent)
    beginning = BeginningMessage(kind="near", why="like it", ids=["p"], weights=[1.0], paths=[str(parent)])
    beginning.digests = [digest]
    task = Task(id="t", instruction="get away from the red ball", beginning=beginning)
    node._on_task(task)
    node._follow()
    assert node._track.standing.parents == ["p"]
    kept = load_bundle(parent)
    assert all(torch.equal(t, node._learner.average.state()[n]) for n, t in kept.critic.items())
    assert adapters.said[-1].wording == "get away from the object", "and acts from its first decision on"


@pytest.mark.parametrize("first", ["transition", "announcement of nothing", "announcement"])
def test_a_task_begins_with_its_skill_whatever_comes_first(out: Path, life: Any, first: str) -> None:
    node = life()
    take(node, range(8))
    learn(node, 1)
    parent = out / "bundles" / "v000000"
    beginning = BeginningMessage(kind="near", why="like it", ids=["p"], weights=[1.0], paths=[str(parent)])
    beginning.digests = [bundle_digest(parent)]
    task = Task(id="t", instruction="leave the red ball", beginning=beginning)
    if first == "announcement of nothing":  # no words were like it; what is seen is, and is found a moment later
        node._on_task(Task(id="t", instruction="leave the red ball"))
        node._follow()
        assert node._track.standing.parents == []
    node._on_task(task)
    if first == "announcement":
        node._follow()
    take(node, range(8, 10), task="leave the red ball")
    node._follow()
    assert node._track.standing.parents == ["p"] and len(node._track.replay) == 2
    kept = load_bundle(parent)
    assert all(torch.equal(t, node._learner.average.state()[n]) for n, t in kept.critic.items())
    node._on_task(task)
    before = node._track.learner.average.state()
    learn(node, 1)
    node._follow()
    changed = node._track.learner.average.state()
    assert any(not torch.equal(t, before[n]) for n, t in changed.items()), "what it learned stays"


@pytest.mark.parametrize("what", ["digest", "missing"])
def test_a_beginning_that_cannot_be_read_is_nothing(out: Path, life: Any, what: str) -> None:
    node = life()
    take(node, range(8))
    learn(node, 1)
    parent = out / "bundles" / "v000000"
    digest = bundle_digest(parent) if what == "missing" else "0" * 64
    path = str(parent if what == "digest" else out / "nowhere")
    task = Task(id="t", instruction="leave the red ball")
    task.beginning = BeginningMessage(kind="near", ids=["p"], weights=[1.0], paths=[path], digests=[digest])
    node._on_task(task)
    node._follow()
    assert node._track.wording == "leave the object" and node._track.standing.parents == [] and not node._problem


def test_a_skill_whose_critic_has_another_shape_is_no_beginning_and_no_end(out: Path, life: Any) -> None:
    node = life()
    take(node, range(8))
    learn(node, 1)
    kept = load_bundle(out / "bundles" / "v000000")
    critic = Critic(node._learner.model.feature_size, len(PHRASES), CriticConfig(heads=2, width=8)).state()
    other = out / "other"
    digest = save_bundle(
        other, adapter=kept.adapter, adapter_config=kept.adapter_config, critic=critic, meta=kept.meta
    )
    task = Task(id="t", instruction="leave the red ball")
    task.beginning = BeginningMessage(kind="near", ids=["p"], weights=[1.0], paths=[str(other)], digests=[digest])
    node._on_task(task)
    node._follow()
    assert node._track.wording == "leave the object" and node._track.standing.parents == []
    take(node, range(8, 12), task="leave the red ball")
    assert len(node._track.replay) == 4


def test_an_answer_for_a_kind_that_was_left_is_not_lost(out: Path, life: Any) -> None:
    node = life()
    store = Store(node)
    take(node, range(1))
    learn(node, 1)
    take(node, range(2 * STEPS))
    take(node, range(8, 9), task="leave the red ball")
    store.answer(ok=True, id="late")
    standing = Standing.read(out)
    assert standing is not None and standing.skill_id == "late"
    take(node, range(9, 10))
    assert node._track.standing.skill_id == "late"


class Retrieve:
    """Plays the client of retrieve_skills: answers when it is told to."""

    def __init__(self, node: LearnerNode) -> None:
        self.asked: list[RetrieveSkills.Request] = []
        node._skills._retrieve = self

    def service_is_ready(self) -> bool:
        return True

    def call_async(self, request: RetrieveSkills.Request) -> Any:
        self.asked.append(request)
        return self

    def add_done_callback(self, act: Any) -> None:
        self.act = act

    def answer(self, *skills: Skill) -> None:
        self.skills = list(skills)
        self.act(self)

    def result(self) -> RetrieveSkills.Response:
        return RetrieveSkills.Response(ok=True, skills=self.skills)


def give_skill(node: LearnerNode, store: Store) -> None:
    """26 episodes: it has a skill "abc" and knows what is usual."""
    take(node, range(1))
    learn(node, 1)
    take(node, range(2 * STEPS))
    store.answer(ok=True, id="abc")
    take(node, range(2 * STEPS, 26 * STEPS))
    learn(node, 2)


def changed(node: LearnerNode, first: int, episodes: int) -> None:
    """Episodes of which the critic would not have expected what they are worth."""
    for number in range(first, first + STEPS * episodes):
        message = make(number)
        message.reward *= 30.0
        node._on_transition(message)
    node._drain()
    while node._learner.prepare():
        pass


@pytest.mark.parametrize("offered", ["sound", "damaged"])
def test_after_a_change_another_track_takes_over_with_what_was_found(out: Path, life: Any, offered: str) -> None:
    node = life()
    store, retrieve, adapters = Store(node), Retrieve(node), Adapters(node)
    give_skill(node, store)
    assert not retrieve.asked
    updates = node._learner.updates
    changed(node, 26 * STEPS, 3)
    assert not node._learn_a_little() and node._learner.updates == updates, "nothing is learned until it is known"
    (asked,) = retrieve.asked
    assert (asked.text, asked.contract) == ("go to the object", "sim_diffdrive")
    path = node._track.bundles / node._track.version
    digest = bundle_digest(path) if offered == "sound" else "0" * 64
    retrieve.answer(Skill(id="other", description="like it", path=str(path), digest=digest))
    assert node._learn_a_little()
    assert node._track.folder == out / "tasks" / "01" and node._track.standing.parents in (["other"], ["abc"], [])
    assert 0 < len(node._track.replay) <= 3 * STEPS
    assert adapters.said[-1].wording == "go to the object" and "tasks/01" in adapters.said[-1].path
    kept = Standing.read(out)
    assert kept is not None and kept.skill_id == "abc"
    said: list[tuple[str, bytes]] = []
    node._diagnostics.publish = lambda message, values, *, level: said.append((message, level))
    node._report()
    assert said[0][0].startswith("adapting to a change: ") and said[0][1] == DiagnosticStatus.WARN
    node = life()
    assert node._track.folder == out / "tasks" / "01" and node._track.standing.changed


def test_a_store_that_does_not_answer_holds_nothing_back(out: Path, life: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = life()
    store, retrieve = Store(node), Retrieve(node)
    give_skill(node, store)
    changed(node, 26 * STEPS, 3)
    assert not node._learn_a_little()
    monkeypatch.setattr(skill_exchange, "PATIENCE", 0.0)
    assert node._learn_a_little() and node._track.folder == out / "tasks" / "01"
    retrieve.answer()  # too late, and harmless
    assert node._learn_a_little()


def test_a_candidate_is_tried_at_the_end_of_an_episode_of_its_kind(out: Path, life: Any) -> None:
    node = life()
    adapters = Adapters(node)
    take(node, range(8))
    learn(node, 1)
    kept = load_bundle(out / "bundles" / "v000000")
    for name, wording in (("mine", "go to the object"), ("others", "leave the object")):
        values = {"adapter": kept.adapter, "adapter_config": kept.adapter_config, "critic": kept.critic}
        save_bundle(out / name, meta={**kept.meta, "wording": wording}, **values)
        offer(out / name, out)
    take(node, range(8, 11))
    assert len(waiting(out)) == 2 and len(adapters.said) == 1, "not in the middle of an episode"
    take(node, range(11, 12))
    (left,) = waiting(out)
    assert load_bundle(left).meta["wording"] == "leave the object"
    assert len(adapters.said) == 2 and load_bundle(Path(adapters.said[1].path)).meta["candidate"]
    take(node, range(12, 16), task="leave the red ball")
    assert waiting(out) == [] and adapters.said[-1].wording == "leave the object"
    said = [json.loads(line) for line in (out / "candidates" / "decisions.jsonl").read_text().splitlines()]
    assert [(one["says"], one["task"]) for one in said] == [
        ("accept", "go to the object"),
        ("accept", "leave the object"),
    ]


def test_a_new_kind_of_task_begins_with_what_was_meta_learned_meanwhile(out: Path, life: Any) -> None:
    node = life()
    adapters = Adapters(node)
    take(node, range(8))
    learn(node, 1)
    kept = load_bundle(out / "bundles" / "v000000")
    values = {"adapter": kept.adapter, "adapter_config": kept.adapter_config, "critic": kept.critic}
    save_bundle(out / "meta" / "bundles" / "v000000", meta=kept.meta, **values)
    take(node, range(8, 12), task="leave the red ball")
    assert adapters.said[-1].wording == "leave the object"
    assert all(torch.equal(t, node._learner.average.state()[n]) for n, t in kept.critic.items())
    save_bundle(out / "meta" / "bundles" / "v000001", meta={**kept.meta, "feature_digest": "x"}, **values)
    take(node, range(12, 16), task="turn to the red ball")
    assert not all(torch.equal(t, node._learner.average.state()[n]) for n, t in kept.critic.items()), "another base"
    (out / "meta" / "bundles" / "v000001" / "critic.safetensors").write_bytes(b"damaged")
    take(node, range(16, 20), task="circle the red ball")
    assert node._track.wording == "circle the object" and not node._problem


def until(condition: Any) -> None:
    waiting = threading.Event()
    for _ in range(600):
        if condition():
            return
        waiting.wait(0.1)
    raise AssertionError("not within a minute")


def test_features_that_are_not_finite_stop_the_learning_and_nothing_else(
    life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, bytes]] = []

    def prepare(self: Learner, limit: int = 64) -> int:
        raise ModelError("features of text 3: not finite in float16")

    monkeypatch.setattr(Learner, "prepare", prepare)
    node = life()
    node._diagnostics.publish = lambda message, values, *, level: said.append((message, level))
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    node._on_transition(make(0))
    until(lambda: node._problem)
    node._on_transition(make(1))
    until(lambda: node._stored == 2)
    node._report()
    ((message, level),) = said
    assert "learning stopped" in message and "text 3" in message and level == DiagnosticStatus.ERROR
    assert node.finished is None


def test_a_learner_that_is_busy_is_not_taken_apart(out: Path, life: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def prepare(self: Learner, limit: int = 64) -> int:
        begun.set()
        assert go_on.wait(60.0)
        self.replay.tasks(1)  # which a closed replay would refuse
        return 0

    monkeypatch.setattr(Learner, "prepare", prepare)
    monkeypatch.setattr(learner_node, "PATIENCE", 0.2)
    node = life()
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert begun.wait(60.0)
    node._on_transition(make(0))
    assert node.trigger_deactivate() == TransitionCallbackReturn.FAILURE
    assert str(node._error) == "learner: still busy with an update; ask again"
    assert node._stored == 0 and not (out / "learner").exists(), "nothing happens beside it"
    go_on.set()
    monkeypatch.setattr(learner_node, "PATIENCE", 60.0)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node._stored == 1 and (out / "learner").exists()
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.finished is None


def test_figures_are_read_while_new_ones_come(life: Any) -> None:
    node = life()
    take(node, range(8))
    learn(node, 1)
    before = node._stats
    learn(node, 1)
    assert node._stats is not before and before.keys() == {"critic_loss", "value"}
