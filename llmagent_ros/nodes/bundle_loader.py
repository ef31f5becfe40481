"""Reading announced bundles in the background, so that no decision waits for a disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmagent_ros.errors import LlmAgentError
from llmagent_ros.nodes.base import ManagedNode
from llmagent_ros.policy.deployment import Deployment


class BundleLoader:
    """Keeps the newest sound bundle until it is taken. One that is not sound is reported and changes nothing.

    Args:
        read: (path, announced digest) to what may act; raises LlmAgentError.
    """

    def __init__(self, node: ManagedNode, read: Callable[[Path, str], Deployment]) -> None:
        self._node, self._read = node, read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bundle")
        self._closed = False
        self._lock = threading.Lock()
        self._loaded: Deployment | None = None

    def load(self, path: str, digest: str) -> None:
        """Starts reading; bundles become ready in the order of these calls. After `close`, nothing is read."""
        if not self._closed:
            self._pool.submit(self._load, Path(path), digest)

    def take(self) -> Deployment | None:
        """What has been loaded since the last call."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
        return loaded

    def close(self) -> None:
        """Waits for the one that is being read and drops the others."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, path: Path, digest: str) -> None:
        try:
            loaded = self._read(path, digest)
        except LlmAgentError as error:
            self._node.get_logger().error(f"adapter not taken: {error}")
            return
        except Exception:  # nobody looks at the future
            self._node.fail()
            return
        with self._lock:
            self._loaded = loaded
