"""Contracts by name or path."""

from __future__ import annotations

from pathlib import Path

from llmagent_ros import config
from llmagent_ros.contract.arm import ArmContract
from llmagent_ros.contract.mobile import MobileContract
from llmagent_ros.contract.robot import RobotContract
from llmagent_ros.errors import ConfigError


def load_contract(name: str) -> RobotContract:
    """The contract of a shipped robot ("sim_diffdrive") or of a path to a YAML file.

    Raises:
        ConfigError: unknown, unreadable or invalid.
    """
    path = contract_path(name)
    values = config.read_yaml(path)
    return config.build(ArmContract if "arm" in values else MobileContract, values, str(path))


def load_mobile_contract(name: str) -> MobileContract:
    """The contract of a base that drives.

    Raises:
        ConfigError: it is an arm, or as `load_contract`.
    """
    contract = load_contract(name)
    if not isinstance(contract, MobileContract):
        raise ConfigError(f"robot {contract.robot} is an arm; valid here: a base that drives")
    return contract


def contract_path(name: str) -> Path:
    """The file that `load_contract` reads."""
    return config.named_file("robot contract", name, config.share_dir() / "config" / "robots")
