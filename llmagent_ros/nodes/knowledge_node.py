"""The knowledge node: skills stored and found by language, over services."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.task import Future
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Skill as SkillMessage
from llmagent_interfaces.srv import DeleteSkill, RetrieveSkills, StoreSkill
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.knowledge.audit import Cause
from llmagent_ros.knowledge.embedding import EmbedderConfig, SentenceEmbedder
from llmagent_ros.knowledge.knowledge import Knowledge, KnowledgeConfig
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import ManagedNode
from llmagent_ros.nodes.diagnostics import Diagnostics
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.wire.skills import skill_from_message, skill_to_message

T = TypeVar("T")
REPORT_PERIOD = 2.0  # s of wall time between two diagnostics


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class KnowledgeNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path; its name is given to skills that are stored without one.
        out: folder of the run. store: folder of the skills; empty: OUT/knowledge, so that runs do not share any.
        embedder, knowledge: see EmbedderConfig, KnowledgeConfig.
        workers: threads that search; one more writes, so that a write, which may have to wait for the disk, holds up
            other writes only. queue: requests that may wait for either; beyond that they are refused.
        autostart: configure and activate at once.
    """

    robot: str = "sim_diffdrive"
    out: str = "runs/default"
    store: str = ""
    embedder: EmbedderConfig = Field(default_factory=EmbedderConfig)
    knowledge: KnowledgeConfig = Field(default_factory=KnowledgeConfig)
    workers: Annotated[int, Field(ge=1, le=16)] = 2
    queue: Annotated[int, Field(ge=0, le=1000)] = 32
    autostart: bool = True


class Busy(LlmAgentError):
    """More requests wait than may."""


