"""How the guard is configured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import NotNegative, Positive
from llmagent_ros.contract.values import Topic
from llmagent_ros.safety.clearance import ClearanceConfig
from llmagent_ros.safety.fallback import FollowConfig
from llmagent_ros.safety.repeats import RepeatsConfig

TELEOP_E_STOP = "e_stop"
"""Where `teleop` says whether its e-stop is pressed."""


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class GuardConfig:
    """How long things stay valid.

    Attributes:
        command_timeout: s after which a policy command is stale; None: 1.5 control periods of the contract.
        teleop_timeout: s after the stamp of the last teleop command at which the policy has the robot again.
        teleop_without_scan: whether a person may drive while the scan is missing or stale; an arm, while its joint
            states are.
        future_tolerance: s that a stamp may lie ahead of the clock; it never prolongs a command's life.
        clock_timeout: s of steady time for which the clock may stand before the robot stops, since nothing gets old
            by a clock that stands; None: 1.5 control periods of the contract. Not in lockstep.
        collision_check: whether a base goes no faster than it can stop before what the scan has seen
            (`safety.clearance`); None: in real time, and not in lockstep, where the simulated robot may bump and learns
            from it.
        teleop_override: whether a person may drive without that check.
        clearance: how it sees the robot.
        odom_check: whether the policy may drive only while odometry comes, of a base; None: in real time.
        repeat_check: whether a scan is dropped that is the same as before though odometry says that the robot has moved
            (`safety.repeats`), of a base in real time; None: where odometry is watched.
        repeats: how far it may have moved.
        heartbeats: who must say all the time that they live for the policy to drive: of "policy", "teleop", or whoever
            else publishes their name on `heartbeat`.
        heartbeat_timeout: s of steady time after a heartbeat at which the next one is missed.
        dead_man: whether a person's command counts only while a dead-man is held, and said to be within
            `teleop_timeout`; for as long the robot stands once it is let go.
        e_stops: topics (Bool, true: pressed) of the e-stops, one for each button or whatever else presses; "e_stop" of
            `teleop` must be among them. Pressing any one stops, and while one is pressed none is reset.
        fallback: what a base does that was driven by a policy which is silent or unsure now: stop, or follow the
            clearances for a while (`safety.fallback`). Not in lockstep, and only with the collision check.
        follow: how it does so.
        unsure_above: how undecided the policy may be at most, 0..1 (`fallback.uncertainty`); None: as it likes. Not in
            lockstep.
        clock_tolerance: s that the clock may step back without counting as a jump; time then stands still.
        lockstep: the world waits for the command, so the time is the newest command's stamp and `now` is not used.
        rate: Hz at which the node calls `decide` when no command comes; must be fast against the time-outs.
    """

    command_timeout: Positive | None = None
    teleop_timeout: Positive = 0.5
    teleop_without_scan: bool = False
    future_tolerance: NotNegative = 0.2
    clock_timeout: Positive | None = None
    collision_check: bool | None = None
    teleop_override: bool = False
    clearance: ClearanceConfig = Field(default_factory=ClearanceConfig)
    odom_check: bool | None = None
    repeat_check: bool | None = None
    repeats: RepeatsConfig = Field(default_factory=RepeatsConfig)
    heartbeats: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] = ()
    heartbeat_timeout: Positive = 0.5
    dead_man: bool = False
    e_stops: Annotated[tuple[Topic, ...], Field(max_length=20)] = (TELEOP_E_STOP, "hardware_e_stop")
    fallback: Literal["stop", "follow_clearances"] = "stop"
    follow: FollowConfig = Field(default_factory=FollowConfig)
    unsure_above: Annotated[float, Field(gt=0, lt=1)] | None = None
    clock_tolerance: NotNegative = 0.05
    lockstep: bool = False
    rate: Annotated[float, Field(ge=10.0, le=1000.0)] = 20.0

    @model_validator(mode="after")
    def _consistent(self) -> GuardConfig:
        if self.fallback != "stop" and (self.lockstep or not self.checks_collisions):
            raise ValueError(f"fallback: {self.fallback} needs mode realtime and collision_check; valid: stop")
        if TELEOP_E_STOP not in self.e_stops or len(set(self.e_stops)) < len(self.e_stops):
            raise ValueError(f"e_stops: {TELEOP_E_STOP!r} (that of teleop) and others, each once")
        if self.unsure_above is not None and self.lockstep:
            raise ValueError("unsure_above: not in mode lockstep, which answers a command before its decision comes")
        if self.repeat_check and (self.lockstep or not self.watches_odometry):
            raise ValueError("repeat_check: needs mode realtime and odom_check; valid: false")
        return self

    @property
    def checks_collisions(self) -> bool:
        return not self.lockstep if self.collision_check is None else self.collision_check

    @property
    def watches_odometry(self) -> bool:
        return not self.lockstep if self.odom_check is None else self.odom_check

    @property
    def checks_repeats(self) -> bool:
        return self.watches_odometry and not self.lockstep and self.repeat_check is not False
