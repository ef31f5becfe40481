"""The two kinds of node, plain and with a lifecycle. Both hold their name, so that no other node has it meanwhile."""

from __future__ import annotations

import errno
import hashlib
import socket
import struct
import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node as RosNode

from llmagent_ros.errors import ConfigError, LlmAgentError

_LONGEST_ADDRESS = 100  # bytes; Linux takes 107
_CREDENTIALS = struct.Struct("3i")  # process, user and group id of SO_PEERCRED, see unix(7)


class _Ending:
    """What ends a node from within: `finished` is the exit code, once there is one."""

    finished: int | None
    get_logger: Callable[[], Any]

    def work(self, task: Callable[[], None], name: str) -> threading.Thread:
        """A started thread. An exception that leaves `task` ends the node with its traceback and exit code 1.

        A node whose thread is gone looks alive and does nothing: better that it dies and is started again.
        """

        def run() -> None:
            try:
                task()
            except Exception:
                self.fail()

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def fail(self) -> None:
        """Ends the node because of the exception that is being handled, a defect. From any thread."""
        self.get_logger().fatal(traceback.format_exc())
        self.finished = 1


class Node(_Ending, RosNode):
    """A node that holds its name from before it has topics until the process ends (see `hold_name`)."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._name_lock = hold_name(self)

    def destroy_node(self) -> None:
        super().destroy_node()
        self._name_lock.close()


class ManagedNode(_Ending, LifecycleNode):
    """A lifecycle node that can bring itself up (`autostart`) and turns LlmAgentErrors into failed transitions.

    Subclasses implement `configure`, `activate`, `deactivate` and `cleanup`, and set `starts_itself`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self._name_lock = hold_name(self)
        self.finished: int | None = None
        self.starts_itself = False  # whether `run` configures and activates it, once it has its name
        self._error: Exception | None = None
        self._starting = False

    def autostart(self) -> None:
        """Configures and activates.

        Raises:
            Exception: what made it fail; an LlmAgentError if a person can mend it.
        """
        self._starting = True
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise self._error or LlmAgentError(f"node {self.get_name()}: did not start")
        self._starting = False

    def destroy_node(self) -> None:
        super().destroy_node()
        self._name_lock.close()

    def configure(self) -> None: ...

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    def cleanup(self) -> None: ...

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        return self._guarded(self.configure)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        super().on_activate(state)
        return self._guarded(self.activate)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        result = self._guarded(self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        return self._guarded(self.cleanup)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        return self._guarded(self.close)

    def close(self) -> None:
        """Ends everything, whatever the state; a second call does nothing."""
        self.deactivate()
        self.cleanup()

    def _guarded(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        self._error = None
        try:
            step()
        except LlmAgentError as error:  # the transition does not take place, and the node is as it was
            self._error = error
            if not self._starting:  # else it is raised, and said once
                self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # a defect: rclpy would swallow it
            self._error = error
            if not self._starting:
                self.fail()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS


def hold_name(node: RosNode) -> socket.socket:
    """Holds a node's name in its ROS domain on this machine, for every user, while the socket is open.

    It listens at an abstract address of Linux, which one process has at most and which is free again with its death;
    unlike a file, it is the same whatever TMPDIR and user id are.

    Raises:
        ConfigError: another process has it; two nodes of one name would both command the robot.
    """
    domain = node.context.get_domain_id()
    name = node.get_fully_qualified_name()
    held, address = socket.socket(socket.AF_UNIX), _address(domain, name)
    try:
        held.bind(address)
        held.listen(socket.SOMAXCONN)
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise ConfigError(
            f"node {name} runs already on this machine (process {_listener(address)}, ROS domain {domain}); "
            "stop it, or take another ROS_DOMAIN_ID or namespace"
        ) from error
    return held


def _address(domain: int, name: str) -> str:
    """The abstract address of a name; a digest where it would be too long for one."""
    said = f"llmagent_ros/domain-{domain}{name}"
    return "\0" + (said if len(said) <= _LONGEST_ADDRESS else hashlib.sha256(said.encode()).hexdigest())


def _listener(address: str) -> str:
    """The id of the process that listens there; "?" where it cannot be told."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except OSError:  # it has ended meanwhile, or so many have asked before
            return "?"
        told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, _user, _group = _CREDENTIALS.unpack(told)
    return str(process or "?")  # 0: of a container that this one does not see
