"""What the simulator must know of a base's URDF: where its wheels, scanner and camera are.

The URDF has two driven wheels, joints left_wheel_joint and right_wheel_joint whose links collide as cylinders, and
links base_scan and camera_link on joints to the base. What else touches the floor slides without friction. On the
default body, which stands for any robot, the scanner is mounted as the contract says.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from llmagent_ros.contract import MobileContract
from llmagent_ros.contract.kinematics import read_joints, urdf_path
from llmagent_ros.errors import ConfigError
from llmagent_ros.geometry import Mount

SCALED = "diffdrive.urdf"  # the body of a robot whose contract names none
RADIUS = 0.17  # m, of its footprint
WHEEL_TORQUE = 4.0  # N m, of its motors, and of those without an effort limit
LEFT, RIGHT = "left_wheel_joint", "right_wheel_joint"


@dataclass(frozen=True)
class BodyModel:
    """One body, in m as it is simulated.

    Attributes:
        scale: of the URDF. torque: of each wheel's motor, N m.
        scan_forward, scan_left, scan_up, camera_forward, camera_up: from the base's origin.
        scan_yaw: direction of the scanner's zero, rad.
    """

    urdf: Path
    scale: float
    wheel_radius: float
    wheel_separation: float
    torque: float
    scan_forward: float
    scan_left: float
    scan_yaw: float
    scan_up: float
    camera_forward: float
    camera_up: float


def body_of(contract: MobileContract) -> BodyModel:
    """The body that a contract names, or the default one in the size of its footprint.

    Raises:
        ConfigError: there is no such URDF, or it lacks a part.
    """
    named = contract.simulation.urdf
    path = urdf_path(named or SCALED)
    scale = 1.0 if named else contract.footprint_radius / RADIUS
    joints = {joint.name: joint for joint in read_joints(path)}
    places = {joint.child: joint.origin for joint in joints.values()}
    for kind, names, there in (
        ("joint", (LEFT, RIGHT), set(joints)),
        ("link", ("base_scan", "camera_link"), set(places)),
    ):
        missing = [name for name in names if name not in there]
        if missing:
            raise ConfigError(f"{path}: no {kind} {missing[0]}, which the simulator needs")
    scan, camera = places["base_scan"], places["camera_link"][:3, 3]
    mount = contract.sensors.scan.mount
    if named:
        yaw = math.atan2(scan[1, 0], scan[0, 0])
        mount = Mount(float(scan[0, 3]), float(scan[1, 3]), math.degrees(yaw))
    radius, effort = _wheel(path, joints[LEFT].child)
    separation = float(joints[LEFT].origin[1, 3] - joints[RIGHT].origin[1, 3])
    # mass grows by the third power, the lever by the first
    torque = effort if effort is not None else WHEEL_TORQUE * scale**4
    forward, up = (float(camera[axis]) * scale for axis in (0, 2))
    return BodyModel(
        *(path, scale, radius * scale, separation * scale, torque),
        *(mount.x, mount.y, math.radians(mount.yaw), float(scan[2, 3]) * scale, forward, up),
    )


def _wheel(path: Path, link: str) -> tuple[float, float | None]:
    """Radius of a wheel's link, m, and the effort limit of its joint, N m, if it has one."""
    root = ET.parse(path).getroot()
    cylinder = root.find(f"link[@name='{link}']/collision/geometry/cylinder")
    if cylinder is None:
        raise ConfigError(f"{path}: link {link} does not collide as a cylinder")
    limit = root.find(f"joint[@name='{LEFT}']/limit")
    effort = None if limit is None else limit.get("effort")
    return float(cylinder.attrib["radius"]), None if effort is None else float(effort)
