"""Which adapter acts on which kind of task."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from llmagent_interfaces.msg import Adapter
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.learning.rl.critic import build_critic
from llmagent_ros.nodes.base import ManagedNode
from llmagent_ros.nodes.bundle_loader import BundleLoader
from llmagent_ros.nodes.work import Work
from llmagent_ros.policy.deployment import Deployment, read_deployment
from llmagent_ros.policy.text_policy import TextPolicy


class ActingAdapter:
    """The newest that was learned for a kind of task in this run; before there is one, that of the skill which the task
    begins with; else the initial one, which acts as the base.

    What is announced is read in the background; `prepare` swaps, so only the thread that decides may call it.
    """

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._loader = BundleLoader(node, self._read)
        self._policy: TextPolicy | None = None
        self._initial: dict[str, Tensor] = {}
        self._wording: str | None = ""  # that acts; empty: of any kind; None: a person has chosen it, for all kinds
        self._working_on = ""
        self.digest = ""  # of the bundle that acts; empty: the initial one, which has none
        self._announced: dict[str, tuple[Path, str]] = {}  # wording to the newest bundle and its digest

    def begin(self, policy: TextPolicy, bundle: Path | None, *, chosen: bool) -> None:
        """Acts by a bundle, or as the base.

        Args:
            chosen: by a person, who wants it for all kinds of tasks.

        Raises:
            ModelError: the bundle is not sound or does not fit.
        """
        self._policy, self._initial = policy, policy.model.adapter_state()
        self._wording = None if chosen else ""
        if bundle is not None:
            deployment = self._read(bundle, "")
            self._swap(deployment)
            self._wording = None if chosen else deployment.wording

    def knows(self, wording: str) -> bool:
        """Whether something other than a skill acts on a kind of task: learned in this run, or chosen by a person."""
        return self._wording is None or self._wording == wording or wording in self._announced

    def on_message(self, message: Adapter) -> None:
        """An adapter was announced. From the executor."""
        if self._policy is None:  # what acts first lies in OUT
            return
        if message.wording:
            self._announced[message.wording] = (Path(message.path), message.digest)
        if message.wording in ("", self._working_on):
            self._loader.load(message.path, message.digest)

    def prepare(self, work: Work) -> None:
        """Sees to it that what acts next is for this task.

        Raises:
            LlmAgentError: the adapter does not fit; the one before acts on.
        """
        self._working_on = work.wording
        loaded = self._loader.take()
        if self._wording is not None and self._wording != work.wording:
            self._turn_to(work)
        if loaded is not None and loaded.wording in ("", work.wording):
            self._swap(loaded)

    def close(self) -> None:
        self._loader.close()

    # --- inside ----------------------------------------------------------------------------------------

    def _turn_to(self, work: Work) -> None:
        policy = self._policy
        assert policy is not None
        unknown = self._wording == "" and policy.adapter != "initial"
        self._wording = work.wording
        if unknown:  # a bundle from before bundles told what they are for
            return
        deployment = self._for(work)
        if deployment is not None:
            self._swap(deployment)
        elif policy.adapter != "initial":
            policy.swap(self._initial, None, beta=1.0, name="initial")
            self.digest = ""
        why = work.start.why if work.start is not None else "no skill was looked for"
        self._node.get_logger().info(f"{work.wording!r}: acting by {policy.adapter}; {why}")

    def _for(self, work: Work) -> Deployment | None:
        """Of the run itself, or of the best skill; what is not sound is said and passed over."""
        candidates = [self._announced[work.wording]] if work.wording in self._announced else []
        if work.start is not None and work.start.skills:
            best = work.start.skills[0].skill
            candidates.append((Path(str(best.path)), best.digest))
        for path, digest in candidates:
            try:
                return self._read(path, digest)
            except LlmAgentError as error:
                self._node.get_logger().error(f"adapter not taken: {error}")
        return None

    def _read(self, path: Path, digest: str) -> Deployment:
        if self._policy is None:
            raise LlmAgentError(f"node {self._node.get_name()}: not configured")
        return read_deployment(path, self._policy.model, build_critic, digest)

    def _swap(self, new: Deployment) -> None:
        assert self._policy is not None
        self._policy.swap(new.adapter, new.values, beta=new.beta, name=new.name, disagreement=new.disagreement)
        self.digest = new.digest
