"""The knowledge node over its services, with the real sentence model."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from knowledge_support import make_bundle
from ros_support import Graph
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Lesson, Skill
from llmagent_interfaces.srv import DeleteSkill, RetrieveSkills, StoreSkill


def retrieve(graph: Graph, text: str, k: int = 1) -> RetrieveSkills.Response:
    return graph.call(RetrieveSkills, "retrieve_skills", RetrieveSkills.Request(text=text, k=k))


def store(graph: Graph, reason: str = "", **fields: object) -> StoreSkill.Response:
    return graph.call(StoreSkill, "store_skill", StoreSkill.Request(skill=Skill(**fields), reason=reason))


def delete(graph: Graph, skill_id: str, reason: str = "") -> DeleteSkill.Response:
    return graph.call(DeleteSkill, "delete_skill", DeleteSkill.Request(id=skill_id, reason=reason))


def test_skills_are_found_and_outlive_a_kill(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.start("knowledge", out=tmp_path / "run")
        lessons = [Lesson(text="turn before it is near", support=3.0, against=1.0)]
        ball = store(graph, "learned", description="drive to the red ball", lessons=lessons, attempts=4, successes=3)
        assert ball.ok, ball.message
        assert store(graph, description="follow the wall on the left").ok
        (found,) = retrieve(graph, "go to the scarlet sphere").skills
        assert (found.id, found.contract, list(found.lessons)) == (ball.id, "sim_diffdrive", lessons)
        assert found.similarity > 0.3

        process.kill()  # both were acknowledged
        process = graph.start("knowledge", out=tmp_path / "run")
        fields = {"id": ball.id, "description": "drive to the red ball", "attempts": 5, "successes": 4}
        changed = graph.call(StoreSkill, "store_skill", StoreSkill.Request(skill=Skill(**fields)), again=1.0)
        assert changed.ok and changed.id == ball.id
        assert {skill.attempts for skill in retrieve(graph, "red ball", k=5).skills} == {5, 0}
        statistics = graph.call(Trigger, "knowledge/statistics", Trigger.Request())
        assert statistics.success and json.loads(statistics.message)["skills"] == 2
        assert delete(graph, ball.id, "no longer needed").ok
        assert [skill.id for skill in retrieve(graph, "red ball", k=5).skills] != [ball.id]
        process.stop()
        assert graph.exit_code(process) == 0
    with closing(sqlite3.connect(tmp_path / "run" / "knowledge" / "skills.sqlite")) as database:
        told = database.execute(
            "SELECT event, actor, reason FROM audit WHERE skill = ? ORDER BY id", (ball.id,)
        ).fetchall()
    assert told[0] == ("stored", "service store_skill", "learned")
    assert told[-1] == ("deleted", "service delete_skill", "no longer needed")


def test_wrong_requests_two_clients_and_a_second_node(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.start("knowledge", store=tmp_path / "skills")
        damaged, pickled = tmp_path / "damaged", tmp_path / "pickled"
        for folder in (damaged, pickled):
            make_bundle(folder)
        (damaged / "critic.safetensors").write_bytes(b"rot")
        (pickled / "adapter_model.bin").write_bytes(b"\x80\x04pickle")
        empty = retrieve(graph, "ball", 5)
        assert empty.ok and not empty.skills, "an empty store is no error"
        for wrong, culprit in (
            (retrieve(graph, "", 1), "text"),
            (retrieve(graph, "ball", 0), "k"),
            (store(graph, description=""), "description"),
            (store(graph, description="d", attempts=1, successes=2), "successes"),
            (store(graph, description="d", id="nobody"), "nobody"),
            (store(graph, description="d", path=str(tmp_path / "none")), "none"),
            (store(graph, description="d", path=str(damaged)), "critic.safetensors is damaged"),
            (store(graph, description="d", path=str(pickled)), "adapter_model.bin is a pickle"),
            (store(graph, description="d", path=str(tmp_path)), "no bundle.json: not a bundle"),
            (store(graph, description="d", path=str(Path(__file__))), "cannot be read as a bundle"),
            (store(graph, description="x" * 10_000_000), "description: at most"),
            (store(graph, description="d", lessons=[Lesson(text="no evidence")]), "need support, against"),
            (store(graph, description="d", reason="x" * 5000), "reason: at most"),
            (retrieve(graph, "x" * 10_000_000), "text: at most"),
            (delete(graph, "nobody"), "unknown skill 'nobody'"),
            (delete(graph, "x" * 100_000, "r" * 5000), "reason: at most"),
        ):
            assert not wrong.ok and culprit in wrong.message, wrong
        clients = [graph.node.create_client(StoreSkill, "store_skill") for _ in range(2)]
        futures = [
            client.call_async(StoreSkill.Request(skill=Skill(description=f"skill {number} of client {one}")))
            for number in range(8)
            for one, client in enumerate(clients)
        ]
        graph.until(lambda: all(future.done() for future in futures), "not everybody was answered")
        assert all(future.result().ok for future in futures)
        assert len({future.result().id for future in futures}) == 16
        assert len(retrieve(graph, "skill", k=100).skills) == 16
        words = ("--ros-args", "-r", "__node:=other", "-p", f"store:={tmp_path / 'skills'}")
        second = graph.run("second", "-m", "llmagent_ros.nodes.knowledge_node", *words)
        assert graph.exit_code(second) == 2
        assert str(tmp_path / "skills") in second.said.strip().splitlines()[-1]
        process.stop()
        assert graph.exit_code(process) == 0


BROKEN = """
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.nodes import knowledge_node

