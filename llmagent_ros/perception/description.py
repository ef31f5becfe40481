"""How the numbers of a Gymnasium environment read as a scene: a description, from YAML or derived from the spaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.errors import ConfigError
from llmagent_ros.perception.text import clean_instruction

_STRICT = ConfigDict(extra="forbid")
_MOST_NUMBERS = 64  # a scene with more is no text that a small model reads
_MOST_ACTIONS = 64
_LEARNER = {"target_entropy": 0.5, "disagreement": 2.0}  # whatever rewards are worth, and however far apart they are
_PROBE_STEPS = 2000
_FULL_SCALE = 5.0  # what the largest number of a derived description reads as
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _one_line(text: str) -> str:
    if not text.strip() or clean_instruction(text) != text:
        raise ValueError(f"words on one line, without a full stop at the end (got {text!r})")
    return text


Words = Annotated[str, AfterValidator(_one_line)]


@dataclass(config=_STRICT, frozen=True)
class NumberPart:
    """How one number of the observation is said: "pole angle -2.1 degrees".

    Attributes:
        name: the words before it. unit: those after it, if any.
        scale: the number is multiplied by it. step: then rounded to a multiple of it, and said with its decimals.
        limit: then clipped to [-limit, limit].
        words: for a whole number from 0 on, one word each, said instead: "left leg in the air".
    """

    name: Words
    unit: str = ""
    scale: Positive = 1.0
    step: Positive = 0.1
    limit: Positive = 9.9
    words: tuple[Words, ...] = ()

    def say(self, number: float) -> str:
        """The words; a number that is not finite reads as unknown."""
        if not math.isfinite(number):
            return f"{self.name} unknown"
        if self.words:
            return f"{self.name} {self.words[min(max(round(number), 0), len(self.words) - 1)]}"
        scaled = min(max(number * self.scale, -self.limit), self.limit)
        rounded = round(scaled / self.step) * self.step
        text = f"{rounded:.{self._decimals}f}"
        text = text.removeprefix("-") if float(text) == 0.0 else text
        return f"{self.name} {text} {self.unit}".rstrip()

    @property
    def _decimals(self) -> int:
        return max(0, -int(Decimal(str(self.step)).normalize().as_tuple().exponent))


@dataclass(config=_STRICT, frozen=True)
class MirrorRule:
    """What changes in a mirror, where the mirror image of every episode is as likely, for the same rewards.

    Attributes:
        negated: names of the parts whose numbers change their sign. exchanged: pairs of parts that change places.
        actions: pairs of phrases that do.
    """

    negated: tuple[Words, ...] = ()
    exchanged: tuple[tuple[Words, Words], ...] = ()
    actions: tuple[tuple[Words, Words], ...] = ()


@dataclass(config=_STRICT, frozen=True)
class EnvironmentDescription:
    """A file of config/environments: what the model reads of an environment, and what it may do.

    Attributes:
        environment: id for `gymnasium.make`. arguments: further ones of it.
        task: the instruction that begins every scene.
        factors: for one whole number that stands for several: how many values each has, the last one changing fastest.
        parts: one for each number of the flattened observation, in its order.
        actions: one phrase for each action, in the order of the action space.
        history: how many of the last actions are said.
        hold: steps of the environment that one phrase lasts (frame skip); their rewards add up.
        reward_scale: rewards are multiplied by it for the learner, so that returns are about 1.
        success_return: undiscounted return (as the environment gives it) from which an episode is a success.
        teacher_noise: share of the steps of a scripted teacher in which a random action is done in place of its own.
        learner: settings of the learner that differ from its defaults.
        mirror: what changes in a mirror, for an environment that has the same on both sides.
    """

    environment: str
    task: Words
    parts: Annotated[tuple[NumberPart, ...], Field(min_length=1, max_length=_MOST_NUMBERS)]
    actions: Annotated[tuple[Words, ...], Field(min_length=2, max_length=_MOST_ACTIONS)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    factors: tuple[Annotated[int, Field(gt=0)], ...] = ()
    history: Annotated[int, Field(ge=0, le=16)] = 0
    hold: Annotated[int, Field(ge=1, le=100)] = 1
    reward_scale: Positive = 1.0
    success_return: Annotated[float, Field(allow_inf_nan=False)] | None = None
    teacher_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    learner: dict[str, Any] = Field(default_factory=dict)
    mirror: MirrorRule | None = None

    @model_validator(mode="after")
    def _mirrored(self) -> EnvironmentDescription:
        if self.mirror is None:
            return self
        names = [part.name for part in self.parts]
        pairs = (name for pair in self.mirror.exchanged for name in pair)
        for key, given, valid in (
            ("negated", self.mirror.negated, names),
            ("exchanged", tuple(pairs), names),
            ("actions", tuple(phrase for pair in self.mirror.actions for phrase in pair), list(self.actions)),
        ):
            unknown = [each for each in given if each not in valid]
            if unknown:
                raise ValueError(f"mirror.{key}: {unknown[0]!r} is none; valid: {', '.join(valid)}")
            if len(set(given)) != len(given):
                raise ValueError(f"mirror.{key}: something stands there twice")
            if key == "exchanged" and any(names.count(name) > 1 for name in given):
                raise ValueError("mirror.exchanged: a name that several parts have")
        return self

    @model_validator(mode="after")
    def _fits(self) -> EnvironmentDescription:
        repeated = sorted({phrase for phrase in self.actions if self.actions.count(phrase) > 1})
        if repeated:
            raise ValueError(f"actions: {', '.join(repeated)} stands there twice")
        if self.factors and len(self.factors) != len(self.parts):
            raise ValueError(f"{len(self.factors)} factors, {len(self.parts)} parts; valid: one part for each factor")
        return self

    def say(self, observation: Any, space: spaces.Space[Any], last_actions: Sequence[str] = ()) -> str:
        """The scene's text of one observation of `space`."""
        numbers = flat_numbers(observation, space)
        if self.factors:
            numbers = np.array(np.unravel_index(int(numbers[0]), self.factors), np.float64)
        said = ". ".join(part.say(float(n)) for part, n in zip(self.parts, numbers, strict=True))
        done = f" did {', '.join(last_actions) or 'nothing'}." if self.history else ""
        return f"{self.task}. {said}.{done}"

    def check(self, env: gym.Env[Any, Any], origin: str) -> None:
        """Raises ConfigError unless it fits the environment's spaces."""
        space = env.observation_space
        if self.factors:
            values = math.prod(self.factors)
            if not isinstance(space, spaces.Discrete) or int(space.n) != values:
                raise ConfigError(f"{origin}: factors stand for {values} values, the observation is {space}")
        elif count_numbers(space) != len(self.parts):
            count = count_numbers(space)
            raise ConfigError(f"{origin}: {len(self.parts)} parts, the observation {space} has {count} numbers")
        if count_actions(env.action_space) != len(self.actions):
            raise ConfigError(f"{origin}: {len(self.actions)} actions, the environment has {env.action_space}")


