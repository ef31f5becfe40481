"""What the robot makes of its phrases, measured, and a policy that is to know nothing of it.

A worn wheel or swapped wires change what a phrase does. The command u that the robot had and the motion x that came of
it, both forward and turning as shares of the fastest phrase, are taken to be related linearly,

    x = M u        M = I on the robot of the contract

and M is estimated by recursive least squares with exponential forgetting (Ljung 1999, ch. 11), drawn towards I:

    A <- f A + u u' + (1 - f) r I        B <- f B + x u' + (1 - f) r I        M = B A^-1        A_0 = B_0 = r I

Where M explains what came of the last phrases and I does not, a phrase k that the policy knows is said by the one
that now does the same,

    a(k) = argmin_a |M u_a - u_k|        where that is at most `reach`, else k cannot be said

and what came of it is told as u_k + (x - M u_a): what was to be expected reads as it did on the robot that the policy
was learned on, and a motion that was not to be expected reads as one. Every command stays one of the contract's.
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros.contract import MobileContract, RobotContract
from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.perception.text import say_speeds
from llmagent_ros.types import RealArray

_NUMBER = r"-?\d+\.\d"
_HISTORY = re.compile(r"\bdid ((?:[^.]|\.\d)*)\.$")
_ACTION = re.compile(rf"(.*?)(?: ({_NUMBER}) turning ({_NUMBER}))?")
_MOTION = re.compile(rf"\bmoving ({_NUMBER}) turning ({_NUMBER})\. $")


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class CalibrationConfig:
    """How M is estimated and when it counts.

    Attributes:
        forgetting: f. ridge: r, in phrases: so many say that nothing has changed.
        window: phrases whose effects I and M are judged by. least: of them before M may count.
        noticed: root mean square of x - u from which on something may have changed.
        better: M counts while that of x - Mu is below so much of it.
        reach: see the module.
    """

    forgetting: Annotated[float, Field(gt=0, le=1)] = 0.97
    ridge: Annotated[float, Field(gt=0)] = 0.1
    window: Annotated[int, Field(ge=2)] = 20
    least: Annotated[int, Field(ge=1)] = 2
    noticed: Annotated[float, Field(ge=0)] = 0.15
    better: Annotated[float, Field(gt=0, lt=1)] = 0.6
    reach: Annotated[float, Field(gt=0)] = 0.6


class Calibration:
    """See the module. It hears the scenes of one robot in their order, and says the phrases that are chosen.

    Raises:
        ConfigError: the contract's scenes do not tell what came of a phrase, or not at their end.
    """

    def __init__(self, contract: RobotContract, config: CalibrationConfig | None = None) -> None:
        if not isinstance(contract, MobileContract):
            raise ConfigError(f"calibration is of robots that drive; {contract.robot} does not")
        form = contract.scene
        if not form.effects or not form.history or form.parts[-1] != "history":
            raise ConfigError(
                f"calibration needs scenes that end with what came of the last phrases; {contract.robot}: "
                "scene.effects: true, scene.history: at least 1, scene.parts: history last"
            )
        self.config = config or CalibrationConfig()
        self.phrases = contract.phrases
        self._contract = contract
        self._full = np.array(contract.full_speed_as_said())
        commands = (contract.command(phrase) for phrase in self.phrases)
        self._commands = np.array([contract.as_said(each.linear, each.angular) for each in commands]) / self._full
        self._history: deque[_Said] = deque(maxlen=contract.scene.history)
        self.forget()

    def forget(self) -> None:
        """The robot is again that of the contract."""
        self._a = self.config.ridge * np.eye(2)
        self._b = self._a.copy()
        self._seen: deque[tuple[RealArray, RealArray]] = deque(maxlen=self.config.window)  # u, x
        self._history.clear()
        self._judge()

    def start_episode(self) -> None:
        """What was done before is in no scene to come."""
        self._history.clear()

    def hear(self, scene: str) -> str:
        """A scene as it would read on the robot that the policy knows. Each scene once, in their order."""
        found = _HISTORY.search(scene)
        if found is None or not self._history:
            return scene
        actions = [_ACTION.fullmatch(each) for each in found[1].split(", ")]
        newest, told = self._history[-1], actions[-1]
        if newest.pending and self._is_of(newest, told) and (motion := _motion(told)) is not None:
            self._history[-1] = newest = self._expected(newest)
            if newest.teaches:
                self._learn(self._commands[newest.spoken] if newest.sent is None else newest.sent, motion / self._full)
        mine = list(self._history)[-len(actions) :]
        said = [each[0] if each is not None else "" for each in actions]
        said[len(actions) - len(mine) :] = map(self._say, mine, actions[len(actions) - len(mine) :])
        before = scene[: found.start()]
        if self._is_of(newest, told):
            before = _MOTION.sub(lambda moving: f"moving {newest.motion(_speeds(*moving.groups()))}. ", before)
        return f"{before}did {', '.join(said)}."

    def say(self, phrase: str) -> str:
        """The phrase of the contract that does what the policy knows `phrase` to do. Once for each scene.

        Raises:
            UnknownNameError: the policy does not know that phrase.
        """
        if phrase not in self.phrases:
            raise UnknownNameError("action phrase", phrase, self.phrases)
        known = self.phrases.index(phrase)
        spoken = int(self._spoken[known])
        self._history.append(_Said(known, spoken))
        return self.phrases[spoken]

    def sent(self, linear: float, angular: float) -> None:
        """What the robot was told in the end in place of the last phrase's command, m/s and rad/s: less, where it was
        slowed down. One that was told to stand shows nothing.
        """
        if not linear and not angular:
            self.ignore()
        elif self._history:
            sent = np.array(self._contract.as_said(linear, angular)) / self._full
            self._history[-1] = dataclasses.replace(self._history[-1], sent=sent)

    def did(self, phrase: str) -> str:
        """What a person told the robot in place of the last phrase; the one that the policy knows to do that. How fast
        they drive is theirs to say, so that what comes of it says nothing of the robot.

        Raises:
            UnknownNameError: the contract has no such phrase.
        """
        if phrase not in self.phrases:
            raise UnknownNameError("action phrase", phrase, self.phrases)
        spoken = self.phrases.index(phrase)
        known = spoken
        if self._active:
            known = int(np.linalg.norm(self._commands - self._effects[spoken], axis=-1).argmin())
        if self._history:
            self._history.pop()
        self._history.append(_Said(known, spoken, pending=False))
        return self.phrases[known]

    def ignore(self) -> None:
        """What comes of the last phrase says nothing of the robot: something kept it from being done."""
        if self._history:
            self._history[-1] = dataclasses.replace(self._history[-1], teaches=False)

    @property
    def sayable(self) -> NDArray[np.bool_]:
        """Which of the known phrases can be said now, (phrases,); never none."""
        return self._sayable

    @property
    def active(self) -> bool:
        """Whether the robot is taken for a changed one."""
        return self._active

    @property
    def matrix(self) -> RealArray:
        """M, (2, 2)."""
        return np.asarray(np.linalg.solve(self._a.T, self._b.T).T)

    def told(self) -> str:
        """What is said in place of what, for a person; empty where nothing is."""
        other = [
            f"{known!r} is said as {self.phrases[a]!r}" if can else f"{known!r} cannot be done"
            for known, a, can in zip(self.phrases, self._spoken, self._sayable, strict=True)
            if not can or self.phrases[a] != known
        ]
        return ", ".join(other)

    def state(self) -> dict[str, Any]:
        """What it has measured, as JSON; between episodes."""
        seen = [[*map(float, u), *map(float, x)] for u, x in self._seen]
        return {"a": self._a.tolist(), "b": self._b.tolist(), "seen": seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self._a, self._b = np.array(state["a"]), np.array(state["b"])
        self._seen.clear()
        self._seen.extend((np.array(pair[:2]), np.array(pair[2:])) for pair in state["seen"])
        self._history.clear()
        self._judge()

    # --- inside -----------------------------------------------------------------------------------------

    def _learn(self, u: RealArray, x: RealArray) -> None:
        c = self.config
        drawn = (1 - c.forgetting) * c.ridge * np.eye(2)
        self._a = c.forgetting * self._a + np.outer(u, u) + drawn
        self._b = c.forgetting * self._b + np.outer(x, u) + drawn
        self._seen.append((u, x))
        self._judge()

    def _judge(self) -> None:
        """Whether M counts, and what is said then."""
        c, self._effects = self.config, self._commands @ self.matrix.T
        count = len(self.phrases)
        self._active = len(self._seen) >= c.least and self._is_better()
        if not self._active:
            self._spoken, self._sayable = np.arange(count), np.ones(count, bool)
            return
        apart = np.linalg.norm(self._effects[None] - self._commands[:, None], axis=-1)  # (known, spoken)
        self._spoken = apart.argmin(1)
        self._sayable = apart.min(1) <= c.reach
        if not self._sayable.any():
            self._sayable[apart.min(1).argmin()] = True

    def _is_better(self) -> bool:
        u, x = (np.array(each) for each in zip(*self._seen, strict=True))
        own, fit = (float(np.sqrt(np.square(x - of).sum(-1).mean())) for of in (u, u @ self.matrix.T))
        return own > self.config.noticed and fit < self.config.better * own

    def _expected(self, said: _Said) -> _Said:
        """With what is added to what comes of it, as M was when it was said."""
        if not self._active:
            return dataclasses.replace(said, pending=False)
        added = self._commands[said.known] - self._effects[said.spoken]
        return dataclasses.replace(said, pending=False, added=added * self._full)

    def _is_of(self, said: _Said, told: re.Match[str] | None) -> bool:
        return told is not None and told[1] == self.phrases[said.spoken]

    def _say(self, said: _Said, told: re.Match[str] | None) -> str:
        assert told is not None  # it matches whatever is told
        if not self._is_of(said, told):
            return told[0]
        phrase, motion = self.phrases[said.known], _motion(told)
        return phrase if motion is None else f"{phrase} {said.motion(motion)}"


@dataclasses.dataclass(frozen=True)
class _Said:
    """A phrase that was chosen: numbers of the known and the spoken one.

    pending: what came of it is not heard yet. teaches: whether that says something of the robot. sent: the command that
    it became, (2,); None: that of the spoken one. added: to the motion that is told of it; None: nothing.
    """

    known: int
    spoken: int
    pending: bool = True
    teaches: bool = True
    sent: RealArray | None = None
    added: RealArray | None = None

    def motion(self, told: RealArray) -> str:
        linear, angular = told if self.added is None else told + self.added
        return say_speeds(float(linear), float(angular))


def _motion(told: re.Match[str] | None) -> RealArray | None:
    """What came of an action, where that is told."""
    return None if told is None or told[2] is None else _speeds(*told.group(2, 3))


def _speeds(linear: str, angular: str) -> RealArray:
    return np.array([float(linear), float(angular)])