def fall(self, *_):
    raise ZeroDivisionError("of one request")

Knowledge.retrieve = fall
knowledge_node.main()
"""


def test_no_request_ends_the_node(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.run("knowledge", "-c", BROKEN, "--ros-args", "-p", f"store:={tmp_path / 'skills'}")
        long = store(graph, description="d", path="/tmp/" + "a" * 300)
        assert not long.ok and "aaa: cannot be read as a bundle: File name too long" in long.message
        failed = retrieve(graph, "ball")
        assert not failed.ok and "ZeroDivisionError('of one request')" in failed.message
        assert store(graph, description="after it").ok, "it goes on"
        process.stop()
        assert graph.exit_code(process) == 0
    assert process.said.count("Traceback") == 1


SLOW = """
import threading
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.nodes import knowledge_node

Knowledge.store = lambda self, *_, **__: threading.Event().wait(3600.0) or self.get("nobody")
knowledge_node.main()
"""


def test_writes_that_wait_hold_up_no_reader_and_are_bounded(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        words = ("-p", f"store:={tmp_path / 'skills'}", "-p", "queue:=2", "-p", "workers:=1")
        graph.run("knowledge", "-c", SLOW, "--ros-args", *words)
        client = graph.node.create_client(StoreSkill, "store_skill")
        graph.until(client.service_is_ready, "no service")
        futures = [client.call_async(StoreSkill.Request(skill=Skill(description="d"))) for _ in range(6)]
        graph.until(lambda: sum(future.done() for future in futures) == 3, "the queue is not bounded")
        refused = [future.result() for future in futures if future.done()]
        assert all(not each.ok and "2 requests are waiting already" in each.message for each in refused)
        assert retrieve(graph, "ball").ok and not all(future.done() for future in futures), "answered meanwhile"


def test_a_damaged_store_is_reported_and_the_node_stays(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        process = graph.start("knowledge", store=tmp_path / "skills")
        reports = graph.collect(DiagnosticArray, "/diagnostics")
        assert store(graph, description="d").ok
        with closing(sqlite3.connect(tmp_path / "skills" / "skills.sqlite")) as database:
            database.execute("DROP TABLE texts")

        def problems() -> list[bytes]:
            said = [status for report in reports for status in report.status]
            return [status.level for status in said if "no such table" in status.message]

        assert graph.until(problems, "it does not say so")[0] == DiagnosticStatus.ERROR
        refused = retrieve(graph, "ball")
        assert not refused.ok and "no such table" in refused.message
        process.stop()
        graph.exit_code(process)
