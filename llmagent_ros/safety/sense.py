"""The sensor without which nothing moves: the scan of a base, the joint states of an arm."""

from __future__ import annotations

from dataclasses import dataclass

from llmagent_ros.contract import ArmContract, MobileContract, RobotContract
from llmagent_ros.safety.reasons import FUTURE_JOINTS, FUTURE_SCAN, NO_JOINTS, NO_SCAN, STALE_JOINTS, STALE_SCAN


@dataclass(frozen=True)
class Sense:
    """timeout: s after which a reading is stale. missing, stale: why the guard stops. future: why one is dropped."""

    timeout: float
    missing: str
    stale: str
    future: str


def sense_of(contract: RobotContract) -> Sense:
    """That of a robot."""
    if isinstance(contract, MobileContract):
        return Sense(contract.sensors.scan.timeout, NO_SCAN, STALE_SCAN, FUTURE_SCAN)
    assert isinstance(contract, ArmContract)
    return Sense(contract.sensors.joints.timeout, NO_JOINTS, STALE_JOINTS, FUTURE_JOINTS)
