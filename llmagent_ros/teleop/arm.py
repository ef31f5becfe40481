"""Keys and axes of an arm: which action phrase of its contract each one is, and what is held at a moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmagent_ros.contract import ArmAction, ArmContract
from llmagent_ros.teleop.joystick import DeadMan, JoystickConfig
from llmagent_ros.teleop.keys import STOP, KeysConfig

Shares = Mapping[str, float]  # phrase to how much of its speed is wanted, 0..1

# along x, y and z: those of w, a, s, d, the arrows, z as of teleop_twist_keyboard and of MoveIt Servo's keyboard demo
_AXES = (
    (("w", "up"), ("s", "down")),
    (("a", "left"), ("d", "right")),
    (("t", ";"), ("b", ".")),
)
_OTHERS = ("12", "34", "56", "78", "90", "fg", "hj", "kl", "ui", "op", "zx", "cv", "m,")
_REPEAT = 0.15  # s that a key must count as held to outlast the pause between two repeats
_OPPOSITE = -0.99  # cosine below which two steps are opposite


@dataclass(frozen=True)
class Pair:
    """Phrases that are each other's opposite, and their keys. back: None where a phrase has no opposite."""

    forth: str
    back: str | None
    forth_keys: tuple[str, ...] = ()
    back_keys: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """"w forward   s back"; what has no key is told without."""
        said = [f"{self.forth_keys[0]} {self.forth}" if self.forth_keys else f"(no key) {self.forth}"]
        if self.back is not None:
            said.append(f"{self.back_keys[0]} {self.back}" if self.back_keys else f"(no key) {self.back}")
        return "   ".join(said)


def pairs_of(contract: ArmContract) -> tuple[Pair, ...]:
    """The phrases of an arm that move it: along x, y and z of its base first, then the others in the contract's order.

    Where several lead the same way along an axis, the longest has its keys; the others are among the others.
    """
    steps = {phrase: _step(contract, action) for phrase, action in contract.actions.items()}
    left = [phrase for phrase, step in steps.items() if any(step)]
    pairs: list[Pair] = []
    for axis, keys in enumerate(_AXES):
        ends = [_longest_along(contract, left, axis, sign) for sign in (1, -1)]
        left = [phrase for phrase in left if phrase not in ends]
        forth, back = ends
        if forth is not None:
            pairs.append(Pair(forth, back, keys[0], keys[1] if back is not None else ()))
        elif back is not None:
            pairs.append(Pair(back, None, keys[1]))
    others = iter(_OTHERS)
    while left:
        forth = left.pop(0)
        back = next((phrase for phrase in left if _cosine(steps[forth], steps[phrase]) < _OPPOSITE), None)
        left = [phrase for phrase in left if phrase != back]
        own = next(others, "")
        pairs.append(Pair(forth, back, tuple(own[:1]), tuple(own[1:])))
    return tuple(pairs)


def _step(contract: ArmContract, action: ArmAction) -> tuple[float, ...]:
    return (action.x, action.y, action.z, *(action.joints.get(name, 0.0) for name in contract.joints))


def _longest_along(contract: ArmContract, phrases: Sequence[str], axis: int, sign: int) -> str | None:
    """The phrase that leads farthest one way along an axis, and along no other."""
    along = {}
    for phrase in phrases:
        action = contract.actions[phrase]
        step = [action.x, action.y, action.z]
        way = sign * step.pop(axis)
        if way > 0 and not any(step):
            along[phrase] = way
    return max(along, key=along.__getitem__) if along else None


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


class ArmKeys:
    """What the keys that were heard mean at a moment. Times are s of one monotonic clock.

    A tap moves about one step: a key counts as held for a control period, and, where it repeats, until after the last.
    """

    def __init__(self, contract: ArmContract, config: KeysConfig | None = None) -> None:
        self._config = config or KeysConfig()
        self._hold = min(max(contract.control_period, _REPEAT), self._config.hold)
        self._pairs = pairs_of(contract)
        self._of: dict[str, tuple[int, str]] = {}  # key to its pair and phrase
        for number, pair in enumerate(self._pairs):
            self._of |= dict.fromkeys(pair.forth_keys, (number, pair.forth))
            if pair.back is not None:
                self._of |= dict.fromkeys(pair.back_keys, (number, pair.back))
        self._held: dict[int, tuple[str, float]] = {}  # by pair: phrase, until when
        self._stop_until = -math.inf

    @property
    def help(self) -> str:
        """Which key is which phrase, in one line."""
        return "   ".join(pair.help for pair in self._pairs)

    def press(self, key: str, now: float) -> bool:
        """Takes a key; whether it is one that moves or holds the arm."""
        until = now + self._hold
        if key == STOP:
            self._held.clear()
            self._stop_until = until
        elif key in self._of:
            number, phrase = self._of[key]
            self._held[number] = phrase, until
            self._stop_until = -math.inf
        else:
            return False
        return True

    def wanted(self, now: float) -> Shares | None:
        """The phrases that are held; none of them to hold the arm; None when no key is held."""
        held = {phrase: self._config.step for phrase, until in self._held.values() if now < until}
        return held or ({} if now < self._stop_until else None)


class ArmJoystick(DeadMan):
    """Axes as pairs of phrases, see `DeadMan`."""

    def __init__(self, contract: ArmContract, config: JoystickConfig | None = None) -> None:
        config = config or JoystickConfig()
        pairs = pairs_of(contract)
        self._pairs = tuple(zip(config.arm_axes, pairs, strict=False))
        self.without_axis = tuple(pair.forth for pair in pairs[len(self._pairs) :])
        super().__init__(config, {f"arm_axes {pair.forth}": axis for axis, pair in self._pairs})
        self._wanted: Shares | None = None

    def _take(self, axes: Sequence[float] | None) -> None:
        if axes is None:
            self._wanted = None
            return
        wanted = {}
        for axis, pair in self._pairs:
            size = self.config.arm * self.deflection(axes, axis)
            phrase = pair.forth if size > 0 else pair.back
            if size and phrase is not None:
                wanted[phrase] = abs(size)
        self._wanted = wanted

    def wanted(self, now: float) -> Shares | None:
        """The phrases that are deflected for; None while the dead-man is not held."""
        return self._wanted if now < self._until else None
