"""A contract against what was seen of the running graph."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llmagent_ros.contract import RobotContract, TopicSpec
from llmagent_ros.doctor.observation import Arrival, Endpoint, Observation, TopicObservation

Level = Literal["error", "warning"]
FUTURE = 0.1  # s by which a stamp may be ahead: what perception takes, see `perception.CLOCK_TOLERANCE`
_SHARE = 0.9  # of the least rate that a measured one may have: a few seconds measure no better
_SAME_SKEW = 0.2  # s within which two topics' clocks are taken to be one
_CLOCK = "clock"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        key: of the contract, or "clock". topic: its name. problem: one word for programs, see docs/contract.md.
        said: what was seen. advice: what to do.
    """

    level: Level
    key: str
    topic: str
    problem: str
    said: str
    advice: str


@dataclass(frozen=True)
class TopicReport:
    """What was measured of a topic. rate: Hz, age: s, median; None where nothing could be measured."""

    spec: TopicSpec
    publishers: tuple[str, ...]
    subscriptions: tuple[str, ...]
    messages: int
    rate: float | None
    age: float | None


@dataclass(frozen=True)
class Examination:
    """The result. healthy: no error was found."""

    robot: str
    seconds: float
    reports: tuple[TopicReport, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)


def examine(contract: RobotContract, observation: Observation) -> Examination:
    """Every topic of the contract, and the clocks."""
    reports, findings = [], []
    for spec in contract.topics:
        seen = observation.topics.get(spec.key, TopicObservation())
        reports.append(_report(spec, seen))
        look = _command(spec, seen, observation) if spec.direction == "command" else _read(spec, seen, observation)
        findings += list(look)
    findings += _clocks(reports, observation)
    return Examination(contract.robot, observation.seconds, tuple(reports), tuple(findings))


def _report(spec: TopicSpec, seen: TopicObservation) -> TopicReport:
    ages = [arrival.received - arrival.stamp for arrival in seen.arrivals if arrival.stamp]
    return TopicReport(
        spec,
        tuple(endpoint.node for endpoint in seen.publishers),
        tuple(endpoint.node for endpoint in seen.subscriptions),
        len(seen.arrivals),
        _rate(seen.arrivals),
        statistics.median(ages) if ages else None,
    )


def _rate(arrivals: Sequence[Arrival]) -> float | None:
    if len(arrivals) < 2 or arrivals[-1].received <= arrivals[0].received:
        return None
    return (len(arrivals) - 1) / (arrivals[-1].received - arrivals[0].received)


# --- what is read ------------------------------------------------------------------------------------


def _read(spec: TopicSpec, seen: TopicObservation, observation: Observation) -> Iterator[Finding]:
    level: Level = "error" if spec.required else "warning"
    if not seen.publishers:
        yield Finding(level, spec.key, spec.topic, "missing", "nobody publishes it", _elsewhere(spec, observation))
        return
    wrong = [endpoint for endpoint in seen.publishers if endpoint.type != spec.type]
    for endpoint in wrong:
        said = f"{endpoint.node} publishes {endpoint.type}, not {spec.type}"
        yield Finding(level, spec.key, spec.topic, "wrong_type", said, f"set {spec.key} to the topic of that type")
    lossy = [each for each in seen.publishers if not each.reliable and spec.qos.reliability == "reliable"]
    for endpoint in lossy:
        said = f"{endpoint.node} offers best effort, the contract asks for reliable: nothing arrives"
        advice = f"set {spec.key}.qos.reliability to best_effort"
        yield Finding(level, spec.key, spec.topic, "incompatible_qos", said, advice)
    if spec.rate and any(endpoint not in (*wrong, *lossy) for endpoint in seen.publishers):
        yield from _flow(spec, seen, observation, level)
    yield from _content(spec, seen.arrivals, level)


def _elsewhere(spec: TopicSpec, observation: Observation) -> str:
    """Where the topic may be instead."""
    if spec.key.startswith("reward"):
        return "start the node outcome (robot.launch.xml does), or publish outcomes yourself: else nothing is rewarded"
    other = sorted(name for name, types in observation.types.items() if spec.type in types)
    if other:
        return f"start its driver, or set {spec.key} to what has that type: {', '.join(other)}"
    return f"start its driver; no topic of type {spec.type} is there"


def _flow(spec: TopicSpec, seen: TopicObservation, observation: Observation, level: Level) -> Iterator[Finding]:
    """Whether messages come, fast enough, and until the end."""
    if not seen.arrivals:
        said = f"no message in {observation.seconds:.1f} s"
        advice = "see whether the device runs; in lockstep a world without commands stands still"
        yield Finding(level, spec.key, spec.topic, "silent", said, advice)
        return
    if not observation.clock_moved:
        return  # nothing can be timed
    silence, rate = observation.end - seen.arrivals[-1].received, _rate(seen.arrivals)
    if silence > max(spec.timeout, 2.0 / spec.rate):
        said = f"the last message came {silence:.1f} s before the end"
        yield Finding(level, spec.key, spec.topic, "silent", said, "see why its driver has stopped")
    elif rate is None or rate < _SHARE * spec.rate:
        told = "one message only" if rate is None else f"{rate:.1f} Hz"
        said = f"{told}, and it needs {spec.rate:.1f} Hz"
        advice = f"make its driver faster, or raise {spec.key.removesuffix('.info_topic')}.timeout and lower its rate"
        yield Finding(level, spec.key, spec.topic, "slow", said, advice)


