"""An examination for a person, and for a program."""

from __future__ import annotations

import dataclasses
from typing import Any

from llmagent_ros.doctor.examination import Examination, TopicReport


def rows(examination: Examination) -> list[tuple[str, str, str, str]]:
    """A row for each topic: key, name, state, what was measured."""
    told = []
    for report in examination.reports:
        levels = {finding.level for finding in examination.findings if finding.key == report.spec.key}
        state = "ERROR" if "error" in levels else "warning" if "warning" in levels else "ok"
        told.append((report.spec.key, report.spec.topic, state, _measured(report)))
    return told


def advice(examination: Examination) -> list[str]:
    """Two lines for each finding, errors first: what is wrong, what to do."""
    lines = []
    for finding in sorted(examination.findings, key=lambda finding: finding.level):
        where = f"{finding.key} ({finding.topic})" if finding.topic else finding.key
        lines += [f"{finding.level}: {where}: {finding.said}", f"    {finding.advice}"]
    return lines


def as_json(examination: Examination) -> dict[str, Any]:
    """Plain values: robot, seconds, healthy, topics, findings."""
    topics = [
        {
            **{name: getattr(report.spec, name) for name in ("key", "topic", "type", "required")},
            "least_rate_hz": report.spec.rate or None,
            "rate_hz": report.rate,
            "age_s": report.age,
            "messages": report.messages,
            "publishers": list(report.publishers),
            "subscriptions": list(report.subscriptions),
        }
        for report in examination.reports
    ]
    return {
        "robot": examination.robot,
        "seconds": examination.seconds,
        "healthy": examination.healthy,
        "topics": topics,
        "findings": [dataclasses.asdict(finding) for finding in examination.findings],
    }


def _measured(report: TopicReport) -> str:
    if report.spec.direction == "command":
        return f"to {', '.join(report.subscriptions) or 'nobody'}"
    parts = [f"{report.rate:.1f} Hz"] if report.rate is not None else [f"{report.messages} messages"]
    if report.age is not None:
        parts.append(f"{1e3 * report.age:.0f} ms old")
    return ", ".join(parts)