class _Line:
    """A few threads and a bounded number of jobs that wait for them."""

    def __init__(self, workers: int, queue: int, name: str) -> None:
        self._workers, self._name = workers, name
        self._slots = threading.BoundedSemaphore(workers + queue)
        self._pool: ThreadPoolExecutor | None = None

    def open(self) -> None:
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix=f"knowledge-{self._name}")

    def submit(self, job: Callable[[], None]) -> bool:
        """Whether there was room for it."""
        if self._pool is None or not self._slots.acquire(blocking=False):
            return False
        self._pool.submit(job).add_done_callback(lambda _: self._slots.release())
        return True

    def close(self) -> None:
        """Waits for the jobs under way; those that wait are dropped."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


class KnowledgeNode(ManagedNode):
    """Services retrieve_skills, store_skill, delete_skill, ~/statistics (JSON in its message).

    The model loads in configure. Requests are answered only while active, from a few threads of their own, so that a
    slow one holds up neither the others nor a lifecycle transition.
    """

    def __init__(self) -> None:
        super().__init__("knowledge")
        self._config = parameters(self, KnowledgeNodeConfig)
        self._contract = load_contract(self._config.robot)
        self._knowledge: Knowledge | None = None
        self._readers = _Line(self._config.workers, self._config.queue, "reader")
        self._writer = _Line(1, self._config.queue, "writer")
        self._active = self._offered = False
        self._diagnostics = Diagnostics(self)
        self.create_timer(REPORT_PERIOD, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.starts_itself = self._config.autostart

    def _offer_services(self) -> None:
        """Only once they can be answered, so that a client that finds them gets its answer at once."""
        # The middleware drops, unanswered, what is beyond the depth (10 by default); the node refuses it with a reason.
        depth = qos.service(2 * (self._config.workers + self._config.queue) + 10)
        group = ReentrantCallbackGroup()
        services: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
            (RetrieveSkills, "retrieve_skills", self._on_retrieve),
            (StoreSkill, "store_skill", self._on_store),
            (DeleteSkill, "delete_skill", self._on_delete),
            (Trigger, "~/statistics", self._on_statistics),
        )
        for kind, name, callback in services:
            self.create_service(kind, name, callback, qos_profile=depth, callback_group=group)
        self._offered = True

    # --- lifecycle ---------------------------------------------------------------------------------

    def configure(self) -> None:
        folder = Path(self._config.store).expanduser() if self._config.store else Path(self._config.out) / "knowledge"
        # What the robot does and what it sees: lessons that differ in these are never one.
        vocabulary = (*self._contract.phrases, *self._contract.objects)
        embedder = SentenceEmbedder(self._config.embedder)
        self._knowledge = Knowledge(folder, embedder, self._config.knowledge, vocabulary)
        embedder.embed(["ready"])  # the first sentence takes a model much longer than those after it
        for line in (self._readers, self._writer):
            line.open()
        stats = self._knowledge.stats()
        self.get_logger().info(f"{stats.skills} skills in {folder}, {stats.opened}")

    def activate(self) -> None:
        if not self._offered:
            self._offer_services()
        self._active = True

    def deactivate(self) -> None:
        self._active = False

    def cleanup(self) -> None:
        knowledge, self._knowledge = self._knowledge, None
        for line in (self._readers, self._writer):
            line.close()
        if knowledge is not None:
            knowledge.close()

    # --- services ----------------------------------------------------------------------------------

    async def _on_retrieve(
        self, request: RetrieveSkills.Request, response: RetrieveSkills.Response
    ) -> RetrieveSkills.Response:
        try:
            response.skills = await self._answer(self._readers, lambda knowledge: self._retrieve(knowledge, request))
        except LlmAgentError as error:
            response.message = str(error)
            return response
        response.ok = True
        return response

    async def _on_store(self, request: StoreSkill.Request, response: StoreSkill.Response) -> StoreSkill.Response:
        try:
            response.id = await self._answer(self._writer, lambda knowledge: self._store(knowledge, request))
        except LlmAgentError as error:
            response.message = str(error)
            return response
        response.ok = True
        return response

    async def _on_delete(self, request: DeleteSkill.Request, response: DeleteSkill.Response) -> DeleteSkill.Response:
        try:
            await self._answer(self._writer, lambda knowledge: self._delete(knowledge, request))
        except LlmAgentError as error:
            response.message = str(error)
            return response
        response.ok = True
        return response

    async def _on_statistics(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            stats = await self._answer(self._readers, lambda knowledge: knowledge.stats())
        except LlmAgentError as error:
            response.message = str(error)
            return response
        response.success, response.message = True, json.dumps(asdict(stats))
        return response

    def _retrieve(self, knowledge: Knowledge, request: RetrieveSkills.Request) -> list[SkillMessage]:
        found = knowledge.retrieve(request.text, request.k, request.contract, request.min_success_rate)
        return [skill_to_message(one.skill, one.similarity) for one in found]

    def _store(self, knowledge: Knowledge, request: StoreSkill.Request) -> str:
        skill, bundle = skill_from_message(request.skill)
        parents = skill.parents or (knowledge.get(skill.id).parents if skill.id else ())
        skill = replace(skill, contract=skill.contract or self._contract.robot, parents=parents)
        return knowledge.store(skill, bundle, cause=Cause(request.reason, "service store_skill")).id

    def _delete(self, knowledge: Knowledge, request: DeleteSkill.Request) -> None:
        knowledge.delete(request.id, cause=Cause(request.reason, "service delete_skill"))

    async def _answer(self, line: _Line, work: Callable[[Knowledge], T]) -> T:
        """The result of `work`, done by a thread of the line while the executor goes on.

        Raises:
            LlmAgentError: of the work; Busy; the node is not active; or a defect, whose traceback is in the log: it is
                one request's, and must not take the skills from everybody else.
        """
        knowledge = self._knowledge
        if not self._active or knowledge is None:
            raise LlmAgentError(f"node {self.get_name()} is not active")
        done = Future(executor=self.executor)
        done.add_done_callback(lambda _: None)  # without a callback the executor is not woken

        def job() -> None:
            try:
                done.set_result(work(knowledge))
            except LlmAgentError as error:  # raised again where it is awaited
                done.set_exception(error)
            except Exception as error:
                self.get_logger().error(f"a request failed: {traceback.format_exc()}")
                done.set_exception(LlmAgentError(f"node {self.get_name()}: a defect, see its log: {error!r}"))

        if not line.submit(job):
            raise Busy(f"node {self.get_name()}: {self._config.queue} requests are waiting already; ask again later")
        result: T = await done
        return result

    def _report(self) -> None:
        values: dict[str, Any] = {"active": str(self._active).lower()}
        try:
            if self._knowledge is not None:
                values["skills"] = self._knowledge.count()
        except LlmAgentError as error:  # whoever asks is told so as well; the rest of the graph goes on without skills
            self._diagnostics.publish(str(error), values, level=DiagnosticStatus.ERROR)
            return
        self._diagnostics.publish("active" if self._active else "not active", values)


def main() -> None:
    process.main(KnowledgeNode)


if __name__ == "__main__":
    main()
