"""The learner as a process that is killed: nothing stored is lost, everything published arrives, learning goes on."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from graph_support import LONG
from ros_support import Graph, Process

from llmagent_interfaces.msg import Adapter, Transition
from llmagent_ros.bundle import bundle_digest, latest_bundle, load_bundle
from llmagent_ros.contract import load_contract
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import decisions, reports, stamps

PHRASES = load_contract("sim_diffdrive").phrases
STEPS = 20  # of an episode
TOTAL = 1500  # transitions; with those published again fewer than the 2000 that a publisher keeps for a late reader
KILLS = 3
UPDATES = 300
PUBLISH_EVERY = 25  # updates between two bundles
BURST = 4  # published between two looks at what has come
RUN = "run-1"
SETTINGS = {
    "rl__warmup": 64,
    "rl__batch_size": 32,
    "rl__updates_per_step": UPDATES / TOTAL,
    "rl__actor_every": 25,
    "rl__actor_batch": 8,
    "publish_every": PUBLISH_EVERY,
    "checkpoint_period": 0.5,
    "skill_every": 0,
    "niceness": 0,
}


def text(number: int) -> str:
    episode, step = divmod(number, STEPS)
    return f"go to the red ball. red ball left {number % 36}0 at {episode}.{step}."


def make(number: int, run: str = RUN) -> Transition:
    """The n-th transition of a run: no two are alike."""
    episode, step = divmod(number, STEPS)
    ends = step == STEPS - 1
    return Transition(
        header=stamps.header(0.4 * number),
        run=run,
        task="go to the red ball",
        episode=episode,
        step=step,
        scene=text(number),
        action=PHRASES[number % len(PHRASES)],
        reward=number / 1024,
        next_scene="the end" if ends else text(number + 1),
        terminated=ends and episode % 2 == 0,
        truncated=ends and episode % 2 == 1,
        source="policy",
        log_probability=-1.0 - number / 4096,
        adapter=f"v{number // 100:06d}",
    )


class Stream:
    """Plays the policy: publishes transitions while a learner comes and goes, and listens to what it says."""

    def __init__(self, graph: Graph, out: Path) -> None:
        self.graph, self.out = graph, out
        self.published = 0
        self.stored, self.updates = -1, -1  # as the learner that runs now has said
        self.adapters: list[Adapter] = []
        self._publisher = graph.node.create_publisher(Transition, "transition", qos.TRANSITION)
        graph.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.COMMAND)
        graph.node.create_subscription(Adapter, "adapter", self.adapters.append, qos.LATEST)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if reports.component(status, "/") == "learner":
                said = reports.values(status)
                self.stored, self.updates = int(said["env_steps"]), int(said["updates"])

    def start(self) -> Process:
        self.stored = self.updates = -1
        return self.graph.start("learner", out=self.out, **SETTINGS)

    def publish(self, limit: int = TOTAL) -> None:
        """One more; now and then one a second time, or one that is malformed."""
        if self.published >= limit:
            return
        number = self.published
        self._publisher.publish(make(number))
        if number % 100 == 50:
            self._publisher.publish(make(number - 1))
            wrong = make(number, "wrong")
            wrong.action, wrong.source = ("fly", "policy") if number % 200 == 50 else ("forward", "nobody")
            self._publisher.publish(wrong)
        self.published += 1

    def until_stored(self, count: int, problem: str) -> None:
        """Goes on publishing until the learner says that it has stored so many."""

        def enough() -> bool:
            for _ in range(BURST):
                self.publish()
            return self.stored >= count

        self.graph.until(enough, problem, LONG)


def check_stored(out: Path, at_least: int) -> int:
    """Every stored transition is one that was published, whole, and there once; how many there are."""
    with Replay(out / "replay.sqlite", PHRASES, read_only=True) as replay:
        assert {summary.run for summary in replay.episodes(10_000)} <= {RUN}
        stored = [t for summary in replay.episodes(10_000) for t in replay.episode(summary.run, summary.episode)]
        numbers = [t.episode * STEPS + t.step for t in stored]
        assert len(numbers) == len(set(numbers)) == len(replay) >= at_least
        expected = {number: decisions.transition_from_message(make(number)) for number in numbers}
        assert dict(zip(numbers, stored, strict=True)) == expected
        return len(replay)


def checkpoint(out: Path) -> int:
    """Updates at the last checkpoint."""
    for folder in ("learner", "learner.old"):
        with suppress(FileNotFoundError):  # moved away by the one that is written now
            return int(json.loads((out / folder / "learner.json").read_text())["updates"])
    return 0


def newest_bundle(out: Path) -> int:
    """Updates of the newest bundle; it may know more than the checkpoint."""
    folder = latest_bundle(out / "bundles")
    return 0 if folder is None else int(load_bundle(folder).meta["updates"])


def test_kill_9_while_transitions_stream_in(tmp_path: Path) -> None:
    chance, out = random.Random(4), tmp_path / "out"
    with Graph(tmp_path) as graph:
        stream = Stream(graph, out)
        resumed = 0
        for life in range(KILLS):
            learner = stream.start()
            wanted = 100 + 300 * life + chance.randrange(200)  # so that at the end there is a bundle still to come
            stream.until_stored(wanted, "transitions are not stored")
            if life:  # learns on, and writes that down; on a slow machine all there is to learn may be done by now
                further = min(resumed + 1, UPDATES)
                graph.until(lambda n=further: checkpoint(out) >= n, "it does not learn", LONG)
            for _ in range(chance.randrange(40)):
                stream.publish()
                graph.spin_once()
            acknowledged = stream.stored
            learner.kill()
            there = check_stored(out, acknowledged)
            assert there <= stream.published
            before, resumed = resumed, checkpoint(out)
            assert resumed >= before, "a checkpoint went back"
        assert resumed > 0, "there was a checkpoint to go on from"
        # a bundle is still to come, unless the newest one was made so late that there is too little left to learn
        seen, heard = len(stream.adapters), len(learner.said)
        awaited = seen + (newest_bundle(out) + PUBLISH_EVERY <= UPDATES)
        learner = stream.start()
        # its own word first: a last report of the one that was killed may still be on its way
        goes_on = f" transitions, {resumed} updates so far"
        graph.until(lambda: goes_on in learner.said[heard:], "it does not go on from the checkpoint", LONG)
        stream.until_stored(TOTAL, "not all that was published has arrived")
        graph.until(lambda: len(stream.adapters) >= awaited and stream.updates >= UPDATES, "it does not learn on", LONG)
        check_refusals(learner)
        check_second_instance(graph, out)
        check_adapters(stream)
        learner.stop()
        assert graph.exit_code(learner) == 0
        assert check_stored(out, TOTAL) == TOTAL
        assert checkpoint(out) >= UPDATES


def check_refusals(learner: Process) -> None:
    """What is malformed is refused by name and does not hold up the rest."""
    refused = [line for line in learner.said.splitlines() if "transition refused" in line]
    assert any("'fly'" in line for line in refused)
    assert any("unknown source of an action 'nobody'; valid: human, policy, script" in line for line in refused)


def check_adapters(stream: Stream) -> None:
    """Versions go up over all lives, and the announced one is what lies there."""
    names = [message.name for message in stream.adapters]
    assert names == sorted(set(names))
    updates = [message.updates for message in stream.adapters]
    newest = stream.adapters[-1]
    assert updates == sorted(set(updates)), "a life published less than the one before had"
    bundle = load_bundle(Path(newest.path))
    assert bundle.digest == newest.digest == bundle_digest(stream.out / "bundles" / newest.name)
    assert (bundle.base_digest, bundle.meta["updates"]) == (newest.base, newest.updates)
    assert bundle.meta["phrases"] == list(PHRASES)


def check_second_instance(graph: Graph, out: Path) -> None:
    """Under another name, so that only the replay tells them apart."""
    words = ("--ros-args", "-r", "__ns:=/other", "-p", f"out:={out}")
    second = graph.run("second", "-m", "llmagent_ros.nodes.learner_node", *words)
    graph.until(lambda: second.code is not None, "it has not ended", LONG)
    assert second.code == 2
    (line,) = second.said.strip().splitlines()
    assert line.startswith(f"error: {out}/replay.sqlite: in use by process ")


def test_a_damaged_checkpoint_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    checkpoint_folder = tmp_path / "out" / "learner"
    checkpoint_folder.mkdir(parents=True)
    (checkpoint_folder / "learner.json").write_text("{")
    with Graph(tmp_path) as graph:
        learner = graph.start("learner", out=tmp_path / "out")
        graph.until(lambda: learner.code is not None, "it has not ended", LONG)
        assert learner.code == 2
        (line,) = learner.said.strip().splitlines()
    assert line.startswith(f"error: {checkpoint_folder}: checkpoint cannot be read")
    assert (checkpoint_folder / "learner.json").read_text() == "{"
