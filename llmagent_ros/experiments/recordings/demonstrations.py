"""What a person drove, in a bag of whatever robot, as transitions: read through a robot contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from llmagent_ros import messages
from llmagent_ros.contract import MobileContract
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.experiments.recordings.foreign import ForeignMessage
from llmagent_ros.experiments.recordings.scenes import resolved
from llmagent_ros.messages import Message
from llmagent_ros.perception.intake import SensorIntake, sensor_of, sensor_topics
from llmagent_ros.perception.text import clean_instruction
from llmagent_ros.recording.bags.facts import OUTCOME
from llmagent_ros.types import Outcome, Source, Transition, Velocity

End = Literal["success", "failure", "truncated"]
_COMMANDS = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped")
_LATE = 1_000_000_000  # ns by which a reading may be older than the newest; more: time stepped back


@dataclass(frozen=True)
class DemonstrationConfig:
    """What a bag does not say of itself.

    Attributes:
        run: identifier of the run that the transitions get. instruction: what the person did.
        command_topic: what drove the robot (Twist or TwistStamped); empty: the contract's.
        end: how the drive ended, where no outcome says so. reward: of its last step then; a failure costs as much.
        gap: s without any reading after which the drive is over and another begins.
    """

    run: str
    instruction: str
    command_topic: str = ""
    end: End = "truncated"
    reward: float = 1.0
    gap: float = 5.0


@dataclass
class _Step:
    """A control period under way. moved: the integral of the driven velocity so far, m and rad, over `lasted` s."""

    scene: str
    begun: int
    linear: float = 0.0
    angular: float = 0.0
    lasted: float = 0.0
    reward: float = 0.0


class Demonstrations:
    """Turns sensor messages and commands into transitions, one for each control period. Not thread-safe.

    Time is that of the sensors' stamps. A scene is said each control period from the first moment on at which scanner
    and odometry were read. The action of a period is the phrase nearest to the mean velocity that was
    commanded in it; where that is nearer to standing still than to any phrase, the period is no step.

    Raises:
        ConfigError: the instruction names nothing that the contract knows, or the command's topic is unknown.
    """

    def __init__(self, contract: MobileContract, config: DemonstrationConfig) -> None:
        refusal = contract.refusal(clean_instruction(config.instruction))
        if refusal:
            raise ConfigError(f"instruction {config.instruction!r}: {refusal}")
        self._contract, self._config = contract, config
        self._task = clean_instruction(config.instruction)
        self._period = int(contract.control_period * 1e9)
        self._sensors = {resolved(spec.topic): spec for spec in sensor_topics(contract)}
        driven = next((spec.topic for spec in contract.topics if spec.direction == "command"), "cmd_vel")
        self._command_topic = resolved(config.command_topic or driven)
        self._outcome_topic = resolved(contract.reward.outcome_topic)
        self._types: dict[str, tuple[str, ...]] = {topic: (spec.type,) for topic, spec in self._sensors.items()}
        self._types |= {self._command_topic: _COMMANDS, self._outcome_topic: (OUTCOME,)}
        self._episode = -1
        self._begin()

    @property
    def topics(self) -> tuple[str, ...]:
        """Those that are read."""
        return (*self._sensors, self._command_topic, self._outcome_topic)

    @property
    def needed_topics(self) -> tuple[str, ...]:
        """Those without which there are no steps."""
        sensors = (name for name, spec in self._sensors.items() if sensor_of(spec) in self._needed)
        return (*sensors, self._command_topic)

    def transitions(self, recorded: Iterable[ForeignMessage]) -> Iterator[Transition]:
        """The steps of all drives in a bag.

        Raises:
            ConfigError: a topic is of another type than it must be, or images of an encoding that is not supported.
        """
        for message in recorded:
            valid = self._types.get(message.topic, ())
            if message.type not in valid:
                raise UnknownNameError(f"type of {message.topic}", message.type, valid)
            if message.topic == self._command_topic:
                self._velocity = messages.velocity_from_message(message.content)
            elif message.topic == self._outcome_topic:
                yield from self._on_outcome(message.content)
            else:
                yield from self._on_reading(message)
        yield from self._finish()

    # --- what comes in ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Another drive."""
        self._episode += 1
        self._intake = SensorIntake(self._contract, "realtime")
        self._intake.begin(self._task)
        self._number = 0
        self._now = 0  # stamp of the newest reading, ns
        self._velocity = Velocity()
        self._step: _Step | None = None
        self._done: Transition | None = None  # the last one: whether another follows is not known yet
        self._outcome: tuple[int, Outcome] | None = None  # that ended the drive, and its stamp, ns
        self._idle_reward = 0.0  # since then

    def _on_outcome(self, message: Message) -> Iterator[Transition]:
        outcome, stamp = messages.outcome_from_message(message), messages.key(message.header.stamp) or self._now
        yield from self._pass(stamp)
        if self._step is not None:
            self._step.reward += outcome.reward
        if outcome.ended:
            self._outcome = (stamp, outcome)

    def _on_reading(self, message: ForeignMessage) -> Iterator[Transition]:
        stamp = messages.key(message.content.header.stamp)
        over = self._outcome is not None and stamp > self._outcome[0]
        apart = self._now > 0 and not -_LATE <= stamp - self._now <= self._config.gap * 1e9
        if over or apart:
            yield from self._finish()
        yield from self._pass(stamp)
        arrival = self._intake.take(message.type, message.content)
        if arrival is not None and arrival.problem:
            raise ConfigError(arrival.problem)
        self._now = max(self._now, stamp)

    # --- control periods --------------------------------------------------------------------------------------

    def _pass(self, stamp: int) -> Iterator[Transition]:
        """Time goes on to that of a message; the control periods that ended before it are steps.

        Strictly before: of one moment there may be several readings, and a scene is said when all of them are here.
        """
        if self._step is None and stamp > self._now and self._intake.stamps.keys() >= self._needed:
            self._step = self._say(self._now)
        while self._step is not None and stamp > self._step.begun + self._period:
            end = self._step.begun + self._period
            self._drive(end)
            yield from self._close(end)
        self._drive(stamp)

    @property
    def _needed(self) -> set[str]:
        """The sensors without which there is no first scene; a camera may not be in the bag."""
        return {sensor_of(spec) for spec in self._sensors.values()} - {"camera"}

    def _drive(self, until: int) -> None:
        """The command holds until then."""
        if self._step is not None and until > self._now:
            seconds = (until - self._now) * 1e-9
            self._step.linear += self._velocity.linear * seconds
            self._step.angular += self._velocity.angular * seconds
            self._step.lasted += seconds
        self._now = max(self._now, until)

    def _say(self, now: int) -> _Step:
        return _Step(self._intake.scene(now).text, now)

    def _close(self, end: int) -> Iterator[Transition]:
        """The period under way is over; yields the step before, of which it is known now that it was not the last."""
        step = self._step
        assert step is not None
        mean = Velocity(step.linear / step.lasted, step.angular / step.lasted) if step.lasted else Velocity()
        phrase = self._contract.nearest_phrase(mean)
        if phrase is not None:
            self._intake.note(phrase)
        self._step = self._say(end)
        if phrase is None:
            self._idle_reward += step.reward
        else:
            if self._done is not None:
                yield self._done
            self._done, self._idle_reward = self._transition(step, phrase, self._step.scene), 0.0
        self._number += 1

    def _transition(self, step: _Step, phrase: str, next_scene: str) -> Transition:
        return Transition(
            run=self._config.run,
            episode=self._episode,
            step=self._number,
            task=self._task,
            scene=step.scene,
            action=phrase,
            reward=step.reward,
            next_scene=next_scene,
            terminated=False,
            truncated=False,
            source=Source.HUMAN,
            stamp=step.begun * 1e-9,
        )

    def _finish(self) -> Iterator[Transition]:
        """The drive is over: its last step gets its end, and the rewards since."""
        if self._step is not None and self._step.lasted > 0.5e-9 * self._period:
            yield from self._close(self._now)
        if self._done is not None:
            late = self._idle_reward + (self._step.reward if self._step is not None else 0.0)
            yield self._ended(replace(self._done, reward=self._done.reward + late))
            self._begin()
        else:
            self._episode -= 1  # nobody drove
            self._begin()

    def _ended(self, last: Transition) -> Transition:
        if self._outcome is not None:
            outcome = self._outcome[1]
            return replace(last, terminated=outcome.terminated, truncated=outcome.truncated)
        if self._config.end == "truncated":
            return replace(last, truncated=True)
        reward = self._config.reward if self._config.end == "success" else -self._config.reward
        return replace(last, terminated=True, reward=last.reward + reward)
