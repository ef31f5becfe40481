"""The guard: every command passes it, and nothing else may command the robot.

Pure code: no threads, no clock, no ROS. Times are seconds of one clock and are passed in, and so is a steady time by
which it is seen that this clock runs; the node that composes it is the only publisher of the robot's command. What is
peculiar to a kind of body is in `safety.shaping`. docs/safety.md says the rules for people who run robots.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from llmagent_ros.contract import MobileContract, RobotContract
from llmagent_ros.geometry import direction_problem, is_empty
from llmagent_ros.safety.config import TELEOP_E_STOP, GuardConfig
from llmagent_ros.safety.hand import Hand
from llmagent_ros.safety.reasons import (
    CLOCK_BACK,
    CLOCK_STOPPED,
    DEAD_MAN,
    E_STOP,
    EMPTY_SCAN,
    FALLBACK,
    FUTURE_COMMAND,
    FUTURE_ODOM,
    FUTURE_TELEOP,
    MALFORMED_SCAN,
    NO_COMMAND,
    NOT_FINITE,
    NOT_HELD,
    OLD_COMMAND,
    OLD_TELEOP,
    REPEATED_SCAN,
    STALE_COMMAND,
    TELEOP,
    UNSURE,
)
from llmagent_ros.safety.reckoning import ORIGIN
from llmagent_ros.safety.repeats import ScanRepeats
from llmagent_ros.safety.sense import sense_of
from llmagent_ros.safety.shaping import JointShaper, Shaped, VelocityShaper, make_shaper
from llmagent_ros.safety.vitals import Vitals
from llmagent_ros.types import Command, JointState, LaserScan, Odometry, Verdict, VerdictSource

__all__ = ["Guard", "GuardConfig"]


@dataclass(frozen=True)
class _Taken:
    command: Command
    valid_from: float  # s; its age counts from here


class Guard:
    """Chooses between policy, person and stop, and keeps what passes within the limits.

    In order: a latched e-stop; a fresh teleop command; a dead-man that was just let go; a fresh policy command. Both
    commands need a fresh scan (of an arm: fresh joint states), the policy's what else it must have (`safety.vitals`).
    Whatever is missing, stale, in the future or not a number ends in a stop. A stop is immediate, also one that a base
    is told by a zero: the acceleration limit never slows it. Commands ramp from what was published last.

    Every method may be called in any order and at any time; call them from one thread.
    """

    def __init__(self, contract: RobotContract, config: GuardConfig | None = None) -> None:
        self.config = config or GuardConfig()
        self._period = contract.control_period
        self._sense = sense_of(contract)
        self._vitals = Vitals(contract, self.config)
        self._hand = Hand(self.config)
        self._shaper = make_shaper(contract, self.config)
        self._repeats: ScanRepeats | None = None
        if isinstance(contract, MobileContract) and self.config.checks_repeats:
            self._repeats = ScanRepeats(contract, self.config.repeats)
        self._command_timeout = self.config.command_timeout or 1.5 * contract.control_period
        self._clock_timeout = self.config.clock_timeout or 1.5 * contract.control_period
        self._moved: tuple[float, float] | None = None  # the clock when it was last seen to move, and the steady time
        self._counts: Counter[str] = Counter()
        self._active: frozenset[str] = frozenset()  # interventions of the last verdict
        self._pressed: set[str] = set()  # e-stops
        self._latched = False
        self._now: float | None = None
        self._seen: float | None = None  # stamp of the newest reading of the sense, s
        self.forget()

    @property
    def counts(self) -> dict[str, int]:
        """How often each intervention began, by reason; one that lasts over many verdicts counts once."""
        return dict(self._counts)

    @property
    def e_stopped(self) -> bool:
        """Whether an e-stop is latched."""
        return self._latched

    @property
    def pressed_e_stops(self) -> tuple[str, ...]:
        """The e-stops that are pressed now, sorted."""
        return tuple(sorted(self._pressed))

    @property
    def awaits_scan(self) -> bool:
        """In lockstep: the command to answer is here, but the scan (an arm's joint states) of its stamp is not yet, or
        no odometry of this world, where it is watched.

        They come on different topics. Deciding before all are in would let their race decide, so the node
        waits for `on_scan` (`on_joints`, `on_odometry`), for a bounded wall time.
        """
        if not (self.config.lockstep and self._unanswered is not None):
            return False
        return self._seen is None or self._seen < self._unanswered or self._vitals.lacks_odometry

    def forget(self) -> None:
        """Drops commands and readings and takes the robot to stand still; e-stop and counts stay."""
        self._forget_commands()
        self._lose_sight()
        if self._repeats is not None:
            self._repeats.forget_stamps()

    def _forget_commands(self) -> None:
        self._policy: _Taken | None = None
        self._policy_stamp: float | None = None
        self._doubt: tuple[float, float] | None = None  # stamp of a decision, and how undecided it was
        self._fell_back: float | None = None  # since when the clearances are followed
        self._teleop: _Taken | None = None
        self._unanswered: float | None = None
        self._asked = self._shaper.nothing  # by the newest command that is to be answered
        self._shaper.forget()
        self._last_time: float | None = None

    def _lose_sight(self) -> None:
        self._seen = None
        self._vitals.lose_odometry()
        self._shaper.lose_sight()

    def on_policy_command(self, command: Command, stamp: float, now: float) -> bool:
        """Takes a command of the policy.

        Args:
            stamp: of the scene that it answers, s. now: s.

        Returns:
            Whether it was taken. Each one that is calls for exactly one `decide`, whose verdict bears its stamp.
        """
        refusal = self._shaper.refusal(command) or (None if math.isfinite(stamp) else NOT_FINITE)
        if refusal is not None:
            return self._drop(refusal)
        if self.config.lockstep:
            self._lockstep_to(stamp)
        now = self._advance(now)
        if stamp > now + self.config.future_tolerance:
            return self._drop(FUTURE_COMMAND)
        if self._policy_stamp is not None and stamp < self._policy_stamp:
            return self._drop(OLD_COMMAND)
        self._policy = _Taken(command, min(stamp, now))
        self._policy_stamp = self._unanswered = stamp
        self._asked = command
        return True

    def on_teleop_command(self, command: Command, now: float, stamp: float | None = None) -> bool:
        """Takes a command of a person.

        Args:
            now: s. stamp: when it was given, s; None: not known, it counts as given now. Unused in lockstep.

        Returns:
            Whether it was taken.
        """
        now = self._advance(now)
        given = now if stamp is None or self.config.lockstep else stamp
        refusal = self._shaper.refusal(command) or (None if math.isfinite(given) else NOT_FINITE)
        if refusal is not None:
            return self._drop(refusal)
        if given > now + self.config.future_tolerance:
            return self._drop(FUTURE_TELEOP)
        if now - given > self.config.teleop_timeout:
            return self._drop(OLD_TELEOP)
        self._teleop = _Taken(command, min(given, now))
        if not self.config.lockstep:  # there only the policy's commands are answered
            self._asked = command
        return True

    def on_scan(self, scan: LaserScan, now: float) -> bool:
        """Takes a scan; returns whether it was believed.

        One without any measurement is none, so that a scanner that sees nothing goes stale; nor is one whose rays lead
        nowhere that is known, or that says what it said where the robot was before (`safety.repeats`).
        """
        now = self._advance(now)
        if direction_problem(scan):
            return self._drop(MALFORMED_SCAN)
        if is_empty(scan):
            return self._drop(EMPTY_SCAN)
        refusal = self._refusal(scan.stamp, now)
        if refusal is not None:
            return self._drop(refusal)
        if self._repeats is not None and self._repeats.repeats(scan):
            return self._drop(REPEATED_SCAN)
        newest = self._see(scan.stamp, now)
        if newest and isinstance(self._shaper, VelocityShaper):
            self._shaper.see(scan, min(scan.stamp, now), self._repeats.moved if self._repeats else ORIGIN)
        return True

    def on_odometry(self, odometry: Odometry, now: float) -> bool:
        """Notes that a base knows where it is; returns whether the reading was believed."""
        now = self._advance(now)
        values = odometry.stamp, odometry.x, odometry.y, odometry.yaw, odometry.linear, odometry.angular
        if not all(map(math.isfinite, values)):
            return self._drop(NOT_FINITE)
        if odometry.stamp > now + self.config.future_tolerance and not self.config.lockstep:
            return self._drop(FUTURE_ODOM)
        if self._repeats is not None:
            self._repeats.on_odometry(odometry)
        self._vitals.on_odometry(odometry.stamp if self.config.lockstep else min(odometry.stamp, now))
        return True

    def on_heartbeat(self, name: str, steady: float) -> None:
        """Somebody says that they live. steady: when it came, s of the clock that `decide` is given."""
        self._vitals.on_heartbeat(name, steady)

    def on_dead_man(self, held: bool, steady: float) -> None:
        """A person holds the dead-man, or has let it go. steady: as for `on_heartbeat`."""
        self._hand.on_dead_man(held, steady)

    def on_joints(self, state: JointState, now: float) -> bool:
        """Notes where an arm's joints were at the reading's stamp; returns whether it was believed.

        One that does not tell of every joint of the contract (of a gripper, say, on the same topic) is passed over.
        """
        shaper = self._shaper
        if not isinstance(shaper, JointShaper) or not set(shaper.limits) <= set(state.positions):
            return False
        now = self._advance(now)
        if not all(math.isfinite(state.positions[name]) for name in shaper.limits):
            return self._drop(NOT_FINITE)
        refusal = self._refusal(state.stamp, now)
        if refusal is not None:
            return self._drop(refusal)
        if self._see(state.stamp, now):
            shaper.measure(state.positions)
        return True

    def on_decision(self, stamp: float, uncertainty: float) -> bool:
        """How undecided the policy was about the command of this stamp, 0..1; returns whether that is too much.

        It comes after the command, and acts from then on. What is no number is too much.
        """
        self._doubt = stamp, uncertainty
        return self._is_unsure()

    def on_e_stop(self, pressed: bool, source: str = TELEOP_E_STOP) -> None:
        """Takes the state of one e-stop; pressing any latches, letting go does not release."""
        if pressed:
            self._pressed.add(source)
            self._latched = True
        else:
            self._pressed.discard(source)

    def reset_e_stop(self) -> bool:
        """Releases a latched e-stop; False, and still latched, while one is pressed (`pressed_e_stops`).

        Commands from before are forgotten: disengaging
        "must not restart the machinery but only permit restarting" (Directive 2006/42/EC, annex I, 1.2.4.3).
        """
        if self._pressed:
            return False
        if self._latched:
            self._latched = False
            self._policy = self._teleop = None
        return True

    def _refusal(self, stamp: float, now: float) -> str | None:
        """Why a reading of the sense is not taken."""
        if not math.isfinite(stamp):
            return NOT_FINITE
        ahead = stamp > now + self.config.future_tolerance and not self.config.lockstep
        return self._sense.future if ahead else None

    def _see(self, stamp: float, now: float) -> bool:
        """Notes that a reading of the sense has come; whether none is newer."""
        if self.config.lockstep:
            self._seen = stamp  # a world that was reset may begin anew at 0
            return True
        newest = self._seen is None or stamp >= self._seen
        stamp = min(stamp, now)
        self._seen = stamp if self._seen is None else max(self._seen, stamp)
        return newest

    def decide(self, now: float, steady: float | None = None) -> Verdict:
        """The command to publish now. Call it after each accepted command and by a timer in between.

        Args:
            now: s. steady: s of a clock that cannot stop or jump; None: `now` is trusted to run. In lockstep it serves
                heartbeats and dead-man only.
        """
        now = self._advance(now)
        stands = self._clock_stands(now, steady)
        target, source, reason = self._choose(now, stands, now if steady is None else steady)
        shaped = self._shape(target, now, checked=source != "teleop" or not self.config.teleop_override)
        command, limited = shaped.command, shaped.limited
        reason = reason or shaped.blocked
        active = frozenset(limited) | ({reason} if reason else set()) | ({source} & {TELEOP, FALLBACK})
        self._counts.update(active - self._active)
        self._active = active
        stamp = now if self._unanswered is None else self._unanswered
        self._unanswered = None
        self._last_time = now
        asked, self._asked = (self._asked if target is None else target), self._shaper.nothing
        return Verdict(command, source, reason, limited, stamp, asked)

    def stop(self) -> Command:
        """The command that stops the robot, for a node that ends."""
        return self._shaper.stop(self._now or 0.0)

    def _choose(self, now: float, stands: bool, steady: float) -> tuple[Command | None, VerdictSource, str | None]:
        """What to follow, and whose it is; or None, and why the robot is to stop."""
        if stands:  # what came before must not move the robot when the clock runs again
            self._policy = self._teleop = None
            self._lose_sight()
        if self._latched:
            return None, "stop", E_STOP
        if stands:
            return None, "stop", CLOCK_STOPPED
        blind = self._blindness(now)
        if self._person_drives(now, steady) and (blind is None or self.config.teleop_without_scan):
            assert self._teleop is not None
            return self._teleop.command, "teleop", None
        if self._hand.has_let_go(steady):
            return None, "stop", DEAD_MAN
        lacking = blind or self._vitals.problem(now, steady)
        if lacking is not None:
            return None, "stop", lacking
        if self._policy is None:
            return None, "stop", NO_COMMAND
        silent = now - self._policy.valid_from > self._command_timeout
        if not silent and not self._is_unsure():
            self._fell_back = None
            return self._policy.command, "policy", None
        followed = self._followed(now)
        if followed is not None:
            return followed, "fallback", None
        return None, "stop", STALE_COMMAND if silent else UNSURE

    def _is_unsure(self) -> bool:
        if self.config.unsure_above is None or self._doubt is None or self._doubt[0] != self._policy_stamp:
            return False
        return not self._doubt[1] <= self.config.unsure_above

    def _followed(self, now: float) -> Command | None:
        """What the fallback wants; None where the robot is to stop.

        A policy that has told the robot to stand is not one that fell silent while it drove.
        """
        shaper = self._shaper
        if self._policy is None or self._policy.command == shaper.nothing or not isinstance(shaper, VelocityShaper):
            return None
        self._fell_back = now if self._fell_back is None else self._fell_back
        return shaper.followed(now) if now - self._fell_back <= self.config.follow.time else None

    def _person_drives(self, now: float, steady: float) -> bool:
        commanded = self._teleop is not None and now - self._teleop.valid_from <= self.config.teleop_timeout
        drives = self._hand.drives(commanded, steady)
        if commanded and not drives:
            self._teleop = None  # held again later, it must not come back
            self._drop(NOT_HELD)
        return drives

    def _shape(self, target: Command | None, now: float, *, checked: bool) -> Shaped:
        """The command that goes out, and what changed the one that was chosen."""
        if self._blindness(now) is not None:
            self._shaper.lose_sight()
        if target is None:
            return Shaped(self._shaper.stop(now))
        return self._shaper.follow(target, self._elapsed(now), now, checked=checked)

    def _clock_stands(self, now: float, steady: float | None) -> bool:
        if self.config.lockstep or steady is None:
            return False
        if self._moved is None or now != self._moved[0]:
            self._moved = now, steady
        return steady - self._moved[1] > self._clock_timeout

    def _blindness(self, now: float) -> str | None:
        if self._seen is None:
            return self._sense.missing
        return self._sense.stale if now - self._seen > self._sense.timeout else None

    def _elapsed(self, now: float) -> float:
        """s for which the acceleration limit may be spent.

        At most a control period: after a pause the robot stands at the last velocity, however long it was.
        """
        if self._last_time is None:
            return self._period if self.config.lockstep else 0.0
        return min(now - self._last_time, self._period)

    def _advance(self, now: float) -> float:
        """The guard's time, which never runs back: a jump forgets everything, a small step holds time still."""
        if self.config.lockstep:
            return now if self._now is None else self._now
        if self._now is None or now >= self._now:
            self._now = now
        elif self._now - now > self.config.clock_tolerance:
            self._counts[CLOCK_BACK] += 1
            self.forget()
            self._now = now
        return self._now

    def _lockstep_to(self, stamp: float) -> None:
        if self._now is not None and stamp < self._now:
            self._counts[CLOCK_BACK] += 1
            self._forget_commands()
            # The readings of the new world may have come before its first command.
            if self._seen is not None and self._seen > stamp:
                self._seen = None
                self._shaper.lose_sight()
            self._vitals.lose_odometry(later_than=stamp)
        self._now = stamp

    def _drop(self, reason: str) -> bool:
        self._counts[reason] += 1
        return False

