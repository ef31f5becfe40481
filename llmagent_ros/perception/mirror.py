"""What a scene reads in a mirror that changes left and right.

For a body that has the same on both sides, what holds of (scene, action, reward, next scene) holds of its mirror image
(invariant transform experience replay, Lin et al. 2020): each step teaches two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from llmagent_ros.contract import ActionCommand, MobileContract, RobotContract
from llmagent_ros.perception.description import EnvironmentDescription, NumberPart
from llmagent_ros.perception.text import UNKNOWN

_NUMBER = r"\d+(?:\.\d+)?"
_SIDES = {"left": "right", "right": "left"}


class Mirror:
    """Twice applied it gives back what it was given.

    Attributes:
        actions: for each action phrase, by index, the index of its mirror image.
        rule: a digest of what it does, to tell texts of one mirror from those of another.
    """

    def __init__(self, phrases: Sequence[str], partners: Mapping[str, str], say: Callable[[str], str | None]) -> None:
        self.actions = tuple(phrases.index(partners[phrase]) for phrase in phrases)
        self._say = say
        self.rule = hashlib.sha256(repr((say, *partners.items())).encode()).hexdigest()

    def scene(self, text: str) -> str | None:
        """The mirror image of a scene's text; None for a text of another form."""
        return self._say(text)


def robot_mirror(contract: RobotContract) -> Mirror | None:
    """The mirror of a base whose phrases, sectors and camera have the same on both sides; None for others."""
    if not isinstance(contract, MobileContract):
        return None
    phrases = _partners(contract.actions, _opposite)
    sectors = _partners({name: (_angle(a), _angle(b)) for name, (a, b) in contract.scene.sectors.items()}, _other_side)
    camera = contract.sensors.camera
    if phrases is None or sectors is None or (camera is not None and camera.yaw % 360):
        return None
    driving = {phrase: phrases[phrase] for phrase, action in contract.actions.items() if action.linear}
    return Mirror(contract.phrases, phrases, _RobotScene(tuple(contract.objects), phrases, sectors, driving))


def description_mirror(description: EnvironmentDescription) -> Mirror | None:
    """The mirror that a description tells of, or None."""
    rule = description.mirror
    if rule is None:
        return None
    partners = {a: b for pair in rule.actions for a, b in (pair, pair[::-1])}
    partners = {phrase: partners.get(phrase, phrase) for phrase in description.actions}
    return Mirror(description.actions, partners, _DescribedScene(description, partners))


def _opposite(command: ActionCommand) -> ActionCommand:
    return ActionCommand(command.linear, -command.angular)


def _other_side(sector: tuple[float, float]) -> tuple[float, float]:
    return _angle(-sector[1]), _angle(-sector[0])


def _angle(degrees: float) -> float:
    return round(degrees % 360, 6) % 360


def _partners(things: Mapping[str, object], reflect: Callable[..., object]) -> dict[str, str] | None:
    """Of each name, the one whose thing is the reflection of its own; None when one has none."""
    named = {thing: name for name, thing in things.items()}
    found = {name: named.get(reflect(thing)) for name, thing in things.items()}
    return None if None in found.values() else {name: str(partner) for name, partner in found.items()}


_ACTION = re.compile(rf"([a-z ]+?)(?: (-?{_NUMBER}) turning (-?{_NUMBER}))?")
_DONE = rf"[a-z ]+?(?: -?{_NUMBER} turning -?{_NUMBER})?(?:, [a-z ]+?(?: -?{_NUMBER} turning -?{_NUMBER})?)*"


