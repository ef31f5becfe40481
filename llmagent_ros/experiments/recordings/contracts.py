"""The robot contract that a recording is read through."""

from __future__ import annotations

import yaml

from llmagent_ros import config
from llmagent_ros.contract import ArmContract, MobileContract, RobotContract, load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.recording.bags.reader import Bag


def recorded_contract(bag: Bag, robot: str = "") -> RobotContract:
    """The contract with which a bag was recorded, or another one that is named.

    Args:
        robot: contract in config/robots, or a path; empty: the recorded one.

    Raises:
        ConfigError: it has none, or it or the named one is unknown or wrong.
    """
    if robot:
        return load_contract(robot)
    text = bag.facts.get("contract", "")
    if not text:
        raise ConfigError(f"{bag.path}: was recorded without a robot contract; name one with --robot")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{bag.path}: its contract is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{bag.path}: its contract is not a mapping")
    return config.build(ArmContract if "arm" in values else MobileContract, values, f"{bag.path}, contract")