def count_numbers(space: spaces.Space[Any]) -> int:
    """How many numbers `flat_numbers` makes of an observation.

    Raises:
        ConfigError: the space has parts that are no numbers.
    """
    if isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        return math.prod(space.shape)
    if isinstance(space, spaces.Discrete):
        return 1
    if isinstance(space, spaces.Dict):
        return sum(count_numbers(part) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return sum(count_numbers(part) for part in space.spaces)
    raise ConfigError(
        f"observation {space} cannot be said as numbers; valid: Box, Discrete, MultiDiscrete, MultiBinary, "
        "and Dict or Tuple of them"
    )


def flat_numbers(observation: Any, space: spaces.Space[Any]) -> NDArray[np.float64]:
    """An observation as numbers, (count_numbers(space),): a Dict in the order of its keys, a Discrete as it is."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([flat_numbers(observation[key], part) for key, part in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        return np.concatenate([flat_numbers(each, part) for each, part in zip(observation, space.spaces, strict=True)])
    return np.asarray(observation, np.float64).reshape(-1)


def count_actions(space: spaces.Space[Any]) -> int:
    """How many actions there are.

    Raises:
        ConfigError: they cannot be counted.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.prod(space.nvec))
    raise ConfigError(f"actions {space} are no closed list; valid: Discrete or MultiDiscrete")


def action_of(index: int, space: spaces.Space[Any]) -> Any:
    """The environment's action number `index` in the order of `EnvironmentDescription.actions`."""
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.reshape(-1)
        return (np.array(np.unravel_index(index, space.nvec.reshape(-1))) + start).reshape(space.shape)
    assert isinstance(space, spaces.Discrete)
    return index + int(space.start)


