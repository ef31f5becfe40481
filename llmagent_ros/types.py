"""Value types that pass between the parts. SI units, REP-103 axes (x forward, y left, z up), radians.

Nothing here imports ROS, torch or another part of the package.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
RealArray = NDArray[np.floating[Any]]  # of float32 or float64


class Source(str, enum.Enum):
    """Who chose an action."""

    POLICY = "policy"
    HUMAN = "human"
    SCRIPT = "script"


@dataclass(frozen=True)
class LaserScan:
    """One planar scan.

    Attributes:
        stamp: acquisition time, s.
        angle_min: bearing of the first ray in the sensor frame, rad, counter-clockwise positive.
        angle_increment: rad between rays.
        ranges: m, shape (rays,); NaN and values outside [range_min, range_max] are no measurement,
            +inf is "nothing within range_max".
        range_min, range_max: m.
    """

    stamp: float
    angle_min: float
    angle_increment: float
    ranges: FloatArray
    range_min: float
    range_max: float


@dataclass(frozen=True)
class Odometry:
    """Pose of the base in the odom frame and its velocity in the base frame.

    Attributes:
        stamp: acquisition time, s.
        x, y: m. yaw: rad.
        linear: forward speed, m/s. angular: yaw rate, rad/s.
    """

    stamp: float
    x: float
    y: float
    yaw: float
    linear: float
    angular: float


@dataclass(frozen=True)
class CameraImage:
    """One colour image with the pinhole intrinsics that belong to it.

    Attributes:
        stamp: acquisition time, s.
        rgb: uint8, shape (height, width, 3).
        fx, fy, cx, cy: focal lengths and principal point, pixels.
    """

    stamp: float
    rgb: NDArray[np.uint8]
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class SeenObject:
    """A named object relative to the base.

    Attributes:
        name: the contract's name, e.g. "red ball".
        bearing: rad, left positive. distance: m from the base centre to the object's surface.
        age: s since a camera last saw it; 0 when in view now.
    """

    name: str
    bearing: float
    distance: float
    age: float = 0.0


@dataclass(frozen=True)
class Scene:
    """One time-stamped text of what the robot perceives now, with its task.

    Attributes:
        stamp: acquisition time of the newest sensor in it, s.
        text: what the model reads.
        task: the instruction.
        unknown: scene parts that are said to be unknown (stale, missing, not finite).
    """

    stamp: float
    text: str
    task: str
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """One choice of the policy with everything needed to explain it.

    Attributes:
        action: the chosen phrase. log_probability: with which it was taken (`policy.text_policy.draw`).
        candidates: every phrase, in the order of the next two. probabilities: shape (phrases,), sums to 1.
        values: critic's action values, shape (phrases,), zeros without a critic.
        adapter: name of the adapter version that acted. source: who chose.
        said: the phrase that the robot was told, where it has to be told another to do what `action` says
            (`perception.calibration`); empty: the action.
    """

    action: str
    log_probability: float
    candidates: tuple[str, ...]
    probabilities: FloatArray
    values: FloatArray
    adapter: str
    source: Source = Source.POLICY
    said: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the world answered to one control period.

    Attributes:
        reward: of that period. terminated: the task ended there (reached, collided).
        truncated: cut off by a time limit or a person; the future still had value.
        success: only meaningful when the episode ended. reason: one word, e.g. "reached".
    """

    reward: float
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class Judgement:
    """What a person says of the episode under way.

    Attributes:
        verdict: "success" or "failure": the episode ends so; empty: it goes on.
        reward: is added to that of the control period.
    """

    verdict: str = ""
    reward: float = 0.0


@dataclass(frozen=True)
class Transition:
    """One step as the replay keeps it; (run, episode, step) identifies it.

    Attributes:
        run: identifier of the run that made it. task: instruction.
        scene, next_scene: texts. action: phrase. log_probability: under the acting policy.
        terminated, truncated: never merged; only `terminated` stops bootstrapping.
    """

    run: str
    episode: int
    step: int
    task: str
    scene: str
    action: str
    reward: float
    next_scene: str
    terminated: bool
    truncated: bool
    source: Source = Source.POLICY
    log_probability: float = 0.0
    stamp: float = 0.0
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """A short statement about what was learned, with its evidence.

    Attributes:
        text: for the prompt; without numbers that count evidence.
        support, against: how often the statement held and how often it did not, weighted: older evidence counts less.
    """

    text: str
    support: float
    against: float = 0.0

    @property
    def evidence(self) -> float:
        """All that was seen, for and against."""
        return self.support + self.against

    def __str__(self) -> str:
        """For a person: "clear ahead under 0.3: not forward (4 of 6)"."""
        return f"{self.text} ({self.support:.3g} of {self.evidence:.3g})"


class Place(NamedTuple):
    """Seen from the base: bearing in rad, left positive, and distance in m."""

    bearing: float
    distance: float


@dataclass(frozen=True)
class Velocity:
    """A planar velocity command in the base frame: linear m/s along x, angular rad/s about z."""

    linear: float = 0.0
    angular: float = 0.0


@dataclass(frozen=True)
class JointState:
    """Joint positions as measured.

    Attributes:
        stamp: acquisition time, s.
        positions: by joint name, rad (prismatic: m).
    """

    stamp: float
    positions: Mapping[str, float]


@dataclass(frozen=True)
class JointTarget:
    """A command to an arm: joint positions to be reached and held.

    Attributes:
        joints: names. positions: rad (prismatic: m), in their order; without any, no joint is commanded.
        duration: s until they are to be reached.
        velocities: rad/s (prismatic: m/s) on the way, in the same order, where they were said; else empty.
    """

    joints: tuple[str, ...] = ()
    positions: tuple[float, ...] = ()
    duration: float = 0.0
    velocities: tuple[float, ...] = ()


Command = Velocity | JointTarget
VerdictSource = Literal["policy", "teleop", "fallback", "stop"]


@dataclass(frozen=True)
class Verdict:
    """What the guard makes of a command.

    Attributes:
        command: within the contract's limits, always finite.
        source: whose command it follows, or whose is stopped by what is in its way; "fallback" when it follows the
            clearances in place of the policy, "stop" when it follows nobody's.
        reason: why the guard stopped, None when it did not.
        limited: which limits ("speed", "acceleration", of a joint "position", "step" too) or what of the scan
            ("obstacle", "blind") changed the command.
        stamp: of the policy command that this is the one answer to, else the time of the decision, s.
        asked: the command that it follows; of a stop the one that it answers, zero (of no joint) if it answers none.
    """

    command: Command
    source: VerdictSource
    reason: str | None
    limited: tuple[str, ...]
    stamp: float
    asked: Command = field(default_factory=Velocity)

    @property
    def velocity(self) -> Velocity:
        """The command to a base that drives."""
        assert isinstance(self.command, Velocity), "an arm has joint targets"
        return self.command

    @property
    def word(self) -> str:
        """passed: what was asked for; limited: something else; stopped: the guard stops the robot on its own."""
        if self.reason is not None:
            return "stopped"
        return "limited" if self.limited else "passed"

    @property
    def why(self) -> str:
        """The reason of a stop, or which limits changed the command, with a comma between; empty when it passed."""
        return self.reason or ",".join(self.limited)


@dataclass(frozen=True)
class RetrievedSkill:
    """A skill that was found for an instruction. similarity: of its wording to the instruction's, -1..1."""

    id: str
    description: str
    similarity: float