def _content(spec: TopicSpec, arrivals: Sequence[Arrival], level: Level) -> Iterator[Finding]:
    """Stamps, frames and data."""
    if not arrivals:
        return
    stamps = [arrival.stamp for arrival in arrivals if arrival.stamp is not None]
    if stamps and not any(stamps):
        advice = "have its driver stamp what it measures with the time of the measurement"
        yield Finding(level, spec.key, spec.topic, "no_stamp", "every stamp is 0", advice)
    else:
        yield from _ages(spec, arrivals, level)
    for name, declared in (("frame_id", spec.frame), ("child_frame_id", spec.child_frame)):
        found = {arrival.frame if name == "frame_id" else arrival.child_frame for arrival in arrivals} - {declared}
        if declared and found:
            said = f"{name} {', '.join(map(repr, sorted(found)))}, declared is {declared!r}"
            advice = "correct frames in the contract, or look whether this is another sensor"
            yield Finding(level, spec.key, spec.topic, "frame", said, advice)
    problems = [arrival.problem for arrival in arrivals if arrival.problem]
    if problems:
        all_of_them = len(problems) == len(arrivals)
        said = f"{'every message' if all_of_them else f'{len(problems)} of {len(arrivals)} messages'}: {problems[-1]}"
        advice = "look at the device and its driver; until then this reads as unknown"
        yield Finding(level if all_of_them else "warning", spec.key, spec.topic, "bad_data", said, advice)


def _ages(spec: TopicSpec, arrivals: Sequence[Arrival], level: Level) -> Iterator[Finding]:
    ages = [arrival.received - arrival.stamp for arrival in arrivals if arrival.stamp]
    if not ages or not spec.timeout:
        return
    age = statistics.median(ages)
    if age > spec.timeout:
        said = f"stamps are {age:.2f} s old on arrival, time-out is {spec.timeout:g} s"
        advice = "synchronise the clocks, stamp at acquisition, or shorten what lies between"
        yield Finding(level, spec.key, spec.topic, "stale", said, advice)
    elif age < -FUTURE:
        said = f"stamps are {-age:.2f} s ahead of this clock"
        yield Finding(level, spec.key, spec.topic, "future", said, "synchronise the clocks (chrony, PTP)")


# --- what is commanded -------------------------------------------------------------------------------


def _command(spec: TopicSpec, seen: TopicObservation, observation: Observation) -> Iterator[Finding]:
    if not seen.subscriptions:
        said, advice = "nobody listens", "start the robot's driver, or set command.topic to where it listens"
        other = sorted(name for name, types in observation.types.items() if spec.type in types)
        advice += f"; topics of that type: {', '.join(other)}" if other else ""
        yield Finding("error", spec.key, spec.topic, "missing", said, advice)
    for endpoint in seen.subscriptions:
        if endpoint.type != spec.type:
            said = f"{endpoint.node} takes {endpoint.type}, the guard would send {spec.type}"
            yield Finding("error", spec.key, spec.topic, "wrong_type", said, "set command.type to what it takes")
        elif problem := _unmatched(spec, endpoint):
            said = f"{endpoint.node} {problem}: it would get nothing"
            yield Finding("error", spec.key, spec.topic, "incompatible_qos", said, "change command.qos or its driver")
    for endpoint in seen.publishers:
        if endpoint.node != observation.guard:
            said = f"{endpoint.node} publishes it too, past the guard"
            advice = f"stop it, or have it publish for the guard ({observation.guard} must be the only one)"
            yield Finding("error", spec.key, spec.topic, "unguarded", said, advice)
    guards = sum(endpoint.node == observation.guard for endpoint in seen.publishers)
    if guards > 1:
        said = f"{guards} publishers of it are called {observation.guard}"
        advice = "stop all but one guard, on whatever machine; one that was killed is seen for some seconds more"
        yield Finding("error", spec.key, spec.topic, "unguarded", said, advice)


def _unmatched(spec: TopicSpec, endpoint: Endpoint) -> str:
    """What a subscription asks for that the guard does not offer."""
    if endpoint.reliable and spec.qos.reliability == "best_effort":
        return "asks for reliable, command.qos offers best effort"
    return "asks for transient local, commands are volatile" if endpoint.kept else ""


# --- clocks ------------------------------------------------------------------------------------------


def _clocks(reports: Sequence[TopicReport], observation: Observation) -> Iterator[Finding]:
    if not observation.clock_moved:
        said = f"/clock stood still for {observation.seconds:.1f} s: no rate and no age could be measured"
        yield Finding("warning", _CLOCK, "/clock", "stands", said, "let the simulation run, and try again")
        return
    ages = {r.spec.key: r.age for r in reports if r.age is not None and r.spec.timeout}
    off = [age for key, age in ages.items() if age < -FUTURE or age > _timeout(reports, key)]
    if not off or max(ages.values()) - min(ages.values()) > _SAME_SKEW:
        return
    skew = statistics.median(off)
    side = "behind" if skew > 0 else "ahead of"
    said = f"all stamps are {abs(skew):.2f} s {side} this machine's clock: the two differ"
    advice = "synchronise them (chrony, PTP)"
    if observation.simulated:
        advice = "have all nodes take their time from /clock (use_sim_time)"
    yield Finding("error", _CLOCK, "", "skew", said, advice)


def _timeout(reports: Sequence[TopicReport], key: str) -> float:
    return next(report.spec.timeout for report in reports if report.spec.key == key)