def load_description(name: str) -> EnvironmentDescription:
    """A shipped description ("CartPole-v1") or a path to a YAML file.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    folder = config.share_dir() / "config" / "environments"
    return config.load(EnvironmentDescription, config.named_file("environment", name, folder))


def derive_description(env: gym.Env[Any, Any], environment: str, seed: int = 0) -> EnvironmentDescription:
    """A description made of the spaces of an environment that has none.

    Numbers are scaled so that their bounds read as 5.0. Where a bound is infinite the largest of 2000 random steps
    stands for it; the same steps give the scale of the rewards. How much a step changes the return nobody knows, so
    that the learner finds its temperature by itself.

    Raises:
        ConfigError: the spaces are of a kind that cannot be said.
    """
    actions = count_actions(env.action_space)
    if actions > _MOST_ACTIONS or count_numbers(env.observation_space) > _MOST_NUMBERS:
        raise ConfigError(
            f"{environment}: {count_numbers(env.observation_space)} numbers and {actions} actions; "
            f"valid: at most {_MOST_NUMBERS} and {_MOST_ACTIONS}"
        )
    seen, returns = _probe(env, seed)
    largest = np.abs(seen).max(axis=0)
    bounds = _bounds(env.observation_space)
    span = np.where(np.isfinite(bounds), bounds, largest)
    most = max((abs(value) for value in returns), default=0.0)
    return EnvironmentDescription(
        environment=environment,
        task=f"act well in {clean_instruction(environment)}",
        parts=tuple(
            NumberPart(name=name, scale=_nice(_FULL_SCALE / value) if value > 0 else 1.0)
            for name, value in zip(_names(env.observation_space), span, strict=True)
        ),
        actions=tuple(f"action {number}" for number in range(actions)),
        reward_scale=_nice(1.0 / most) if most > 0 else 1.0,
        learner=dict(_LEARNER),
    )


def _probe(env: gym.Env[Any, Any], seed: int) -> tuple[NDArray[np.float64], list[float]]:
    """Observations, (steps, numbers), and returns of random episodes."""
    rng, returns = np.random.default_rng(seed), [0.0]
    count = count_actions(env.action_space)
    observation, _ = env.reset(seed=seed)
    seen = [flat_numbers(observation, env.observation_space)]
    for _ in range(_PROBE_STEPS):
        action = action_of(int(rng.integers(count)), env.action_space)
        observation, reward, terminated, truncated, _ = env.step(action)
        returns[-1] += float(reward)
        if terminated or truncated:
            observation, _ = env.reset()
            returns.append(0.0)
        seen.append(flat_numbers(observation, env.observation_space))
    return np.nan_to_num(np.array(seen)), returns


def _bounds(space: spaces.Space[Any]) -> NDArray[np.float64]:
    """The largest absolute value that each number may have."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return np.concatenate([_bounds(part) for part in parts])
    if isinstance(space, spaces.Box):
        bound = np.maximum(np.abs(space.low.astype(np.float64)), np.abs(space.high.astype(np.float64))).reshape(-1)
        return np.where(bound < 1e6, bound, np.inf)  # float32's largest stands for infinity in many environments
    if isinstance(space, spaces.Discrete):
        return np.array([float(space.start + space.n - 1)])
    if isinstance(space, spaces.MultiDiscrete):
        return (space.start + space.nvec - 1).astype(np.float64).reshape(-1)
    return np.ones(count_numbers(space))


def _names(space: spaces.Space[Any], prefix: str = "value") -> list[str]:
    if isinstance(space, spaces.Dict):
        return [name for key, part in space.spaces.items() for name in _names(part, str(key))]
    if isinstance(space, spaces.Tuple):
        return [name for number, part in enumerate(space.spaces) for name in _names(part, f"{prefix} {number}")]
    count = count_numbers(space)
    return [prefix] if count == 1 else [f"{prefix} {number}" for number in range(count)]


def _nice(value: float) -> float:
    """The nearest 1, 2 or 5 times a power of ten below it."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(step for step in (1.0, 2.0, 5.0) if step * power <= value * (1 + 1e-9))

