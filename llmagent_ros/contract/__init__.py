"""The robot contract: which topics become which parts of the scene, which action phrases exist, what each becomes.

One YAML file for one robot (config/robots/*.yaml); docs/contract.md describes it key by key. What drives is a
`MobileContract`, an arm that stands still an `ArmContract`; a file with the key `arm` is the latter.
"""

from llmagent_ros.contract.angles import in_sector, wrap_angle
from llmagent_ros.contract.arm import ArmContract
from llmagent_ros.contract.arm_keys import (
    Arm,
    ArmAction,
    ArmCamera,
    ArmFrames,
    ArmSceneFormat,
    ArmSensors,
    JointLimits,
    JointSensor,
)
from llmagent_ros.contract.loading import contract_path, load_contract, load_mobile_contract
from llmagent_ros.contract.mobile import (
    SCENE_PARTS,
    ActionCommand,
    CameraSensor,
    Frames,
    Limits,
    MobileContract,
    OdometrySensor,
    ScanSensor,
    SceneFormat,
    ScenePart,
    Sensors,
    SimulatedSensors,
)
from llmagent_ros.contract.robot import ObjectAppearance, RewardSources, RobotContract
from llmagent_ros.contract.topics import Qos, TopicSpec
from llmagent_ros.contract.values import Finite, NotNegative, Positive

__all__ = [
    "SCENE_PARTS",
    "ActionCommand",
    "Arm",
    "ArmAction",
    "ArmCamera",
    "ArmContract",
    "ArmFrames",
    "ArmSceneFormat",
    "ArmSensors",
    "CameraSensor",
    "Finite",
    "Frames",
    "JointLimits",
    "JointSensor",
    "Limits",
    "MobileContract",
    "NotNegative",
    "ObjectAppearance",
    "OdometrySensor",
    "Positive",
    "Qos",
    "RewardSources",
    "RobotContract",
    "ScanSensor",
    "SceneFormat",
    "ScenePart",
    "Sensors",
    "SimulatedSensors",
    "TopicSpec",
    "contract_path",
    "in_sector",
    "load_contract",
    "load_mobile_contract",
    "wrap_angle",
]