class _RobotScene:
    """Scenes as `perception/text.py` says them: sides change places, turning its sign; names of objects stay."""

    def __init__(
        self,
        objects: tuple[str, ...],
        phrases: Mapping[str, str],
        sectors: Mapping[str, str],
        driving: Mapping[str, str],
    ) -> None:
        self._phrases = phrases
        self._listed = {"clear": sectors, "free": driving}
        names = "|".join(re.escape(name) for name in sorted(objects, key=len, reverse=True)) or "(?!)"
        listed = "|".join(rf"\b{word} (?P<{word}>{_list(of)})(?=\.)" for word, of in self._listed.items() if of)
        self._pattern = re.compile(
            rf"(?P<object>{names})|{listed}|\bdid (?P<did>{_DONE})(?=\.)"
            rf"|\bturning (?P<turning>-?{_NUMBER})(?=\.)|\b(?P<side>left|right)\b"
        )
        self._values = {word: re.compile(_list(of, "(", ")")) for word, of in self._listed.items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pattern.pattern!r}, {self._phrases}, {self._listed})"

    def __call__(self, text: str) -> str:
        return self._pattern.sub(self._reflected, text)

    def _reflected(self, found: re.Match[str]) -> str:
        kind, said = str(found.lastgroup), found[0]
        if kind == "side":
            return _SIDES[said]
        if kind == "turning":
            return f"turning {_negated(found[kind])}"
        if kind == "did":
            return f"did {', '.join(map(self._reflected_action, found[kind].split(', ')))}"
        if kind in self._listed:
            match, partners = self._values[kind].fullmatch(found[kind]), self._listed[kind]
            assert match is not None
            values = dict(zip(partners, match.groups(), strict=True))
            return f"{kind} " + " ".join(f"{name} {values[other]}" for name, other in partners.items())
        return said


    def _reflected_action(self, said: str) -> str:
        """One of the last actions, with the motion that came of it if it is told."""
        found = _ACTION.fullmatch(said)
        if found is None:
            return said
        phrase, linear, turning = found.groups()
        phrase = self._phrases.get(phrase, phrase)
        return phrase if linear is None else f"{phrase} {linear} turning {_negated(turning)}"


def _list(names: Iterable[str], before: str = "(?:", after: str = ")") -> str:
    """A pattern of each name with a number or "unknown"."""
    return " ".join(rf"{re.escape(name)} {before}{UNKNOWN}|{_NUMBER}{after}" for name in names)


class _DescribedScene:
    """Scenes as `EnvironmentDescription.say` makes them."""

    def __init__(self, description: EnvironmentDescription, partners: Mapping[str, str]) -> None:
        rule = description.mirror
        assert rule is not None
        self._parts, self._negated, self._partners = description.parts, set(rule.negated), partners
        self._exchanged = {a: b for pair in rule.exchanged for a, b in (pair, pair[::-1])}
        parts = r"\. ".join(_form(part) for part in description.parts)
        self._pattern = re.compile(rf"({re.escape(description.task)}\. ){parts}\.(?: did ([^.]+)\.)?")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pattern.pattern!r}, {sorted(self._negated)}, {self._exchanged})"

    def __call__(self, text: str) -> str | None:
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        task, *values, done = found.groups()
        of = {part.name: value for part, value in zip(self._parts, values, strict=True)}
        said = []
        for part, value in zip(self._parts, values, strict=True):
            value = of[self._exchanged[part.name]] if part.name in self._exchanged else value
            value = _negated(value) if part.name in self._negated else value
            said.append(f"{part.name} {value}{f' {part.unit}' if part.unit and value != UNKNOWN else ''}")
        did = f" did {', '.join(self._partners.get(a, a) for a in done.split(', '))}." if done else ""
        return f"{task}{'. '.join(said)}.{did}"


def _form(part: NumberPart) -> str:
    values = "|".join(re.escape(word) for word in part.words) or rf"-?{_NUMBER}"
    unit = rf"(?: {re.escape(part.unit)})?" if part.unit else ""
    return rf"{re.escape(part.name)} ({values}|{UNKNOWN}){unit}"


def _negated(number: str) -> str:
    if number == UNKNOWN or float(number) == 0.0:
        return number
    return number[1:] if number.startswith("-") else f"-{number}"
