"""The quality of service of each kind of topic (docs/architecture.md lists the topics)."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from llmagent_ros.contract import Qos


def _profile(depth: int, *, reliable: bool = True, kept: bool = False) -> QoSProfile:
    """kept: one who comes late still gets the last `depth` messages."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


SENSOR = _profile(5, reliable=False)
"""Readings: a late one is worth nothing."""

RELIABLE_SENSOR = _profile(5)
"""What the simulator offers: best-effort subscribers match it too, and in lockstep no reading may be lost."""

COMMAND = _profile(10)
"""Commands, scenes."""

DECISION = _profile(100, kept=True)
"""Decisions: a recorder that the policy found late must still see whose the first steps were."""

VERDICT = _profile(100, kept=True)
"""Verdicts of the guard: a recorder that is found late has them for the decisions that it still gets."""

OUTCOME = _profile(100, kept=True)
"""Outcomes: a policy that the world found late must still learn that its episode has ended."""

LATEST = _profile(1, kept=True)
"""Latest state: one who comes late still gets it."""

TRANSITION = _profile(2000, kept=True)
"""Transitions: a learner that was restarted gets the last ones again and stores each once."""


def of(declared: Qos) -> QoSProfile:
    """What a robot contract says."""
    return _profile(declared.depth, reliable=declared.reliability == "reliable")


def deep(profile: QoSProfile) -> QoSProfile:
    """The same for a subscriber that may be busy for a second, with a disk or an import, and must miss nothing."""
    return _profile(
        1000,
        reliable=profile.reliability == ReliabilityPolicy.RELIABLE,
        kept=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
    )


def service(depth: int) -> QoSProfile:
    """For a service that many may ask at once; depth: requests and answers that may wait in the middleware."""
    return _profile(depth)
