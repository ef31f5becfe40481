"""Watches the running graph for `llmagent doctor`."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CameraInfo, Image, JointState, LaserScan
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from llmagent_interfaces.msg import Outcome
from llmagent_ros.contract import RobotContract, TopicSpec
from llmagent_ros.doctor.contents import data_problem
from llmagent_ros.doctor.observation import Arrival, Endpoint, Observation, TopicObservation
from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire.stamps import to_seconds

DISCOVERY = 1.0  # s of wall time in which the graph becomes known
PATIENCE = 5.0  # s that the first publisher of the contract may take to be discovered
TAIL = 0.2  # s after the end in which what had come by then is taken
MOST_ARRIVALS = 20_000  # of a topic that are kept
_SPIN = 0.05  # s
_KINDS = {
    f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}": kind
    for kind in (
        *(CameraInfo, Float64MultiArray, Image, JointState, JointTrajectory, LaserScan, Odometry, Outcome),
        *(Twist, TwistStamped),
    )
}


def observe(contract: RobotContract, seconds: float, namespace: str = "/") -> Observation:
    """Watches the topics of a contract.

    Args:
        seconds: of wall time, after the graph has become known. namespace: of the robot.

    Raises:
        ConfigError: the namespace is no valid one.
    """
    context = Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    try:
        probe = _make(contract, namespace, context)
        executor.add_node(probe.node)
        try:
            return probe.watch(lambda: executor.spin_once(timeout_sec=_SPIN), seconds)
        finally:
            executor.remove_node(probe.node)
            probe.node.destroy_node()
    finally:
        executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown(context=context)


def _make(contract: RobotContract, namespace: str, context: Context) -> _Probe:
    try:
        node = rclpy.create_node("doctor", namespace=namespace, context=context, use_global_arguments=False)
    except rclpy.exceptions.InvalidNamespaceException as error:
        raise ConfigError(f"--namespace {namespace!r}: {' '.join(str(error).split())}") from error
    return _Probe(contract, node)


class _Probe:
    def __init__(self, contract: RobotContract, node: Node) -> None:
        self._contract, self.node = contract, node
        self._arrivals: defaultdict[str, deque[Arrival]] = defaultdict(lambda: deque(maxlen=MOST_ARRIVALS))

    def watch(self, spin: Callable[[], None], seconds: float) -> Observation:
        """spin: lets the node do one thing, for a bounded time."""
        self._discover(spin)
        simulated = self._is_simulated()
        if simulated:
            self._take_time_from_clock(spin)
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)  # what does not match is told as a finding
        for spec in self._contract.topics:
            if spec.direction == "read":
                kind, profile = _KINDS[spec.type], qos.of(spec.qos)
                self.node.create_subscription(kind, spec.topic, self._taker(spec), profile, event_callbacks=quiet)
        began, start = self._now(), time.monotonic()
        _spin_for(spin, seconds)
        if not simulated and self._is_simulated():  # /clock was discovered late: what was taken has the wrong time
            simulated = True
            self._take_time_from_clock(spin)
            self._arrivals.clear()
            began, start = self._now(), time.monotonic()
            _spin_for(spin, seconds)
        end, watched = self._now(), time.monotonic() - start
        _spin_for(spin, TAIL)  # what came while this process itself stalled is not missing
        namespace = self.node.get_namespace().rstrip("/")
        return Observation(
            {spec.key: self._topic(spec) for spec in self._contract.topics},
            end,
            watched,
            simulated=simulated,
            clock_moved=end > began,
            guard=f"{namespace}/guard",
            types={
                name: tuple(types)
                for name, types in self.node.get_topic_names_and_types()
                if any(self._endpoints(name))  # else only this probe knows it
            },
        )

    def _is_simulated(self) -> bool:
        return self.node.count_publishers("/clock") > 0

    def _take_time_from_clock(self, spin: Callable[[], None]) -> None:
        self.node.set_parameters([Parameter("use_sim_time", value=True)])
        _spin_for(spin, DISCOVERY)  # until /clock has spoken

    def _discover(self, spin: Callable[[], None]) -> None:
        """Waits until the graph has been seen for `DISCOVERY`, or for `PATIENCE` where there is none."""
        names = [self.node.resolve_topic_name(spec.topic) for spec in self._contract.topics]
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not any(self.node.count_publishers(name) for name in names):
            spin()
        _spin_for(spin, DISCOVERY)

    def _taker(self, spec: TopicSpec) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            header = getattr(message, "header", None)
            self._arrivals[spec.key].append(
                Arrival(
                    self._now(),
                    None if header is None else to_seconds(header.stamp),
                    "" if header is None else header.frame_id,
                    getattr(message, "child_frame_id", ""),
                    data_problem(self._contract, spec.type, message),
                )
            )

        return take

    def _topic(self, spec: TopicSpec) -> TopicObservation:
        publishers, subscriptions = self._endpoints(self.node.resolve_topic_name(spec.topic))
        return TopicObservation(publishers, subscriptions, tuple(self._arrivals[spec.key]))

    def _endpoints(self, name: str) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]:
        """Publishers and subscriptions of others."""
        own = self.node.get_fully_qualified_name()
        publishers = tuple(map(_endpoint, self.node.get_publishers_info_by_topic(name)))
        subscriptions = map(_endpoint, self.node.get_subscriptions_info_by_topic(name))
        return publishers, tuple(endpoint for endpoint in subscriptions if endpoint.node != own)

    def _now(self) -> float:
        return float(self.node.get_clock().now().nanoseconds) * 1e-9


def _endpoint(info: TopicEndpointInfo) -> Endpoint:
    profile = info.qos_profile
    return Endpoint(
        f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        info.topic_type,
        profile.reliability == ReliabilityPolicy.RELIABLE,
        profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
    )


def _spin_for(spin: Callable[[], None], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        spin()
